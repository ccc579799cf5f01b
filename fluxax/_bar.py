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
        self.start: float | None = None

    def over(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items; each is trained on before the next is asked for."""
        for item in items:
            self.expect()
            yield item
            self.moved(1)

    def expect(self) -> None:
        """A step, or many, are about to run; the first say "compiling..."."""
        if not self.on:
            return
        if self.start is None:
            self.start = time.monotonic()
            self._show("compiling...")
        elif self.bar is None and self.count and time.monotonic() - self.start > _PATIENCE:
            self._show("")

    def moved(self, n: int) -> None:
        """So many more steps were taken."""
        if self.start is None:
            return
        first, self.count = self.count == 0, self.count + n
        if self.bar is None:
            return
        if first:
            self.bar.set_description("")
        quick = time.monotonic() - self.start < _PATIENCE
        if first and quick and not self.at_once:  # no bar unless it takes long
            self.bar.close()
            self.bar = None
        else:
            self.bar.update(n)

    def _show(self, text: str) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, initial=self.count, desc=text, leave=False, unit="step")
        self.bar.refresh()

    def close(self) -> None:
        """Take the bar away, or leave it standing where it was asked for."""
        if self.bar is not None:
            self.bar.leave = self.at_once
            self.bar.close()


def _is_terminal() -> bool:
    return bool(getattr(sys.stderr, "isatty", lambda: False)())
