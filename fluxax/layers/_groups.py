"""Normalisation within an observation: GroupNorm, InstanceNorm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from fluxax._activations import identity
from fluxax._errors import short
from fluxax._half import wide
from fluxax._module import is_training
from fluxax.init import ones32, zeros32
from fluxax.layers._norm import (
    TrackedNorm,
    WideNorm,
    batch_mode,
    moments,
    norm_arguments,
    normalised,
    number,
    track,
)
from fluxax.layers._place import unfit
from fluxax.layers._shapes import function, whole


class GroupNorm(WideNorm):
    """Normalise groups of channels of every observation, over the places of an image too.

        y = activation(scale (x - mean) / √(var + eps) + bias)

    Args:
        ch: number of channels, the last axis of the input.
        groups: in how many groups of neighbours they are split; it divides `ch`.
        activation: a function of an array.
        affine: whether there are `scale` and `bias`, one for each channel.
        eps: added to the variance (without correction), ≥ 0.

    Raises:
        ValueError: where `groups` does not divide `ch`, or for input of another shape.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.GroupNorm(6, 2)(jnp.ones((5, 8, 8, 6))).shape
        (5, 8, 8, 6)

    Reference: Wu & He 2018, arXiv:1803.08494.
    """

    def __init__(
        self,
        ch: int,
        groups: int,
        activation: Callable[..., Any] = identity,
        *,
        affine: bool = True,
        eps: float = 1e-5,
    ):
        self.ch = whole("GroupNorm", "ch", ch)
        self.groups = whole("GroupNorm", "groups", groups)
        if ch % groups:
            raise ValueError(f"GroupNorm expects groups to divide ch={ch}, got groups={groups}.")
        self.activation = function("GroupNorm", activation)
        self.scale = ones32(ch) if affine else None
        self.bias = zeros32(ch) if affine else None
        self.eps = number("GroupNorm", "eps", eps)

    def __call__(self, x: Any) -> jax.Array:
        x = self.as_channels(x, 2)
        parts = x.reshape(*x.shape[:-1], self.groups, self.ch // self.groups)
        axes = (*range(1, x.ndim - 1), x.ndim)
        mean, var = (
            m.repeat(self.ch // self.groups, -1).reshape(-1, *(1,) * (x.ndim - 2), self.ch)
            for m in moments(parts, axes)
        )
        return normalised(self, x, mean, var)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.ch), ("", self.groups), *norm_arguments(self, affine=True)]


class InstanceNorm(TrackedNorm):
    """Normalise every channel of every observation over the places of the image.

        y = activation(scale (x - mean) / √(var + eps) + bias)

    Args:
        ch: number of channels, the last axis of the input `(N, …, ch)`.
        activation: a function of an array.
        affine: whether there are `scale` and `bias`.
        track_stats: whether there are running statistics, means over the batch, which test mode
            uses, as in BatchNorm.
        options: `eps`, `momentum`, `init_scale`, `init_bias` and `active` as in BatchNorm.

    Raises:
        ValueError: for arguments out of range, input of another shape or with a single place.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.InstanceNorm(6)(jnp.ones((5, 8, 8, 6))).shape
        (5, 8, 8, 6)

    Reference: Ulyanov et al. 2016, arXiv:1607.08022.
    """

    def __init__(
        self,
        ch: int,
        activation: Callable[..., Any] = identity,
        *,
        affine: bool = False,
        track_stats: bool = False,
        **options: Any,
    ):
        super().__init__(ch, activation, affine=affine, track_stats=track_stats, **options)

    def __call__(self, x: Any) -> jax.Array:
        x = self.as_channels(x, 3)
        if not batch_mode(self):
            return normalised(self, x, wide(self.mean), wide(self.var))
        n = math.prod(x.shape[1:-1])
        if n <= 1:
            raise unfit(self, f"expects more than one place per image, got {short(x)}")
        mean, var = moments(x, tuple(range(1, x.ndim - 1)), keepdims=True)
        if self.mean is not None and is_training(self) and len(x):
            every = tuple(range(x.ndim - 1))
            track(self, mean.mean(every), (var * (n / (n - 1))).mean(every))
        return normalised(self, x, mean, var)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.ch), *norm_arguments(self, affine=False, track_stats=False)]
