"""One pass over data: what its steps gave stays on the device until somebody looks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from fluxax._compile._objective import first_of
from fluxax._pieces import Piece, Pieces
from fluxax._step import step


class NonFiniteLoss(FloatingPointError):
    """A loss or a gradient was not finite; the model and its state are as before that item.

    Attributes:
        index: the position of the item in the data, from 0.
        value: the loss there.
        path: the first parameter or layer that went bad, where it is known.
        phase: "forward" if the loss was not finite, "backward" if only a gradient was.
        losses: the losses of the items before.
    """

    def __init__(self, index: int, value: float, losses: np.ndarray):
        self.index, self.value, self.losses = index, value, losses
        self.phase = "backward" if math.isfinite(value) else "forward"
        self.path: str | None = None
        what = (
            f"the loss is {value}"
            if self.phase == "forward"
            else f"a gradient is not finite (the loss is {value})"
        )
        super().__init__(
            f"Training stopped at item {index}: {what}. The model and its state are as they were "
            "before that item. Lower the learning rate, clip the gradient, or look at that item."
        )


class Taken(NamedTuple):
    """What one step gave, or with a number of good steps in `done` the many of a piece."""

    n: int
    value: Any  # what the loss returned; of a piece: stacked
    good: Any
    done: Any = None


class Pass:
    """Training steps, singly and in pieces, and all that they gave.

    Args:
        who, loss, model, opt_state: as for `step`.
        has_aux: whether all that the loss returned is kept, or its first element.
    """

    _LOOK = 16  # how many steps may be on their way before their flag is looked at

    def __init__(self, who: str, loss: Any, model: Any, opt_state: Any, *, has_aux: bool):
        self.who, self.loss, self.model, self.opt_state = who, loss, model, opt_state
        self.has_aux = has_aux
        self.taken: list[Taken] = []
        self.alive: Any = None

    def take(self, args: tuple[Any, ...]) -> None:
        """One step."""
        value, good = step(
            self.who, self.loss, self.model, (self.model, *args), self.opt_state, self.alive
        )
        self.taken.append(Taken(1, value if self.has_aux else first_of(value), good))
        compiled = isinstance(good, jax.Array)
        self.alive = good if compiled else np.bool_(good)
        if not compiled:
            self._look(-1)
        elif len(self.taken) % self._LOOK == 0:
            self._look(max(0, len(self.taken) - self._LOOK))

    def take_pieces(self, pieces: Pieces, bar: Any) -> None:
        """Many steps, as far as they run in pieces; `pieces.source` knows the rest."""
        first = len(self.taken)
        try:
            bar.expect()
            for n, piece in pieces.run(has_aux=self.has_aux):
                self._add(n, piece)
                self._look(max(first, len(self.taken) - 2))
                bar.moved(n)
                bar.expect()
            if len(self.taken) > first:  # the arrays may be the caller's memory: wait
                self._look(-1)
        except NonFiniteLoss as error:
            pieces.source.mark(error.index + 1)
            raise
        finally:
            pieces.close()

    def _add(self, n: int, piece: Piece) -> None:
        value = piece.value if self.has_aux else first_of(piece.value)
        self.taken.append(Taken(n, value, piece.good, piece.done))
        self.alive = piece.good

    def _look(self, at: int) -> None:
        if not bool(self.taken[at].good):
            self._stop()

    def _stop(self) -> None:
        bad = next(i for i, t in enumerate(self.taken) if not bool(t.good))
        before, at = sum(t.n for t in self.taken[:bad]), self.taken[bad]
        inside = 0 if at.done is None else int(at.done)
        losses = _joined([first_of(t.value) for t in self.taken[: bad + 1]], self.taken)
        raise NonFiniteLoss(
            before + inside, float(losses[before + inside]), losses[: before + inside]
        )

    def losses(self) -> np.ndarray:
        """The losses of the whole pass; an error if one of the last steps went wrong."""
        if self.taken and not bool(self.taken[-1].good):
            self._stop()
        return _joined([first_of(t.value) for t in self.taken], self.taken)

    def aux(self) -> Any:
        """What the loss returned beside its first element, a stack of all steps for each array."""
        values = [_beside_first(t.value) for t in self.taken]
        return jax.tree.map(lambda *xs: _joined(xs, self.taken), *values) if values else None


def _joined(values: Any, taken: list[Taken]) -> Any:
    """The values of all steps as one NumPy array; a list where their shapes differ."""
    parts = [
        np.asarray(v)[None] if t.done is None else _rows(v, t.n)
        for v, t in zip(values, taken, strict=False)
    ]
    if len({p.shape[1:] for p in parts}) > 1:
        return [row for part in parts for row in part]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _rows(value: Any, n: int) -> np.ndarray:
    """The first `n` of a stack; of what is no array, such as a string, as many copies."""
    return np.asarray(value)[:n] if isinstance(value, jax.Array) else np.asarray([value] * n)


def _beside_first(value: Any) -> Any:
    """What stands behind the loss: the second of two, a tuple of more, a dict without the first."""
    if isinstance(value, dict):
        return dict(list(value.items())[1:])
    if isinstance(value, tuple):
        return value[1] if len(value) == 2 else tuple(value[1:])
    return None
