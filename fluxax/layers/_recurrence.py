"""Any cell as a layer over time: Recurrence, and the state that a cell starts from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import short
from fluxax._module import Module
from fluxax.layers._place import unfit
from fluxax.layers._recurrent import Cell, Recurrent
from fluxax.layers._shapes import as_input, function


def initialstates(layer: Any) -> Any:
    """The state that a cell, or a recurrent layer, starts from: zeros, for one observation.

    Args:
        layer: `RNNCell`, `LSTMCell` and kin, the layers that run them, `Recurrence`; or anything
            with a method `initialstates()`.

    Returns:
        `(out,)`, or for an LSTM the pair `(h, c)` of them, which stands for every observation.

    Raises:
        TypeError: for something that has no such state.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> cell = fx.LSTMCell(3, 5)
        >>> h, c = fx.initialstates(cell)
        >>> h.shape, cell(jnp.ones((2, 3)), (h, c))[0].shape
        ((5,), (2, 5))
    """
    cell: Any = layer.cell if isinstance(layer, (Recurrent, Recurrence)) else layer
    if isinstance(cell, Cell):
        return cell.initial(())
    if not hasattr(cell, "initialstates"):
        raise TypeError(
            f"initialstates expects a recurrent cell or layer, got {short(cell)}. A cell of your "
            "own needs a method `initialstates()`."
        )
    return cell.initialstates()


class Recurrence(Module):
    """A cell run over time, `(N, T, in)` to `(N, T, out)`: what RNN is for RNNCell, for any cell.

        y[t], state = cell(x[t], state)

    Args:
        cell: one of ours, or a function or layer `cell(x, state)` that returns the output and the
            next state. It begins with its `initialstates()`, if it has that method, else with
            `None`.
        return_state: whether the last state comes out too, `(y, state)`.

    Raises:
        ValueError: for input that is not `(N, T, in)`.
        TypeError: where `cell` cannot be called, does not return a pair, or changes the shape or
            type of its state.

    Called as `layer(x)` or `layer(x, state)`; keeps no state between calls.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.Recurrence(fx.GRUCell(3, 5))(jnp.ones((2, 7, 3))).shape
        (2, 7, 5)
        >>> running = fx.Recurrence(lambda x, s: (x + s,) * 2 if s is not None else (x, x))
        >>> running(jnp.ones((1, 3, 1))).ravel().tolist()
        [1.0, 2.0, 3.0]
    """

    cell: Any

    def __init__(self, cell: Any, *, return_state: bool = False):
        self.cell = function("Recurrence", cell, "cell")
        self.return_state = bool(return_state)

    def __call__(self, x: Any, state: Any = None) -> Any:
        if isinstance(self.cell, Cell):
            return Recurrent.__call__(self, x, state)  # type: ignore[arg-type]
        x = jnp.asarray(as_input(self, x))
        if x.ndim != 3 or x.shape[1] == 0:
            raise unfit(self, f"expects input of shape (N, T, in) with some time, got {short(x)}")
        if state is None and hasattr(self.cell, "initialstates"):
            state = self.cell.initialstates()
        times = jnp.swapaxes(x, 0, 1)  # (T, N, in)
        first, state = self._step(times[0], state)  # which gives the state its shape and type
        state, rest = lax.scan(lambda s, now: self._next(s, now), state, times[1:])
        ys = jax.tree.map(lambda y, more: jnp.concatenate([y[None], more]), first, rest)
        ys = jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)  # (N, T, out)
        return (ys, state) if self.return_state else ys

    def _step(self, x: jax.Array, state: Any) -> tuple[Any, Any]:
        result = self.cell(x, state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                "Recurrence expects a cell that returns an output and a state, got "
                f"{short(result)}. Return `y, state`."
            )
        for y in jax.tree.leaves(result[0]):
            if np.ndim(y) == 0:
                raise TypeError(
                    f"Recurrence expects a cell whose output has a batch axis, got {short(y)}."
                )
        return result

    def _next(self, state: Any, x: jax.Array) -> tuple[Any, Any]:
        """A step in which the state is said to stay as it is, as a loop wants it."""
        y, new = self._step(x, state)
        old, now = jax.tree.leaves(state), jax.tree.leaves(new)
        same = jax.tree.structure(state) == jax.tree.structure(new)
        if not same or any(map(_differ, old, now)):
            raise TypeError(
                "Recurrence expects a cell whose state keeps its shape and type, got "
                f"{', '.join(map(short, now)) or None} after {', '.join(map(short, old)) or None}."
            )
        return new, y

    def _arguments(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("", self.cell)]
        return [*shown, ("return_state", True)] if self.return_state else shown


def _differ(old: Any, new: Any) -> bool:
    """Whether a part of a state is of another shape, or type; a Python number takes any type."""
    free = getattr(old, "weak_type", False)
    return old.shape != np.shape(new) or not (free or old.dtype == jnp.result_type(new))
