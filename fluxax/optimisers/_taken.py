"""Steps that are not always taken, and what comes of a step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fluxax._errors import short
from fluxax.optimisers._arrays import can_hold, scalar
from fluxax.optimisers._rule import rules_in
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
    result = rule.apply(state, widened(x), widened(dx))
    if not isinstance(result, tuple) or len(result) != 2:
        raise _wrong(rule, "a new state and a step", short(result))
    new, step = _as_before(rule, result[0], state), result[1]
    if step is None:
        return new, jnp.zeros_like(x), False
    step, taken = step if isinstance(step, Sometimes) else (step, True)
    return new, _of_the_shape(rule, step, widened(x)), taken


def _as_before(rule: Any, new: Any, old: Any) -> Any:
    """A new state, if it can stand where the old one stood, rounded at most."""
    flat, structure = jax.tree.flatten(new)
    before = jax.tree.leaves(old)
    flat = [jnp.asarray(v) if isinstance(v, (int, float)) else v for v in flat]
    alike = structure == jax.tree.structure(old) and all(
        getattr(n, "shape", None) == o.shape and can_hold(o.dtype, n.dtype)
        for n, o in zip(flat, before, strict=True)
    )
    if not alike:
        wanted, got = (", ".join(map(short, vs)) or "None" for vs in (before, flat))
        raise _wrong(rule, f"a state as it was ({wanted}, nested as `init` gave it)", got)
    return jax.tree.unflatten(structure, flat)


def _of_the_shape(rule: Any, step: Any, x: Any) -> Any:
    """A step for a parameter; one number is a step for all of it."""
    step = scalar(step, x)
    if isinstance(step, (int, float)):
        step = jnp.asarray(step, x.dtype)
    shape, dtype = getattr(step, "shape", None), getattr(step, "dtype", None)
    if shape not in (x.shape, ()) and not _spreads(shape, x.shape):
        raise _wrong(rule, f"a step of the parameter's shape {x.shape}", short(step))
    if not can_hold(x.dtype, dtype):
        raise _wrong(rule, f"a step that {short(x)} can take", short(step))
    return step


def _spreads(shape: Any, wanted: tuple[int, ...]) -> bool:
    """Whether an array of one shape can be spread over another one."""
    if shape is None or len(shape) > len(wanted):
        return False
    return all(a in (1, b) for a, b in zip(shape[::-1], wanted[::-1], strict=False))


def _wrong(rule: Any, wanted: str, got: str) -> TypeError:
    who, *inside = [type(r).__name__ for r in rules_in(rule)]
    name = f"{who} of {', '.join(inside)}" if inside else who
    return TypeError(f"{name} expects `apply` to return {wanted}, got {got}.")


def take(rule: Any, state: Any, x: Any, dx: Any) -> tuple[Any, Any, Any]:
    """One step of a rule: the new state, the new parameter, and whether the step was taken."""
    new, step, taken = stepped(rule, state, x, dx)
    if taken is False:
        return new, x, False
    parameter = getattr(rule, "parameter", None)
    new_x = (widened(x) - step if parameter is None else parameter(new)).astype(x.dtype)
    return new, new_x if taken is True else jnp.where(taken, new_x, x), taken
