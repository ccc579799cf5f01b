"""Whether a function uses an argument as a whole number: as far as its code shows it.

A Python int that is differentiated by counts as a real number unless the function needs it as an
integer. Which it is must be known before the function runs, since it may run only once.
"""

from __future__ import annotations

import dis
import enum
import functools
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from fluxax._compile._explain import switches
from fluxax._compile._program import find
from fluxax._compile._reads import is_users_own
from fluxax._compile._site import Purpose
from fluxax._jax import tracing


class Whole(NamedTuple):
    """Arguments that are ints: those that the function needs as such, and those nobody can tell."""

    needed: frozenset[int]
    doubtful: frozenset[int]


def whole_numbers(
    f: Any, args: tuple[Any, ...], differentiated: tuple[bool, ...], known: dict[int, bool] | None
) -> Whole:
    """Which of the ints to differentiate by the function needs as integers; it is not run for that.

    Args:
        known: which of them a trace found to be real numbers; `None` if there was none.
    """
    ints = [i for i, arg in enumerate(args) if differentiated[i] and type(arg) is int]
    uses = {i: use_of(f, i) for i in ints}
    needed = {i for i, use in uses.items() if use is Use.WHOLE}
    unclear = {i for i, use in uses.items() if use is Use.OTHER}
    if unclear and tracing():
        return Whole(frozenset(needed), frozenset(unclear))
    if unclear and known is None:
        known = _tried(f, args)
    needed |= {i for i in unclear if not (known or {}).get(i)}
    return Whole(frozenset(needed), frozenset())


def _tried(f: Any, args: tuple[Any, ...]) -> dict[int, bool]:
    """Which ints a trace, on copies of everything, found to be real numbers."""
    before = switches.eager, switches.strict
    switches.eager = switches.strict = False
    try:
        found = find(f, args, Purpose("gradient", (True,) * len(args)))
        if found is None:
            return {}
        return {i: found.site.known.ints.get(i, True) for i in range(len(args))}
    except BaseException as error:
        if isinstance(error, Exception) or is_users_own(error):
            return {}  # it will come again where it counts
        raise
    finally:
        switches.eager, switches.strict = before
        switches.pending = switches.ints = None


class Use(enum.Enum):
    """What a function's code does with an argument."""

    REAL = "it calculates with it"
    WHOLE = "it needs it as an integer"
    OTHER = "its code does not show"


def use_of(f: Any, position: int) -> Use:
    """How a function uses its argument at a position."""
    while type(f) is not types.FunctionType:
        if type(f) is functools.partial:
            position, f = position + len(f.args), f.func
        elif type(f) is types.MethodType:
            position, f = position + 1, f.__func__
        else:
            call = type(f).__dict__.get("__call__")
            if type(call) is not types.FunctionType:
                return Use.OTHER
            position, f = position + 1, call
    code = f.__code__
    return _use(code, code.co_varnames[position]) if position < code.co_argcount else Use.OTHER


@functools.lru_cache(1024)
def _use(code: types.CodeType, name: str) -> Use:
    return _Code(code).use_of(name)


_REAL = frozenset(("+", "-", "*", "/", "**", "+=", "-=", "*=", "/=", "**="))
_NOTHING = frozenset(("CACHE", "NOP", "RESUME", "EXTENDED_ARG", "UNARY_NEGATIVE"))


class _Code:
    """The instructions of a function: name, argument, and by how much each changes the stack."""

    def __init__(self, code: types.CodeType):
        self.steps = list(_steps(code))
        self.cells = code.co_cellvars
        self.followed: set[str] = set()

    def use_of(self, name: str) -> Use:
        """How a variable is used, and what is calculated with it."""
        self.followed.add(name)
        if name in self.cells:
            return Use.OTHER
        loads = [
            i for i, (op, v, _) in enumerate(self.steps) if op.startswith("LOAD_FAST") and v == name
        ]
        uses = {self._follow(i + 1) for i in loads}
        return next((u for u in (Use.WHOLE, Use.OTHER) if u in uses), Use.REAL)

    def _follow(self, start: int) -> Use:
        """What becomes of the value on top of the stack."""
        above, derived = 0, False  # how many values lie on it; whether it was calculated with
        for i, (op, value, effect) in enumerate(self.steps[start:], start):
            if op in _NOTHING:
                continue
            if op in ("LOAD_ATTR", "LOAD_METHOD") and above == 0:
                return Use.OTHER if derived else Use.WHOLE  # a tracer has not an int's methods
            if op.startswith(("LOAD_", "PUSH_")):
                above += effect
            elif op in ("BINARY_OP", "COMPARE_OP", "BINARY_SUBSCR"):
                if above >= 2:
                    above -= 1
                elif op == "BINARY_SUBSCR":
                    return Use.WHOLE if above == 0 else Use.OTHER
                elif op == "COMPARE_OP":
                    return Use.REAL
                elif value not in _REAL:
                    return Use.OTHER
                else:
                    above, derived = 0, True
            else:
                return self._end(i, above, derived)
        return Use.OTHER

    def _end(self, i: int, above: int, derived: bool) -> Use:
        """What an instruction does that takes the value away."""
        op, name, _ = self.steps[i]
        if op == "BUILD_TUPLE" and derived:
            after = self.steps[i + 1][0]
            return Use.WHOLE if after == "BINARY_SUBSCR" else Use.REAL
        if above == 0 and op in ("RETURN_VALUE", "POP_TOP"):
            return Use.REAL
        if above == 0 and op == "STORE_FAST" and derived:
            return Use.REAL if name in self.followed else self.use_of(name)
        return Use.OTHER


def _steps(code: types.CodeType) -> Iterator[tuple[str, Any, int]]:
    for op in dis.get_instructions(code):
        if op.opname.startswith("LOAD_FAST") and isinstance(op.argval, tuple):
            yield from (("LOAD_FAST", name, 1) for name in op.argval)
        elif op.opname == "STORE_FAST_LOAD_FAST":
            yield "STORE_FAST", op.argval[0], -1
            yield "LOAD_FAST", op.argval[1], 1
        else:
            value = op.argrepr if op.opname == "BINARY_OP" else op.argval
            yield op.opname, value, dis.stack_effect(op.opcode, op.arg, jump=False)
