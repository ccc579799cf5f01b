"""Believed, then checked: is a program still what its function is?

A guard sees what the walk knew to look at. Here the function is walked and traced once more, with
a call's own values, and compared with what its program was made of. A difference that no guard saw
is something that nobody knew to look at; from then on the function runs uncompiled.
"""

from __future__ import annotations

import os
from typing import Any

from fluxax._compile._capture import walk
from fluxax._compile._content import Content, alike, difference, place_of_operation, remembers
from fluxax._compile._reads import place_of
from fluxax._compile._site import Found, Purpose
from fluxax._compile._spec import Sidestep
from fluxax._compile._trace import Frozen, Trace
from fluxax._errors import warn
from fluxax._jax import forget_traces, tracing

_EACH = 8  # a check at a call, the next at that many times as many
_NEVER = 1 << 62


class StaleProgram(UserWarning):
    """A compiled program no longer was what its function is, and no guard saw it.

    The sentence names the line, what differs, and since which call earlier answers are in doubt.
    The call that found it and all later ones run uncompiled.
    """


class _Setting:
    """What `FLUXAX_CHECK` says, as of the last slow call: reading it costs a microsecond."""

    off = False
    every = False  # at each call, and its numbers beside those of an uncompiled run
    compare: Any = None  # what does that: see `_beside`, which stands above this room

    def read(self) -> None:
        """Look at the environment again."""
        value = os.environ.get("FLUXAX_CHECK", "")
        if value not in ("", "0", "1", "all"):
            raise ValueError(
                f"FLUXAX_CHECK expects 0 (no checks), 1 (the usual ones) or all, got {value!r}."
            )
        self.off, self.every = value == "0", value == "all"


setting = _Setting()
setting.read()


def stale(
    found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> str | None:
    """In what a program is no longer what its function is; `None` if they are one.

    It holds for all calls of the program so far, the one at hand included.
    """
    program, got = found.program, found.got
    inputs = got[0] if program.parameters is None else program.merged(*got[:2])
    if tracing() or not program.fits(inputs):
        return None  # JAX will say that it is the wrong program: nothing to be checked
    setting.read()
    calls = program.calls
    program.due = _NEVER if setting.off else calls + 1 if setting.every else _after(calls)
    if setting.off:
        return None
    try:
        differs = _compared(found, f, args, purpose, frozen)
    except (RecursionError, MemoryError):
        return None  # says nothing about the program
    if differs is None and setting.every:
        differs = setting.compare(found, f, args, purpose, frozen)
    if differs is None:
        program.checked = calls
        found.site.record.checks += 1
    return differs


def _after(calls: int) -> int:
    due = _EACH
    while due <= calls:
        due *= _EACH
    return due


def _compared(
    found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> str | None:
    """The difference to a new trace; or where that one ends, as the first one did not."""
    old = found.program.content
    try:
        try:
            new = _content(found, f, args, purpose, frozen)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # JAX may make one of a Ctrl-C: only what comes again is the function's
            new = _content(found, f, args, purpose, frozen)
        differs = difference(old, new)
        if differs is None:
            return None
        again = _content(found, f, args, purpose, frozen)
    except (RecursionError, MemoryError):
        raise
    except Sidestep as reason:
        return str(reason)
    except Exception as error:
        return f"tracing it raises {type(error).__name__}{place_of(error)}"
    if difference(new, again) is not None and alike(old, again):
        return None  # objects that it makes have another order each time, in a set
    what, eqn = differs
    place = place_of_operation(eqn) if eqn is not None else ""
    return what + (f" at {place}" if place else "")


def _content(
    found: Found, f: Any, args: tuple[Any, ...], purpose: Purpose, frozen: Frozen
) -> Content:
    """What a program would be made of that was made now."""
    known = found.program.known.copy()
    capture, arguments, function = walk(known, f, args, purpose.differentiated)
    trace = Trace(found.site, capture, arguments, function, purpose, frozen, watched=False)
    if capture.remembering or remembers(found.program.closed):
        forget_traces()
    return trace.content(trace.closed())


def tell(found: Found, what: str) -> None:
    """Say that a program was stale; its function runs uncompiled already."""
    program = found.program
    since = program.checked + 1
    doubt = (
        f"Answers since call {since} of this program, which was at call {program.calls}, are in "
        "doubt."
        if since < program.calls
        else "No earlier answer is in doubt."
    )
    warn(
        f"{found.site.record.where} is no longer what was compiled, and nothing that is looked at "
        f"before each call told: {what}. {doubt} This call and all later ones run uncompiled. "
        "Pass what it reads there as an argument, and please report this.",
        StaleProgram,
    )
