"""NumPy arrays that are constants of a trace: JAX may take one for what it was before."""

from __future__ import annotations

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def with_own_constants(closed: Any) -> Any:
    """A closed jaxpr whose NumPy constants are copies.

    JAX's are views of the user's memory, or conversions of it (`taken_for_older`).
    """
    held = [c.copy() if isinstance(c, np.ndarray) else c for c in closed.consts]
    return closed.replace(consts=held)


def is_converted(array: np.ndarray) -> bool:
    """Whether JAX makes another array of a NumPy array, for want of its dtype: float64."""
    return jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype


def taken_for_older(array: np.ndarray) -> bool:
    """Whether JAX would take a NumPy array for what it was before it was written to.

    A constant of a trace that is converted is known to JAX by the array that it was made from, as
    long as the conversion lives in some program, whatever has been written there since.
    """

    def differs() -> bool:
        held = jax.make_jaxpr(lambda: jnp.negative(array))().consts
        return any(not np.array_equal(c, array.astype(c.dtype), equal_nan=True) for c in held)

    return differs() and bool(gc.collect() or True) and differs()
