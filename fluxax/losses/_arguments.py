"""What every loss does with its arguments: one dtype, one shape, an aggregation, an eps."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import check_numbers, short
from fluxax._half import wide
from fluxax._jax import is_tracer

Input = Any  # a JAX array, a NumPy array or a number
Aggregate = Callable[[jax.Array], jax.Array]


def mean(x: Input) -> jax.Array:
    """The mean of all elements: what a loss does with its values unless `agg` says otherwise.

    >>> float(mean(jnp.array([[1.0, 2.0], [3.0, 6.0]])))
    3.0
    """
    return jnp.mean(x)


def floating(x: Input) -> jax.Array:
    """`x` as an array of floats; integers and booleans become float32."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def within(who: str, low: float, high: float = math.inf, /, **parameters: Any) -> None:
    """An error where a parameter is no number, or known to be out of its range or not finite.

    A number that is being traced is not known.
    """
    check_numbers(who, **parameters)
    for name, value in parameters.items():
        if isinstance(value, (list, tuple)):
            raise TypeError(f"{who} expects a number as `{name}`, got {short(value)}.")
        if not is_tracer(value) and not _inside(low, np.asarray(value), high):
            top = f"a finite `{name}` of at least {low}"
            wanted = top if high == math.inf else f"`{name}` from {low} to {high}"
            raise ValueError(f"{who} expects {wanted}, got {short(value)}.")


def _inside(low: float, numbers: np.ndarray, high: float) -> bool:
    return bool(np.all((low <= numbers) & (numbers <= high) & (numbers < math.inf)))


def pair(
    who: str, y_hat: Input, y: Input, *, distance: bool = False
) -> tuple[jax.Array, jax.Array, Any]:
    """Prediction and target ready to compute with, and the dtype of the loss.

    The prediction's dtype decides, so that a float64 target does not promote the loss. A scalar
    target stands for an array of it. Complex ones have a distance, but are in no order. Half
    precision is computed in float32: squares, sums and logarithms leave its range long before the
    loss does.
    """
    check_numbers(who, y_hat=y_hat, y=y)
    for name, value in () if distance else (("y_hat", y_hat), ("y", y)):
        if jnp.iscomplexobj(value):
            raise TypeError(f"{who} expects real numbers as `{name}`, got {short(value)}.")
    y_hat, y = floating(y_hat), jnp.asarray(y)
    if y.ndim > 0 and y.shape != y_hat.shape:
        raise ValueError(mismatch(who, y_hat, y))
    dtype = jnp.finfo(y_hat.dtype).dtype  # a complex prediction has a real loss
    y_hat = wide(y_hat)
    if jnp.issubdtype(y.dtype, jnp.complexfloating):
        y_hat = y_hat.astype(jnp.result_type(y_hat.dtype, jnp.complex64))
    return y_hat, jnp.broadcast_to(y.astype(y_hat.dtype), y_hat.shape), dtype


def mismatch(who: str, y_hat: jax.Array, y: jax.Array) -> str:
    """The sentence for two shapes that do not fit."""
    return f"{who} expects `y_hat` and `y` of one shape, got {short(y_hat)} and {short(y)}."


def aggregate(agg: Aggregate, values: jax.Array, dtype: Any) -> jax.Array:
    """`agg(values)` in the dtype of the loss.

    Python's own `sum` means all of them, as Julia's does: called on an array it would add up the
    rows, one operation each.
    """
    if not callable(agg):
        raise TypeError(
            f"A loss expects a function as `agg`, got {short(agg)}. Write agg=fx.mean, "
            "agg=jnp.sum, or agg=fx.identity for all values."
        )
    result = (jnp.sum if agg is builtins.sum else agg)(values)
    if not hasattr(result, "astype"):
        raise TypeError(f"A loss expects `agg` to return an array, got {short(result)}.")
    return result.astype(dtype)


def epsilon(who: str, eps: Any, dtype: Any) -> Any:
    """`eps`, or the machine epsilon of the prediction's dtype."""
    if eps is None:
        return machine_epsilon(dtype)
    within(who, 0, eps=eps)
    return eps


def machine_epsilon(dtype: Any) -> float:
    """The distance of 1 to the next number of a dtype."""
    return float(jnp.finfo(dtype).eps)


def xlogy(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x log y`, exactly 0 where `x` is 0 and `y` is 0 or below; so are its derivatives there."""
    return x * jnp.log(jnp.where((x == 0) & (y <= 0), 1, y))


def floored(x: jax.Array, least: float) -> jax.Array:
    """`max(x, least)`, with the derivative of `x` below `least` too: nothing gets stuck there."""
    return jnp.where(x < least, least + (x - lax.stop_gradient(x)), x)
