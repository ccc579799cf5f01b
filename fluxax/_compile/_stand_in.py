"""Uncompiled: for one call, other arrays stand where a function reads them.

Eager tracers for Params, JAX arrays for NumPy's. The function reads them itself, so no copy can be
handed to it, and its side effects must happen to the user's own objects. Hence the others go
there, and are taken away afterwards. The variables of functions are an exception: a function can
be made over variables of its own, which no other thread meets.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Container
from contextlib import suppress
from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._reach import Swap, replace_reached
from fluxax._compile._reads import is_user_function
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
        self.live, self.f, self.others = live, f, list(others)
        self.new = Swap({id(a): b for a, b in zip(live, self.others, strict=True)})

    def __enter__(self) -> None:
        replace_reached(self.f, self.new)
        for place, other in zip(self.live.order, self.others, strict=True):
            place.hold(other)

    def __exit__(self, *_: Any) -> None:
        for place, other, old in zip(self.live.order, self.others, self.live, strict=True):
            if place.get() is other:
                place.hold(old)
        old = {id(b): a for a, b in zip(self.live, self.others, strict=True)}
        replace_reached([self.f, self.new.touched], Swap({**self.new.back, **old}))


class jax_arrays:
    """A context in which a function finds JAX arrays where it reads NumPy's, as if compiled.

    Args:
        f: the function.
        others: what else it reaches arrays from. Objects of installed packages that it reaches
            stay as they are.
        kept: ids of arrays that stay NumPy arrays.
        none: whether all of them do.

    Attributes:
        function: what to call in the place of the function.
        back: by the id of what is ours, what it stands for.
        reached: all that the function reaches.
    """

    #: Larger ones stay, read-only where nobody else meets them: a copy of each takes its time at
    #: every call, and nobody knows here which are used.
    _LARGE = 2**24

    def __init__(self, f: Any, others: list[Any], kept: Container[int], none: bool = False):
        self.f, self.function, self.others = f, f, others
        self.reached = replace_reached([f, others], lambda v: v)
        self.new, self.back = Swap({}), {}
        self.views: list[np.ndarray] = []
        for array in () if none else self.reached:
            if type(array) is np.ndarray and not no_numbers(array) and id(array) not in kept:
                self._take(array)

    def _take(self, array: np.ndarray) -> None:
        if array.nbytes > self._LARGE:
            view = array.view()
            view.flags.writeable = False
            self.views.append(view)
            self.back[id(view)] = array
            return
        with suppress(TypeError):  # records and the like, which JAX does not know
            new = self.new.by[id(array)] = jnp.asarray(array)
            self.back[id(new)] = array

    def __enter__(self) -> Any:
        if self.back:
            views = {id(self.back[id(view)]): view for view in self.views}
            inside = Swap({**self.new.by, **views})
            self.anew = _Anew(self.f, self.reached, inside)
            self.function = self.anew.function
            self.back.update(self.anew.back)
            replace_reached([self.function, self.others], self.new, own=True, apart=self.anew.cells)
        return self.function

    def __exit__(self, *_: Any) -> None:
        if self.back:
            self.back.update(self.new.back)
            roots = [self.function, self.f, self.others, self.new.touched]
            replace_reached(roots, Swap(self.back))


class _Anew:
    """The objective made anew over variables of its own: those in which arrays are replaced.

    So are the functions that it names as variables. A variable that somebody assigns to, or that a
    function which stays as it is shares, stays the one that all share.

    Args:
        f: the objective.
        reached: all that it reaches.
        swap: what stands for the arrays.
    """

    def __init__(self, f: Any, reached: list[Any], swap: Swap):
        self.swap = swap
        self.back: dict[int, Any] = {}
        self.cells: dict[int, types.CellType] = {}  # by the id of a shared one, ours
        self._shared: list[tuple[types.CellType, Any]] = []
        inside = _named_from(f)
        fixed = {
            id(cell)
            for g in reached
            if type(g) is types.FunctionType
            for name, cell in zip(g.__code__.co_freevars, g.__closure__ or (), strict=True)
            if id(g) not in inside or name in _stores(g.__code__)
        }
        made = self._make(self._to_make(inside, fixed), fixed)
        self.back.update((id(new), old) for old, new in made)
        self.function = _as_call(f, swap, self.back)

    def _to_make(self, inside: dict[int, Any], fixed: set[int]) -> dict[int, Any]:
        """The functions that name a replaced array, or, as a variable, such a function."""
        wanted: dict[int, Any] = {}
        known = -1
        while len(wanted) > known:
            known = len(wanted)
            for i, g in inside.items():
                seen = [_content(c) for c in g.__closure__ or () if id(c) not in fixed]
                seen += [*(g.__defaults__ or ()), *(g.__kwdefaults__ or {}).values()]
                if any(id(v) in wanted or self.swap(v) is not v for v in seen):
                    wanted[i] = g
        return wanted

    def _make(self, wanted: dict[int, Any], fixed: set[int]) -> list[tuple[Any, Any]]:
        for g in wanted.values():
            for cell in g.__closure__ or ():
                content = _content(cell)
                replaced = id(content) in wanted or self.swap(content) is not content
                if replaced and id(cell) not in fixed and id(cell) not in self.cells:
                    self.cells[id(cell)] = types.CellType()
                    self._shared.append((cell, content))
        made = [(g, self._blank(g)) for g in wanted.values()]
        self.swap.by.update((id(g), new) for g, new in made)
        for cell, content in self._shared:
            self.cells[id(cell)].cell_contents = self.swap(content)
        for g, new in made:
            new.__defaults__ = self.swap(g.__defaults__)
            words = g.__kwdefaults__
            new.__kwdefaults__ = words and {k: self.swap(v) for k, v in words.items()}
        return made

    def _blank(self, g: types.FunctionType) -> types.FunctionType:
        cells = tuple(self.cells.get(id(c), c) for c in g.__closure__ or ())
        new = types.FunctionType(g.__code__, g.__globals__, g.__name__, None, cells)
        new.__dict__ = g.__dict__  # one and the same: what is written to it is written to both
        for name in ("__module__", "__doc__", "__qualname__", "__annotations__"):
            setattr(new, name, getattr(g, name))
        return new


def _named_from(f: Any) -> dict[int, Any]:
    """The user's functions that an objective names as variables or defaults, itself included."""
    found: dict[int, Any] = {}
    stack = [f]
    while stack:
        g = stack.pop()
        if type(g) is functools.partial:
            stack += [g.func, *g.args, *g.keywords.values()]
        elif is_user_function(g) and id(g) not in found:
            found[id(g)] = g
            stack += map(_content, g.__closure__ or ())
            stack += [*(g.__defaults__ or ()), *(g.__kwdefaults__ or {}).values()]
    return found


@functools.lru_cache(1024)
def _stores(code: types.CodeType) -> frozenset[str]:
    """Variables of other functions that a function, or one inside it, assigns to."""
    found = {
        op.argval
        for op in dis.get_instructions(code)
        if op.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= _stores(const)
    return frozenset(found)


def _as_call(f: Any, swap: Swap, back: dict[int, Any]) -> Any:
    """The objective with other functions and arrays right in it."""
    if type(f) is functools.partial:
        args = tuple(map(swap, f.args))
        words = {k: swap(v) for k, v in f.keywords.items()}
        new: Any = functools.partial(_as_call(f.func, swap, back), *args, **words)
        new.__dict__ = f.__dict__
        back[id(new)] = f
        return new
    return swap(f)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell
        return None


class Statistics:
    """The arrays that layers hold before a call, to be put back if its value is not finite."""

    def __init__(self, reached: list[Any]):
        self.before = [(m, dict(vars(m))) for m in reached if isinstance(m, Module)]

    def put_back(self) -> None:
        """Undo what was written since; random streams stay advanced."""
        for module, before in self.before:
            for name, old in before.items():
                if _tree.is_array(old) and _tree.is_inexact(old):
                    module.__dict__[name] = old
