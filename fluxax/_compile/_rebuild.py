"""Copies with traced arrays in them, and what the function did to the copies.

The user's function runs on copies and never sees the originals: other threads see no
tracer, an interrupted trace leaves nothing behind, and every side effect lands on a
copy, where comparing it with what was put in finds it.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._poison import Poison, steady, trace_builtins
from fluxax._compile._spec import (
    NOTHING,
    Again,
    Arr,
    Box,
    Const,
    Num,
    Opaque,
    Part,
    Sidestep,
    Spec,
    Tied,
    same_state,
)
from fluxax._jax import Tracer
from fluxax._module import Module


class Rebuild:
    """One set of copies.

    Args:
        arrays: what stands for each array in the arguments.
        captured: what stands for each where the function reads it from outside.
        numbers: what stands for each number that is an input.
    """

    def __init__(self, arrays: Sequence[Any], captured: Sequence[Any], numbers: Sequence[Any]):
        self.arrays, self.captured, self.numbers = arrays, captured, numbers
        self._copies: dict[int, Any] = {}
        self._before: list[tuple[Box, Any, dict[Any, Any]]] = []
        self._globals: dict[int, dict[str, Any]] = {}
        self._global_parts: list[tuple[dict[str, Any], str, Any, str]] = []
        self.originals: dict[int, Box] = {}  # id of a copy -> what it is a copy of
        self._outside = False
        self._builtins = trace_builtins(self._isinstance)

    def arguments(self, specs: list[Spec]) -> list[Any]:
        return [self.make(s) for s in specs]

    def function(self, spec: Spec) -> Any:
        self._outside = True
        return self.make(spec)

    def spaces(self) -> set[int]:
        """Ids of the global namespaces that rebuilt functions run in."""
        return {id(space) for space in self._globals.values()}

    def copies_of(self, originals: frozenset[int]) -> frozenset[int]:
        """Ids of the copies of objects given by id."""
        return frozenset(n for n, box in self.originals.items() if id(box.value) in originals)

    # -- making

    def make(self, spec: Spec) -> Any:
        """The copy of what a spec describes."""
        if isinstance(spec, (Arr, Tied)):
            return (self.captured if self._outside else self.arrays)[spec.index]
        if isinstance(spec, Num):
            return spec.value if spec.index is None else self.numbers[spec.index]
        if isinstance(spec, Const):
            return steady(spec.value, spec.label)
        if isinstance(spec, Opaque):
            return self._copies.setdefault(spec.number, Poison(spec.label))
        if isinstance(spec, Again):
            if spec.fixed:
                return spec.value
            if spec.number in self._copies:
                return self._copies[spec.number]
            raise Sidestep(f"`{spec.label}` is part of a cycle through a tuple")
        assert isinstance(spec, Box)
        return self._box(spec)

    def _box(self, box: Box) -> Any:
        if box.fixed:
            self.originals[id(box.value)] = box
            return box.value
        if box.how is boxes.FUNCTION:
            return self._function(box)
        if box.how.shell is None:
            assert box.how.build is not None
            new = self._copies[box.number] = box.how.build(box.value, self._parts(box))
            self.originals[id(new)] = box
            if box.how.now is not None:
                self._before.append((box, new, box.how.state(new)))
            return new
        new = self._shell(box)
        self._fill(box, new)
        return new

    def _shell(self, box: Box) -> Any:
        assert box.how.shell is not None
        new = self._copies[box.number] = box.how.shell(box.value)
        self.originals[id(new)] = box
        return new

    def _fill(self, box: Box, new: Any) -> None:
        assert box.how.fill is not None
        box.how.fill(new, box.value, self._parts(box))
        self._before.append((box, new, box.how.state(new)))

    def _parts(self, box: Box) -> dict[Any, Any]:
        return {key: self.make(spec) for _, key, spec in box.parts if not _of_class(key)}

    def answers(self) -> dict[int, list[Any]]:
        """What the trace asked each `lru_cache`, by the number of its box."""
        made = {
            n: self._copies.get(n)
            for n in (b.number for b in self.originals.values() if b.how is boxes.CACHED)
        }
        return {n: list(f.answers) for n, f in made.items() if f is not None}

    def original(self, value: Any) -> Box | None:
        """The box that a value is the copy of, or that is the value itself."""
        return self.originals.get(id(value))

    def _function(self, box: Box) -> Any:
        """A function over copies of its cells and globals; cells first, since they may hold it."""
        old: types.FunctionType = box.value
        cells = {key: spec for _, key, spec in box.parts if key[0] == "cell"}
        fresh = [s for s in cells.values() if isinstance(s, Box)]
        for spec in fresh:
            self._shell(spec)
        closure = tuple(
            self._copies[_number_of(cells["cell", i])] for i in range(len(old.__closure__ or ()))
        )
        space = self._space(old.__globals__)
        new = types.FunctionType(old.__code__, space, old.__name__, None, closure or None)
        new.__qualname__, new.__module__, new.__doc__ = (
            old.__qualname__,
            old.__module__,
            old.__doc__,
        )
        self._copies[box.number] = new
        self.originals[id(new)] = box
        for spec in fresh:
            self._fill(spec, self._copies[spec.number])
        self._settings(box, old, new, space)
        return new

    def _settings(self, box: Box, old: Any, new: Any, space: dict[str, Any]) -> None:
        """Defaults, attributes and globals of a function."""
        parts = {key: spec for _, key, spec in box.parts if key[0] != "cell"}
        made = {key: self.make(spec) for key, spec in parts.items()}
        if old.__defaults__:
            new.__defaults__ = tuple(made["default", i] for i in range(len(old.__defaults__)))
        if old.__kwdefaults__:
            new.__kwdefaults__ = {k: made["kw", k] for k in old.__kwdefaults__}
        for (sort, name), value in made.items():
            if sort == "attr":
                new.__dict__[name] = value
            elif sort == "about":
                setattr(new, name, value)
            elif sort == "global":
                space[name] = value
                self._global_parts.append((space, name, value, parts[sort, name].label))
        self._before.append((box, new, box.how.state(new)))

    def _space(self, original: dict[str, Any]) -> dict[str, Any]:
        space = self._globals.get(id(original))
        if space is None:
            space = self._globals[id(original)] = {
                "__builtins__": self._builtins,
                "__name__": original.get("__name__"),
            }
        return space

    def _isinstance(self, value: Any, kinds: Any) -> bool:
        """`isinstance` inside the trace: of a number that is an input it would answer wrongly."""
        if isinstance(value, Tracer) and any(value is n for n in self.numbers):
            raise Sidestep(NUMBER_NEEDED)
        return isinstance(value, kinds)

    def let_go(self) -> None:
        """Forget what was copied; the copies, which refer to each other, may die later."""
        for known in (self._copies, self._globals, self.originals):
            known.clear()
        self._before.clear()
        self._global_parts.clear()

    # -- comparing

    def writes(self) -> list[tuple[Box, str, Any]]:
        """New arrays on attributes of Modules: `(box of the Module, attribute, array)`.

        Raises:
            Sidestep: if anything else was written.
        """
        found = []
        for box, new, before in self._before:
            now = box.how.state(new)
            if not same_state(now, before):
                found += self._changed(box, before, now)
        put = {(id(space), name) for space, name, _, _ in self._global_parts}
        for space, name, value, label in self._global_parts:
            if space.get(name, NOTHING) is not value:
                raise Sidestep(f"it assigns the global `{label}`")
        for space in self._globals.values():
            for name in set(space) - {"__builtins__", "__name__"}:
                if (id(space), name) not in put:
                    raise Sidestep(f"it assigns the global `{name}`")
        return found

    def _changed(self, box: Box, before: dict[Any, Any], now: dict[Any, Any]) -> list[Any]:
        changed = [
            k for k in {**before, **now} if now.get(k, NOTHING) is not before.get(k, NOTHING)
        ]
        if not isinstance(box.value, Module) or not changed:
            raise Sidestep(_wrote(box, changed[0] if changed else "its order"))
        for name in changed:
            new, old = now.get(name, NOTHING), before.get(name, NOTHING)
            if not _tree.is_array(new) or not (
                old is NOTHING or old is None or _tree.is_array(old)
            ):
                raise Sidestep(_wrote(box, name))
        return [(box, name, now[name]) for name in changed]


NUMBER_NEEDED = "a number decides what it does"


def _of_class(key: Any) -> bool:
    return type(key) is Part and key.sort in ("class", "method")


def _number_of(spec: Spec) -> int:
    assert isinstance(spec, (Box, Again))
    return spec.number


def _wrote(box: Box, key: Any) -> str:
    if box.how is boxes.CELL:
        return f"it assigns `{box.label}`, a variable of the function around it"
    if box.how in (boxes.OBJECT, boxes.PYMODULE, boxes.FUNCTION) or type(key) is Part:
        return f"it writes `{box.label}.{key}`"
    return f"it changes `{box.label}`"
