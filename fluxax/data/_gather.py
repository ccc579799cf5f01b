"""Taking observations out of one array, a whole batch at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._tensors import array_of, is_tensor

Where = int | slice | np.ndarray


def is_array(x: Any) -> bool:
    """Whether `x` is one block of memory: of NumPy, of JAX, or a tensor that shares its own.

    >>> is_array(np.zeros(3)), is_array([1, 2, 3])
    (True, False)
    """
    return isinstance(x, (np.ndarray, jax.Array)) or is_tensor(x)


def checked_axis(x: Any, axis: int, who: str, path: str) -> int:
    """The axis of the observations, counted from the front.

    Raises:
        TypeError: for a masked array, whose mask a batch would lose, or no int as axis.
        ValueError: for an array without that axis.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{who} expects plain arrays, got a masked {short(x)} at {path}. "
            "Call its `.filled(...)` first."
        )
    ndim = len(x.shape)
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{who} expects an int as axis, got {short(axis)}.")
    if not -ndim <= axis < ndim:
        raise ValueError(
            f"{who} expects arrays with observations along axis {axis}, got {short(x)} at {path}."
        )
    return axis % ndim


def take(x: Any, where: Where, axis: int) -> Any:
    """Fresh memory with the observations `where` of the array `x`.

    The indices must lie in range: JAX does not check them.

    Args:
        where: an int (the axis goes away), a slice of step 1, or an array of ints.
        axis: of the observations, from the front or from the back.

    >>> take(np.arange(6).reshape(2, 3), np.array([2, 0]), 1)
    array([[2, 0],
           [5, 3]])
    """
    axis = axis % len(x.shape)
    if isinstance(x, jax.Array):
        return _take_jax(x, where, axis)
    if is_tensor(x):
        return take(array_of(x), where, axis)
    x = np.asarray(x)  # a memmap's subclass must not leak into batches
    if isinstance(where, int):
        return x.take(where, axis=axis)
    if isinstance(where, slice):
        return x[(slice(None),) * axis + (where,)].copy()
    if x.flags.c_contiguous:
        return x.take(where, axis=axis)
    # `take` would first copy the whole of an array that is not contiguous.
    return np.ascontiguousarray(x[(slice(None),) * axis + (where,)])


def _take_jax(x: jax.Array, where: Where, axis: int) -> jax.Array:
    wide = x.shape[axis] > np.iinfo(np.int32).max
    integer = np.int64 if wide else np.int32
    if isinstance(where, int):
        return _index(x, integer(where), axis)
    if isinstance(where, slice):
        return _slice(x, integer(where.start), where.stop - where.start, axis)
    return _gather(x, where.astype(integer), axis)


# Starts and indices are inputs, so that there is one program per batch size, not one per batch.
@partial(jax.jit, static_argnums=2)
def _index(x: jax.Array, i: Any, axis: int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False)


@partial(jax.jit, static_argnums=(2, 3))
def _slice(x: jax.Array, start: Any, size: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


@partial(jax.jit, static_argnums=2)
def _gather(x: jax.Array, indices: Any, axis: int) -> jax.Array:
    return jnp.take(x, indices, axis=axis, mode="clip")
