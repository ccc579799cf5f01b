"""What only happens to run during a trace and is not the function's.

Finalisers, generators that were suspended before, callbacks of weak references, handlers of
signals, of the garbage collector, of logging and of warnings: they run in the thread that is
being watched, and they must neither be stopped nor be taken for what the function does.
"""

from __future__ import annotations

import dis
import gc
import inspect
import logging
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_MESSENGERS = (logging.__file__, warnings.__file__)


@contextmanager
def garbage_waits() -> Iterator[None]:
    """No automatic garbage collection meanwhile: it would run finalisers in the trace.

    The threshold is set, not `gc.disable`, so that another thread may call that meanwhile.
    """
    before = gc.get_threshold()
    waiting = (0, *before[1:])
    try:  # twice, as a Ctrl-C may come before the first has done anything
        try:
            gc.set_threshold(*waiting)
            yield
        finally:
            _collect_again(waiting, before)
    finally:
        _collect_again(waiting, before)


def _collect_again(waiting: tuple[int, ...], before: tuple[int, ...]) -> None:
    if gc.get_threshold() == waiting:  # nobody else has set it
        gc.set_threshold(*before)


def living(classes: Iterable[type]) -> set[int]:
    """Ids of the instances of those of some classes that have a finaliser."""
    dying: set[int] = set()
    for cls in classes:
        if getattr(cls, "__del__", None) is not None:
            _add_subclasses(cls, dying)
    return {id(o) for o in gc.get_objects() if id(type(o)) in dying} if dying else set()


def _add_subclasses(cls: type, found: set[int]) -> None:
    """Their ids: a metaclass may have an `==` of its own."""
    if id(cls) not in found:
        found.add(id(cls))
        for sub in type.__subclasses__(cls):
            _add_subclasses(sub, found)


def start_of(code: CodeType) -> int:
    """The offset of the instruction at which a generator begins; it resumes at others."""
    found = _starts.get(id(code))
    if found is None:
        steps = dis.get_instructions(code)
        start = next((i.offset for i in steps if i.opname == "RESUME" and not (i.arg or 0) & 3), 0)
        if len(_starts) > 1024:
            _starts.clear()
        found = _starts[id(code)] = (code, start)  # the code stays alive with its id
    return found[1]


_starts: dict[int, tuple[CodeType, int]] = {}


def is_callback(frame: FrameType) -> bool:
    """Whether `weakref.finalize` runs because its object has gone, and was not called by hand."""
    return frame.f_locals.get("_") is not None


def happens(frame: FrameType, is_users: Callable[[FrameType], bool | None]) -> bool:
    """Whether a frame of user code that is no part of the function was called by Python itself.

    Args:
        is_users: whether a frame is the user's; `None` for a package's.
    """
    code = frame.f_code
    values = frame.f_locals
    given = [values.get(n) for n in code.co_varnames[: code.co_argcount]]
    if any(_of_python(v, frame) for v in given):
        return True
    if any(getattr(callback, "__code__", None) is code for callback in gc.callbacks):
        return True
    back, message = frame.f_back, False
    while back is not None and is_users(back) is None:
        message |= back.f_code.co_filename in _MESSENGERS
        back = back.f_back
    return message and back is not None and not is_users(back)


def _of_python(value: Any, frame: FrameType) -> bool:
    """Whether an argument is one that only Python itself passes."""
    if value is None:
        return False
    if value is frame.f_back or type(value).__name__ == "UnraisableHookArgs":
        return True  # a signal's handler, or what tells of an error in a finaliser
    return issubclass(type(value), weakref.ref) and value() is None
