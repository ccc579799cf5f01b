"""Convolution, channels last."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fluxax._half import plus
from fluxax.kernels._choice import chosen
from fluxax.kernels._dense import dense
from fluxax.kernels._settled import settled

#: How the axes of input, weights and output are called for one, two and three of space.
AXES = {n: ("N" + s + "C", s + "IO", "N" + s + "C") for n, s in enumerate(("W", "HW", "DHW"), 1)}

#: An image with a side of at most so many places is padded before a convolution with a stride. XLA
#: 0.10 ends the process while it compiles the gradient of some that pad by themselves ("Window
#: dimensions do not match RHS shape"): 3 by any even number, a kernel of 3 by 2, stride 2, pad 1.
_SMALL = 8


def of_one_type(x: Any, w: Any) -> tuple[Any, Any]:
    """Input and weights as XLA's convolution wants them: both complex if one is."""
    dtype = jnp.result_type(x, w)
    return (x, w) if x.dtype == w.dtype else (x.astype(dtype), w.astype(dtype))


def plain_conv(
    x: Any, w: Any, b: Any, stride: Any, pad: Any, dilation: Any, groups: int
) -> jax.Array:
    """The convolution as XLA has it, and an offset."""
    x, w = of_one_type(x, w)
    if max(stride) > 1 and min(x.shape[1:-1]) <= _SMALL and any(map(any, pad)):
        x, pad = jnp.pad(x, ((0, 0), *pad, (0, 0))), [(0, 0)] * len(pad)
    y = lax.conv_general_dilated(
        x,
        w,
        stride,
        pad,
        rhs_dilation=dilation,
        dimension_numbers=AXES[w.ndim - 2],
        feature_group_count=groups,
    )
    return y if b is None else plus(y, b)


def conv(
    x: jax.Array, w: jax.Array, b: Any, stride: Any, pad: Any, dilation: Any, groups: int
) -> jax.Array:
    """A convolution whose `dy` is computed in full before it goes on.

    A kernel of one place is a product of matrices, and so is a small image with few channels:
    each row of the output is a product of some rows of the input with a banded matrix. Everything
    else is XLA's convolution, forward and backward.

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
    if groups == 1 and set(dilation) == {1} and _narrow(x, w, pad):
        return _banded(x, w, b, stride, pad)
    return settled(plain_conv(x, w, b, stride, pad, dilation, groups))


#: XLA's convolution runs at a tenth of its speed where input or output have fewer channels.
_FEW = 16
#: How many times the work of the convolution a banded product may be, and its matrix' size.
_MORE_WORK, _LARGEST = 6, 1 << 17


def _narrow(x: Any, w: Any, pad: Any) -> bool:
    """Whether a convolution over an image is better done as a banded product."""
    if w.ndim != 4 or min(w.shape[2:]) >= _FEW:
        return False
    rows, columns, n_in, n_out = w.shape
    width = x.shape[2] + sum(pad[1])
    size = rows * width * n_in * (width - columns + 1) * n_out
    return width <= _MORE_WORK * columns and size <= _LARGEST


def _banded(x: Any, w: Any, b: Any, stride: Any, pad: Any) -> jax.Array:
    """A convolution of images as one product: rows of the input times a matrix made of `w`."""
    rows, columns, n_in, n_out = w.shape
    x = jnp.pad(x, ((0, 0), *pad, (0, 0)))
    n, height, width, _ = x.shape
    down, across = (
        (s - k) // t + 1 for s, k, t in zip((height, width), w.shape, stride, strict=False)
    )
    last = (down - 1) * stride[0] + 1
    seen = [x[:, i : i + last : stride[0]] for i in range(rows)]
    seen = jnp.stack(seen, 2).reshape(n * down, rows * width * n_in)
    # which place of the kernel (k) an input column (q) meets for an output column (p)
    k, q, p = (jnp.arange(size) for size in (columns, width, across))
    meets = q[None, :, None] == p[None, None] * stride[1] + k[:, None, None]
    matrix = jnp.einsum("ikco,kqp->iqcpo", w, meets.astype(w.dtype), precision="highest")
    bias = None if b is None else jnp.tile(b, across)
    y = dense(seen, matrix.reshape(rows * width * n_in, across * n_out), bias)
    return y.reshape(n, down, across, n_out)
