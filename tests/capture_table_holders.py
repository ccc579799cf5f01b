"""All rows of the capture table."""

from __future__ import annotations

import capture_table_classes
import capture_table_functions
import capture_table_mappings
import capture_table_modules
import capture_table_objects
import capture_table_sequences
import capture_table_text
import capture_table_values
from capture_table_reads import HOLDERS, Holder

__all__ = ["HOLDERS", "Holder", "ROWS"]

ROWS = [
    capture_table_objects,
    capture_table_classes,
    capture_table_modules,
    capture_table_mappings,
    capture_table_sequences,
    capture_table_text,
    capture_table_functions,
    capture_table_values,
]
