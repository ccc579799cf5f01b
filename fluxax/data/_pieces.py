"""A pass over plain arrays for a loop that gathers the batches itself, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax.data._observations import map_parts, parts
from fluxax.data._pass import Pass


class Pieces:
    """One pass over a loader's arrays, as places in them: what `loader.pieces_source()` gives.

    Internal, for the training loop, which keeps the arrays on the device. Batch `k` is each of
    `leaves` at `batches()[k]` along axis 0, put together by `nest`, and it has the very values
    that iterating gives. The loader's position moves by `advance` and `finish` alone.

    Attributes:
        arrays: the data as the loader has it, nested.
        leaves: its arrays in a flat list, NumPy's or JAX's.
        batchsize: observations in every batch but a last, shorter one; -1 for single
            observations, whose places are 0-d arrays.

    >>> import fluxax as fx
    >>> pieces = fx.DataLoader((np.arange(5) * 10, np.zeros(5)), 2).pieces_source()
    >>> [k.tolist() for k in pieces.batches()], pieces.block(0, 2).tolist()
    ([[0, 1], [2, 3], [4]], [[0, 1], [2, 3]])
    """

    def __init__(self, arrays: Any, epoch: Pass):
        self.arrays = arrays
        self.leaves: list[Any] = [part for _, part in parts(arrays)]
        self.batchsize = -1 if epoch.plan.single else epoch.plan.size
        self._pass, self._plan, self._done = epoch, epoch.plan, 0
        order = np.arange(epoch.plan.end) if epoch.plan.order is None else epoch.plan.order
        small = len(order) <= np.iinfo(np.int32).max
        self._order = order.astype(np.int32) if small else order

    def __len__(self) -> int:
        """The number of batches in this pass, from where it began."""
        return len(self._plan)

    def batches(self, start: int = 0) -> Iterator[np.ndarray]:
        """The places of each batch from number `start` on, as int32 (int64 above 2³¹ - 1)."""
        for k in range(start, len(self)):
            a, b = self._plan.start(k), self._plan.start(k + 1)
            yield self._order[a:b].reshape(()) if self._plan.single else self._order[a:b]

    def block(self, start: int, stop: int) -> np.ndarray:
        """The places of the whole batches `start` to `stop - 1`, one row each."""
        a = self._plan.start(start)
        rows = self._order[a : a + (stop - start) * self._plan.size]
        return rows.reshape(stop - start, *([] if self._plan.single else [self._plan.size]))

    def nest(self, leaves: list[Any]) -> Any:
        """Arrays in the order of `leaves`, nested as a batch is."""
        rest = iter(leaves)
        return map_parts(lambda _: next(rest), self.arrays)

    def mark(self, k: int) -> None:
        """The user has received the first `k` batches of this pass."""
        self._done = k
        self._pass.mark(k)

    def rest(self) -> Pass:
        """The batches that were not received yet, to be iterated over in the usual way."""
        self._pass.skip(self._done)
        return self._pass


def gatherable(data: Any, axis: int) -> bool:
    """Whether all parts are arrays of numbers in memory with observations along axis 0."""
    return all(_gatherable(part, axis) for _, part in parts(data))


def _gatherable(part: Any, axis: int) -> bool:
    if isinstance(part, np.memmap) or not isinstance(part, (np.ndarray, jax.Array)):
        return False
    numbers = jnp.issubdtype(part.dtype, np.number) or part.dtype == np.bool_
    return numbers and axis % part.ndim == 0
