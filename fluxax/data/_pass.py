"""One pass over a loader's data: making batches, here or in threads, and keeping the place."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from fluxax.data._batch import batch
from fluxax.data._gather import Where, is_array
from fluxax.data._observations import map_parts, read
from fluxax.data._order import Plan


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one batch; holds all that a worker needs and nothing else.

    Args:
        collate: as for the loader.
        single: read one observation without a batch axis.
    """

    data: Any
    axis: int
    collate: Any
    single: bool

    def __call__(self, where: Where) -> Any:
        try:
            return self._read(where)
        except StopIteration as error:  # it would end the pass without a word
            raise RuntimeError(
                "DataLoader expects observations, got StopIteration from the data "
                "set or from collate."
            ) from error

    def _read(self, where: Where) -> Any:
        if self.single:
            return map_parts(lambda part: read(part, where, self.axis), self.data)
        if self.collate is None:
            return map_parts(lambda part: self._part(part, where), self.data)
        rows = self._rows(where)
        if self.collate is False:
            return rows
        return batch(rows, self.axis) if self.collate is True else self.collate(rows)

    def _part(self, part: Any, where: Where) -> Any:
        taken = read(part, where, self.axis)
        return taken if is_array(part) else batch(taken, self.axis)

    def _rows(self, where: Where) -> list[Any]:
        if not isinstance(self.data, (tuple, Mapping)) and not is_array(self.data):
            return read(self.data, where, self.axis)
        assert not isinstance(where, int)
        indices = range(where.start, where.stop) if isinstance(where, slice) else where.tolist()
        return [map_parts(partial(read, where=i, axis=self.axis), self.data) for i in indices]


class BatchTimeout(TimeoutError):
    """A batch was not ready in time; it may still come."""


class Threads:
    """Makes the batches of a plan ahead of time, in order, in threads.

    Args:
        make: gives batch `k`; must not lead back to the pass, so that an
            abandoned pass can be collected and takes its threads along.
        ahead: at most so many batches are made before they are asked for.
        timeout: seconds to wait for one batch, `None` for ever.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        total: int,
        workers: int,
        ahead: int,
        timeout: float | None,
    ) -> None:
        self._make, self._total, self._ahead, self._timeout = make, total, ahead, timeout
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="fluxax-loader")
        self._futures: dict[int, Future] = {}

    def get(self, k: int) -> Any:
        """Batch `k`; then the next ones are begun, to be made while this one is used."""
        self._begin(k)
        future = self._futures[k]
        if self._timeout is not None and not wait([future], self._timeout).done:
            raise BatchTimeout(
                f"DataLoader expects a batch within timeout={self._timeout} s, got none "
                f"for batch {k} of this pass. Raise `timeout`, or see what the data set waits for."
            )
        result = future.result()
        self._begin(k + 1)
        return result

    def _begin(self, k: int) -> None:
        for old in [j for j in self._futures if j < k]:
            self._futures.pop(old).cancel()
        for j in range(k, min(k + self._ahead, self._total)):
            if j not in self._futures:
                self._futures[j] = self._pool.submit(self._make, j)

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _make(reader: Reader, plan: Plan, k: int) -> Any:
    return reader(plan.where(k))


class Pass(Iterator[Any]):
    """One pass over a DataLoader: what `iter(loader)` gives.

    A batch that cannot be read raises once; the next call goes on behind it.
    `close()`, or dropping the iterator, ends its threads.

    Internal, for the training loop, which may read on the device instead:
    `plan` says which observations each batch holds; `fetch(k)` makes batch `k`
    without counting it; `mark(k)` says that the user has received `k` batches
    of this pass; `finish()` that the pass is over.

    Args:
        keep: is told the position, in observations, whenever it changes, and
            `None` at the end of the pass.
    """

    def __init__(
        self,
        reader: Reader,
        plan: Plan,
        keep: Callable[[int | None], None],
        threads: tuple[int, int, float | None] | None = None,
    ) -> None:
        self.plan = plan
        self._make = partial(_make, reader, plan)
        self._keep = keep
        self._next = 0
        self._over = False
        self._threads: Threads | None = None
        if threads is not None:
            workers, ahead, timeout = threads
            self._threads = Threads(self._make, len(plan), workers, ahead, timeout)
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
        return self._make(k) if self._threads is None else self._threads.get(k)

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
