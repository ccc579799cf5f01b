"""A place in a model at which the derivative is computed in full before it goes on."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from fluxax.kernels._choice import chosen


def settled(x: jax.Array) -> jax.Array:
    """The input itself, whose derivative is computed once and stored before anybody uses it.

    XLA's fusion on a CPU would rather compute a derivative again inside each of its users: a sum
    of ten branches in every branch. This keeps layers apart in the backward pass.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.grad(lambda x: jnp.sum(settled(x) ** 2))(jnp.array([1.0, 2.0])).tolist()
        [2.0, 4.0]
    """
    return _settled(x) if chosen() else x


@jax.custom_jvp
def _settled(x: Any) -> Any:
    return x


@_settled.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return _settled(*primals), lax.optimization_barrier(*tangents)
