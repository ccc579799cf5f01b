"""Half precision: sums, and whatever takes several steps, in float32, and rounded once.

A sum of bfloat16 stalls at 256 ones, one of float16 at 2,048, and squares leave the range of
float16 from 256 on. JAX's own sums are wide; those that a derivative makes are not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def is_half(x: Any) -> bool:
    """Whether an array is of floats that are shorter than float32.

    >>> is_half(jnp.ones(1, "bfloat16")), is_half(jnp.ones(1)), is_half(3)
    (True, False, False)
    """
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4


def wide(x: Any) -> Any:
    """`x` in the dtype to compute in: half precision in float32, all else as it is.

    >>> wide(jnp.ones(1, "float16")).dtype, wide(jnp.ones(1, "int16")).dtype
    (dtype('float32'), dtype('int16'))
    """
    return x.astype(jnp.float32) if is_half(x) else x


def like(x: Any, y: Any) -> Any:
    """`y`, which was computed of `wide(x)`, in half precision if `x` is and `y` is not complex.

    >>> like(jnp.ones(1, "float16"), jnp.ones(1)).dtype
    dtype('float16')
    """
    return y.astype(x.dtype) if is_half(x) and not jnp.iscomplexobj(y) else y


def plus(x: Any, b: Any) -> jax.Array:
    """`x + b` where `b` has fewer axes; its derivative, a sum over all others, is wide.

    >>> grad = jax.grad(lambda b: plus(jnp.zeros((5000, 1), "bfloat16"), b).sum().astype("float32"))
    >>> float(grad(jnp.zeros(1, "bfloat16"))[0])
    4992.0
    """
    if not is_half(x):
        return x + b
    return (wide(x) + wide(b)).astype(jnp.result_type(x, b))


def take_rows(table: Any, index: Any) -> jax.Array:
    """The rows of a table at indices, NaN where there is none; what a row gets back adds up wide.

    >>> f = lambda table: take_rows(table, jnp.zeros(5000, int)).sum().astype("float32")
    >>> float(jax.grad(f)(jnp.zeros((1, 1), "bfloat16"))[0, 0])
    4992.0
    """
    return _take_rows(table, index) if is_half(table) else _taken(table, index)


def _taken(table: Any, index: Any) -> jax.Array:
    return jnp.take(table, index, axis=0, mode="fill", fill_value=jnp.nan)


_take_rows = jax.custom_jvp(_taken)


@_take_rows.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (table, index), (dtable, _) = primals, tangents
    return _take_rows(table, index), _taken(wide(dtable), index).astype(dtable.dtype)
