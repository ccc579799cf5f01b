"""Making batches ahead of time, in order, in threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from fluxax.data._order import Plan
from fluxax.data._place import Place

#: Makes batch `k`, and tells the place what is being read.
Make = Callable[[int, Place], Any]


class BatchTimeout(TimeoutError):
    """A batch was not ready in time; the next call waits for it again."""


class WorkerDied(RuntimeError):
    """A worker process ended while it made a batch."""


@dataclass(frozen=True, eq=False)
class Hands:
    """What makes the batches of a pass ahead of time.

    Args:
        workers: how many threads.
        ahead: at most so many batches are made before they are asked for.
        timeout: seconds to wait for one batch, `None` for ever.
        waited: waits until workers that are starting have started, and whether any was: the
            clock runs from then on.
        stop: ends what the threads wait for, when a batch is late or a worker died; `None` if
            that cannot be ended.
    """

    workers: int
    ahead: int
    timeout: float | None
    waited: Callable[[], bool] = lambda: False
    stop: Callable[[], None] | None = None


@dataclass(eq=False)
class _Job:
    k: int
    place: Place
    future: Future = field(default_factory=Future)


class Threads:
    """Makes the batches of a plan in order, ahead of time.

    The threads are daemons: a data set that hangs must not keep Python from ending.

    Args:
        make: must not lead back to the pass, so that an abandoned pass can be collected and
            takes its threads along.
    """

    def __init__(self, make: Make, plan: Plan, hands: Hands) -> None:
        self._make, self._plan, self._hands = make, plan, hands
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs: dict[int, _Job] = {}
        self._over = threading.Event()
        self._started = False

    def get(self, k: int) -> Any:
        """Batch `k`; then the next ones are begun, to be made while this one is used."""
        self._begin(k)
        job = self._jobs[k]
        if not self._in_time(job):
            self._forget()
            raise BatchTimeout(
                f"DataLoader expects a batch within timeout={self._hands.timeout} s, got none for "
                f"batch {k} of this pass, which waits for {job.place}. Raise `timeout`, or see "
                "what the data set waits for."
            )
        try:
            result = job.future.result()
        except WorkerDied:
            self._forget()
            raise
        self._begin(k + 1)
        return result

    def _in_time(self, job: _Job) -> bool:
        timeout = self._hands.timeout
        if timeout is None or wait([job.future], timeout).done:
            return True
        return self._hands.waited() and bool(wait([job.future], timeout).done)

    def _forget(self) -> None:
        """Give up what is under way in other processes, so that it can be begun again."""
        if self._hands.stop is not None:
            for job in self._jobs.values():
                job.future.cancel()
            self._jobs.clear()
            self._hands.stop()

    def _begin(self, k: int) -> None:
        for old in [j for j in self._jobs if j < k]:
            self._jobs.pop(old).future.cancel()
        for j in range(k, min(k + self._hands.ahead, len(self._plan))):
            if j not in self._jobs:
                job = self._jobs[j] = _Job(j, Place(self._plan.seed, self._plan.epoch))
                self._queue.put(job)
        if not self._started:
            self._started = True
            for i in range(self._hands.workers):
                work = (self._queue, self._make, self._over)
                name = f"fluxax-loader_{i}"
                threading.Thread(target=_work, args=work, name=name, daemon=True).start()

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self._over.set()
        for _ in range(self._hands.workers):
            self._queue.put(None)


def _work(jobs: queue.SimpleQueue[_Job | None], make: Make, over: threading.Event) -> None:
    while (job := jobs.get()) is not None and not over.is_set():
        if not job.future.set_running_or_notify_cancel():
            continue
        try:
            result = make(job.k, job.place)
        except BaseException as error:  # SystemExit too: it belongs to whoever asks for the batch
            job.future.set_exception(error)
            del error
        else:
            job.future.set_result(result)
            del result
        del job
