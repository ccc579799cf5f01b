"""Two questions about a traced program: what the loss depends on, and whether numbers
that are inputs are only used where Python would not have computed with them alone.

Of a primitive that is not understood (`_primitives`) every output depends on every input, and every
number that goes into it stays a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax._primitives import PLAIN, Scan, branches, called, is_array, is_var, scanned

Jaxpr = Any


def _inexact(var: Any) -> bool:
    """Whether a value may carry a derivative: it is floating or complex, or nobody knows."""
    return not is_array(var) or jnp.issubdtype(var.aval.dtype, np.inexact)


def _references(eqn: Any) -> list[Any]:
    """The operands of an equation that it may write to."""
    return [v for v in eqn.invars if is_var(v) and not is_array(v)]


# --- dependence ---------------------------------------------------------------------------


def dependence(jaxpr: Jaxpr, wanted: Sequence[bool]) -> list[bool]:
    """Which inputs have a differentiable path to the wanted outputs.

    A path runs through floating and complex values and ends at `stop_gradient`.
    Multiplication by zero is a path.
    """
    needed = {
        v for v, w in zip(jaxpr.outvars, wanted, strict=True) if w and is_var(v) and _inexact(v)
    }
    for eqn in reversed(jaxpr.eqns):
        outs = [v in needed for v in eqn.outvars]
        written = any(v in needed for v in _references(eqn))
        if (any(outs) or written) and eqn.primitive.name != "stop_gradient":
            for operand, used in zip(eqn.invars, _operands(eqn, outs), strict=True):
                if used and is_var(operand) and _inexact(operand):
                    needed.add(operand)
    return [v in needed for v in jaxpr.invars]


def _operands(eqn: Any, outs: list[bool]) -> list[bool]:
    """Which operands of an equation its wanted outputs depend on: all, if it isn't understood."""
    inner = called(eqn)
    if inner is not None:
        return dependence(inner, outs)
    scan = scanned(eqn)
    if scan is not None:
        return _scan_operands(scan, outs)
    choices = branches(eqn)
    if choices is not None:
        depends = [dependence(choice, outs) for choice in choices]
        return [False, *(any(d) for d in zip(*depends, strict=True))]
    return [True] * len(eqn.invars)


def _scan_operands(scan: Scan, outs: list[bool]) -> list[bool]:
    body, constants, carried = scan
    wanted = list(outs)
    while True:  # a carry that is needed is needed at every turn before
        used = dependence(body, wanted)
        turning = used[constants : constants + carried]
        grown = [w or u for w, u in zip(wanted[:carried], turning, strict=True)]
        if grown == wanted[:carried]:
            return used
        wanted[:carried] = grown


# --- numbers ------------------------------------------------------------------------------

_STRUCTURAL = frozenset(
    "convert_element_type broadcast_in_dim reshape squeeze copy copy_p expand_dims".split()
)
_INDEXED = frozenset("dynamic_slice dynamic_update_slice gather scatter".split())
_RAW, _NORMALISED = "number", "index"

Host = tuple[str, frozenset[int]]  # what a value is that only numbers went into, and which


def lonely_numbers(jaxpr: Jaxpr, numbers: dict[int, int]) -> set[int]:
    """Inputs (of `numbers`: position in `invars` -> number) that must stay constants.

    An equation all of whose operands are numbers is arithmetic that Python would have done
    in float64, with unbounded integers and exceptions; the program would do it in 32 bits.
    The normalisation of a negative index is let through, since its result is exact.
    """
    hosts = {jaxpr.invars[p]: (_RAW, frozenset([n])) for p, n in numbers.items()}
    bad: set[int] = set()
    outs = _walk(jaxpr, hosts, bad)
    for host in outs:  # returned as it is: it would come back as an array
        if host is not None:
            bad |= host[1]
    return bad


#: A constant of the code, which Python would have met as well; `50` is one inside `jit` too.
_LITERAL: Host = ("literal", frozenset())


def _walk(jaxpr: Jaxpr, hosts: dict[Any, Host], bad: set[int]) -> list[Host | None]:
    for eqn in jaxpr.eqns:
        operands = [hosts.get(v) if is_var(v) else _LITERAL for v in eqn.invars]
        if any(h is not None and h[1] for h in operands):
            outs = _step(eqn, operands, bad)
        elif eqn.primitive.name in _STRUCTURAL and operands[0] is _LITERAL:
            outs = [_LITERAL]
        else:
            continue
        for var, host in zip(eqn.outvars, outs, strict=True):
            if host is not None:
                hosts[var] = host
    return [hosts.get(v) if is_var(v) else None for v in jaxpr.outvars]


def _step(eqn: Any, operands: list[Host | None], bad: set[int]) -> list[Host | None]:
    """What an equation makes of operands some of which are numbers."""
    inner = called(eqn)
    if inner is not None:
        return _inside(inner, operands, bad)
    found = [h for h in operands if h is not None and h[1]]
    which = frozenset().union(*(h[1] for h in found))
    nothing: list[Host | None] = [None] * len(eqn.outvars)
    scan, choices = scanned(eqn), branches(eqn)
    if scan is not None:
        rest: list[Host | None] = [None] * (len(operands) - scan.constants)
        _inside(scan.body, operands[: scan.constants] + rest, bad)
    elif choices is not None:
        for choice in choices:
            _inside(choice, operands[1:], bad)
    elif eqn.primitive.name in PLAIN:
        return _meet(eqn, operands, found, which, bad)
    else:  # nobody knows what it does to them; of a `while`, how often it turns decides much
        bad |= which
    return nothing


def _inside(jaxpr: Jaxpr, operands: list[Host | None], bad: set[int]) -> list[Host | None]:
    hosts = {v: h for v, h in zip(jaxpr.invars, operands, strict=True) if h is not None}
    return _walk(jaxpr, hosts, bad)


def _meet(
    eqn: Any,
    operands: list[Host | None],
    found: list[Host],
    which: frozenset[int],
    bad: set[int],
) -> list[Host | None]:
    """What a plain operation makes of numbers (`found`, `which`) and of what they meet."""
    name = eqn.primitive.name
    nothing: list[Host | None] = [None] * len(eqn.outvars)
    if name in _STRUCTURAL:
        if _narrows(eqn):  # a number out of range is an error in JAX, and an input would be cut
            bad |= which
        return [found[0]]
    if name in _INDEXED and operands[0] not in found:
        return nothing
    if None not in operands:
        if _normalises(eqn, name):
            return [(_NORMALISED, which)]
        bad |= which
        return nothing
    # A constant whole exponent becomes repeated multiplication, an input does not.
    if any(h[0] == _NORMALISED for h in found) or (name == "pow" and operands[1] in found):
        bad |= which
    return nothing


def _narrows(eqn: Any) -> bool:
    """Whether an equation makes an integer of few bits."""
    dtype = eqn.outvars[0].aval.dtype
    return bool(np.issubdtype(dtype, np.integer)) and np.dtype(dtype).itemsize < 4


def _normalises(eqn: Any, name: str) -> bool:
    integers = all(
        np.issubdtype(v.aval.dtype, np.integer) or v.aval.dtype == bool for v in eqn.invars
    )
    return integers and name in ("lt", "add", "select_n", "concatenate")


def reaches(jaxpr: Jaxpr) -> list[bool]:
    """Which outputs a path leads to from any input: a pulled-back gradient that is there at all."""
    reached = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(is_var(v) and v in reached for v in eqn.invars):
            reached.update(eqn.outvars, _references(eqn))
    return [is_var(v) and v in reached for v in jaxpr.outvars]
