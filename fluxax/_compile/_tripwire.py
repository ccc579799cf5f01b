"""The sensors of a trace: what user code calls while it runs on copies.

Every call in this thread is looked at, as a profiler does. These end the attempt:

- a frame of user code whose globals are not one of our copies (a callback in a C object);
- a C function that is not known to be harmless, called by user code or by a package for it;
- JAX's "abstract value" errors, also where user code swallows them; a traced array formatted.

What only happens to run meanwhile (finalisers, suspended generators, handlers) is not the
function's: it is let alone, with all that it calls. `docs/design/capture.md`, "Sensors".
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import jax
import jaxlib

from fluxax._compile._bystanders import GENERATORS, happens, is_callback, start_of
from fluxax._compile._effects import Before, accept, contents
from fluxax._compile._harmless import MARKS, is_harmless, key_of, name_of
from fluxax._compile._reads import is_user_file
from fluxax._compile._spec import Sidestep, raised
from fluxax._jax import Tracer

_ERRORS = {
    cls.__init__.__code__: how
    for cls, how in (
        (jax.errors.ConcretizationTypeError, "float, int or a shape"),
        (jax.errors.TracerArrayConversionError, "a NumPy function"),
        (jax.errors.TracerBoolConversionError, "if, while, and, or, not, bool"),
        (jax.errors.TracerIntegerConversionError, "range, or an index of a list"),
        (jax.errors.NonConcreteBooleanIndexError, "a boolean mask as an index"),
    )
}

NEEDS_VALUE = "it needs the value of a traced array"
_TEXTS = {
    code
    for name in ("__repr__", "__str__", "__format__")
    if (code := getattr(getattr(Tracer, name), "__code__", None)) is not None
}

# --- whose code it is: worked out once per code object ------------------------------------

QUIET, PACKAGE, USER, NEEDS, DYING, CALLBACK = range(6)
_kinds: dict[int, int] = {}
_kept: dict[int, CodeType] = {}  # alive, so that no other code gets the id
for _code in (*_ERRORS, *_TEXTS):
    _kinds[id(_code)], _kept[id(_code)] = NEEDS, _code

#: Inside these everything is allowed, until they call user code again.
_TRUSTED = (
    "<frozen importlib",
    *(
        os.path.join(folder, "")
        for module in (jax, jaxlib)
        for folder in (os.path.dirname(module.__file__ or ""),)
        for folder in (folder, os.path.realpath(folder))
    ),
    os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ""),
)
_ERROR_STATE = os.path.join("numpy", "_core", "_ufunc_config.py")


def _kind_of(frame: FrameType) -> int:
    code = frame.f_code
    if code.co_filename.startswith(_TRUSTED):
        return QUIET
    if _is_user(frame):
        return USER
    if code.co_name == "__del__":
        return DYING
    return CALLBACK if code is weakref.finalize.__call__.__code__ else PACKAGE


class Tripwire:
    """What was noticed during one trace.

    Attributes:
        spaces: ids of the namespaces that rebuilt functions run in.
        codes: ids of the code objects that may run as they are.
        unlooked: ids of those of methods that the walk did not look at, with their names.
        alive: ids of what was there before and has a finaliser that the function reaches.
        before: what will be compared after the trace; what bystanders change in there may stay.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.spaces: dict[int, Any] = {}
        self.codes: set[int] = set()
        self.unlooked: dict[int, str] = {}
        self.alive: set[int] = set()
        self.before: Before = []
        self._owner: FrameType | None = None
        self._disarm: Any = None
        self._found: list[Any] = []
        self._bystander: int | None = None  # id of the frame that only happens to run
        self._started: set[int] = set()  # ids of the frames of generators that began in here
        self._verdicts: dict[Any, bool] = {}
        self._learnt: list[int] = []  # codes of the user's, to be forgotten again

    def check(self) -> None:
        """Raise what was noticed."""
        if self.reason is not None:
            raise Sidestep(self.reason, raised.learn)

    @contextmanager
    def armed(self, owner: FrameType) -> Iterator[None]:
        """Look at every call in this thread; a profiler that is running pauses.

        Args:
            owner: the frame that asks for it: when that ends, all is as it was, though Ctrl-C may
                have come between.
        """
        before, shown = sys.getprofile(), sys.unraisablehook

        def unraisable(args: Any) -> None:
            """A finaliser of the function's own objects was stopped: go on watching."""
            if args.exc_type is not None and issubclass(args.exc_type, Sidestep):
                sys.setprofile(self._on_event)
            else:
                shown(args)

        def disarm() -> None:
            self._owner = self._disarm = None  # no cycle: what was walked is let go at once
            if before is None or callable(before):
                sys.setprofile(before)
            else:  # cProfile, until Python 3.11: a hook in C, which only it can set
                before.enable()
            if sys.unraisablehook is unraisable:
                sys.unraisablehook = shown
            for number in self._learnt:
                _kinds.pop(number, None)
                _kept.pop(number, None)

        self._owner, self._disarm = owner, disarm
        sys.unraisablehook = unraisable
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            disarm()

    def _on_event(self, frame: FrameType, event: str, arg: Any) -> None:
        if frame is self._owner and event == "return":
            self._disarm()
            return
        kind = _kinds.get(id(frame.f_code))
        if kind is None:
            kind = self._learn(frame)
        if kind == QUIET:
            return
        if self._bystander is not None:
            if event == "return" and id(frame) == self._bystander:
                self._leave(frame, arg)
        elif event == "call":
            self._called(kind, frame)
        elif event == "c_call" and kind in (USER, PACKAGE):
            key = (key_of(arg), kind)
            if key not in self._verdicts:
                self._verdicts[key] = is_harmless(key[0], kind == PACKAGE)
            if not self._verdicts[key]:
                self._called_c(frame, key[0])
            elif self.reason is not None and kind == USER:
                raise Sidestep(self.reason)  # a finaliser was stopped, or somebody swallowed it

    def _learn(self, frame: FrameType) -> int:
        code = frame.f_code
        kind = _kind_of(frame)
        _kinds[id(code)], _kept[id(code)] = kind, code
        if kind == USER or code.co_filename.startswith("<"):
            self._learnt.append(id(code))
        return kind

    def _trip(self, reason: str, learn: tuple[str, ...] = ()) -> None:
        self.reason = self.reason or reason
        raise Sidestep(self.reason, learn)

    # -- Python calls

    def _called(self, kind: int, frame: FrameType) -> None:
        code = frame.f_code
        if kind == NEEDS:
            self._value_needed(frame)
        elif self._happens_in_package(kind, frame) or (
            code.co_flags & GENERATORS and not self._own_generator(frame)
        ):
            self._let(frame)
        elif kind == USER:
            self._called_user(frame)

    def _happens_in_package(self, kind: int, frame: FrameType) -> bool:
        return kind == DYING or (kind == CALLBACK and is_callback(frame))

    def _own_generator(self, frame: FrameType) -> bool:
        """Whether a generator began in this trace; one that was suspended before is no part of it.

        Nothing may be raised where one is closed: Python 3.11 does not survive it.
        """
        if frame.f_lasti == start_of(frame.f_code):
            self._started.add(id(frame))
            return True
        return id(frame) in self._started

    def _called_user(self, frame: FrameType) -> None:
        code = frame.f_code
        own = id(frame.f_globals) in self.spaces or id(code) in self.codes
        if code.co_name == "__del__":
            dying = id(frame.f_locals.get(code.co_varnames[0])) if code.co_argcount else 0
            if own and dying not in self.alive:
                self._trip(f"an object that it makes has a finaliser{_at(frame)}")
            self.alive.discard(dying)
            self._let(frame)
        elif own:
            if self.reason is not None:
                raise Sidestep(self.reason)
        elif happens(frame, _is_users):
            self._let(frame)
        else:
            self._trip(
                f"it calls {code.co_name} ({code.co_filename}:{code.co_firstlineno}) "
                "in a way that cannot be followed",
                (
                    self.unlooked.get(id(code), code.co_name),
                ),  # a method that no code names: the next walk looks at it
            )  # before its first line runs

    def _let(self, frame: FrameType) -> None:
        """A bystander begins: nothing is looked at until it has ended."""
        self._bystander, self._found = id(frame), contents(self.before)

    def _leave(self, frame: FrameType, result: Any) -> None:
        """A bystander has ended; a generator that gave something was asked for it."""
        self._bystander = None
        accept(self.before, self._found)
        if frame.f_code.co_flags & GENERATORS and result is not None and self.reason is None:
            self.reason = f"it reads from a generator that began outside{self._where(frame)}"

    def _value_needed(self, frame: FrameType) -> None:
        if self.reason is None:
            how = _ERRORS.get(frame.f_code, "print, str or an f-string")
            self.reason = f"{NEEDS_VALUE} ({how}){self._where(frame)}"

    # -- calls of C functions

    def _called_c(self, frame: FrameType, key: tuple[Any, str]) -> None:
        """A C function that may do anything is about to be called: stop it if the user asked."""
        user, by = users_of(frame)
        if user is None or _guards_numpy(frame) or _marks(frame, name_of(key)):
            return
        way = f" (by way of {by.f_code.co_name})" if by is not None else ""
        self._trip(
            f"it calls `{name_of(key)}`{way}{_at(user)}, which may act on the world or answer "
            "differently each time"
        )

    def _where(self, frame: FrameType | None) -> str:
        """The innermost line of the user's that led here."""
        while frame is not None:
            if id(frame.f_globals) in self.spaces or _is_user(frame):
                return _at(frame)
            frame = frame.f_back
        return ""


def _known(frame: FrameType) -> int:
    kind = _kinds.get(id(frame.f_code))
    return _kind_of(frame) if kind is None else kind


def _is_users(frame: FrameType) -> bool | None:
    """Whether a frame is the user's; `None` if it is a package's that is not trusted."""
    kind = _known(frame)
    return True if kind == USER else None if kind in (PACKAGE, DYING, CALLBACK) else False


def users_of(frame: FrameType | None) -> tuple[FrameType | None, FrameType | None]:
    """The user's frame for which a package works, and the package's that it called.

    `None` for it if the package works for JAX, for us, or for Python's import.
    """
    by = None
    while frame is not None:
        users = _is_users(frame)
        if users is not None:
            return (frame if users else None), by
        frame, by = frame.f_back, frame
    return None, by


def _guards_numpy(frame: FrameType | None) -> bool:
    """Whether a package sets NumPy's error state for a block of its own; it is put back there."""
    inside = False
    while frame is not None and frame.f_code.co_filename.endswith(_ERROR_STATE):
        inside = frame.f_code.co_name in ("__enter__", "__exit__", "inner")
        frame = frame.f_back
    return inside and frame is not None and not _is_users(frame)


def _marks(frame: FrameType, name: str) -> bool:
    file = frame.f_code.co_filename
    return any(name == called and file.endswith(end) for called, end in MARKS)


def _is_user(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith("<") and not name.startswith(("<stdin", "<ipython")):  # generated code
        name = frame.f_globals.get("__file__") or name
        if name.startswith("<"):
            return frame.f_globals.get("__name__") == "__main__"
    return is_user_file(name)


def _at(frame: FrameType) -> str:
    return f" at {frame.f_code.co_filename}:{frame.f_lineno}"
