"""Pooling and flattening: layers without weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import short
from fluxax._module import Module
from fluxax.layers._containers import first_max
from fluxax.layers._conv import check_image, check_reach, collapsed, short_pad
from fluxax.layers._place import unfit
from fluxax.layers._shapes import as_array, as_input, pads, per_axis, window

#: Up to this size of window a fold over its places is used. XLA's own windows have a slow
#: derivative on the CPU: 10 ms for (64, 28, 28, 16), where the fold takes 0.6 ms.
LONGEST_FOLD = 8


class MaxPool(Module):
    """The largest value in each window.

    Args:
        window: its sizes, `(2, 2)` for images. Input is `(N, H, W, C)`.
        stride: how far the window moves, a number or one per axis; as far as it is long,
            if not given.
        pad: places at the borders that are never the largest; as in Conv.

    Raises:
        ValueError: for sizes out of range, or input without a batch axis.
        TypeError: where an argument is of the wrong kind.

    Of several largest values in a window the first gets the derivative.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.MaxPool((2, 2))(jnp.ones((1, 28, 29, 3))).shape
        (1, 14, 14, 3)
    """

    window: tuple[int, ...]

    def __init__(self, window: tuple[int, ...], *, stride: Any = None, pad: Any = 0):
        set_window(self, "MaxPool", window, stride, pad)

    def __call__(self, x: Any) -> jax.Array:
        x = pool_input(self, x)
        return pooled(self, x, lowest(x.dtype), first_max, lax.max)

    def _arguments(self) -> list[tuple[str, Any]]:
        return window_arguments(self)


class MeanPool(Module):
    """The mean of each window; padding counts as zeros, as in Flux.

    Args:
        window: its sizes, `(2, 2)` for images. Input is `(N, H, W, C)`.
        stride: how far the window moves, a number or one per axis; as far as it is long,
            if not given.
        pad: zeros at the borders; as in Conv.

    Raises:
        ValueError: for sizes out of range, or input without a batch axis.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.MeanPool((2,))(jnp.array([[[1.0], [2.0], [5.0], [6.0]]])).ravel().tolist()
        [1.5, 5.5]
    """

    window: tuple[int, ...]

    def __init__(self, window: tuple[int, ...], *, stride: Any = None, pad: Any = 0):
        set_window(self, "MeanPool", window, stride, pad)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, pool_input(self, x))
        return pooled(self, x, 0, jnp.add, lax.add) / math.prod(self.window)

    def _arguments(self) -> list[tuple[str, Any]]:
        return window_arguments(self)


def lowest(dtype: Any) -> Any:
    """What is never larger than another value of a type."""
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).min
    return False if jnp.issubdtype(dtype, jnp.bool_) else -np.inf


def set_window(layer: Any, who: str, sizes: Any, stride: Any, pad: Any) -> None:
    """The attributes that pooling layers share."""
    layer.window = window(who, "window", sizes)
    n = len(layer.window)
    layer.stride = layer.window if stride is None else per_axis(who, "stride", stride, n)
    layer.pad = pads(who, pad, layer.window, (1,) * n)


def window_arguments(layer: Any) -> list[tuple[str, Any]]:
    shown: list[tuple[str, Any]] = [("", layer.window)]
    if layer.stride != layer.window:
        shown.append(("stride", collapsed(layer.stride)))
    return [*shown, ("pad", short_pad(layer.pad))] if np.any(layer.pad) else shown


def pool_input(layer: Any, x: Any) -> jax.Array:
    """Input of a pooling layer, its axes checked."""
    x = as_array(layer, x)
    check_image(layer, x, None, len(layer.window))
    check_reach(layer, x, layer.window, layer.pad)
    return x


def pooled(
    layer: Any,
    x: jax.Array,
    start: Any,
    fold: Callable[[Any, Any], Any],
    reduce: Callable[[Any, Any], Any],
) -> jax.Array:
    """One value for each window, axis after axis, the last first: so the first in a row wins."""
    for i in reversed(range(len(layer.window))):
        size, stride, pad = layer.window[i], layer.stride[i], layer.pad[i]
        if size > LONGEST_FOLD:
            x = _along(x, i + 1, size, stride, pad, start, reduce)
        else:
            x = _folded(x, i + 1, size, stride, pad, start, fold)
    return x


def _folded(x: Any, axis: int, size: int, stride: int, pad: Any, start: Any, fold: Any) -> Any:
    if any(pad):
        widths = [(*pad, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
        x = lax.pad(x, jnp.asarray(start, x.dtype), widths)
    out = (x.shape[axis] - size) // stride + 1
    places = (lax.slice_in_dim(x, k, k + (out - 1) * stride + 1, stride, axis) for k in range(size))
    return functools.reduce(fold, places)


def _along(x: Any, axis: int, size: int, stride: int, pad: Any, start: Any, reduce: Any) -> Any:
    def on_axis(value: Any, other: Any) -> list[Any]:
        return [value if a == axis else other for a in range(x.ndim)]

    return lax.reduce_window(
        x,
        np.asarray(start, x.dtype),
        reduce,
        on_axis(size, 1),
        on_axis(stride, 1),
        on_axis(pad, (0, 0)),
    )


class GlobalMaxPool(Module):
    """The largest value of each channel of an image; the axes stay, of length one.

    Raises:
        ValueError: for input with fewer than three axes.

    Of several largest values the first gets the derivative.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.Chain(fx.GlobalMaxPool(), fx.flatten)(jnp.ones((2, 7, 7, 3))).shape
        (2, 3)
    """

    def __call__(self, x: Any) -> jax.Array:
        x = _places(self, x)
        first = jnp.argmax(lax.stop_gradient(x), 1, keepdims=True)
        at = lax.broadcasted_iota(first.dtype, x.shape, 1) == first
        return jnp.where(at, x, 0).sum(1, dtype=x.dtype)

    def _arguments(self) -> list[tuple[str, Any]]:
        return []


class GlobalMeanPool(Module):
    """The mean of each channel of an image; the axes stay, of length one.

    Raises:
        ValueError: for input with fewer than three axes.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.GlobalMeanPool()(jnp.ones((2, 7, 7, 3))).shape
        (2, 1, 1, 3)
    """

    def __call__(self, x: Any) -> jax.Array:
        return _places(self, as_input(self, x)).mean(1)

    def _arguments(self) -> list[tuple[str, Any]]:
        return []


def _places(layer: Any, x: Any) -> jax.Array:
    """`(N, H, W, C)` as `(N, H W, 1, 1, C)`, so that a reduction of axis 1 leaves the rest."""
    x = as_array(layer, x)
    if x.ndim < 3 or 0 in x.shape[1:-1]:
        raise unfit(
            layer, f"expects input of shape (N, …, C) with axes of space between, got {short(x)}"
        )
    ones = (1,) * (x.ndim - 2)
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), *ones, x.shape[-1])


def flatten(x: Any) -> jax.Array:
    """All axes but the first as one: `(N, …)` becomes `(N, features)`.

    >>> import jax.numpy as jnp
    >>> flatten(jnp.ones((5, 4, 3, 2))).shape
    (5, 24)

    Raises:
        ValueError: for a single number.
    """
    x = as_array(flatten, x)
    if x.ndim == 0:
        raise unfit(flatten, "expects an array with a batch axis, got a single number")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
