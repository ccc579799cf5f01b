"""The arithmetic that several rules share, on arrays of any real or complex dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._jax import beside, is_tracer
from fluxax.optimisers._hyper import Hyper, real_dtype, value_at


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros beside an array, on its device; compiles nothing."""
    return full_like(x, 0, dtype)


def full_like(x: Any, value: Any, dtype: Any = None) -> Any:
    """An array of one value (of a schedule: its first) beside an array; compiles nothing."""
    first: Any = value_at(value, 0) if callable(value) else value
    if is_tracer(x):
        return jnp.full_like(x, first, dtype)
    return beside(np.full(np.shape(x), first, dtype or x.dtype), x)


def count() -> Any:
    """A step count of zero."""
    return jax.device_put(np.zeros((), np.int32))


def scalar(value: Any, like: Any) -> Any:
    """A hyperparameter as JAX functions take it: `jnp.clip(dx, -scalar(delta, dx), ...)`."""
    return value.on(like) if isinstance(value, Hyper) else value


def abs2(x: Any) -> Any:
    """|x|², real also for complex x."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def average(beta: Any, old: Any, new: Any) -> Any:
    """The running mean β old + (1 - β) new."""
    return beta * old + (1 - beta) * new


def can_hold(dtype: Any, other: Any) -> bool:
    """Whether arrays of a dtype can take numbers of another one, rounded at most."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating)
    mine, theirs = ([jnp.issubdtype(d, kind) for kind in kinds] for d in (dtype, other))
    if not any(mine) or not any(theirs):  # such as random keys
        return dtype == other
    return theirs.index(True) <= mine.index(True)


def wide_dtype(like: Any) -> Any:
    """The dtype for numbers that the dtype of an array is too narrow for: float32 or more."""
    return jnp.promote_types(real_dtype(like), np.float32)


def on_host(f: Callable[[Any], Any], value: Any) -> Any:
    """A function of a hyperparameter: of a `Hyper` computed on the host in float64."""
    if isinstance(value, Hyper):
        return value.map(f)
    return float(f(value)) if isinstance(value, (int, float)) else f(value)


def module_of(value: Any) -> Any:
    """`jnp` for a JAX array, `np` for a number."""
    return jnp if isinstance(value, jax.Array) else np


def log(x: Any) -> Any:
    """log x, finite also for x = 0."""
    tiny = 1e-37  # in place of 0: its powers are 0 to every precision, and 0 · -inf is not met
    return jnp.log(jnp.maximum(x, tiny)) if module_of(x) is jnp else math.log(max(x, tiny))
