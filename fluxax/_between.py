"""Between steps: what one thread reads of a model while another trains it.

A step takes over the memory of its state and then puts its results into place, one after the
other. Who reads in between would find memory that is gone, or half of a step. A step must not pay
for that, so it only looks whether a list is empty; who reads does the rest. It writes itself into
the list and waits until no other thread is in the middle of a step, which the stacks of the threads
say. A step that begins meanwhile waits until the list is empty. `docs/design/state-tree.md` says
why it is no lock.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Visit:
    """One time that a thread reads, or that its step waits."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


#: Who reads. Steps look at it before they take anything: `if readers: wait()`.
readers: list[Visit] = []
_waiting: list[Visit] = []  # the steps that wait for readers
_steps: set[CodeType] = set()  # functions that are in the middle of a step while they run

_POLL = 2e-4  # seconds between two looks
_PATIENCE = 60.0  # for a step that does not end: it may be waiting for the reader
_TURN = 1.0  # for a step that waits, before new readers come


#: Python 3.11 may crash where one thread walks the frames of another that runs a generator. There
#: the functions that matter say themselves that they run; by thread, outermost first.
_SAY = sys.version_info < (3, 12)
_said: dict[int, list[CodeType]] = {}
_mine = threading.local()  # `.said`: this thread's list in there


def _seen(function: Callable[..., T]) -> Callable[..., T]:
    """A function that other threads can see running."""
    if not _SAY:
        return function

    code = function.__code__

    @functools.wraps(function)
    def call(*arguments: Any) -> T:
        try:
            said = _mine.said
        except AttributeError:
            said = _mine.said = _said.setdefault(threading.get_ident(), [])
        depth = len(said)
        try:  # twice, as a Ctrl-C may come as soon as it is said, and as late as here below
            try:
                said.append(code)
                return function(*arguments)
            finally:
                del said[depth:]
        finally:
            if len(said) > depth:
                del said[depth:]

    return call


def _code(function: Any) -> CodeType:
    return getattr(function, "__wrapped__", function).__code__


def _running() -> dict[int, list[CodeType]]:
    """What runs in each thread, innermost first; of that at least the functions that are seen."""
    if _SAY:
        return {thread: said[::-1] for thread, said in list(_said.items())}
    return {t: [code for code, _ in _stack(f)] for t, f in sys._current_frames().items()}


def stepping(function: Callable[..., T]) -> Callable[..., T]:
    """Mark a function that takes a step, from its look at `readers` to the last result in place."""
    _steps.add(function.__code__)
    return _seen(function)


@_seen
def wait() -> None:
    """Let those who read end, before a step takes anything."""
    visit = Visit()
    _waiting.append(visit)
    try:
        while _others(readers, visit.thread, _code(read_between)):
            at_rest(time.sleep, _POLL)  # and look again, since a reader may have come meanwhile
    finally:
        _leave(_waiting, visit)


@_seen
def at_rest(function: Callable[..., T], *arguments: Any) -> T:
    """Call what takes nothing over: it may be read meanwhile. The step looks at `readers` then."""
    return function(*arguments)


@_seen
def read_between(read: Callable[..., T], *arguments: Any) -> T:
    """Call a function that reads, while no other thread is in the middle of a step."""
    visit = Visit()
    if _inside():
        return read(*arguments)
    _let_steps_begin(visit.thread)
    readers.append(visit)
    try:
        end = time.monotonic() + _PATIENCE
        while _step_under_way(visit.thread) and time.monotonic() < end:
            time.sleep(_POLL)
        return read(*arguments)
    finally:
        _leave(readers, visit)


def _leave(visits: list[Visit], visit: Visit) -> None:
    with contextlib.suppress(ValueError):
        visits.remove(visit)


def _let_steps_begin(me: int) -> None:
    """Readers that come one after the other must not keep a step waiting for ever."""
    end = time.monotonic() + _TURN
    while _others(_waiting, me, _code(wait)) and time.monotonic() < end:
        time.sleep(_POLL)


def _step_under_way(me: int) -> bool:
    return any(_taken(codes) for thread, codes in _running().items() if thread != me)


def _taken(codes: list[CodeType]) -> bool:
    """Whether a thread has looked at `readers` and goes on: at rest it will look again."""
    for code in codes:
        if code is _code(at_rest):
            return False
        if code in _steps:
            return True
    return False


def _inside() -> bool:
    """Whether a reader is called by a reader or by a step; or by JAX, for a step that waits."""
    inside = {*_steps, _code(read_between)}
    above = sys._getframe(2)
    return any(code in inside or module.startswith("jax.") for code, module in _stack(above))


def _others(visits: list[Visit], me: int, code: CodeType) -> bool:
    """Whether other threads are in a list; what a Ctrl-C left there is removed."""
    found = list(visits)
    running = _running()  # after the list: whoever is in that runs `code`, or is done
    for visit in found:
        if code not in running.get(visit.thread, ()):
            _leave(visits, visit)
        elif visit.thread != me:
            return True
    return False


def _stack(frame: FrameType | None) -> Iterator[tuple[CodeType, str]]:
    while frame is not None:
        yield frame.f_code, str(frame.f_globals.get("__name__"))
        frame = frame.f_back
