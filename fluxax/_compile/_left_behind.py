"""Tracers that a function left somewhere become arrays, wherever that is.

What a function reaches is walked (`_reach`). Whether a tracer is left elsewhere is known exactly:
each holds its trace, which is gone as soon as none is left. Then the garbage collector is asked
who holds them.
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
import gc
import sys
import types
import weakref
from collections import Counter
from collections.abc import Container, Iterable
from sys import getrefcount
from typing import Any

from fluxax._compile._reach import New, Reach, Swap
from fluxax._compile._reads import is_user_file, user_modules
from fluxax._instances import space_of
from fluxax._jax import Tracer

_CACHE = type(functools.lru_cache(len))
_ROUNDS = 20  # how deep in tuples a tracer may be


def settle_leftovers(
    trace: weakref.ref[Any] | None, value_of: New, error: BaseException | None
) -> None:
    """Replace the tracers of a trace that has ended in whatever still holds them.

    Args:
        trace: the trace; nothing is to be done if it is gone.
        value_of: gives what stands for a tracer from now on.
        error: what ended the function, whose traceback holds what was on its way.
    """
    if trace is None or trace() is None:
        return
    found = [t for t in gc.get_referrers(trace()) if issubclass(type(t), Tracer)]
    _settle_holders(found, Reach(Swap({}, value_of)), _in_traceback(error))


def _in_traceback(error: BaseException | None) -> set[int]:
    """Ids of the containers that JAX and we have in variables where an error came through."""
    found: set[int] = set()
    step = None if error is None else error.__traceback__
    while step is not None:
        if not is_user_file(step.tb_frame.f_code.co_filename):
            _add_containers(list(step.tb_frame.f_locals.values()), found)
        step = step.tb_next
    return found


def _add_containers(values: list[Any], found: set[int]) -> None:
    for value in values:
        if type(value) in (list, tuple) and id(value) not in found:
            found.add(id(value))
            _add_containers(list(value), found)


def settle_copies(copies: list[Any], swap: Swap) -> None:
    """Replace copies of arguments in whatever still holds them.

    Args:
        copies: all of them; nothing else of ours may hold them, but they each other.
        swap: what stands for each.
    """
    own = Counter(id(part) for copy in copies for part in gc.get_referents(copy))
    held = [i for i in range(len(copies)) if getrefcount(copies[i]) > own[id(copies[i])] + _OURS]
    if held:
        ids = {id(c) for c in copies} | {id(copies)}
        _settle_holders([copies[i] for i in held], Reach(swap), ids)
    reach = Reach(swap)
    for copy in copies:  # they may form cycles, which would keep the tracers in them alive
        reach.parts(copy)


_OURS = 2  # the list of copies, and the argument of `getrefcount`


def _settle_holders(found: list[Any], reach: Reach, ours: Container[int] = ()) -> None:
    for variable, value in contextvars.copy_context().items():  # its own container is in C
        if reach.new(value) is not value:
            variable.set(reach.new(value))
    for _ in range(_ROUNDS):
        asked = tuple(found)  # the very tuple that the collector gets, which holds them as well
        holders = [
            h
            for h in gc.get_referrers(*asked)
            if h is not found and h is not asked and id(h) not in ours and _is_theirs(h)
        ]
        fixed = [h for h in holders if issubclass(type(h), (tuple, frozenset))]
        for holder in _classes_first(holders):
            _settle(holder, reach)
        del holders
        if not fixed:
            return
        found = fixed


def _is_theirs(holder: Any) -> bool:
    """Whether something that holds a tracer is no part of JAX and no frame that runs or failed."""
    cls = type(holder)
    return cls is not types.FrameType and not (cls.__module__ or "").startswith("jax")


def _classes_first(holders: list[Any]) -> Iterable[Any]:
    """What to look into; the attributes of a class are set through it, or Python sees old ones."""
    spaces = [h for h in holders if type(h) is dict]
    if spaces:
        yield from (c for c in gc.get_referrers(*spaces) if isinstance(c, type))
    yield from holders


def _settle(holder: Any, reach: Reach) -> None:
    if type(holder) in _SUSPENDED:
        _settle_locals(holder, reach.new)
        return
    if isinstance(holder, _CACHE):
        holder.cache_clear()  # it keeps its results where nobody can replace them
        return
    reach.parts(holder)
    space = space_of(holder)
    if space is not None:
        reach.parts(space)


#: What is suspended, by how its attributes begin.
_SUSPENDED = {
    types.GeneratorType: "gi",
    types.CoroutineType: "cr",
    types.AsyncGeneratorType: "ag",
}


def _settle_locals(suspended: Any, new: Any) -> None:
    """Replace values in the variables of a suspended generator or coroutine."""
    kind = _SUSPENDED[type(suspended)]
    frame = getattr(suspended, f"{kind}_frame")
    if frame is None or getattr(suspended, f"{kind}_running"):
        return
    names = frame.f_locals
    for name, value in list(names.items()):
        if new(value) is not value:
            names[name] = new(value)
    if sys.version_info < (3, 13):  # there f_locals is a copy
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def settle_modules(swap: Swap) -> None:
    """Replace values right in the user's modules, where code may store by a computed name."""
    for module in user_modules():
        space = vars(module)
        values = list(space.values())  # most have none of these, and C finds that out sooner
        kinds = dict(zip(map(id, map(type, values)), values, strict=True)).values()
        if swap.by.keys().isdisjoint(map(id, values)) and not any(
            issubclass(type(one), Tracer) for one in kinds
        ):
            continue
        for name, value in list(space.items()):
            if id(value) in swap.by or issubclass(type(value), Tracer):
                space[name] = swap(value)
