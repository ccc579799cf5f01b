"""A progress bar that appears when a pass takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

_PATIENCE = 1.0  # seconds before a bar shows


class Bar:
    """tqdm's bar over a pass, in terminals and notebooks; made only when it is needed.

    Args:
        data: what is iterated over; its length is the total, if it has one.
        wanted: true or false, or `None` for "if stderr is a terminal".
    """

    def __init__(self, data: Any, wanted: bool | None):
        self.on = _is_terminal() if wanted is None else wanted
        self.at_once = wanted is True
        try:
            self.total: int | None = len(data)
        except TypeError:
            self.total = None
        self.bar: Any = None
        self.count = 0

    def over(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items; the first is trained on while the bar says "compiling…"."""
        if not self.on:
            yield from items
            return
        start = time.monotonic()
        for item in items:
            if self.count == 0:
                self._show("compiling…")
            elif self.bar is None and time.monotonic() - start > _PATIENCE:
                self._show("")
            yield item
            self.count += 1
            if self.bar is not None:
                self._advance(time.monotonic() - start)

    def _show(self, text: str) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, initial=self.count, desc=text, leave=False, unit="step")
        self.bar.refresh()

    def _advance(self, seconds: float) -> None:
        if self.count == 1:
            self.bar.set_description("")
            if (
                seconds < _PATIENCE and not self.at_once
            ):  # it was quick: no bar unless it takes long
                self.bar.close()
                self.bar = None
                return
        self.bar.update(1)

    def close(self) -> None:
        """Take the bar away, or leave it standing where it was asked for."""
        if self.bar is not None:
            self.bar.leave = self.at_once
            self.bar.close()


def _is_terminal() -> bool:
    return bool(getattr(sys.stderr, "isatty", lambda: False)())
