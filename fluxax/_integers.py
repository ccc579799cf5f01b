"""Integers that say which one: labels, indices, lengths."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def indices(x: Any) -> jax.Array:
    """An array; of integers, one in which they can be compared with any size.

    Short ones have 32 bits: in eight, 256 is 0. Where JAX has no longer ones than that, NumPy's
    that do not fit are the largest or least that do, which are no class and no row; cut to 32
    bits they might be one.

    >>> indices(np.array([200], "uint8")).dtype, indices(np.array([2**32 + 1])).tolist()
    (dtype('int32'), [2147483647])
    """
    if isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind in "iu":
        kept = jax.dtypes.canonicalize_dtype(x.dtype)
        if kept != x.dtype:
            x = np.clip(x, np.iinfo(kept).min, np.iinfo(kept).max)
    x = jnp.asarray(x)
    short = jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize < 4
    return x.astype(jnp.int32) if short else x
