"""Data sets of items for the tests of the loader; worker processes import this file."""

from __future__ import annotations

import os
import random
import threading
import time

import jax
import numpy as np

import fluxax as fx


def lists(batches):
    """Batches as plain lists, to compare them whole."""
    return jax.tree.map(lambda x: np.asarray(x).tolist(), list(batches))


def flat(batches):
    """All observations of an epoch in one list."""
    return [x for batch in batches for x in batch.tolist()]


class Squares:
    """A data set of (i, i²) that remembers who read what."""

    def __init__(self, n, broken=(), error=ValueError):
        self.n, self.broken, self.error = n, broken, error
        self.read, self.threads = [], set()

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read.append(i)
        self.threads.add(threading.current_thread())
        if i in self.broken:
            raise self.error("no such file")
        return np.float32(i), {"square": i * i}


class Noisy:
    """Each observation with random numbers of its own, and the process that read it."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"i": i, "noise": fx.obsrng().normal(size=2), "more": fx.obsrng().random()}


def noisy_sum(rows):
    """A collate function that draws, too."""
    return sum(row["noise"] for row in rows) + fx.obsrng().random()


class Careless(Noisy):
    """Draws from global generators, as many data sets do."""

    def __getitem__(self, i):
        return i, random.random(), np.random.random()


class Process(Noisy):
    """Says which process reads, and in which environment."""

    def __getitem__(self, i):
        return os.getpid(), os.environ["JAX_PLATFORMS"]


class Fragile(Noisy):
    """Something happens at one observation; where `once` is a path, only if there is no such file.

    Args:
        what: "raise", "odd" (an error that cannot be pickled), "die", "kill", "hang" or "exit".
    """

    def __init__(self, n, at, what, once=None):
        super().__init__(n)
        self.at, self.what, self.once = at, what, once

    def __getitem__(self, i):
        if i == self.at and not (self.once and os.path.exists(self.once)):
            if self.once:
                open(self.once, "w").close()
            self.happen()
        return i

    def happen(self):
        if self.what == "raise":
            raise ValueError("no such file")
        if self.what == "odd":
            raise type("Local", (ValueError,), {})("no such file")
        if self.what == "die":
            os._exit(3)
        if self.what == "kill":
            os.kill(os.getpid(), 9)
        if self.what == "exit":
            raise SystemExit(4)
        time.sleep(1000)


class Odd(Noisy):
    """Things that are awkward to send."""

    def __init__(self):
        super().__init__(2)

    def __getitem__(self, i):
        turned = np.arange(6).reshape(2, 3).T[: 3 * (1 - i)]
        return np.zeros(0), "ab"[i], None, turned
