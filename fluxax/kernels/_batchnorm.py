"""Channels normalised over the rows of a batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fluxax.kernels._choice import chosen


def plain_batchnorm(x: Any, scale: Any, bias: Any, eps: float) -> jax.Array:
    """`scale (x - mean) / √(var + eps) + bias` with mean and variance of all axes but the last."""
    mean, var = _moments(x)
    return (x - mean) * (lax.rsqrt(var + eps) * scale) + bias


def _moments(x: Any) -> tuple[Any, Any]:
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, lax.square(x - mean).mean(axes)


def batchnorm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """Channels normalised over a batch, with a backward pass of two sums over the rows.

        db = Σ dy          ds = Σ dy x̂          dx = scale / √(var + eps) (dy - db/n - x̂ ds/n)

    where `x̂` is the normalised input. Plain autodiff needs four sums.

    Args:
        x: `(N, …, C)`.
        scale: `(C,)`, of the type of `x`.
        bias: `(C,)`, of the type of `x`.
        eps: added to the variance.

    Example:
        >>> import jax.numpy as jnp
        >>> batchnorm(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), 0.0).tolist()
        [[-1.0], [1.0]]
    """
    plain = not chosen() or x.size == 0
    return (plain_batchnorm if plain else _batchnorm)(x, scale, bias, eps)


_batchnorm = jax.custom_jvp(plain_batchnorm, nondiff_argnums=(3,))


@_batchnorm.defjvp
def _(eps: float, primals: Any, tangents: Any) -> Any:
    x, scale, bias = primals
    dx, dscale, dbias = tangents
    mean, var = _moments(x)
    root = lax.rsqrt(var + eps)
    hat, factor = (x - mean) * root, scale * root
    axes = tuple(range(x.ndim - 1))
    dx = lax.optimization_barrier(dx)
    # In this form its transpose sums `dy` and `dy hat` once each.
    shift = dbias - factor * dx.mean(axes)
    stretch = dscale - factor * (hat * dx).mean(axes)
    wide = lambda v: jnp.broadcast_to(v, x.shape)
    dy = factor * dx + wide(shift) + hat * wide(stretch)
    return _batchnorm(x, scale, bias, eps), lax.optimization_barrier(dy)
