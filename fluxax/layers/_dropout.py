"""Dropout: layers that are random while a model trains."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.random import bits, key_data, split, wrap_key_data

from fluxax._draws import Draws, source, words
from fluxax._elementwise import key_from
from fluxax._errors import short
from fluxax._half import like, wide
from fluxax._jax import is_tracer
from fluxax._module import Module, is_training
from fluxax.layers._place import unfit
from fluxax.layers._shapes import as_input, flux_dims, several_axes


class Dropout(Module):
    """In train mode, zero each value with probability `p` and scale the others by `1 / (1 - p)`.

    Args:
        p: in [0, 1]. With 0 everything passes, with 1 nothing.
        axis: the axes along which the choice is made anew, an int or several; all, if not
            given. Along other axes it is the same: `axis=(0, 3)` drops whole channels of images.
        dims: another word for `axis`, Flux's.
        rng: an int, a NumPy generator or a JAX key for the random stream. Without one, it comes
            from `fx.seed`; either is drawn when the layer is made.
        active: `True` for train mode, `False` for test mode whatever happens, `None` for train
            mode inside `gradient`, `train`, `trainstep` and test mode outside.

    Raises:
        ValueError: for `p` out of range, an axis that input does not have, integer input.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> layer = fx.Dropout(0.5, rng=0)
        >>> layer(jnp.ones(4)).tolist()
        [1.0, 1.0, 1.0, 1.0]
        >>> with fx.trainmode(layer):
        ...     sorted(set(layer(jnp.ones(100)).tolist()))
        [0.0, 2.0]

    `stream` is the state of the random stream; every call in train mode moves it on.

    Reference: Srivastava et al. 2014, JMLR 15, 1929.
    """

    _unlisted = ("stream",)  # of no interest where a model is printed

    def __init__(
        self,
        p: float,
        *,
        axis: int | tuple[int, ...] | None = None,
        dims: int | tuple[int, ...] | None = None,
        rng: Any = None,
        active: bool | None = None,
    ):
        self.p = probability("Dropout", p)
        axis = flux_dims("Dropout", axis, dims)
        self.dims = None if axis is None else several_axes("Dropout", axis)
        self.active = mode("Dropout", active)
        self.stream = words(rng)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x)
        shape = _mask_shape(self, x, self.dims)
        if not is_training(self) or self.p == 0:
            return x
        return dropped(x, keep(self, shape), self.p)

    def _arguments(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("", self.p)]
        if self.dims is not None:
            shown.append(("axis", self.dims))
        return shown if self.active is None else [*shown, ("active", self.active)]


def probability(who: str, p: Any) -> float:
    """`p` as a float in [0, 1]."""
    if isinstance(p, bool) or not isinstance(p, (int, float, np.number)):
        raise TypeError(f"{who} expects p to be a number, got {short(p)}.")
    if not 0 <= p <= 1:
        raise ValueError(f"{who} expects p from 0 to 1, got {p}.")
    return float(p)


def mode(who: str, active: Any) -> bool | None:
    """The mode that a layer is made with."""
    if active is None or isinstance(active, bool):
        return active
    raise ValueError(f"{who} expects active to be True, False or None, got {short(active)}.")


def keep(layer: Any, shape: tuple[int, ...]) -> jax.Array:
    """Which values stay, each with probability `1 - p`; moves the layer's stream on."""
    later, now = split(wrap_key_data(layer.stream, impl="threefry2x32"))
    layer.stream = key_data(later)
    return _kept(now, shape, layer.p)


def _kept(key: Any, shape: tuple[int, ...], p: float) -> jax.Array:
    if p == 1:
        return jnp.zeros(shape, bool)
    # Fewer random bits where they are enough: a chance of n / 256 needs eight, not 32.
    width = 8 if (p * 256).is_integer() else 32
    threshold = np.asarray(math.floor(p * 2**width), f"uint{width}")
    return bits(key, shape, threshold.dtype) >= threshold


def dropped(x: jax.Array, kept: jax.Array, p: float) -> jax.Array:
    """What is kept, larger by as much as is lost."""
    scale = 0.0 if p == 1 else 1 / (1 - p)
    return like(x, jnp.where(kept, wide(x) * scale, 0))


def _mask_shape(layer: Any, x: jax.Array, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    if axes is None:
        return x.shape
    wrong = [axis for axis in axes if not -x.ndim <= axis < x.ndim]
    if wrong:
        raise unfit(layer, f"expects input with an axis {wrong[0]}, got {short(x)}")
    chosen = {axis % x.ndim for axis in axes}
    return tuple(n if axis in chosen else 1 for axis, n in enumerate(x.shape))


def dropout(
    x: Any, p: float, *, axis: Any = None, active: bool = True, rng: Any = None
) -> jax.Array:
    """Zero each value with probability `p` and scale the others by `1 / (1 - p)`, now.

    Args:
        x: numbers of any shape.
        p: in [0, 1]. With 0 everything passes, with 1 nothing.
        axis: the axes along which the choice is made anew, as in Dropout.
        active: whether anything is done at all.
        rng: an int, a NumPy generator or a JAX key. Without one, the choice comes from the stream
            that `fx.seed` fixes, in an objective too; in a `jax.jit` of somebody's own, where
            nothing can be drawn anew, from the bits of `x`: other input, another choice.

    Raises:
        ValueError: for `p` out of range, an axis that `x` does not have, integer input.

    The layer `Dropout` knows the mode and has a stream of its own: prefer it in models.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> sorted(set(fx.dropout(jnp.ones(100), 0.5, rng=0).tolist()))
        [0.0, 2.0]
    """
    x, p = as_input(dropout, x), probability("dropout", p)
    axes = None if axis is None else several_axes("dropout", axis)
    shape = _mask_shape(dropout, x, axes)
    if not active or p == 0:
        return x
    if rng is None:
        drawn = source()
        rng = drawn.key() if isinstance(drawn, Draws) else None if is_tracer(x) else drawn
    return dropped(x, _kept(key_from(rng, x), shape, p), p)


class AlphaDropout(Module):
    """Dropout that keeps mean and variance of what `selu` gives.

        y = a x + b  where kept,  y = a α + b  where dropped

    with `α = -1.7581`, `a = 1 / √((1 - p)(1 + p α²))`, `b = -a α p`; in train mode only.

    Args:
        p: the chance to be dropped, in [0, 1]; with 1 the output is zero.
        rng: an int, a NumPy generator or a JAX key for the random stream, as in Dropout.
        active: as in Dropout.

    Raises:
        ValueError: for `p` out of range, integer input.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.AlphaDropout(0.5)(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]

    Reference: Klambauer et al. 2017, arXiv:1706.02515, section "New dropout technique".
    """

    _unlisted = ("stream",)

    def __init__(self, p: float, *, rng: Any = None, active: bool | None = None):
        self.p = probability("AlphaDropout", p)
        self.active = mode("AlphaDropout", active)
        self.stream = words(rng)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x)
        if not is_training(self) or self.p == 0:
            return x
        if self.p == 1:
            return jnp.where(keep(self, x.shape), x, 0)
        alpha = -1.7580993408473766
        a = 1 / math.sqrt((1 - self.p) * (1 + self.p * alpha**2))
        return like(x, jnp.where(keep(self, x.shape), wide(x), alpha) * a - a * alpha * self.p)

    def _arguments(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("", self.p)]
        return shown if self.active is None else [*shown, ("active", self.active)]
