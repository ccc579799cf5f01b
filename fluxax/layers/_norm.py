"""Normalisation over the batch or over features: BatchNorm, LayerNorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._activations import identity
from fluxax._errors import short
from fluxax._half import is_half, like, wide
from fluxax._module import Module, is_training, run
from fluxax.init import ones32, zeros32
from fluxax.kernels import batchnorm, settled
from fluxax.layers._dropout import mode
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import (
    as_input,
    axes_of,
    channels_advice,
    drawn,
    function,
    sizes,
    whole,
)


class WideNorm(Module):
    """A norm whose arrays stay in float32 where a model is converted to half precision.

    Input in half precision comes out in half precision. As Flux, and cuDNN, have it.
    """

    ch: int
    scale: Any

    def as_channels(self, x: Any, axes: int) -> jax.Array:
        """Input with at least so many axes, the last of them the channels; half stays half."""
        half = is_half(x) and getattr(self.scale, "dtype", None) == jnp.float32
        x = as_input(self, x, None if half else self.scale)
        check_real(self, x)
        if x.ndim < axes or x.shape[-1] != self.ch:
            raise refuse(self, f"(N, …, {self.ch})", x, channels_advice(x, self.ch))
        return x


class TrackedNorm(WideNorm):
    """What BatchNorm and InstanceNorm share: scale and bias, running statistics, a mode."""

    trainable = ("scale", "bias")

    def __init__(
        self,
        ch: int,
        activation: Callable[..., Any] = identity,
        *,
        affine: bool = True,
        track_stats: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
        init_scale: Callable[..., Any] = ones32,
        init_bias: Callable[..., Any] = zeros32,
        active: bool | None = None,
    ):
        who = type(self).__name__
        self.ch = whole(who, "ch", ch)
        self.activation = function(who, activation)
        self.scale = drawn(who, init_scale, (ch,)) if affine else None
        self.bias = drawn(who, init_bias, (ch,)) if affine else None
        self.mean = zeros32(ch) if track_stats else None
        self.var = ones32(ch) if track_stats else None
        self.eps = number(who, "eps", eps)
        self.momentum = number(who, "momentum", momentum, 1)
        self.active = mode(who, active)


class BatchNorm(TrackedNorm):
    """Normalise every channel over the batch.

        y = activation(scale (x - mean) / √(var + eps) + bias)

    In train mode `mean` and `var` are those of the batch (the variance without correction), and
    the layer's running ones take a step towards them (with correction, `n / (n - 1)`):
    `new = (1 - momentum) old + momentum batch`. In test mode the running ones are used.

    Args:
        ch: number of channels, the last axis of the input.
        activation: a function of an array.
        affine: whether there are `scale` and `bias`.
        track_stats: whether there are running statistics; without, every mode uses the batch's.
        eps: added to the variance, ≥ 0.
        momentum: how far the running statistics go, in [0, 1].
        init_scale: initialiser of `scale`.
        init_bias: initialiser of `bias`.
        active: `True` for train mode, `False` for test mode whatever happens, `None` for train
            mode inside `gradient`, `train`, `trainstep` and test mode outside.

    Raises:
        ValueError: for arguments out of range, input of another shape, or in train mode a batch
            with a single value per channel.
        TypeError: where an argument is of the wrong kind.

    Below a frozen node the running statistics are used and kept, unless train mode was set by
    hand.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> layer = fx.BatchNorm(3, fx.relu)
        >>> layer(jnp.ones((5, 28, 28, 3))).shape
        (5, 28, 28, 3)
        >>> print(layer)
        BatchNorm(3, relu)  # 6 parameters, plus 6 non-trainable

    Reference: Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithms 1 and 2.
    """

    def __call__(self, x: Any) -> jax.Array:
        x = settled(self.as_channels(x, 2))
        mean, var = statistics(self, x, tuple(range(x.ndim - 1)))
        if batch_mode(self) and self.scale is not None:
            w = wide(x)
            scale, bias = jnp.asarray(self.scale, w.dtype), jnp.asarray(self.bias, w.dtype)
            y = batchnorm(w, scale, bias, self.eps)
            return self.activation(y.astype(x.dtype))
        return normalised(self, x, mean, var)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.ch), *norm_arguments(self, affine=True, track_stats=True)]


def check_real(layer: Any, x: Any) -> None:
    """Numbers that have a variance, as running statistics keep it."""
    if jnp.iscomplexobj(x):
        raise unfit(layer, f"expects real numbers, got {short(x)}")


def number(who: str, what: str, value: Any, most: float = float("inf")) -> float:
    """A number from zero to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{who} expects {what} to be a number, got {short(value)}.")
    if not 0 <= value <= most:
        bound = "at least 0" if most == float("inf") else f"from 0 to {most}"
        raise ValueError(f"{who} expects {what} {bound}, got {value}.")
    return float(value)


def batch_mode(layer: Any) -> bool:
    """Whether a layer normalises with its input's own statistics and tracks them."""
    if id(layer) in run.frozen and layer.active is not True:
        return layer.mean is None
    return layer.mean is None or is_training(layer)


def statistics(layer: Any, x: jax.Array, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and variance of each channel, the batch's or the stored ones; tracks the batch's."""
    if not batch_mode(layer):
        return wide(layer.mean), wide(layer.var)
    n = x.size // max(1, layer.ch)
    if n <= 1:
        why = "in train mode" if is_training(layer) else "where it keeps no statistics"
        raise unfit(
            layer,
            f"expects more than one value per channel {why}, got {short(x)}",
            "Use a larger batch (DataLoader(..., partial=False) drops a short last one), "
            "or fx.testmode.",
        )
    mean, var = moments(x, axes)
    if layer.mean is not None and is_training(layer):
        track(layer, mean, var * (n / (n - 1)))
    return mean, var


def moments(x: jax.Array, axes: tuple[int, ...], keepdims: bool = False) -> tuple[Any, Any]:
    """Mean and uncorrected variance, in single precision at least."""
    x = wide(x)
    mean = x.mean(axes, keepdims=True)
    var = lax.square(x - mean).mean(axes, keepdims=True)
    return (mean, var) if keepdims else (mean.squeeze(axes), var.squeeze(axes))


def track(layer: Any, mean: Any, var: Any) -> None:
    """Move the stored statistics towards those of a batch."""
    step = layer.momentum
    for name, new in (("mean", mean), ("var", var)):
        old = getattr(layer, name)
        new = lax.stop_gradient(new).astype(old.dtype)
        setattr(layer, name, (1 - step) * old + step * new)


def normalised(layer: Any, x: jax.Array, mean: Any, var: Any) -> jax.Array:
    """`activation(scale (x - mean) / √(var + eps) + bias)`, in the input's type."""
    factor = lax.rsqrt(var + layer.eps)
    if layer.scale is not None:
        y = (x - mean) * (factor * layer.scale) + layer.bias
    else:
        y = (x - mean) * factor
    return layer.activation(settled(y.astype(x.dtype)))


def normalise(x: Any, axis: Any = 0, *, eps: float = 1e-5) -> jax.Array:
    """Mean zero and variance one along an axis: `(x - mean) / √(var + eps)`.

    Args:
        x: numbers of any shape.
        axis: along which mean and variance (without correction) are taken, or several axes. The
            batch's, if not given, as in Flux, whose last axis that is.
        eps: added to the variance, ≥ 0.

    Raises:
        ValueError: for an axis that `x` does not have.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.normalise(jnp.array([[1.0], [3.0]]), eps=0.0).ravel().tolist()
        [-1.0, 1.0]
    """
    x = as_input(normalise, x)
    check_real(normalise, x)
    eps = number("normalise", "eps", eps)
    mean, var = moments(x, axes_of("normalise", axis, x.ndim), keepdims=True)
    return like(x, (wide(x) - mean) * lax.rsqrt(var + eps))


def norm_arguments(layer: Any, **defaults: bool) -> list[tuple[str, Any]]:
    """The arguments that normalisation layers end with, left out where they are the default."""
    shown = [] if layer.activation is identity else [("", layer.activation)]
    tracks = getattr(layer, "mean", None) is not None
    now = {"affine": layer.scale is not None, "track_stats": tracks}
    shown += [(name, now[name]) for name, default in defaults.items() if now[name] != default]
    if layer.eps != 1e-5:
        shown.append(("eps", layer.eps))
    if getattr(layer, "momentum", 0.1) != 0.1:
        shown.append(("momentum", layer.momentum))
    active = getattr(layer, "active", None)
    return shown if active is None else [*shown, ("active", active)]


class LayerNorm(Module):
    """Normalise every observation over its last axes.

        y = activation(scale (x - mean) / √(var + eps) + bias)

    Args:
        size: the sizes of the last axes of the input, over which `mean` and `var` (without
            correction) are taken; the last may be the activation, `LayerNorm(64, relu)`.
        activation: a function of an array.
        affine: whether there are `scale` and `bias`, of shape `size`.
        eps: added to the variance, ≥ 0.

    Raises:
        ValueError: for arguments out of range, or input of another shape.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> y = fx.LayerNorm(4)(jnp.arange(8.0).reshape(2, 4))
        >>> y.mean(-1).round(3).tolist(), y.std(-1).round(3).tolist()
        ([0.0, 0.0], [1.0, 1.0])

    Reference: Ba et al. 2016, arXiv:1607.06450. As PyTorch and the newest Flux; Flux 0.13 adds
    `eps` to the standard deviation.
    """

    def __init__(
        self,
        *size: Any,
        activation: Callable[..., Any] = identity,
        affine: bool = True,
        eps: float = 1e-5,
    ):
        self.size, self.activation = sizes("LayerNorm", size, activation)
        self.scale = ones32(*self.size) if affine else None
        self.bias = zeros32(*self.size) if affine else None
        self.eps = number("LayerNorm", "eps", eps)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x, self.scale)
        check_real(self, x)
        n = len(self.size)
        if x.shape[max(0, x.ndim - n) :] != self.size:
            raise refuse(self, f"(…, {', '.join(map(str, self.size))})", x)
        x = settled(x)
        mean, var = moments(x, tuple(range(x.ndim - n, x.ndim)), keepdims=True)
        return normalised(self, x, mean, var)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", n) for n in self.size] + norm_arguments(self, affine=True)
