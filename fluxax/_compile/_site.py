"""What is remembered of one objective."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from fluxax._compile import _explain
from fluxax._compile._traced import Program

_RECENT, _PROGRAMS = 6, 64


class Purpose(NamedTuple):
    """What a program is wanted for."""

    name: str  # "gradient", "step" or "value"
    differentiated: tuple[bool, ...]  # by argument
    settings: Any = None  # whatever else is baked in: the frozen pattern

    @property
    def training(self) -> bool:
        return self.name != "value"


class Entry(NamedTuple):
    """One program and the guard that admits to it."""

    guard: Callable[[Any, tuple[Any, ...]], Any]
    program: Program
    key: Any


class Site:
    """Everything known of one objective: its programs, its numbers, its verdict."""

    def __init__(self, code: Any, record: _explain.Record):
        self.code = code
        self.record = record
        self.recent: tuple[Entry, ...] = ()
        self.table: OrderedDict[Any, Entry] = OrderedDict()
        self.numbers: dict[str, str] = {}
        self.seen: dict[str, Any] = {}
        self.names: set[str] = set()
        self.proven: set[str] = set()  # numbers that were inputs of a program
        self.careful = False  # try further numbers one at a time
        self.ints: dict[int, bool] = {}
        self.failures = 0
        self.given_up: str | None = None

    def remember(self, entry: Entry) -> None:
        others = tuple(e for e in self.recent if e is not entry)
        self.recent = (entry, *others[: _RECENT - 1])
        self.table[entry.key] = entry
        self.table.move_to_end(entry.key)
        if len(self.table) > _PROGRAMS:
            _, old = self.table.popitem(last=False)
            self.recent = tuple(e for e in self.recent if e is not old)
