"""A rule's step that can be held back, in the form that XLA can run in place.

Selecting by a flag after the rule has run makes three programs of every leaf read its old
state (the two new means, and the step), so XLA copies it. If the step is computed from the
state as selected, old state is read once and the copies go. Where the flag is true both are the
same; where it is not, the step is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fluxax._jax import eval_jaxpr


def stepped(
    apply: Callable[[list[Any], Any, Any], tuple[list[Any], Any]],
    state: list[Any],
    x: Any,
    dx: Any,
    good: Any,
) -> tuple[list[Any], Any]:
    """The new state and parameter of one leaf; to be traced.

    Args:
        apply: gives a new flat state and a step, or `None` for no step.
        state: the flat state.
        x: the parameter.
        dx: its gradient.
        good: a flag that broadcasts against the arrays; where it is false everything stays as it
            was. `None` means always.
    """

    def flat(state: list[Any], x: Any, dx: Any) -> list[Any]:
        new, step = apply(state, x, dx)
        new = [n.astype(o.dtype) for n, o in zip(new, state, strict=True)]
        return [*new, x if step is None else (x - step).astype(x.dtype)]

    if good is None:
        *new, new_x = flat(state, x, dx)
        return new, new_x
    closed = jax.make_jaxpr(flat)(state, x, dx)
    inputs = [*state, x, dx]
    new = eval_jaxpr(_only(closed.jaxpr, closed.jaxpr.outvars[:-1], []), closed.consts, *inputs)
    held = [jnp.where(good, n, o) for n, o in zip(new, state, strict=True)]
    produced = {v: h for v, h in zip(closed.jaxpr.outvars, held, strict=False) if _made(closed, v)}
    rest = _only(closed.jaxpr, closed.jaxpr.outvars[-1:], list(produced))
    (new_x,) = eval_jaxpr(rest, closed.consts, *inputs, *produced.values())
    return held, jnp.where(good, new_x, x)


def _made(closed: Any, var: Any) -> bool:
    """Whether an output is computed: not a literal, and not an input handed through."""
    return any(var is v for eqn in closed.jaxpr.eqns for v in eqn.outvars)


def _only(jaxpr: Any, wanted: list[Any], given: list[Any]) -> Any:
    """The part of a jaxpr that computes some outputs, with some of its variables given."""
    needed, eqns = set(_variables(wanted)) - set(given), []
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            eqns.append(eqn)
            needed |= set(_variables(eqn.invars)) - set(given)
    return jaxpr.replace(
        invars=[*jaxpr.invars, *given],
        outvars=wanted,
        eqns=eqns[::-1],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )


def _variables(atoms: list[Any]) -> list[Any]:
    return [a for a in atoms if not hasattr(a, "val")]
