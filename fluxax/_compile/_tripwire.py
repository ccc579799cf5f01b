"""The safety net of a trace: user code that runs without having been rebuilt.

While the function is traced, every Python call is looked at. Three things end the
attempt: a frame of user code whose globals are not one of our copies (a callback in a
C object, a function in a registry); JAX's "abstract value" errors, also where user code
swallows them; and a traced array being printed or formatted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

from fluxax._compile._reads import is_user_file
from fluxax._compile._spec import Sidestep
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
_TEXTS = {
    code
    for name in ("__repr__", "__str__", "__format__")
    if (code := getattr(getattr(Tracer, name), "__code__", None)) is not None
}


class Tripwire:
    """What was noticed during one trace."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.line: str | None = None
        self.spaces: dict[int, Any] = {}
        self.codes: set[int] = set()

    def check(self) -> None:
        """Raise what was noticed."""
        if self.reason is not None:
            raise Sidestep(self.reason)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Look at every call in this thread; a profiler that is running pauses."""
        before = sys.getprofile()
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            if before is None or callable(before):
                sys.setprofile(before)
            else:  # cProfile, until Python 3.11: a hook in C, which only it can set
                before.enable()

    def _on_event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "call" or self.reason is not None:
            return
        code = frame.f_code
        if code in _ERRORS or code in _TEXTS:
            self._value_needed(frame)
        elif (
            id(frame.f_globals) not in self.spaces
            and _is_user(frame)
            and id(code) not in self.codes
        ):
            self.reason = (
                f"it calls {code.co_name} ({code.co_filename}:{code.co_firstlineno}) "
                "in a way that cannot be followed"
            )
            raise Sidestep(self.reason)  # before its first line runs

    def _value_needed(self, frame: FrameType) -> None:
        user = _user_frame(frame, self.spaces)
        where = f" at {_line(user)}" if user is not None else ""
        how = _ERRORS.get(frame.f_code, "print, str or an f-string")
        self.reason = f"it needs the value of a traced array ({how}){where}"


def _is_user(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith("<") and not name.startswith(("<stdin", "<ipython")):  # generated code
        name = frame.f_globals.get("__file__") or name
        if name.startswith("<"):
            return frame.f_globals.get("__name__") == "__main__"
    return is_user_file(name)


def _user_frame(frame: FrameType | None, spaces: dict[int, Any]) -> FrameType | None:
    """The innermost frame of the user's that led here."""
    while frame is not None:
        if id(frame.f_globals) in spaces or _is_user(frame):
            return frame
        frame = frame.f_back
    return None


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
