"""One pass over data: what its steps gave stays on the device until somebody looks."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import jax
import numpy as np

from fluxax._compile._guard import lending
from fluxax._compile._objective import first_of
from fluxax._diagnosis import Finding, Held, diagnosis
from fluxax._draws import NO_ROOT
from fluxax._pieces import Piece, Pieces
from fluxax._step import step


class NonFiniteLoss(FloatingPointError):
    """A loss or a gradient was not finite; the model and its state are as before that item.

    Attributes:
        index: the position of the item in the data, from 0.
        value: the loss there.
        path: the first parameter or layer that went bad, such as `model.layers[2].weight`; the
            part of the batch, such as `batch[0]`, if that was bad; "loss" if all layers gave
            finite numbers; `None` where it is not known.
        phase: "forward" if the loss was not finite, "backward" if only a gradient was.
        losses: the losses of the items before.
    """

    def __init__(self, index: int, value: float, losses: np.ndarray, found: Any = None):
        self.index, self.value, self.losses = index, value, losses
        self.phase = "backward" if math.isfinite(value) else "forward"
        self._found = found or Finding()
        self.path: str | None = self._found.path
        what = (
            f"the loss is {value}"
            if self.phase == "forward"
            else f"a gradient is not finite (the loss is {value})"
        )
        text = f" {self._found.text}" if self._found.text else ""
        super().__init__(
            f"Training stopped at item {index}: {what}.{text} The model and its state are as they "
            f"were before that item. {self._found.advice}"
        )

    def __reduce__(self) -> Any:
        return NonFiniteLoss, (self.index, self.value, self.losses, self._found)


class Taken(NamedTuple):
    """What one step gave, or with a number of good steps in `done` the many of a piece."""

    n: int
    value: Any  # what the loss returned; of a piece: stacked
    good: Any
    done: Any = None
    tickets: Any = None  # of what draws random numbers: the numbers of these calls


class Pass:
    """Training steps, singly and in pieces, and all that they gave.

    Args:
        who, loss, model, opt_state: as for `step`.
        has_aux: whether all that the loss returned is kept, or its first element.
        owned: whether nobody else holds the memory of the batches, so that they need no copy.
    """

    _LOOK = 8  # how many steps may be on their way before their flag is looked at
    _BYTES = 2**28  # how much their batches may take, which are kept until then
    _TOGETHER = 1024  # values of single steps that become one array, an object each being large

    def __init__(
        self, who: str, loss: Any, model: Any, opt_state: Any, *, has_aux: bool, owned: bool
    ):
        self.who, self.loss, self.model, self.opt_state = who, loss, model, opt_state
        self.has_aux, self.owned = has_aux, owned
        self.taken: list[Taken] = []
        self.alive: Any = None
        self.look = 0  # how many of those there are for batches of this size
        self.kept: deque[tuple[Any, ...]] = deque()  # the batches of the last steps
        self.joined = 0  # how many of `taken` are not to be made one any more
        self.pieces: Pieces | None = None

    def take(self, args: tuple[Any, ...]) -> None:
        """One step."""
        lending.now = self.owned
        try:
            value, good, tickets = step(
                self.who, self.loss, self.model, (self.model, *args), self.opt_state, self.alive
            )
        finally:
            lending.now = False
        self.taken.append(
            Taken(1, value if self.has_aux else first_of(value), good, tickets=tickets)
        )
        self.kept.append(args)
        compiled = isinstance(good, jax.Array)
        self.alive = good if compiled else np.bool_(good)
        if not compiled:
            self._look(len(self.taken) - 1)
            return
        self.look = self.look or max(2, min(self._LOOK, self._BYTES // (2 * _bytes(args) + 1)))
        if len(self.taken) % self.look == 0:
            self._look(max(0, len(self.taken) - self.look))
            self._join(len(self.taken) - len(self.kept))

    def take_pieces(self, pieces: Pieces, bar: Any) -> None:
        """Many steps, as far as they run in pieces; `pieces.source` knows the rest."""
        first, self.pieces = len(self.taken), pieces
        try:
            bar.expect()
            for n, piece in pieces.run(has_aux=self.has_aux):
                self._add(n, piece)
                self._look(max(first, len(self.taken) - 2))
                bar.moved(n)
                bar.expect()
            if len(self.taken) > first:  # the arrays may be the caller's memory: wait
                self._look(len(self.taken) - 1)
        except NonFiniteLoss as error:
            pieces.source.mark(error.index + 1)
            raise
        finally:
            pieces.close()

    def _add(self, n: int, piece: Piece) -> None:
        value = piece.value if self.has_aux else first_of(piece.value)
        self.taken.append(Taken(n, value, piece.good, piece.done, piece.tickets))
        self.alive = piece.good

    def _look(self, at: int) -> None:
        """Stop if something went wrong up to a step; else its batch is of no interest any more."""
        if not bool(self.taken[at].good):
            self._stop()
        while len(self.taken) - len(self.kept) <= at and self.kept:
            self.kept.popleft()

    def _join(self, end: int) -> None:
        """Make what good single steps gave one array for each of its parts, if there is enough."""
        if end - self.joined < self._TOGETHER:
            return
        values = [t.value for t in self.taken[self.joined : end]]
        if len({_form(v) for v in values}) == 1:
            stacked = jax.tree.map(lambda *xs: np.stack([np.asarray(x) for x in xs]), *values)
            n = len(values)
            self.taken[self.joined : end] = [Taken(n, stacked, np.True_, n)]
            end = self.joined + 1
        self.joined = end

    def _stop(self) -> None:
        bad = next(i for i, t in enumerate(self.taken) if not bool(t.good))
        before, at = sum(t.n for t in self.taken[:bad]), self.taken[bad]
        index = before + (0 if at.done is None else int(at.done))
        root = self._go_back(bad, index - before)
        losses = _joined([first_of(t.value) for t in self.taken[: bad + 1]], self.taken)
        value = float(losses[index])
        found = diagnosis(
            lambda: Held(
                self.loss,
                self.model,
                self.opt_state,
                self._batch(bad, index),
                finite=math.isfinite(value),
                compiled=isinstance(at.good, jax.Array),
                root=root,
            )
        )
        raise NonFiniteLoss(index, value, losses[:index], found)

    def _go_back(self, bad: int, done: int) -> Any:
        """Let the next call have the number after the bad one's; what that drew from."""
        at = self.taken[bad].tickets
        for later in reversed(self.taken[bad + 1 :]):
            if later.tickets is not None:
                later.tickets.give_back()
        if at is None:
            return NO_ROOT
        at.give_back(done + 1)
        return at.rows()[done]

    def _batch(self, bad: int, index: int) -> tuple[Any, ...] | None:
        """What the loss got beside the model."""
        if self.pieces is not None and self.taken[bad].done is not None:
            source = self.pieces.source
            rows = source.block(index, index + 1)[0]
            return self.pieces.items(source.nest([leaf[rows] for leaf in source.leaves]))
        at = bad - (len(self.taken) - len(self.kept))
        return self.kept[at] if at >= 0 else None

    def losses(self) -> np.ndarray:
        """The losses of the whole pass; an error if one of the last steps went wrong."""
        if self.taken and not bool(self.taken[-1].good):
            self._stop()
        return _joined([first_of(t.value) for t in self.taken], self.taken)

    def aux(self) -> Any:
        """What the loss returned beside its first element, a stack of all steps for each array."""
        values = [_beside_first(t.value) for t in self.taken]
        return jax.tree.map(lambda *xs: _joined(xs, self.taken), *values) if values else None


def _bytes(batch: Any) -> int:
    """The memory that nested arrays take."""
    if isinstance(batch, (tuple, list)):
        return sum(map(_bytes, batch))
    if isinstance(batch, dict):
        return sum(map(_bytes, batch.values()))
    return getattr(batch, "nbytes", 0)


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
    stack = isinstance(value, (jax.Array, np.ndarray))
    return np.asarray(value)[:n] if stack else np.asarray([value] * n)


def _form(value: Any) -> Any:
    """What values have in common that can be stacked; unlike any other if something can't."""
    leaves, structure = jax.tree.flatten(value)
    if not all(isinstance(x, jax.Array) for x in leaves):
        return object()
    return structure, tuple((x.shape, x.dtype) for x in leaves)


def _beside_first(value: Any) -> Any:
    """What stands behind the loss: the second of two, a tuple of more, a dict without the first."""
    if isinstance(value, dict):
        return dict(list(value.items())[1:])
    if isinstance(value, tuple):
        return value[1] if len(value) == 2 else tuple(value[1:])
    return None
