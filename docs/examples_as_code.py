"""For the site: what Python was asked in a docstring, `>>>`, is code there too."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ASKED = re.compile(r"^( *)(>>> .*(?:\n *\S.*)*)", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts a fence around each example; Markdown takes `>>>` for three quotations else."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            fenced = r"\1```pycon\n\1\2\n\1```"
            obj.docstring.value = _ASKED.sub(fenced, obj.docstring.value)
