"""Layers that act on the last axis: Dense, Scale, Bilinear."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._activations import identity
from fluxax._errors import short
from fluxax._half import like, wide
from fluxax._module import Module
from fluxax.init import glorot_uniform, ones32
from fluxax.kernels import dense
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import (
    as_input,
    drawn,
    floating,
    function,
    offset,
    per_axis,
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
        y = dense(rows, self.weight, self.bias)
        return self.activation(y.reshape(*x.shape[:-1], n_out))

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
            may be the activation, `Scale(2, 3, relu)`. Or `scale` itself, which bias and
            activation may follow.
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
        >>> fx.Scale(jnp.array([2.0, 3.0]), False)(jnp.ones(2)).tolist()
        [2.0, 3.0]
    """

    def __init__(
        self,
        *size: Any,
        activation: Callable[..., Any] = identity,
        bias: Any = True,
        init: Callable[..., Any] = ones32,
        rng: Any = None,
    ):
        if size and np.ndim(size[0]) and hasattr(size[0], "shape"):
            if len(size) > 3:
                raise TypeError(f"Scale expects scale, bias and activation, got {len(size)}.")
            scale, bias, activation = (*size, *(bias, activation)[len(size) - 1 :])
            self.scale, self.activation = floating(scale), function("Scale", activation)
        else:
            shape, self.activation = sizes("Scale", size, activation)
            self.scale = drawn("Scale", init, shape, rng)
        self.bias = offset("Scale", bias, self.scale.shape, self.scale)

    def __call__(self, x: Any) -> jax.Array:
        x = as_input(self, x, self.scale)
        try:
            np.broadcast_shapes(x.shape, self.scale.shape)
        except ValueError:
            expected = ", ".join(map(str, self.scale.shape))
            raise refuse(self, f"(…, {expected})", x) from None
        y, bias = wide(self.scale) * wide(x), wide(self.bias)
        return unit(y, bias, lambda y: self.activation(like(x, y)))

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", n) for n in self.scale.shape] + tail(self.activation, self.bias)


class Bilinear(Module):
    """A product of two inputs with a weight for each pair of their features.

        y[…, k] = activation(Σ x1[…, i] W[i, j, k] x2[…, j] + b[k])

    Args:
        in_: the two numbers of input features `(in1, in2)`, or one number for both; or the
            weights `W` themselves.
        out: number of output features; with given weights the bias, as below.
        activation: a function of an array.
        bias: whether there is one, or the array of shape `(out,)`. It starts at zero.
        init: initialiser of the weights, `init(in1, in2, out)`.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for sizes below one, or inputs of other shapes or that differ in batch.
        TypeError: where an argument is of the wrong kind.

    Called with two inputs, with a tuple of them, or with one that counts as both.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> layer = fx.Bilinear((5, 6), 7, fx.tanh)
        >>> layer(jnp.ones((2, 5)), jnp.ones((2, 6))).shape
        (2, 7)
        >>> fx.SkipConnection(fx.Dense(5, 6), fx.Bilinear((6, 5), 4))(jnp.ones((2, 5))).shape
        (2, 4)
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
        if hasattr(in_, "shape") and np.ndim(in_) == 3:
            self.weight = floating(in_)
            bias = bias if out is True else out
        elif out is True:
            raise TypeError(f"Bilinear expects inputs and outputs, got only {short(in_)}.")
        else:
            shape = (*per_axis("Bilinear", "in", in_, 2), whole("Bilinear", "out", out))
            self.weight = drawn("Bilinear", init, shape, rng)
        self.bias = offset("Bilinear", bias, self.weight.shape[2:], self.weight)
        self.activation = function("Bilinear", activation)

    def __call__(self, x1: Any, x2: Any = None) -> jax.Array:
        if isinstance(x1, tuple) and len(x1) == 2 and x2 is None:
            x1, x2 = x1
        x1 = as_input(self, x1, self.weight)
        x2 = x1 if x2 is None else as_input(self, x2, self.weight)
        n1, n2, n_out = self.weight.shape
        fits = x1.shape[-1:] == (n1,) and x2.shape[-1:] == (n2,)
        if not fits or x1.shape[:-1] != x2.shape[:-1]:
            expected = f"inputs of shapes (…, {n1}) and (…, {n2})"
            raise unfit(self, f"expects {expected}, got {short(x1)} and {short(x2)}")
        pairs = wide(x1) @ wide(self.weight).reshape(n1, n2 * n_out)
        y = jnp.einsum("...j,...jk->...k", wide(x2), pairs.reshape(*x2.shape, n_out))
        return unit(y, wide(self.bias), lambda y: self.activation(like(x1, y)))

    def _arguments(self) -> list[tuple[str, Any]]:
        n1, n2, n_out = self.weight.shape
        in_ = n1 if n1 == n2 else (n1, n2)
        return [("", in_), ("", n_out), *tail(self.activation, self.bias)]
