"""Activation functions along an axis: they normalise, or gate, instead of going elementwise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._elementwise import Input, floated
from fluxax._errors import check_numbers, short
from fluxax._half import like, wide


def glu(x: Input, axis: int = -1) -> jax.Array:
    """Gated linear unit: the first half of `x` along `axis` times `sigmoid` of the second.

    >>> glu(jnp.array([6.0, 0.0])).tolist()
    [3.0]

    Reference: Dauphin et al. 2017, arXiv:1612.08083.
    """
    x = _along("glu", x, (axis,))
    if x.shape[axis] % 2:
        raise ValueError(f"glu expects two halves along axis {axis}, got {short(x)}.")
    value, gate = jnp.split(wide(x), 2, axis)
    return like(x, value * jax.nn.sigmoid(gate))


def softmax(x: Input, axis: int = -1) -> jax.Array:
    """`exp(x) / Σ exp(x)` along `axis`, the last by default (Flux: `dims=1`).

    >>> softmax(jnp.array([[1e4, 1e4], [0.0, 1e4]])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    x = _along("softmax", x, axis)
    return like(x, jax.nn.softmax(wide(x), axis=axis))


def logsoftmax(x: Input, axis: int = -1) -> jax.Array:
    """`log(softmax(x)) = x - log(Σ exp(x))` along `axis`, without overflow or underflow.

    >>> logsoftmax(jnp.array([0.0, 1e4])).tolist()
    [-10000.0, 0.0]
    """
    x = _along("logsoftmax", x, axis)
    return like(x, jax.nn.log_softmax(wide(x), axis=axis))


def logsumexp(x: Input, axis: Any = None, *, keepdims: bool = False) -> jax.Array:
    """`log(Σ exp(x))` of all elements, or along `axis`, without overflow.

    >>> logsumexp(jnp.array([[0.0, 1e4], [0.0, -1e4]]), axis=1).tolist()
    [10000.0, 0.0]
    """
    x = _along("logsumexp", x, axis)
    return like(x, jax.nn.logsumexp(wide(x), axis=axis, keepdims=keepdims))


def _along(who: str, x: Input, axis: Any) -> jax.Array:
    """`x` as an array of floats that has the axis, or several if it is a tuple; else an error."""
    check_numbers(who, x=x)
    x = floated(x)
    axes = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
    for a in axes:
        if not isinstance(a, (int, np.integer)):
            raise TypeError(f"{who} expects an int as axis, got {short(a)}.")
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"{who} expects an axis of `x`, got {a} for {short(x)}.")
    return x
