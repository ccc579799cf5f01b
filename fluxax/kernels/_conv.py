"""Convolution, channels last."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import lax

from fluxax.kernels._choice import chosen
from fluxax.kernels._dense import dense
from fluxax.kernels._settled import settled

#: How the axes of input, weights and output are called for one, two and three of space.
AXES = {n: ("N" + s + "C", s + "IO", "N" + s + "C") for n, s in enumerate(("W", "HW", "DHW"), 1)}


def plain_conv(
    x: Any, w: Any, b: Any, stride: Any, pad: Any, dilation: Any, groups: int
) -> jax.Array:
    """The convolution as XLA has it, and an offset."""
    y = lax.conv_general_dilated(
        x,
        w,
        stride,
        pad,
        rhs_dilation=dilation,
        dimension_numbers=AXES[w.ndim - 2],
        feature_group_count=groups,
    )
    return y if b is None else y + b


def conv(
    x: jax.Array, w: jax.Array, b: Any, stride: Any, pad: Any, dilation: Any, groups: int
) -> jax.Array:
    """A convolution whose `dy` is computed in full before it goes on.

    A kernel of one place is a product of matrices. Everything else is XLA's convolution, forward
    and backward: a product per place of the kernel takes one to five times as long.

    Args:
        x: `(N, …, in)`.
        w: `(…, in / groups, out)`.
        b: what is added to every place, `(out,)`, or `None`.
        stride: one number per axis.
        pad: `(low, high)` per axis.
        dilation: one number per axis.
        groups: in how many parts the channels are split.

    Example:
        >>> import jax.numpy as jnp
        >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
        >>> conv(x, w, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1).shape
        (1, 2, 2, 2)
    """
    if not chosen():
        return plain_conv(x, w, b, stride, pad, dilation, groups)
    *kernel, n_in, n_out = w.shape
    if math.prod(kernel) == 1 and groups == 1 and not any(map(any, pad)):
        seen = x[(slice(None), *(slice(None, None, s) for s in stride))]
        y = dense(seen.reshape(-1, n_in), w.reshape(n_in, n_out), b)
        return y.reshape(*seen.shape[:-1], n_out)
    return settled(plain_conv(x, w, b, stride, pad, dilation, groups))
