"""Worker processes, as their parent sees them: started when needed, kept for all passes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from fluxax.data import _worker
from fluxax.data._order import Plan
from fluxax.data._pickling import dumps
from fluxax.data._place import Place, indices_of
from fluxax.data._reader import Reader
from fluxax.data._threads import Hands, Make, WorkerDied

# Answers leave by a copy of standard output, so that what a data set prints goes to stderr.
_BOOT = """
import os, sys
out = os.dup(1)
os.dup2(2, 1)
seen = sys.argv[1]
sys.path[:] = sys.argv[2:]
from fluxax.data._worker import work
work(0, out, seen)
"""
_LONGEST_START = 120.0  # seconds


@dataclass(frozen=True, eq=False)
class Payload:
    """A reader on its way to the workers, and what tells it from another one."""

    body: bytes
    mark: bytes
    main: tuple[str, str] | None


def payload_of(reader: Reader) -> Payload:
    """The reader as bytes.

    Raises:
        TypeError: for a data set or a collate function that cannot be pickled.
    """
    try:
        body = dumps(reader)
    except Exception as error:
        raise TypeError(
            "DataLoader with processes=True expects a data set and a collate that can be pickled, "
            f"got {type(error).__name__}: {error}. Use functions and classes of a module, or "
            "threads: processes=False."
        ) from error
    main = _main_module() if b"__main__" in body else None
    return Payload(body, hashlib.blake2b(body, digest_size=16).digest(), main)


def _main_module() -> tuple[str, str] | None:
    """How a worker finds the script that runs here; `None` for a notebook or a prompt."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m; a package's __main__ is run, not imported
        return None if spec.name.rpartition(".")[2] == "__main__" else ("name", spec.name)
    path = getattr(main, "__file__", None)
    return None if path is None else ("path", os.path.abspath(path))


class Pool:
    """The worker processes of one loader.

    Started by the first batches, used by every pass, ended by `stop`, with the loader, or with
    Python. A data set is sent to each worker once, and again when it has changed.
    """

    def __init__(self, workers: int) -> None:
        sys.modules.setdefault(
            "__mp_main__", sys.modules["__main__"]
        )  # where its classes come from
        self._workers = [Worker() for _ in range(workers)]
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)
        weakref.finalize(self, _stop, self._workers, os.getpid())

    def __len__(self) -> int:
        return len(self._workers)

    def maker(self, reader: Reader, plan: Plan) -> Make:
        """What makes the batches of a plan in the workers."""
        return partial(_make, self._free, payload_of(reader), plan)

    def hands(self, prefetch: int, timeout: float | None) -> Hands:
        """What the threads of a pass need to know: each looks after one worker."""
        n = len(self._workers)
        return Hands(n, n * prefetch, timeout, self._waited, self.stop)

    def _waited(self) -> bool:
        begin, found = time.monotonic(), False
        while any(worker.starting() for worker in self._workers):
            found = True
            if time.monotonic() - begin > _LONGEST_START:
                return False
            time.sleep(0.02)
        return found

    def stop(self) -> None:
        """End all workers; the next batch starts them anew."""
        _stop(self._workers, os.getpid(), last=False)


def _stop(workers: list[Worker], owner: int, last: bool = True) -> None:
    if os.getpid() == owner:  # not in a fork of ours
        for worker in workers:
            worker.stop(last)


def _make(
    free: queue.SimpleQueue[Worker], payload: Payload, plan: Plan, k: int, place: Place
) -> Any:
    worker = free.get()
    try:
        return worker.batch(payload, plan, k, place)
    finally:
        free.put(worker)


class Worker:
    """One worker process; one thread at a time asks it for batches, and any may stop it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: np.memmap | None = None
        self._has: bytes | None = None  # the mark of the payload that it got
        self._ended = False
        self._gate = threading.Lock()  # held while the process is started or stopped
        self._talk = threading.Lock()  # held while its pipes are used

    def batch(self, payload: Payload, plan: Plan, k: int, place: Place) -> Any:
        """Batch `k` of a plan.

        Raises:
            WorkerDied: if the process ended before it answered.
        """
        where = plan.where(k)
        indices = indices_of(where)
        place.among(indices)
        place.watch(partial(self._reading, indices))
        with self._talk:
            process = self._running()
            try:
                if self._has != payload.mark:
                    _send(process.stdin, ("reader", (payload.body, payload.main)))
                    self._has = payload.mark
                _send(process.stdin, ("batch", (where, indices[0], plan.seed, plan.epoch)))
                kind, content = _receive(process.stdout)
            except (OSError, EOFError, ValueError) as error:
                raise self._died(process, place) from error
        if kind == "batch":
            return content
        error, text = content
        raise error from InWorker(text)

    def starting(self) -> bool:
        """Whether the process lives but does not listen yet."""
        process = self._process
        alive = process is not None and process.poll() is None
        return alive and self._index() == _worker.STARTING

    def stop(self, last: bool = True) -> None:
        """End the process now: it has nothing to put in order.

        Args:
            last: it is not started again.
        """
        with self._gate:
            process, self._process, self._has = self._process, None, None
            self._ended = self._ended or last
        if process is None:
            return
        process.kill()
        process.wait()
        free = self._talk.acquire(
            timeout=5
        )  # whoever waits for an answer finds the end of the pipe
        _close(process)
        if free:
            self._talk.release()

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and process.poll() is None:
            return process
        with self._gate:
            if self._ended:
                raise WorkerDied("DataLoader expects a batch of a pass that goes on.")
            if process is not None:
                _close(process)
            self._process, self._has = self._started(), None
            return self._process

    def _started(self) -> subprocess.Popen[bytes]:
        handle, path = tempfile.mkstemp(prefix="fluxax-loader-")
        os.write(handle, struct.pack("q", _worker.STARTING))
        os.close(handle)
        self._seen = np.memmap(path, np.int64, "r", shape=(1,))
        apart: dict[str, Any] = {
            "process_group": 0
        }  # Ctrl-C is for the parent, which ends its workers
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        command = [sys.executable, "-c", _BOOT, path, *map(str, sys.path)]
        pipe = subprocess.PIPE
        process: Any = subprocess.Popen(
            command, bufsize=0, stdin=pipe, stdout=pipe, env=_environment(), **apart
        )
        weakref.finalize(process, _remove, path)
        return process

    def _index(self) -> int:
        return _worker.STARTING if self._seen is None else int(self._seen[0])

    def _reading(self, indices: list[int]) -> list[int]:
        """The observation that the process reads, or all of the batch if it is not known."""
        index = self._index()
        return [index] if index >= 0 else indices

    def _died(self, process: subprocess.Popen[bytes], place: Place) -> WorkerDied:
        code = process.wait()
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        if self._index() == _worker.STARTING:
            return WorkerDied(
                f"DataLoader expects worker processes that start, got one that {how} before it "
                f"could read {place}. What it printed says why."
            )
        return WorkerDied(
            f"DataLoader expects worker processes that live, got one that {how} while it read "
            f"{place}. Read that without workers to see why; a kill may mean too little memory."
        )


class InWorker(Exception):
    """The traceback of an error in a worker process, as text: the cause of that error here."""

    def __str__(self) -> str:
        return f"\n\nin a worker process:\n{self.args[0]}"


def _environment() -> dict[str, str]:
    """Workers compute on the CPU, one thread each unless the user said otherwise."""
    one = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
    wide = "1" if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 else "0"
    return {**one, **os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": wide}


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()


def _send(file: Any, order: tuple[str, Any]) -> None:
    body = pickle.dumps(order, protocol=5)
    _write(file, [struct.pack("q", len(body)), body])


def _write(file: Any, parts: list[bytes]) -> None:
    for part in parts:
        view = memoryview(part)
        while len(view):
            view = view[file.write(view) :]


def _receive(file: Any) -> tuple[str, Any]:
    """An answer; its arrays lie in fresh memory, into which they are read without a detour."""
    (length,) = struct.unpack("q", _read(file, 8))
    body, sizes = pickle.loads(_read(file, length))
    return pickle.loads(_read(file, body), buffers=[_read(file, size) for size in sizes])


def _read(file: Any, size: int) -> Any:
    memory: Any = np.empty(size, np.uint8)
    view = memoryview(memory)
    while len(view):
        got = file.readinto(view)
        if not got:
            raise EOFError
        view = view[got:]
    return memory
