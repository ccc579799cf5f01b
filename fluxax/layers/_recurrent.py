"""Recurrent cells, one step each, and the layers that run them over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._activations import sigmoid, tanh
from fluxax._errors import short
from fluxax._half import is_half, like, wide
from fluxax._module import Module
from fluxax.init import glorot_uniform
from fluxax.kernels import dense, lstm
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import (
    as_input,
    drawn,
    function,
    offset,
    one_rng,
    sequence_advice,
    whole,
)


class Cell(Module):
    """What the cells share: `Wi` `(in, gates out)`, `Wh` `(out, gates out)` and a bias.

    A cell says how a step goes from `xs = x Wi + bias`, which the layers compute for all
    times in one product. `init` draws `Wi`, and `Wh` too unless there is `init_recurrent`.
    """

    gates = 1
    Wi: jax.Array
    Wh: jax.Array

    def __init__(
        self,
        in_: int,
        out: int,
        *,
        bias: Any = True,
        init: Callable[..., Any] = glorot_uniform,
        init_recurrent: Callable[..., Any] | None = None,
        rng: Any = None,
    ):
        who, rng = type(self).__name__, one_rng(rng)
        n_in, n_out = whole(who, "in", in_), whole(who, "out", out)
        self.Wi = drawn(who, init, (n_in, self.gates * n_out), rng)
        self.Wh = drawn(who, init_recurrent or init, (n_out, self.gates * n_out), rng)
        self.bias = offset(f"{who}({n_in}, {n_out})", bias, (self.gates * n_out,), self.Wi)

    def __call__(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """One step: `(N, in)` and a state give the output `(N, out)` and the next state."""
        x = as_input(self, x, self.Wi)
        if x.ndim == 0 or x.shape[-1] != self.Wi.shape[0]:
            raise refuse(self, f"(…, {self.Wi.shape[0]})", x)
        return run_cell(self, x, start(self, self, x, x.shape[:-1], state), "step")

    def inputs(self, x: jax.Array) -> jax.Array:
        """The part of a step that does not depend on the state."""
        xs = dense(x.reshape(-1, x.shape[-1]), self.Wi, self.bias)
        return xs.reshape(*x.shape[:-1], xs.shape[-1])

    def initial(self, batch: tuple[int, ...]) -> Any:
        """The state before the first step: zeros."""
        return jnp.zeros((*batch, self.Wh.shape[0]), self.Wh.dtype)

    def step(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def steps(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        """All steps of `xs`, `(T, N, gates out)`: the outputs and the last state."""
        state, ys = lax.scan(lambda s, now: self.step(now, s)[::-1], state, xs)
        return ys, state

    def _arguments(self) -> list[tuple[str, Any]]:
        shown = [("", self.Wi.shape[-2]), ("", self.Wh.shape[-2])]
        return shown if self.bias is not None else [*shown, ("bias", False)]


class RNNCell(Cell):
    """One step of the plain recurrent layer: `h' = activation(x Wi + h Wh + bias)`.

    Args:
        in_: number of input features.
        out: number of output features.
        activation: a function of an array.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Called as `cell(x, h)`, or `cell(x)` to start from zeros; returns `(h', h')`, the output and
    the state.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> y, h = fx.RNNCell(3, 5)(jnp.ones((2, 3)))
        >>> y.shape, h.shape
        ((2, 5), (2, 5))
    """

    def __init__(self, in_: int, out: int, activation: Callable[..., Any] = tanh, **options: Any):
        super().__init__(in_, out, **options)
        self.activation = function("RNNCell", activation)

    def step(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        h = self.activation(xs + state @ self.Wh)
        return h, h

    def _arguments(self) -> list[tuple[str, Any]]:
        sizes, rest = super()._arguments()[:2], super()._arguments()[2:]
        return sizes + ([] if self.activation is tanh else [("", self.activation)]) + rest


class LSTMCell(Cell):
    """One step of the long short-term memory.

        i, f, g, o = split(x Wi + h Wh + bias)
        c' = σ(f) c + σ(i) tanh(g)          h' = σ(o) tanh(c')

    Args:
        in_: number of input features.
        out: number of output features.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`. The bias of `f`
            starts at one.

    Called as `cell(x, (h, c))`, or `cell(x)` to start from zeros; returns `(h', (h', c'))`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> y, (h, c) = fx.LSTMCell(3, 5)(jnp.ones((2, 3)))
        >>> y.shape, h.shape, c.shape
        ((2, 5), (2, 5), (2, 5))

    Reference: Gers et al. 2000, Neural Computation 12, 2451.
    """

    gates = 4

    def __init__(self, in_: int, out: int, *, bias: Any = True, **options: Any):
        super().__init__(in_, out, bias=bias, **options)
        if bias is True:  # to remember is where learning best starts
            start = np.zeros(4 * out, self.Wi.dtype)
            start[out : 2 * out] = 1
            self.bias = jax.device_put(start)

    def initial(self, batch: tuple[int, ...]) -> Any:
        return super().initial(batch), super().initial(batch)

    def step(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = jnp.split(xs + h @ self.Wh, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return h, (h, c)

    def steps(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        if type(self).step is not LSTMCell.step or not len(xs):
            return super().steps(xs, state)
        hs, c = lstm(xs, self.Wh, *state)
        return hs, (hs[-1], c)


class GRUCell(Cell):
    """One step of the gated recurrent unit, as PyTorch and Flux have it.

        r = σ(x Wr + h Ur + br)             z = σ(x Wz + h Uz + bz)
        n = tanh(x Wn + r (h Un) + bn)      h' = (1 - z) n + z h

    `Wi` holds `Wr, Wz, Wn` side by side, `Wh` the `U`.

    Args:
        in_: number of input features.
        out: number of output features.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Called as `cell(x, h)`, or `cell(x)` to start from zeros; returns `(h', h')`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.GRUCell(3, 5)(jnp.ones((2, 3)))[0].shape
        (2, 5)

    Reference: Cho et al. 2014, arXiv:1406.1078v1.
    """

    gates = 3

    def step(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        xr, xz, xn = jnp.split(xs, 3, -1)
        hr, hz, hn = jnp.split(state @ self.Wh, 3, -1)
        z = sigmoid(xz + hz)
        n = tanh(xn + sigmoid(xr + hr) * hn)
        h = (1 - z) * n + z * state
        return h, h


class GRUv3Cell(GRUCell):
    """One step of the gated recurrent unit of the paper's third version.

    As GRUCell, but for the candidate: `n = tanh(x Wn + (r h) Un + bn)`.

    Args:
        in_: number of input features.
        out: number of output features.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.GRUv3Cell(3, 5)(jnp.ones((2, 3)))[0].shape
        (2, 5)

    Reference: Cho et al. 2014, arXiv:1406.1078v3.
    """

    def step(self, xs: jax.Array, state: Any) -> tuple[Any, Any]:
        n_out = state.shape[-1]
        xr, xz, xn = jnp.split(xs, 3, -1)
        hr, hz = jnp.split(state @ self.Wh[:, : 2 * n_out], 2, -1)
        z = sigmoid(xz + hz)
        n = tanh(xn + (sigmoid(xr + hr) * state) @ self.Wh[:, 2 * n_out :])
        h = (1 - z) * n + z * state
        return h, h


def start(layer: Any, cell: Cell, x: Any, batch: tuple[int, ...], state: Any) -> Any:
    """The state to begin with: zeros, or what was given, for each observation or one for all.

    It is complex where something is that goes into the next one.
    """
    zeros = cell.initial(batch)
    state = tuple(state) if isinstance(state, list) else state
    try:
        if any(map(jnp.iscomplexobj, jax.tree.leaves((x, cell, state)))):
            zeros = jax.tree.map(lambda z: z.astype(jnp.result_type(z, jnp.complex64)), zeros)
        if state is None:
            return zeros
        return jax.tree.map(
            lambda z, s: jnp.broadcast_to(jnp.asarray(s, z.dtype), z.shape), zeros, state
        )
    except (TypeError, ValueError):
        wanted = ", ".join(str(z.shape) for z in jax.tree.leaves(zeros))
        given = ", ".join(map(short, jax.tree.leaves(state)))
        raise unfit(layer, f"expects a state of shape {wanted}, got {given}") from None


def run_cell(cell: Cell, x: jax.Array, state: Any, method: str) -> tuple[Any, Any]:
    """`cell.step` or `cell.steps`; half precision is rounded once, not after every step."""
    if is_half(x):
        cell, state = jax.tree.map(wide, (cell, state))
    results = getattr(cell, method)(cell.inputs(wide(x)), state)  # inputs: (T, N, gates out)
    return jax.tree.map(lambda y: like(x, y), results)


class Recurrent(Module):
    """What the layers share: a cell, run over the time axis of `(N, T, in)`."""

    kind: type[Cell]
    cell: Cell
    return_state: bool

    def __init__(self, in_: int, out: int, *, return_state: bool = False, **options: Any):
        self.cell = self.kind(in_, out, **options)
        self.return_state = bool(return_state)

    def __call__(self, x: Any, state: Any = None) -> Any:
        x = as_input(self, x, self.cell.Wi)
        n_in = self.cell.Wi.shape[0]
        if x.ndim != 3 or x.shape[-1] != n_in:
            raise refuse(self, f"(N, T, {n_in})", x, sequence_advice(x, n_in))
        state = start(self, self.cell, x, x.shape[:1], state)
        ys, state = run_cell(self.cell, jnp.swapaxes(x, 0, 1), state, "steps")
        ys = jnp.swapaxes(ys, 0, 1)  # (N, T, out)
        return (ys, state) if self.return_state else ys

    def _arguments(self) -> list[tuple[str, Any]]:
        shown = self.cell._arguments()
        return [*shown, ("return_state", True)] if self.return_state else shown


class RNN(Recurrent):
    """The plain recurrent layer: RNNCell over time, `(N, T, in)` to `(N, T, out)`.

    Args:
        in_: number of input features.
        out: number of output features.
        activation: a function of an array.
        return_state: whether the last state comes out too, `(y, h)`.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Raises:
        ValueError: for input that is not `(N, T, in)`, or a state of another shape.

    Called as `rnn(x)` it starts from zeros, as `rnn(x, h)` from `h`, `(N, out)` or `(out,)`. It
    keeps no state between calls.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.RNN(3, 5)(jnp.ones((2, 7, 3))).shape
        (2, 7, 5)
        >>> y, h = fx.RNN(3, 5, fx.relu, return_state=True)(jnp.ones((2, 7, 3)))
        >>> y.shape, h.shape
        ((2, 7, 5), (2, 5))
    """

    kind = RNNCell

    def __init__(self, in_: int, out: int, activation: Callable[..., Any] = tanh, **options: Any):
        super().__init__(in_, out, activation=activation, **options)


class LSTM(Recurrent):
    """The long short-term memory: LSTMCell over time, `(N, T, in)` to `(N, T, out)`.

    Args:
        in_: number of input features.
        out: number of output features.
        return_state: whether the last state comes out too, `(y, (h, c))`.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Called as `lstm(x)` it starts from zeros, as `lstm(x, (h, c))` from those; else as RNN.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> y, (h, c) = fx.LSTM(3, 5, return_state=True)(jnp.ones((2, 7, 3)))
        >>> y.shape, h.shape, c.shape
        ((2, 7, 5), (2, 5), (2, 5))
    """

    kind = LSTMCell


class GRU(Recurrent):
    """The gated recurrent unit: GRUCell over time, `(N, T, in)` to `(N, T, out)`.

    Args:
        in_: number of input features.
        out: number of output features.
        return_state: whether the last state comes out too, `(y, h)`.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Called as RNN is.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.GRU(3, 5)(jnp.ones((2, 7, 3))).shape
        (2, 7, 5)
    """

    kind = GRUCell


class GRUv3(Recurrent):
    """The gated recurrent unit of the paper's third version: GRUv3Cell over time.

    Args:
        in_: number of input features.
        out: number of output features.
        return_state: whether the last state comes out too, `(y, h)`.
        options: `bias`, `init`, `rng`, as in Dense; `init_recurrent` for `Wh`.

    Called as RNN is.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.GRUv3(3, 5)(jnp.ones((2, 7, 3))).shape
        (2, 7, 5)
    """

    kind = GRUv3Cell
