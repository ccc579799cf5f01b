"""Uncompiled, with Params: for one call, eager tracers stand where the parameters do.

The function reads its parameters itself, so no copy can be handed to it. Its side effects must
happen to the user's own objects. Hence the tracers go there, and are taken away afterwards.
"""

from __future__ import annotations

from typing import Any

from fluxax import _tree
from fluxax._compile._reach import replace_reached
from fluxax._implicit._params import Live
from fluxax._module import Module


class stand_ins:
    """A context in which other arrays stand at the places of parameters, for all that read them.

    Args:
        live: the parameters.
        others: what stands for each.
        f: the function that reads them; it may name arrays that stand in no container.
    """

    def __init__(self, live: Live, others: list[Any], f: Any):
        self.live, self.f = live, f
        self.others = list(others)
        self.new = {id(a): b for a, b in zip(live, self.others, strict=True)}
        self.old = {id(b): a for a, b in zip(live, self.others, strict=True)}
        self.kept: list[Any] = []  # tuples that were made, so that their ids stay theirs

    def __enter__(self) -> None:
        replace_reached(self.f, lambda v: self._swapped(v, self.new, self.old))
        for place, other in zip(self.live.order, self.others, strict=True):
            place.hold(other)

    def __exit__(self, *_: Any) -> None:
        for place, other, old in zip(self.live.order, self.others, self.live, strict=True):
            if place.get() is other:
                place.hold(old)
        replace_reached(self.f, lambda v: self._swapped(v, self.old, {}))

    def _swapped(self, value: Any, by: dict[int, Any], back: dict[int, Any]) -> Any:
        if id(value) in by:
            return by[id(value)]
        if not isinstance(value, tuple) or _tree.kind_of(value) is None:
            return value
        parts = [self._swapped(v, by, back) for v in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        new = _tree.TUPLE.rebuild(value, parts)
        self.kept += [value, new]
        back[id(new)] = value
        return new


class Statistics:
    """The arrays that layers hold before a call, to be put back if its value is not finite."""

    def __init__(self, f: Any):
        reached = replace_reached(f, lambda v: v)
        self.before = [(m, dict(vars(m))) for m in reached if isinstance(m, Module)]

    def put_back(self) -> None:
        """Undo what was written since; random streams stay advanced."""
        for module, before in self.before:
            for name, old in before.items():
                if _tree.is_array(old) and _tree.is_inexact(old):
                    module.__dict__[name] = old
