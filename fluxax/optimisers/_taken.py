"""Steps that are not always taken, and what comes of a step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fluxax.optimisers._widen import widened


class Sometimes(NamedTuple):
    """What `apply` may return in place of a step: one that is taken where a flag is true."""

    dx: Any
    taken: Any


def held(taken: Any, new: Any, old: Any) -> Any:
    """A state as it is after a step that is taken where a flag is true."""
    return jax.tree.map(lambda n, o: jnp.where(taken, n, o), new, old)


def stepped(rule: Any, state: Any, x: Any, dx: Any) -> tuple[Any, Any, Any]:
    """What a rule gives: the new state, the step, and whether it is taken.

    The last is `True`, `False` (the rule gave `None`) or a flag on the device. The step of a narrow
    parameter is not rounded yet.
    """
    new, step = rule.apply(state, widened(x), widened(dx))
    if step is None:
        return new, jnp.zeros_like(x), False
    return (new, *step) if isinstance(step, Sometimes) else (new, step, True)


def take(rule: Any, state: Any, x: Any, dx: Any) -> tuple[Any, Any, Any]:
    """One step of a rule: the new state, the new parameter, and whether the step was taken."""
    new, step, taken = stepped(rule, state, x, dx)
    if taken is False:
        return new, x, False
    parameter = getattr(rule, "parameter", None)
    new_x = (widened(x) - step if parameter is None else parameter(new)).astype(x.dtype)
    return new, new_x if taken is True else jnp.where(taken, new_x, x), taken
