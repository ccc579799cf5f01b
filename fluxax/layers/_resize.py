"""Layers that choose the size of an image: AdaptiveMaxPool, AdaptiveMeanPool, PixelShuffle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fluxax._errors import short
from fluxax._module import Module
from fluxax.layers._conv import check_image
from fluxax.layers._place import unfit
from fluxax.layers._pool import MaxPool, MeanPool
from fluxax.layers._shapes import as_array, whole, window


def adapted(layer: Any, x: jax.Array) -> dict[str, Any]:
    """Window and stride with which an image gets the size that an adaptive layer wants."""
    check_image(layer, x, None, len(layer.out))
    pairs = list(zip(x.shape[1:-1], layer.out, strict=True))
    if any(n < out for n, out in pairs):
        size = " by ".join(map(str, layer.out))
        raise unfit(layer, f"expects at least {size} places, got {short(x)}")
    stride = tuple(n // out for n, out in pairs)
    moved = zip(pairs, stride, strict=True)
    return {"window": tuple(n - (out - 1) * s for (n, out), s in moved), "stride": stride}


class AdaptivePool(Module):
    """What the two share: the size of the output, and a pool made for each size of input."""

    pool: Callable[..., Callable[[Any], jax.Array]]

    def __init__(self, out: tuple[int, ...]):
        self.out = window(type(self).__name__, "out", out)

    def __call__(self, x: Any) -> jax.Array:
        x = as_array(self, x)
        return type(self).pool(**adapted(self, x))(x)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.out)]


class AdaptiveMaxPool(AdaptivePool):
    """MaxPool with the window that gives an output of the wanted size.

    Args:
        out: sizes of the output, `(7, 7)` for images. Input is `(N, H, W, C)`.

    Raises:
        ValueError: for input that is smaller or has no batch axis.
        TypeError: where an argument is of the wrong kind.

    The stride is `in // out`, the window `in - (out - 1) stride`: equal windows, as in Flux.
    (PyTorch's differ in size where `out` does not divide `in`.)

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.AdaptiveMaxPool((7, 7))(jnp.ones((2, 30, 29, 3))).shape
        (2, 7, 7, 3)
    """

    pool = MaxPool


class AdaptiveMeanPool(AdaptivePool):
    """MeanPool with the window that gives an output of the wanted size.

    Args:
        out: sizes of the output, `(7, 7)` for images. Input is `(N, H, W, C)`.

    Raises:
        ValueError: for input that is smaller or has no batch axis.
        TypeError: where an argument is of the wrong kind.

    Windows are as in AdaptiveMaxPool.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.AdaptiveMeanPool((2,))(jnp.arange(4.0)[None, :, None]).ravel().tolist()
        [0.5, 2.5]
    """

    pool = MeanPool


class PixelShuffle(Module):
    """Turn channels into places: `(N, H, W, r² C)` becomes `(N, r H, r W, C)`.

    Args:
        r: how many times larger every axis of space becomes.

    Raises:
        ValueError: where the channels do not divide, or without a batch axis.

    Of the channels `c r² + i r + j`, `i` counts along H and `j` along W, as in PyTorch; with
    the axes of Flux reversed, this is the order of Flux too. Takes one, two or three axes of space.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.PixelShuffle(2)(jnp.arange(4.0).reshape(1, 1, 1, 4))[0, :, :, 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]

    Reference: Shi et al. 2016, arXiv:1609.05158.
    """

    def __init__(self, r: int):
        self.r = whole("PixelShuffle", "r", r)

    def __call__(self, x: Any) -> jax.Array:
        x = as_array(self, x)
        d, r = x.ndim - 2, self.r
        if not 1 <= d <= 3 or x.shape[-1] % r ** max(d, 1):
            raise unfit(
                self,
                f"expects an image (N, …, C) with channels that r to the power of its "
                f"axes of space divides, got {short(x)}",
            )
        parts = x.reshape(*x.shape[:-1], x.shape[-1] // r**d, *(r,) * d)
        order = [0, *(axis for i in range(d) for axis in (1 + i, d + 2 + i)), d + 1]
        places = jnp.transpose(parts, order)
        return places.reshape(x.shape[0], *(n * r for n in x.shape[1:-1]), x.shape[-1] // r**d)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.r)]
