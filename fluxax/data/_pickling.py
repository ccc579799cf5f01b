"""Pickling a data set for another process: memory maps travel as file names."""

from __future__ import annotations

import copyreg
import io
import mmap
import pickle
from typing import Any

import numpy as np


def dumps(thing: Any) -> bytes:
    """Like `pickle.dumps`, but the contents of an `np.memmap` are not copied."""
    target = io.BytesIO()
    pickler = pickle.Pickler(target, protocol=5)
    pickler.dispatch_table = {**copyreg.dispatch_table, np.memmap: _reduce}
    pickler.dump(thing)
    return target.getvalue()


def _reduce(x: np.memmap) -> Any:
    """A memmap, or a view of one, by its file and where it lies there."""
    root: Any = x
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root.base, mmap.mmap) or not isinstance(root, np.memmap):
        return x.__reduce_ex__(5)
    if root.filename is None or root.mode == "c":  # no file by that name, or changes of its own
        return np.asarray(x).__reduce_ex__(5)
    shift = x.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    where = (str(root.filename), root.offset, root.nbytes)
    return _restore, (*where, shift, x.dtype, x.shape, x.strides)


def _restore(
    filename: str, offset: int, size: int, shift: int, dtype: np.dtype, shape: Any, strides: Any
) -> np.ndarray:
    whole = np.memmap(filename, np.uint8, "r", offset, (size,))
    return np.ndarray(shape, dtype, whole, shift, strides)
