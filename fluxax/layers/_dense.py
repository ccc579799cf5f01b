"""Layers that act on the last axis: Dense, Scale, Embedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._activations import identity
from fluxax._errors import short
from fluxax._jax import is_tracer
from fluxax._module import Module
from fluxax.init import glorot_uniform, ones32, randn32
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import (
    as_array,
    as_input,
    drawn,
    floating,
    function,
    offset,
    sizes,
    unit,
    whole,
)


class Dense(Module):
    """A matrix product with the last axis, an offset and an activation.

        y = activation(x W + b)          x: (…, in)   W: (in, out)   y: (…, out)

    Args:
        in_: number of input features; or the weights `W` themselves.
        out: number of output features; with given weights the bias, as below.
        activation: a function of an array.
        bias: whether there is one, or the array of shape `(out,)`. It starts at zero.
        init: initialiser of the weights, `init(in, out)`.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for sizes below one, a bias or input of another shape, integer input.
        TypeError: where an argument is of the wrong kind.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> layer = fx.Dense(5, 2, fx.relu)
        >>> layer
        Dense(5, 2, relu)
        >>> layer(jnp.ones((3, 7, 5))).shape
        (3, 7, 2)
        >>> fx.Dense(jnp.ones((5, 2)), False)(jnp.ones(5)).tolist()
        [5.0, 5.0]

    Floating and boolean (one-hot) input is converted to the weights' type.
    """

    def __init__(
        self,
        in_: Any,
        out: Any = True,
        activation: Callable[..., Any] = identity,
        *,
        bias: Any = True,
        init: Callable[..., Any] = glorot_uniform,
        rng: Any = None,
    ):
        if hasattr(in_, "shape") and np.ndim(in_) == 2:
            self.weight = floating(in_)
            bias = bias if out is True else out
        elif out is True:
            raise TypeError(f"Dense expects two sizes, Dense(in, out), got only {short(in_)}.")
        else:
            shape = (whole("Dense", "in", in_), whole("Dense", "out", out))
            self.weight = drawn("Dense", init, shape, rng)
        n_in, n_out = self.weight.shape
        self.bias = offset(f"Dense({n_in}, {n_out})", bias, (n_out,), self.weight)
        self.activation = function("Dense", activation)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x, self.weight)
        n_in, n_out = self.weight.shape
        if x.ndim == 0 or x.shape[-1] != n_in:
            raise refuse(self, f"(…, {n_in})", x, self._advice(x))
        rows = x.reshape(math.prod(x.shape[:-1]), n_in)
        y = (rows @ self.weight).reshape(*x.shape[:-1], n_out)
        return unit(y, self.bias, self.activation)

    def _advice(self, x: Any) -> str:
        n_in = self.weight.shape[0]
        if x.ndim > 2 and math.prod(x.shape[1:]) == n_in:
            return "Put fx.flatten in front of it."
        if x.ndim > 1 and n_in in (x.shape[0], x.shape[1]):
            return "Features come last; move that axis there."
        return "Add the batch axis first: x[:, None]." if x.ndim == 1 == n_in else ""

    def _arguments(self) -> list[tuple[str, Any]]:
        n_in, n_out = self.weight.shape[-2:]
        return [("", n_in), ("", n_out), *tail(self.activation, self.bias)]


def tail(activation: Any, bias: Any) -> list[tuple[str, Any]]:
    """The arguments that most layers end with, left out where they are the default."""
    shown = [] if activation is identity else [("", activation)]
    return shown if bias is not None else [*shown, ("bias", False)]


class Scale(Module):
    """Multiply and shift element by element: `y = activation(scale x + bias)`.

    Args:
        size: the sizes of `scale` and `bias`, which are broadcast against the input; the last
            may be the activation, `Scale(2, 3, relu)`.
        activation: a function of an array.
        bias: whether there is one, or the array of shape `size`. It starts at zero.
        init: initialiser of `scale`.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: where input cannot be broadcast against `size`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.Scale(2, fx.relu)(jnp.array([[1.0, -1.0]])).tolist()
        [[1.0, 0.0]]
    """

    def __init__(
        self,
        *size: Any,
        activation: Callable[..., Any] = identity,
        bias: Any = True,
        init: Callable[..., Any] = ones32,
        rng: Any = None,
    ):
        shape, self.activation = sizes("Scale", size, activation)
        self.scale = drawn("Scale", init, shape, rng)
        self.bias = offset("Scale", bias, shape, self.scale)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x, self.scale)
        try:
            np.broadcast_shapes(x.shape, self.scale.shape)
        except ValueError:
            expected = ", ".join(map(str, self.scale.shape))
            raise refuse(self, f"(…, {expected})", x) from None
        return unit(self.scale * x, self.bias, self.activation)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", n) for n in self.scale.shape] + tail(self.activation, self.bias)


class Embedding(Module):
    """A table with a row of numbers for each index: `y[…, :] = weight[x[…], :]`.

    Args:
        in_: how many indices there are, `0 … in - 1`.
        out: how many numbers stand for each.
        init: initialiser of the table, `init(in, out)`.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for indices that are not integers or, where their values can be seen, that
            are out of range. In compiled code such a row is NaN.

    Example:
        >>> import fluxax as fx, numpy as np
        >>> table = fx.Embedding(10, 4)
        >>> table(np.array([[1, 9, 0], [2, 2, 2]])).shape
        (2, 3, 4)
        >>> table(3).shape
        (4,)

    Takes one-hot input too: boolean, with the last axis of length `in`.
    """

    def __init__(self, in_: int, out: int, *, init: Callable[..., Any] = randn32, rng: Any = None):
        shape = (whole("Embedding", "in", in_), whole("Embedding", "out", out))
        self.weight = drawn("Embedding", init, shape, rng)

    def __call__(self, x: Any) -> jax.Array:
        rows = self.weight.shape[0]
        index = as_index(self, x, rows)
        if index.dtype != bool:
            # A negative index would count from the end; here it is as wrong as one too large.
            index = jnp.where(index < 0, rows, index)
            return jnp.take(self.weight, index, axis=0, mode="fill", fill_value=jnp.nan)
        if index.ndim == 0 or index.shape[-1] != rows:
            raise refuse(self, f"(…, {rows}), if one-hot,", index)
        return index.astype(self.weight.dtype) @ self.weight

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", n) for n in self.weight.shape[-2:]]


def as_index(layer: Any, x: Any, rows: int) -> jax.Array:
    """Indices into a table, or one-hot input, as a JAX array; seen values are checked."""
    index = jnp.asarray(x) if isinstance(x, (int, np.integer)) else as_array(layer, x)
    if index.dtype == bool:
        return index
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise unfit(
            layer, f"expects integers, got {short(index)}", "Convert them with x.astype(int)."
        )
    if not is_tracer(index) and index.size:
        low, high = int(np.min(index)), int(np.max(index))
        if low < 0 or high >= rows:
            wrong = low if low < 0 else high
            raise unfit(layer, f"expects indices from 0 to {rows - 1}, got {wrong}")
    return index.astype(jnp.int32) if index.dtype.itemsize < 4 else index
