"""The product of rows with a matrix, and an offset."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fluxax._half import plus
from fluxax.kernels._choice import chosen
from fluxax.kernels._settled import settled


def plain_dense(x: Any, w: Any, b: Any = None) -> jax.Array:
    """`x w + b` for rows `x`, as one writes it."""
    y = x @ w
    return y if b is None else plus(y, b)


def dense(x: jax.Array, w: jax.Array, b: jax.Array | None = None) -> jax.Array:
    """`x w + b` for rows `x`, with a backward pass in three products.

        dx = dy wᵀ          dw = xᵀ dy          db = 1ᵀ dy

    `dy` is computed in full before, once for all three. Plain autodiff would fuse what `dy` comes
    from into each of them, and sum the columns of `dy` one number at a time.

    Args:
        x: rows, `(n, in)`.
        w: the matrix, `(in, out)`.
        b: what is added to every row, `(out,)`, or `None`.

    Example:
        >>> import jax.numpy as jnp
        >>> dense(jnp.ones((2, 3)), jnp.ones((3, 1)), jnp.ones(1)).tolist()
        [[4.0], [4.0]]
    """
    if not chosen():
        return plain_dense(x, w, b)
    return settled(x @ w) if b is None else _dense(x, w, b)


_dense = jax.custom_jvp(plain_dense)


@_dense.defjvp
def _(primals: Any, tangents: Any) -> Any:
    x, w, b = primals
    dx, dw, db = tangents
    ones = jnp.ones((x.shape[0], 1), x.dtype)  # the transpose of this product sums the columns
    return _dense(x, w, b), lax.optimization_barrier(dx @ w + x @ dw + ones @ db[None])
