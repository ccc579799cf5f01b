"""Pooling and flattening: layers without weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import short
from fluxax._half import like, wide
from fluxax._module import Module
from fluxax.layers._containers import first_max
from fluxax.layers._conv import check_image, check_reach, collapsed, short_pad
from fluxax.layers._place import unfit
from fluxax.layers._shapes import Pads, as_array, as_input, pads, per_axis, window

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
        ceil_mode: whether a last window that reaches over the border counts, as in PyTorch.

    Raises:
        ValueError: for sizes out of range, input without a batch axis, or where a window would
            see nothing but padding.
        TypeError: where an argument is of the wrong kind.

    Of several largest values in a window the first gets the derivative.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.MaxPool((2, 2))(jnp.ones((1, 28, 29, 3))).shape
        (1, 14, 14, 3)
    """

    window: tuple[int, ...]
    ceil_mode = False

    def __init__(
        self, window: tuple[int, ...], *, stride: Any = None, pad: Any = 0, ceil_mode: bool = False
    ):
        set_window(self, "MaxPool", window, stride, pad, ceil_mode)

    def __call__(self, x: Any) -> jax.Array:
        x = real_array(self, x)
        pads = padding(self, x)
        check_seen(self, x, pads)
        return like(x, pooled(self, wide(x), pads, lowest(x.dtype), first_max, lax.max))

    def _arguments(self) -> list[tuple[str, Any]]:
        return window_arguments(self)


class MeanPool(Module):
    """The mean of each window; padding counts as zeros, as in Flux.

    Args:
        window: its sizes, `(2, 2)` for images. Input is `(N, H, W, C)`.
        stride: how far the window moves, a number or one per axis; as far as it is long,
            if not given.
        pad: zeros at the borders; as in Conv.
        count_include_pad: whether these zeros count; else the mean is of what lies inside.
        ceil_mode: whether a last window that reaches over the border counts, as in PyTorch. What
            it sees beyond the padding never counts.

    Raises:
        ValueError: for sizes out of range, input without a batch axis, or where a window would
            see nothing that counts.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.MeanPool((2,))(jnp.array([[[1.0], [2.0], [5.0], [6.0]]])).ravel().tolist()
        [1.5, 5.5]
        >>> inside = fx.MeanPool((3,), stride=1, pad=1, count_include_pad=False)
        >>> inside(jnp.array([[[1.0], [2.0], [6.0]]])).ravel().tolist()
        [1.5, 3.0, 4.0]
    """

    window: tuple[int, ...]
    pad: Pads
    ceil_mode, count_include_pad = False, True

    def __init__(
        self,
        window: tuple[int, ...],
        *,
        stride: Any = None,
        pad: Any = 0,
        count_include_pad: bool = True,
        ceil_mode: bool = False,
    ):
        set_window(self, "MeanPool", window, stride, pad, ceil_mode)
        if not count_include_pad:
            self.count_include_pad = False

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x)
        pads = padding(self, x)
        if not self.count_include_pad:
            check_seen(self, x, pads)
        sums = pooled(self, wide(x), pads, 0, jnp.add, lax.add)
        return like(x, sums / self._counts(x, pads))

    def _counts(self, x: jax.Array, pads: Pads) -> Any:
        """How many places of each window count."""
        if self.count_include_pad and pads == self.pad:
            return math.prod(self.window)
        counts: Any = 1
        for n, size, stride, pad, (low, high) in _moves(self, x, pads):
            counted = (low, pad[1]) if self.count_include_pad else (0, 0)
            places = np.pad(
                np.ones(sum(counted) + n), (low - counted[0], max(0, high - counted[1]))
            )
            starts = range(0, low + n + high - size + 1, stride)
            counts = np.multiply.outer(counts, [places[i : i + size].sum() for i in starts])
        return jnp.asarray(counts[..., None], wide(x).dtype)

    def _arguments(self) -> list[tuple[str, Any]]:
        shown = window_arguments(self)
        return shown if self.count_include_pad else [*shown, ("count_include_pad", False)]


def lowest(dtype: Any) -> Any:
    """What is never larger than another value of a type."""
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).min
    return False if jnp.issubdtype(dtype, jnp.bool_) else -np.inf


def set_window(layer: Any, who: str, sizes: Any, stride: Any, pad: Any, ceil_mode: bool) -> None:
    """The attributes that pooling layers share."""
    layer.window = window(who, "window", sizes)
    n = len(layer.window)
    layer.stride = layer.window if stride is None else per_axis(who, "stride", stride, n)
    layer.pad = pads(who, pad, layer.window, (1,) * n)
    if ceil_mode:  # what is not said is not written down
        layer.ceil_mode = True


def window_arguments(layer: Any) -> list[tuple[str, Any]]:
    shown: list[tuple[str, Any]] = [("", layer.window)]
    if layer.stride != layer.window:
        shown.append(("stride", collapsed(layer.stride)))
    shown += [("pad", short_pad(layer.pad))] if np.any(layer.pad) else []
    return [*shown, ("ceil_mode", True)] if layer.ceil_mode else shown


def real_array(layer: Any, x: Any) -> jax.Array:
    """Input whose values have an order."""
    x = as_array(layer, x)
    if jnp.iscomplexobj(x):
        raise unfit(layer, f"expects real numbers, got {short(x)}")
    return x


def padding(layer: Any, x: jax.Array) -> Pads:
    """The padding of a pooling layer for input whose axes are checked here; more in ceil mode."""
    check_image(layer, x, None, len(layer.window))
    if not layer.ceil_mode:
        check_reach(layer, x, layer.window, layer.pad)
        return layer.pad
    found = []
    for n, size, stride, (low, high), _ in _moves(layer, x, layer.pad):
        last = -(-(n + low + high - size) // stride)  # the last window
        last -= last * stride >= low + n  # sees more than what lies behind the input
        found.append((low, max(0, last * stride + size - low - n)))
    check_reach(layer, x, layer.window, tuple(found))
    return tuple(found)


def _moves(layer: Any, x: jax.Array, pads: Pads) -> Iterator[tuple[int, int, int, Any, Any]]:
    """For each axis: its length, the window's size, its stride, the padding said and taken."""
    return zip(x.shape[1:-1], layer.window, layer.stride, layer.pad, pads, strict=True)


def check_seen(layer: Any, x: jax.Array, pads: Pads) -> None:
    """Every window must see some of the input."""
    for n, size, stride, _, (low, high) in _moves(layer, x, pads):
        last = (low + n + high - size) // stride * stride
        if low >= size or last >= low + n:
            raise unfit(
                layer,
                f"expects less padding than that: a window would see nothing of {short(x)}",
            )


def pooled(
    layer: Any,
    x: jax.Array,
    pads: Pads,
    start: Any,
    fold: Callable[[Any, Any], Any],
    reduce: Callable[[Any, Any], Any],
) -> jax.Array:
    """One value for each window, axis after axis, the last first: so the first in a row wins."""
    for i in reversed(range(len(layer.window))):
        size, stride, pad = layer.window[i], layer.stride[i], pads[i]
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
        x = _places(self, real_array(self, x))
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
