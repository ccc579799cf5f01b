"""A worker process: reads the batches that it is asked for, until nobody is there to ask.

It gets its orders as frames, a length and so many bytes, and ends when nobody is left who could
send one: it does not outlive a parent that was killed.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickle
import queue
import random
import runpy
import struct
import sys
import threading
import traceback
import types
from typing import Any

import numpy as np

from fluxax.data._place import Place

STARTING, IDLE, TOGETHER = -3, -2, -1  # what stands where the index of an observation would

#: Whether this is a worker that imports the script of its parent just now.
importing_main = False


class FarPlace(Place):
    """A place that the parent can see: the index stands in a file that both have in memory."""

    def __init__(self, seed: int, epoch: int, seen: mmap.mmap) -> None:
        super().__init__(seed, epoch)
        self._seen = seen

    def at(self, index: int) -> None:
        super().at(index)
        self._seen[:8] = struct.pack("q", index)

    def among(self, indices: list[int]) -> None:
        super().among(indices)
        self._seen[:8] = struct.pack("q", TOGETHER)


def work(orders: int, out: int, seen_at: str) -> None:
    """Serve until nobody holds the other end of `orders` any more.

    Args:
        orders, out: the files that orders come from and answers go to.
        seen_at: the path of the file that says where this worker stands.
    """
    with open(seen_at, "r+b") as file:
        seen = mmap.mmap(file.fileno(), 8)
    sys.stdin = io.StringIO()  # a data set that asks gets nothing
    answers = os.fdopen(out, "wb", buffering=0)
    asked = os.fdopen(orders, "rb", buffering=0)  # a lock on a buffer would outlast this thread
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked, frames, seen_at), daemon=True).start()
    reader: Any = None
    while True:
        _say(seen, IDLE)
        kind, content = pickle.loads(frames.get())
        if kind == "reader":
            reader = _unpacked(*content)
            continue
        where, first, seed, epoch = content
        _seed_all(seed, epoch, first)
        try:
            answer = reader(where, FarPlace(seed, epoch, seen))
            message = _packed(("batch", answer))
        except Exception as error:
            message = _packed(_told(error))
        _write(answers, message)


def _listen(asked: io.FileIO, frames: queue.SimpleQueue[bytes], seen_at: str) -> None:
    """Read ahead, and end the process as soon as nobody is left: whatever it does or waits for."""
    try:
        while True:
            (size,) = struct.unpack("q", _exactly(asked, 8))
            frames.put(_exactly(asked, size))
    except EOFError:
        with contextlib.suppress(OSError):
            os.unlink(seen_at)
        os._exit(0)


def _exactly(asked: io.FileIO, size: int) -> bytes:
    parts = []
    while size:
        part = asked.read(min(size, 1 << 24))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _say(seen: mmap.mmap, what: int) -> None:
    seen[:8] = struct.pack("q", what)


def _write(answers: io.FileIO, message: list[Any]) -> None:
    for part in message:
        view = memoryview(part).cast("B")
        while len(view):
            view = view[answers.write(view) or 0 :]


def _packed(answer: Any) -> list[Any]:
    """The parts of a frame: the sizes, the pickle, and the arrays behind it, not copied."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
    raw = [b.raw() for b in buffers]
    sizes = pickle.dumps((len(body), [len(r) for r in raw]))
    return [struct.pack("q", len(sizes)), sizes, body, *raw]


def _told(error: Exception) -> tuple[str, Any]:
    """An error that can travel: itself if it can be pickled, else its text."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return "error", (error, text)


def _seed_all(seed: int, epoch: int, first: int) -> None:
    """Seed what code that knows nothing of loaders draws from, the same for any worker."""
    word = int(np.random.SeedSequence(seed, spawn_key=(epoch, first, 2)).generate_state(1)[0])
    random.seed(word)
    np.random.seed(word)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(word)


# --- what is to be read ---------------------------------------------------------------------


class _Refused:
    """Stands for a reader that could not be made; says so at every batch."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, where: Any, place: Any) -> Any:
        raise self.error


def _unpacked(body: bytes, main: tuple[str, str] | None) -> Any:
    try:
        if main is not None and "__mp_main__" not in sys.modules:
            _import_main(*main)
        return pickle.loads(body)
    except NeedsGuard as error:
        return _Refused(error)
    except Exception as error:
        return _Refused(
            TypeError(
                "DataLoader expects a data set that worker processes can import, got "
                f"{type(error).__name__}: {error}. Put its classes and functions into a module "
                "and import it, or use threads: processes=False."
            )
        )


class NeedsGuard(RuntimeError):
    """A script that trains when it is imported."""


_GUARD = (
    "DataLoader expects a script that worker processes can import, got one that trains when it "
    'is imported. Put what it does under `if __name__ == "__main__":`, or the data set into a '
    "module of its own."
)


def refuse_in_import() -> None:
    """A loop over worker processes does not begin while a worker imports the script.

    Raises:
        NeedsGuard: with what to write.
    """
    if importing_main:
        raise NeedsGuard(_GUARD)


def _import_main(how: str, what: str) -> None:
    """Import the parent's script, as `multiprocessing` does: not under the name `__main__`."""
    global importing_main
    module = types.ModuleType("__mp_main__")
    importing_main = True
    try:
        if how == "name":
            content = runpy.run_module(what, run_name="__mp_main__", alter_sys=True)
        else:
            content = runpy.run_path(what, run_name="__mp_main__")
    except SystemExit as error:
        raise NeedsGuard(_GUARD) from error
    finally:
        importing_main = False
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
