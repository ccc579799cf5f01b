"""Two questions about a traced program: what the loss depends on, and whether numbers
that are inputs are only used where Python would not have computed with them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Jaxpr = Any


def _inexact(var: Any) -> bool:
    return jnp.issubdtype(var.aval.dtype, np.inexact)


def _is_var(atom: Any) -> bool:
    return not hasattr(atom, "val")  # literals have a value


def _inner(eqn: Any) -> Jaxpr | None:
    """The jaxpr that an equation calls with exactly its own operands, if it does."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(name)
        if inner is not None and eqn.primitive.name not in ("scan", "while", "custom_vjp_call"):
            inner = getattr(inner, "jaxpr", inner)
            if len(inner.invars) == len(eqn.invars):
                return inner
    return None


# --- dependence ---------------------------------------------------------------------------


def dependence(jaxpr: Jaxpr, wanted: Sequence[bool]) -> list[bool]:
    """Which inputs have a differentiable path to the wanted outputs.

    A path runs through floating and complex values and ends at `stop_gradient`.
    Multiplication by zero is a path.
    """
    needed = {
        v for v, w in zip(jaxpr.outvars, wanted, strict=True) if w and _is_var(v) and _inexact(v)
    }
    for eqn in reversed(jaxpr.eqns):
        outs = [v in needed for v in eqn.outvars]
        if any(outs) and eqn.primitive.name != "stop_gradient":
            for operand, used in zip(eqn.invars, _operands(eqn, outs), strict=True):
                if used and _is_var(operand) and _inexact(operand):
                    needed.add(operand)
    return [v in needed for v in jaxpr.invars]


def _operands(eqn: Any, outs: list[bool]) -> list[bool]:
    """Which operands of an equation its wanted outputs depend on."""
    inner = _inner(eqn)
    if inner is not None:
        return dependence(inner, outs)
    if eqn.primitive.name == "scan":
        return _scan_operands(eqn, outs)
    if eqn.primitive.name == "cond":
        branches = [dependence(b.jaxpr, outs) for b in eqn.params["branches"]]
        return [False, *(any(b) for b in zip(*branches, strict=True))]
    return [True] * len(eqn.invars)


def _scan_operands(eqn: Any, outs: list[bool]) -> list[bool]:
    consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
    body = eqn.params["jaxpr"].jaxpr
    wanted = list(outs)
    while True:  # a carry that is needed is needed at every turn before
        used = dependence(body, wanted)
        grown = [
            w or u for w, u in zip(wanted[:carries], used[consts : consts + carries], strict=True)
        ]
        if grown == wanted[:carries]:
            return used
        wanted[:carries] = grown


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


def _walk(jaxpr: Jaxpr, hosts: dict[Any, Host], bad: set[int]) -> list[Host | None]:
    for eqn in jaxpr.eqns:
        operands = [hosts.get(v) if _is_var(v) else None for v in eqn.invars]
        if any(operands):
            for var, host in zip(eqn.outvars, _step(eqn, operands, bad), strict=True):
                if host is not None:
                    hosts[var] = host
    return [hosts.get(v) if _is_var(v) else None for v in jaxpr.outvars]


def _step(eqn: Any, operands: list[Host | None], bad: set[int]) -> list[Host | None]:
    """What an equation makes of operands some of which are numbers."""
    name = eqn.primitive.name
    nothing: list[Host | None] = [None] * len(eqn.outvars)
    found = [h for h in operands if h is not None]
    which = frozenset().union(*(h[1] for h in found))
    alone = all(h is not None or not _is_var(v) for h, v in zip(operands, eqn.invars, strict=True))
    for inner, passed in _bodies(eqn, operands):
        outs = _walk(inner, {v: h for v, h in zip(inner.invars, passed, strict=True) if h}, bad)
        if name not in ("scan", "while", "cond"):
            return outs
    if name == "while":  # how often it turns decides whether it can be differentiated
        bad |= which
    if name in ("scan", "while", "cond"):
        return nothing
    if name in _STRUCTURAL:
        return [found[0]]
    if name in _INDEXED and operands[0] is None:
        return nothing
    if alone:
        if _normalises(eqn, name):
            return [(_NORMALISED, which)]
        bad |= which
        return nothing
    # A constant whole exponent becomes repeated multiplication, an input does not.
    if any(h[0] == _NORMALISED for h in found) or (name == "pow" and operands[1] is not None):
        bad |= which
    return nothing


def _normalises(eqn: Any, name: str) -> bool:
    integers = all(
        np.issubdtype(v.aval.dtype, np.integer) or v.aval.dtype == bool for v in eqn.invars
    )
    return integers and name in ("lt", "add", "select_n", "concatenate")


def _bodies(eqn: Any, operands: list[Host | None]) -> Iterator[tuple[Jaxpr, list[Host | None]]]:
    """The jaxprs that an equation runs, with what they get of the numbers."""
    name, params = eqn.primitive.name, eqn.params
    inner = _inner(eqn)
    if inner is not None:
        yield inner, operands
    elif name == "scan":
        body, n = params["jaxpr"].jaxpr, params["num_consts"]
        yield body, operands[:n] + [None] * (len(body.invars) - n)
    elif name == "while":
        c, b = params["cond_nconsts"], params["body_nconsts"]
        cond, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
        yield cond, operands[:c] + [None] * (len(cond.invars) - c)
        yield body, operands[c : c + b] + [None] * (len(body.invars) - b)
    elif name == "cond":
        for branch in params["branches"]:
            yield branch.jaxpr, operands[1:]


def reaches(jaxpr: Jaxpr) -> list[bool]:
    """Which outputs a path leads to from any input: a pulled-back gradient that is there at all."""
    reached = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(_is_var(v) and v in reached for v in eqn.invars):
            reached.update(eqn.outvars)
    return [_is_var(v) and v in reached for v in jaxpr.outvars]


_CALLBACKS = frozenset(("debug_callback", "pure_callback", "io_callback"))


def calls_back(jaxpr: Jaxpr) -> bool:
    """Whether a program calls Python functions while it runs; they would see copies."""
    return any(
        eqn.primitive.name in _CALLBACKS or any(map(calls_back, _inside(eqn))) for eqn in jaxpr.eqns
    )


def _inside(eqn: Any) -> Iterator[Jaxpr]:
    """Every jaxpr in an equation's parameters."""
    for value in eqn.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield inner
