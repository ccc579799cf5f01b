"""A data set of items for the tests of the loader."""

from __future__ import annotations

import threading

import jax
import numpy as np


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
