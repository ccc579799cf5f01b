"""Convolution, with the batch first and the channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from fluxax._activations import identity
from fluxax._errors import short
from fluxax._module import Module
from fluxax.init import glorot_uniform
from fluxax.kernels import AXES as AXES  # also for the transposed ones
from fluxax.kernels import conv
from fluxax.layers._dense import tail
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import (
    Pads,
    as_input,
    channels_advice,
    drawn,
    floating,
    function,
    offset,
    pads,
    per_axis,
    whole,
    window,
)


class Conv(Module):
    """Convolution over one, two or three axes.

        y[n, p, o] = activation(Σ x[n, stride p + dilation k - pad, i] W[k, i, o] + b[o])

    summed over the places `k` of the kernel and the channels `i` of the group of `o`.

    Args:
        kernel: its sizes, `(3, 3)` for images. Input is then `(N, H, W, in)`. Or the weights `W`
            themselves, `(*kernel, in // groups, out)`.
        in_: number of input channels; with given weights the bias, as below.
        out: number of output channels; with given weights the activation.
        activation: a function of an array.
        stride: a number, or one per axis.
        pad: zeros at the borders: a number, one per axis, two per axis (low, high, …), or
            `"same"`, with which stride 1 keeps the size.
        dilation: distance of the places that a kernel looks at; a number, or one per axis.
        groups: in how many parts the channels are split; it divides `in` and `out`.
        bias: whether there is one, or the array of shape `(out,)`. It starts at zero.
        init: initialiser of the weights, `init(*kernel, in // groups, out)`.
        flipkernel: whether the kernel is reversed first, as in mathematics and in Flux. Without
            it this is a cross-correlation, as every Python library's.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for sizes out of range, groups that do not divide, input of another shape
            or without a batch axis.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> layer = fx.Conv((5, 5), 3, 7, fx.relu, stride=2, pad=2)
        >>> layer
        Conv((5, 5), 3, 7, relu, stride=2, pad=2)
        >>> layer(jnp.ones((10, 32, 32, 3))).shape
        (10, 16, 16, 7)
        >>> fx.Conv(jnp.ones((2, 1, 1)), jnp.array([5.0]))(jnp.ones((1, 3, 1))).ravel().tolist()
        [7.0, 7.0]

    `"same"` puts what does not divide by two at the high side, as PyTorch does (Flux: low).
    """

    def __init__(
        self,
        kernel: Any,
        in_: Any = True,
        out: Any = identity,
        activation: Callable[..., Any] = identity,
        *,
        stride: Any = 1,
        pad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: Any = True,
        init: Callable[..., Any] = glorot_uniform,
        flipkernel: bool = False,
        rng: Any = None,
    ):
        who = type(self).__name__
        self.groups = whole(who, "groups", groups)
        if hasattr(kernel, "shape"):
            self.weight, bias, activation = given_weights(who, kernel, in_, out, bias, activation)
            *kernel, n_in, n_out = self.weight.shape
            kernel, n_in = tuple(kernel), n_in * groups
            check_groups(who, n_in, n_out, groups)
        else:
            kernel, n_in, n_out = given_sizes(who, kernel, in_, out)
            check_groups(who, n_in, n_out, groups)
            self.weight = drawn(who, init, (*kernel, n_in // groups, n_out), rng)
        self.bias = offset(f"{who}({kernel}, {n_in}, {n_out})", bias, (n_out,), self.weight)
        self.activation = function(who, activation)
        self.stride = per_axis(who, "stride", stride, len(kernel))
        self.dilation = per_axis(who, "dilation", dilation, len(kernel))
        self.pad = pads(who, pad, kernel, self.dilation)
        self.flipkernel = bool(flipkernel)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x, self.weight)
        check_image(self, x, self.weight.shape[-2] * self.groups, self.weight.ndim - 2)
        kernel = self.weight.shape[:-2]
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, self.dilation, strict=True)]
        check_reach(self, x, reach, self.pad)
        weight = self.weight
        if self.flipkernel:
            weight = lax.rev(weight, range(len(kernel)))
        y = conv(x, weight, self.bias, self.stride, self.pad, self.dilation, self.groups)
        return self.activation(y)

    def _arguments(self) -> list[tuple[str, Any]]:
        *kernel, n_in, n_out = self.weight.shape
        shown = [("", tuple(kernel)), ("", n_in * self.groups), ("", n_out)]
        return shown + tail(self.activation, self.bias) + options(self)


def given_sizes(who: str, kernel: Any, in_: Any, out: Any) -> tuple[tuple[int, ...], int, int]:
    """`(kernel, in, out)`, checked."""
    kernel = window(who, "kernel", kernel)
    if in_ is True or out is identity:
        raise TypeError(
            f"{who} expects its channels too, {who}(kernel, in, out), got only {kernel}."
        )
    return kernel, whole(who, "in", in_), whole(who, "out", out)


def given_weights(
    who: str, weight: Any, in_: Any, out: Any, bias: Any, activation: Any
) -> tuple[jax.Array, Any, Any]:
    """`(weight, bias, activation)`, as the constructor's first arguments or as keywords."""
    if not 3 <= np.ndim(weight) <= 5:
        raise ValueError(f"{who} expects weights of three to five axes, got {short(weight)}.")
    if (in_ is not True and bias is not True) or (
        out is not identity and activation is not identity
    ):
        raise TypeError(f"{who} expects one bias and one activation, got two.")
    return floating(weight), bias if in_ is True else in_, activation if out is identity else out


def options(layer: Any) -> list[tuple[str, Any]]:
    """How a kernel or window moves, for printing: what is not the default, as short as possible."""
    shown = []
    for what, default in (("stride", 1), ("pad", 0), ("dilation", 1), ("groups", 1)):
        value = getattr(layer, what, default)
        value = short_pad(value) if what == "pad" else collapsed(value)
        if value != default:
            shown.append((what, value))
    return [*shown, ("flipkernel", True)] if getattr(layer, "flipkernel", False) else shown


def collapsed(value: Any) -> Any:
    """A tuple of equal values as one of them."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def short_pad(pad: Any) -> Any:
    """Padding as one would write it: a number, one per axis, or two per axis."""
    if not isinstance(pad, tuple):
        return pad
    if all(low == high for low, high in pad):
        return collapsed(tuple(low for low, _ in pad))
    return tuple(n for pair in pad for n in pair)


def check_groups(who: str, n_in: int, n_out: int, groups: int) -> None:
    """Groups must divide the channels."""
    for what, n in (("in", n_in), ("out", n_out)):
        if n % groups:
            raise ValueError(f"{who} expects groups to divide {what}={n}, got groups={groups}.")


def check_image(layer: Any, x: Any, channels: int | None, n: int) -> None:
    """Input must be `(N, …, channels)` with `n` axes between; the likely cause is named."""
    last = "C" if channels is None else channels
    expected = f"(N, {', '.join('DHW'[3 - n :])}, {last})"
    if x.ndim == n + 1:
        one = channels == 1 and x.shape[-1] != 1
        add = "channel axis, x[..., None]" if one else "batch axis, x[None]"
        raise refuse(layer, expected, x, f"Add a {add}.")
    if x.ndim != n + 2:
        raise refuse(layer, expected, x)
    if channels is not None and x.shape[-1] != channels:
        raise refuse(layer, expected, x, channels_advice(x, channels))


def check_reach(layer: Any, x: Any, reach: Any, pad: Pads) -> None:
    """The kernel, spread by its dilation, must fit into the padded input."""
    room = [s + low + high for s, (low, high) in zip(x.shape[1:-1], pad, strict=True)]
    if any(r > s for r, s in zip(reach, room, strict=True)):
        sizes = " by ".join(map(str, reach))
        raise unfit(layer, f"expects at least {sizes} places with padding, got {short(x)}")
