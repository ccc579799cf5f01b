"""The recurrence of the long short-term memory over all times."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fluxax.kernels._choice import chosen


def _gates(xs: Any, h: Any, w: Any) -> list[Any]:
    i, f, g, o = jnp.split(xs + h @ w, 4, -1)
    return [jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)]


def plain_lstm(xs: Any, w: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """The outputs `h` of all times and the last `c`, as one writes it."""

    def step(state: Any, xs: Any) -> Any:
        h, c = state
        i, f, g, o = _gates(xs, h, w)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), h

    (_, c), hs = lax.scan(step, (h, c), xs)
    return hs, c


def lstm(xs: jax.Array, w: jax.Array, h: jax.Array, c: jax.Array) -> tuple[Any, Any]:
    """The recurrence of the LSTM, with one product for the derivative of its weights.

        i, f, g, o = split(xs + h w)          after σ, σ, tanh, σ
        c' = f c + i g          h' = o tanh(c')

    Plain autodiff adds a product for `dw` at each time; here `dw` is one product after the loop.
    The loop back multiplies by a transpose of `w` that was made before it.

    Args:
        xs: inputs times their weights, with offsets, `(T, N, 4 out)`.
        w: weights of the state, `(out, 4 out)`.
        h: output before the first time, `(N, out)`.
        c: cell before the first time, `(N, out)`.

    Returns:
        The outputs of all times, `(T, N, out)`, and the last cell.

    Example:
        >>> import jax.numpy as jnp
        >>> start = jnp.zeros((2, 5))
        >>> hs, c = lstm(jnp.ones((7, 2, 20)), jnp.ones((5, 20)), start, start)
        >>> hs.shape, c.shape
        ((7, 2, 5), (2, 5))
    """
    return _lstm(xs, w, h, c) if chosen() and len(xs) else plain_lstm(xs, w, h, c)


_lstm = jax.custom_jvp(plain_lstm)


@_lstm.defjvp
def _(primals: Any, tangents: Any) -> Any:
    xs, w, h, c = primals
    dxs, dw, dh, dc = tangents

    def step(state: Any, xs: Any) -> Any:
        h, c = state
        i, f, g, o = gates = _gates(xs, h, w)
        c = f * c + i * g
        tanh_c = jnp.tanh(c)
        return (o * tanh_c, c), (o * tanh_c, c, tanh_c, gates)

    (_, last), (hs, cs, tanhs, gates) = lax.scan(step, (h, c), xs)
    before = lambda first, all: jnp.concatenate([first[None], all[:-1]])
    back = lax.optimization_barrier(w.T)  # kept out of the loop
    at = _derivatives(gates, before(c, cs), tanhs)

    def tangent(state: Any, at: Any) -> Any:
        dh, dc = state
        dz, by_i, by_f, by_g, by_o, by_c, forget = at
        dz = dz + lax.dot_general(dh, back, (((1,), (1,)), ((), ())))
        di, df, dg, do = jnp.split(dz, 4, -1)
        dc = forget * dc + by_f * df + by_i * di + by_g * dg
        dh = by_c * dc + by_o * do
        return (dh, dc), dh

    rows = before(h, hs).reshape(-1, h.shape[-1])
    dz = lax.optimization_barrier(dxs + (rows @ dw).reshape(dxs.shape))
    (_, dlast), dhs = lax.scan(tangent, (dh, dc), (dz, *at))
    return (hs, last), (dhs, dlast)


def _derivatives(gates: list[Any], c: Any, tanh_c: Any) -> tuple[Any, ...]:
    """Of the cell by what goes into its gates, of the output by that of its gate and by the cell.

    For all times at once; in the loop each would be a small kernel and a copy. Last stands the
    derivative of the cell by the one before.
    """
    i, f, g, o = gates
    inner = g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), tanh_c * o * (1 - o)
    return *inner, o * (1 - tanh_c * tanh_c), f
