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
from typing import Any


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
    if name in code.co_cellvars:
        return Use.OTHER
    steps = list(_steps(code))
    if any(op == "STORE_FAST" and value == name for op, value, _ in steps):
        return Use.OTHER
    loads = [i for i, (op, v, _) in enumerate(steps) if op.startswith("LOAD_FAST") and v == name]
    uses = {_follow(steps[i + 1 :]) for i in loads}
    return next((u for u in (Use.WHOLE, Use.OTHER) if u in uses), Use.REAL)


def _steps(code: types.CodeType) -> Iterator[tuple[str, Any, int]]:
    """Instructions as name, argument, and by how much they change the stack."""
    for op in dis.get_instructions(code):
        if op.opname.startswith("LOAD_FAST") and isinstance(op.argval, tuple):
            yield from (("LOAD_FAST", name, 1) for name in op.argval)
            continue
        value = op.argrepr if op.opname == "BINARY_OP" else op.argval
        yield op.opname, value, dis.stack_effect(op.opcode, op.arg, jump=False)


_REAL = frozenset(("+", "-", "*", "/", "**", "+=", "-=", "*=", "/=", "**="))
_NOTHING = frozenset(("CACHE", "NOP", "RESUME", "EXTENDED_ARG", "UNARY_NEGATIVE"))


def _follow(steps: list[tuple[str, Any, int]]) -> Use:
    """What becomes of the value on top of the stack, and of what is calculated with it."""
    above = 0  # how many values lie on it
    for op, value, effect in steps:
        if op in _NOTHING:
            continue
        if op in ("LOAD_ATTR", "LOAD_METHOD"):
            if above == 0:
                return Use.WHOLE  # x has methods, a tracer of it has not
            above += effect
        elif op.startswith(("LOAD_", "PUSH_")):
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
                above = 0
        else:
            return Use.REAL if op in ("RETURN_VALUE", "POP_TOP") and above == 0 else Use.OTHER
    return Use.OTHER
