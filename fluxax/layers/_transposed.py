"""Relatives of Conv: transposed, depthwise, by its name in Flux."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._activations import identity
from fluxax._errors import short
from fluxax._module import Module
from fluxax.init import glorot_uniform
from fluxax.kernels import of_one_type
from fluxax.layers._conv import (
    AXES,
    Conv,
    check_groups,
    check_image,
    collapsed,
    given_sizes,
    given_weights,
    options,
)
from fluxax.layers._dense import tail
from fluxax.layers._place import unfit
from fluxax.layers._shapes import (
    as_input,
    drawn,
    function,
    offset,
    pads,
    per_axis,
    unit,
    whole,
)


class ConvTranspose(Module):
    """The transpose of Conv as a linear map: with a stride, images grow.

        y[n, stride p + dilation k - pad, o] gets x[n, p, i] W[k, i, o]

    for every place `p` and `k`; then `activation(y + bias)`. An axis of length `n` gets
    `(n - 1) stride + dilation (kernel - 1) + 1 - pad + outpad`.

    Args:
        kernel: its sizes, `(3, 3)` for images. Input is then `(N, H, W, in)`. Or the weights `W`
            themselves, `(*kernel, in, out // groups)`.
        in_: number of input channels; with given weights the bias, as below.
        out: number of output channels; with given weights the activation.
        activation: a function of an array.
        stride: a number, or one per axis.
        pad: how much is cut off at the borders: a number, one per axis, two per axis
            (low, high, …), or `"same"`, with which `n` becomes `n stride`: the transpose of a
            Conv with `"same"`.
        outpad: places added at the high side, a number or one per axis.
        dilation: a number, or one per axis.
        groups: in how many parts the channels are split; it divides `in` and `out`.
        bias: whether there is one, or the array of shape `(out,)`. It starts at zero.
        init: initialiser of the weights, `init(*kernel, in, out // groups)`.
        flipkernel: as in Conv.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for sizes out of range, groups that do not divide, input of another shape.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.ConvTranspose((5, 5), 3, 7, fx.relu, stride=2)(jnp.ones((10, 8, 8, 3))).shape
        (10, 19, 19, 7)
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
        outpad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: Any = True,
        init: Callable[..., Any] = glorot_uniform,
        flipkernel: bool = False,
        rng: Any = None,
    ):
        who = "ConvTranspose"
        self.groups = whole(who, "groups", groups)
        if hasattr(kernel, "shape"):
            self.weight, bias, activation = given_weights(who, kernel, in_, out, bias, activation)
            *kernel, n_in, n_out = self.weight.shape
            kernel, n_out = tuple(kernel), n_out * groups
            check_groups(who, n_in, n_out, groups)
        else:
            kernel, n_in, n_out = given_sizes(who, kernel, in_, out)
            check_groups(who, n_in, n_out, groups)
            self.weight = drawn(who, init, (*kernel, n_in, n_out // groups), rng)
        self.bias = offset(f"{who}({kernel}, {n_in}, {n_out})", bias, (n_out,), self.weight)
        self.activation = function(who, activation)
        self.stride = per_axis(who, "stride", stride, len(kernel))
        self.dilation = per_axis(who, "dilation", dilation, len(kernel))
        self.outpad = per_axis(who, "outpad", outpad, len(kernel), least=0)
        self.pad = self._pads(pad, kernel)
        self.flipkernel = bool(flipkernel)

    def _pads(self, pad: Any, kernel: tuple[int, ...]) -> Any:
        if not (isinstance(pad, str) and pad.lower() == "same"):
            return pads("ConvTranspose", pad, kernel, self.dilation)
        # What Conv adds at the low side is cut off there. The high side may be below zero: then
        # the output is longer than what the kernel reaches.
        added = pads("ConvTranspose", pad, kernel, self.dilation)
        return tuple((low, high + 1 - s) for (low, high), s in zip(added, self.stride, strict=True))

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x, self.weight)
        n = self.weight.ndim - 2
        check_image(self, x, self.weight.shape[-2], n)
        spread = [d * (k - 1) for k, d in zip(self.weight.shape, self.dilation, strict=False)]
        padding = [
            (s - low, s - high + extra)
            for s, (low, high), extra in zip(spread, self.pad, self.outpad, strict=True)
        ]
        sizes = [
            (size - 1) * stride + 1 + low + high - reach
            for size, stride, (low, high), reach in zip(
                x.shape[1:-1], self.stride, padding, spread, strict=True
            )
        ]
        if min(sizes) < 1:
            raise unfit(self, f"expects a larger image for its padding, got {short(x)}")
        x, weight = of_one_type(x, self.weight)
        weight = weight if self.flipkernel else lax.rev(weight, range(n))
        y = lax.conv_general_dilated(
            x,
            self._by_group(weight),
            (1,) * n,
            padding,
            lhs_dilation=self.stride,
            rhs_dilation=self.dilation,
            dimension_numbers=AXES[n],
            feature_group_count=self.groups,
        )
        return unit(y, self.bias, self.activation)

    def _by_group(self, weight: jax.Array) -> jax.Array:
        """`(…, in, out // groups)` as `(…, in // groups, out)`, which the convolution wants."""
        *kernel, n_in, n_out = weight.shape
        parts = weight.reshape(*kernel, self.groups, n_in // self.groups, n_out)
        parts = jnp.moveaxis(parts, -3, -2)
        return parts.reshape(*kernel, n_in // self.groups, self.groups * n_out)

    def _arguments(self) -> list[tuple[str, Any]]:
        *kernel, n_in, n_out = self.weight.shape
        shown = [("", tuple(kernel)), ("", n_in), ("", n_out * self.groups)]
        moves = options(self)
        if np.min(self.pad) < 0:  # which only "same" gives
            moves = [(what, "same" if what == "pad" else value) for what, value in moves]
        shown += tail(self.activation, self.bias) + moves
        return [*shown, ("outpad", collapsed(self.outpad))] if any(self.outpad) else shown


class DepthwiseConv(Conv):
    """A Conv in which every input channel has its own kernels: `groups = in`.

    Args:
        kernel: its sizes, `(3, 3)` for images. Weights of your own go to `Conv(W, groups=in)`.
        in_: number of input channels.
        out: number of output channels, a multiple of `in`.
        activation: a function of an array.
        options: what else Conv takes.

    Raises:
        ValueError: where `in` does not divide `out`.

    Example:
        >>> import fluxax as fx
        >>> fx.DepthwiseConv((3, 3), 4, 8, pad=1).weight.shape
        (3, 3, 1, 8)
    """

    def __init__(
        self, kernel: tuple[int, ...], in_: int, out: int, *activation: Any, **options: Any
    ):
        who = type(self).__name__
        if hasattr(kernel, "shape"):
            raise TypeError(
                f"{who} expects kernel as a tuple of sizes, got {short(kernel)}. For weights of "
                "your own write Conv(weights, groups=in)."
            )
        n_in, n_out = whole(who, "in", in_), whole(who, "out", out)
        if n_out % n_in:
            raise ValueError(f"{who} expects in to divide out={n_out}, got in={n_in}.")
        super().__init__(kernel, n_in, n_out, *activation, groups=n_in, **options)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in super()._arguments() if name != "groups"]


class CrossCor(Conv):
    """Cross-correlation by its name in Flux. Here it is what Conv does.

    Args:
        kernel: as in Conv.
        in_: number of input channels.
        out: number of output channels.
        activation: a function of an array.
        options: what else Conv takes, but for `flipkernel`.

    Example:
        >>> import fluxax as fx
        >>> fx.CrossCor((3, 3), 4, 8)
        CrossCor((3, 3), 4, 8)
    """

    def __init__(self, *sizes: Any, **options: Any):
        super().__init__(*sizes, flipkernel=False, **options)
