"""One run of the user's function, uncompiled, and all that has to be put right after it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._compile._copies import Copies
from fluxax._compile._effects import ArrayWrite
from fluxax._compile._left_behind import settle_copies, settle_leftovers, settle_modules
from fluxax._compile._objective import first_of
from fluxax._compile._reach import Swap, replace_reached
from fluxax._compile._reads import innermost, is_user_class, place_of
from fluxax._compile._stand_in import Statistics, jax_arrays, stand_ins
from fluxax._implicit._params import Live
from fluxax._jax import detached, is_tracer, trace_object, traces_around, tracing


class Run:
    """One run of the user's function, and what has to be put right after it, whatever happened.

    Args:
        f: the function.
        args: what the user passed.
        kept: ids of arrays that are not replaced where the function reads them itself.
    """

    def __init__(self, f: Any, args: tuple[Any, ...], kept: dict[int, Any]):
        self.f, self.args = f, args
        owners = [p.owner() for p in args[0].order] if reads_parameters(args) else []
        # inside another JAX transformation all that is done to a JAX array is traced
        self.arrays: Any = jax_arrays(f, owners or _user_objects(args), kept, none=tracing())
        self.function: Any = f
        self.statistics = Statistics(self.arrays.reached)
        self.copies: Any = Copies((), {}, {})
        self.out: Any = None
        self.good = False
        self._around = traces_around()
        self._trace: Any = None
        self._known: Any = {}

    def call(self) -> Any:
        """The function's result."""
        trace, made = trace_object(), self.copies.made
        if trace is not None and trace is not self._around[0]:
            self._trace = weakref.ref(trace)
        del trace
        if not reads_parameters(self.args):
            self.out = self.function(*made)
        else:
            with stand_ins(self.args[0], made[0], self.function):
                self.out = self.function(*made[1:])
        return self.out

    def tracers(self) -> list[Any]:
        """The tracers in the result, and in what was made for it."""
        if is_tracer(self.out):
            return [self.out]
        return [v for v in replace_reached([self.out], lambda v: v) if is_tracer(v)]

    def settled(self, tracers: list[Any], values: list[Any]) -> None:
        """Let the result's tracers become their values; but what the caller passed stays that."""
        loss = first_of(self.out)
        self._known = {
            id(t): v
            for t, v in zip(tracers, values, strict=True)
            if t is loss or id(t) not in self.copies.back
        }

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        del kind, trace
        better = None if error is None else self._explained(error)
        back = {**self.arrays.back, **self.copies.back, **self._known}
        swap = Swap(back, lambda v: detached(v, self._around))
        self.copies.write_back(swap, self._held(error))
        if not self.good:
            self.statistics.put_back()
        replace_reached([self.f, self.args, self.copies.made, self.out, error, better], swap)
        settle_modules(swap)
        # what is left elsewhere is found once nothing of ours holds it
        copies, out = self.copies.taken(), swap(self.out)
        self.out = self.arrays = self.copies = self._known = None
        settle_copies(copies, Swap(back, lambda v: detached(v, self._around)))
        del copies
        self.out = out
        del swap, back
        settle_leftovers(self._trace, lambda v: detached(v, self._around), error)
        if better is not None:
            raise better from error

    def _held(self, error: BaseException | None) -> Callable[[Any], bool]:
        """Which arrays of layers stay: after an error all; statistics if the loss is bad."""
        if error is not None:
            return lambda array: True
        return _tree.is_inexact if not self.good else lambda array: False

    def _explained(self, error: BaseException) -> Exception | None:
        """What to raise for an error of JAX's or NumPy's that says that one of ours was written."""
        frame, step = innermost(error)
        ours = {**self.arrays.back, **self.copies.back}
        if type(error) is TypeError and frame.f_code.co_name == "_unimplemented_setitem":
            found = [frame.f_locals.get("self")]
        elif type(error) is ValueError and "read-only" in str(error) and step != "RAISE_VARARGS":
            views = {id(v) for v in self.arrays.views}
            found = [v for v in frame.f_locals.values() if id(v) in views]
        else:
            return None
        if not any(isinstance(ours.get(id(v)), np.ndarray) for v in found):
            return None
        return ArrayWrite(
            "The objective expects to leave NumPy arrays as they are, got a write to one"
            f"{place_of(error)}. Inside an objective they are JAX arrays: use x.at[i].set(v)."
        )


def _user_objects(args: tuple[Any, ...]) -> list[Any]:
    """Classes of what is passed, whose methods may reach more, and objects that are not copied."""
    found: dict[int, Any] = {}
    stack, seen = list(args), set()
    while stack:
        value = stack.pop()
        if _tree.is_array(value) or id(value) in seen:
            continue
        seen.add(id(value))
        kind = _tree.kind_of(value)
        if kind is not None:
            found[id(type(value))] = type(value)
            stack += [part for _, part in kind.parts(value)]
        elif is_user_class(type(value)):
            found[id(value)] = value
    return list(found.values())


def reads_parameters(args: tuple[Any, ...]) -> bool:
    """Whether the first argument are parameters that the function reads from outside itself."""
    return bool(args) and isinstance(args[0], Live)
