"""One pass over a loader's data: giving batches in order, and keeping the place."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fluxax.data._order import Plan
from fluxax.data._place import Place
from fluxax.data._reader import Reader
from fluxax.data._threads import BatchTimeout, Hands, Make, Threads


def in_this_process(reader: Reader, plan: Plan) -> Make:
    """What makes the batches of a plan by reading them here."""
    return partial(_make, reader, plan)


def _make(reader: Reader, plan: Plan, k: int, place: Place) -> Any:
    return reader(plan.where(k), place)


class Pass(Iterator[Any]):
    """One pass over a DataLoader: what `iter(loader)` gives.

    A batch that cannot be read raises once; the next call goes on behind it.
    `close()`, or dropping the iterator, ends its threads.

    Internal, for the training loop, which may read on the device instead:
    `plan` says which observations each batch holds; `fetch(k)` makes batch `k`
    without counting it; `mark(k)` says that the user has received `k` batches
    of this pass; `finish()` that the pass is over.

    Args:
        make: reads a batch, here or in a worker; must not lead back to the pass.
        keep: is told the position, in observations, whenever it changes, and
            `None` at the end of the pass.
    """

    def __init__(
        self,
        make: Make,
        plan: Plan,
        keep: Callable[[int | None], None],
        hands: Hands | None = None,
    ) -> None:
        self.plan = plan
        self._make = make
        self._keep = keep
        self._next = 0
        self._over = False
        self._threads: Threads | None = None
        if hands is not None:
            self._threads = Threads(make, plan, hands)
            weakref.finalize(self, self._threads.close)
        self._keep(plan.begin)

    def __next__(self) -> Any:
        k = self._next
        if self._over or k >= len(self.plan):
            self.finish()
            raise StopIteration
        try:
            made = self.fetch(k)
        except BatchTimeout:
            raise
        except Exception:
            self._next = k + 1
            raise
        self._next = k + 1
        self.mark(k + 1)
        return made

    def __length_hint__(self) -> int:
        return 0 if self._over else len(self.plan) - self._next

    def fetch(self, k: int) -> Any:
        """Batch `k` of this pass, not counted as received."""
        if self._threads is not None:
            return self._threads.get(k)
        return self._make(k, Place(self.plan.seed, self.plan.epoch))

    def mark(self, k: int) -> None:
        """The user has received the first `k` batches of this pass."""
        self._keep(self.plan.start(k))

    def skip(self, k: int) -> None:
        """Go on behind batch `k - 1`."""
        self._next = k

    def finish(self) -> None:
        """The pass is over: the loader stands at the start of the next epoch."""
        if not self._over:
            self.close()
            self._keep(None)

    def close(self) -> None:
        """End the pass here, without a change of position."""
        self._over = True
        if self._threads is not None:
            self._threads.close()
