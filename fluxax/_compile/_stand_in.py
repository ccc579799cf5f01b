"""Uncompiled: for one call, other arrays stand where a function reads them.

Eager tracers for Params, JAX arrays for NumPy's. The function reads them itself, so no copy can be
handed to it, and its side effects must happen to the user's own objects. Hence the others go
there, and are taken away afterwards.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._reach import replace_reached
from fluxax._errors import no_numbers
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
        replace_reached(self.f, lambda v: swapped(v, self.new, self.old, self.kept))
        for place, other in zip(self.live.order, self.others, strict=True):
            place.hold(other)

    def __exit__(self, *_: Any) -> None:
        for place, other, old in zip(self.live.order, self.others, self.live, strict=True):
            if place.get() is other:
                place.hold(old)
        replace_reached(self.f, lambda v: swapped(v, self.old, {}, self.kept))


def swapped(value: Any, by: dict[int, Any], back: dict[int, Any], kept: list[Any]) -> Any:
    """What stands for a value, by its id; of a tuple, one with what stands for its parts.

    A tuple that is made for another is kept alive, and `back` leads from its id to the other.
    """
    if id(value) in by:
        return by[id(value)]
    if not isinstance(value, tuple) or _tree.kind_of(value) is None:
        return value
    parts = [swapped(v, by, back, kept) for v in value]
    if all(a is b for a, b in zip(parts, value, strict=True)):
        return value
    new = _tree.TUPLE.rebuild(value, parts)
    kept += [value, new]
    back[id(new)] = value
    return new


class jax_arrays:
    """A context in which a function finds JAX arrays where it reads NumPy's, as if compiled.

    Args:
        f: the function; objects of installed packages that it reads stay as they are.
        arrays: the NumPy arrays that it reaches. Large ones stay: a copy of each takes its time at
            every call, and nobody knows here which are used.
        kept: ids of arrays that stay.
    """

    _LARGE = 2**24

    def __init__(self, f: Any, arrays: list[np.ndarray], kept: Container[int]):
        self.f = f
        self.new: dict[int, Any] = {}
        self.old: dict[int, Any] = {}
        for array in arrays:
            if array.nbytes <= self._LARGE and not no_numbers(array) and id(array) not in kept:
                with suppress(TypeError):  # records and the like, which JAX does not know
                    new = self.new[id(array)] = jnp.asarray(array)
                    self.old[id(new)] = array
        self.kept: list[Any] = []  # tuples that were made, so that their ids stay theirs

    def __enter__(self) -> None:
        if self.new:
            try:
                replace_reached(self.f, self._seen, own=True)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *_: Any) -> None:
        if self.new:
            replace_reached(self.f, lambda v: swapped(v, self.old, {}, self.kept))

    def _seen(self, value: Any) -> Any:
        return swapped(value, self.new, self.old, self.kept)


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
