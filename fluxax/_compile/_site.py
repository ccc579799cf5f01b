"""What is remembered of one objective."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from fluxax._compile import _explain
from fluxax._compile._capture import Known
from fluxax._compile._traced import Program

_RECENT, _PROGRAMS = 6, 64


class Purpose:
    """What a program is wanted for; equal ones are one object, so that looking one up is cheap.

    Attributes:
        name: "gradient", "step" or "value".
        differentiated: by argument.
        settings: whatever else is baked in: the frozen pattern.
        training: whether layers are in train mode.
    """

    __slots__ = ("__weakref__", "differentiated", "name", "settings", "training")
    _known: ClassVar[weakref.WeakValueDictionary[Any, Purpose]] = weakref.WeakValueDictionary()

    def __new__(cls, name: str, differentiated: tuple[bool, ...], settings: Any = None) -> Purpose:
        known = cls._known.get((name, differentiated, settings))
        if known is not None:
            return known
        new = super().__new__(cls)
        new.name, new.differentiated, new.settings = name, differentiated, settings
        new.training = name != "value"
        return cls._known.setdefault((name, differentiated, settings), new)


class Entry(NamedTuple):
    """One program and the guard that admits to it."""

    guard: Callable[[Any, tuple[Any, ...]], Any]
    program: Program
    key: Any


class Site:
    """Everything known of one objective: its programs, its numbers, its verdict."""

    def __init__(self, code: Any, purpose: Purpose, record: _explain.Record):
        self.code, self.purpose, self.record = code, purpose, record
        self.codes: dict[int, Any] = {}  # the code objects that are this code, by id
        self.recent: tuple[Entry, ...] = ()
        self.table: OrderedDict[Any, Entry] = OrderedDict()
        self.known = Known()
        self.seen: dict[Any, Any] = {}
        self.learnt = 0  # attributes that a trace read though no code mentions them
        self.proven: set[Any] = set()  # numbers that were inputs of a program
        self.careful = False  # try further numbers one at a time
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
            old.program.release()

    def release(self) -> None:
        """Let go of all programs."""
        for entry in self.table.values():
            entry.program.release()
        self.table.clear()
        self.recent = ()


class Found:
    """A program and what its guard gathered: see `Emitter.compile`.

    Made at every call, so no named tuple, which takes twice as long.
    """

    __slots__ = ("got", "program", "site")

    def __init__(self, program: Program, got: Any, site: Site):
        self.program, self.got, self.site = program, got, site

    def value(self, outs: Any) -> Any:
        """What the function returned, from the program's outputs."""
        return self.program.value(outs, self.got[-1])
