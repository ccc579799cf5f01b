"""Integers that say which one: labels, indices, lengths."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fitting(x: Any) -> Any:
    """NumPy's integers in as many bits as JAX has; anything else as it is.

    What does not fit is the largest or least number that does, which is no class and no row; cut
    to 32 bits it might be one.
    """
    if not isinstance(x, (np.ndarray, np.generic)) or x.dtype.kind not in "iu":
        return x
    kept = jax.dtypes.canonicalize_dtype(x.dtype)
    return x if kept == x.dtype else np.clip(x, np.iinfo(kept).min, np.iinfo(kept).max)


def indices(x: Any) -> jax.Array:
    """An array; of integers, one in which they can be compared with any size.

    Short ones have 32 bits: in eight, 256 is 0. Long ones are `fitting`.

    >>> indices(np.array([200], "uint8")).dtype, indices(np.array([2**32 + 1])).tolist()
    (dtype('int32'), [2147483647])
    """
    x = jnp.asarray(fitting(x))
    short = jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize < 4
    return x.astype(jnp.int32) if short else x
