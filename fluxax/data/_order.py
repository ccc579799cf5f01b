"""The order of an epoch: a pure function of a seed and the epoch's number."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluxax import _random

_STREAM = 0x10ADE5  # keeps the loaders' seeds apart from other children of the same root

_lock = threading.Lock()
_root: np.random.Generator | None = None
_loaders = 0


class Seed:
    """A loader's seed, which follows `fx.seed` unless it was pinned.

    The k-th loader made after `fx.seed(n)` gets a seed that depends on n and k
    alone; a loader made before takes a new one, with the same k, at its next
    pass. So it does not matter how much else was drawn in between.

    Args:
        rng: `None`, or what pins the seed: an int, a NumPy generator, a JAX key.

    >>> Seed(1).value == Seed(1).value
    True
    """

    def __init__(self, rng: Any = None) -> None:
        self._root: np.random.Generator | None = None
        self._number = 0
        if rng is None:
            self._root, self._number = _enter()
            self.value = _child(self._root, self._number)
        else:
            self.value = int(_random.generator(rng).integers(0, 2**63))

    def renew(self) -> bool:
        """Take a new value if `fx.seed` was called since; say whether."""
        root = _random._generator
        if self._root is None or self._root is root:
            return False
        self._root, self.value = root, _child(root, self._number)
        return True

    def pin(self, value: int) -> None:
        """Keep `value`, whatever `fx.seed` does later."""
        self._root, self.value = None, value

    def __getstate__(self) -> dict:
        """A copy is pinned: in another process the root has no meaning."""
        return {"_root": None, "_number": self._number, "value": self.value}


def _enter() -> tuple[np.random.Generator, int]:
    global _root, _loaders
    with _lock:
        if _root is not _random._generator:
            _root, _loaders = _random._generator, 0
        _loaders += 1
        return _root, _loaders


def _child(root: np.random.Generator, number: int) -> int:
    entropy: Any = getattr(root.bit_generator.seed_seq, "entropy")  # noqa: B009
    child = np.random.SeedSequence(entropy, spawn_key=(_STREAM, number))
    return int(child.generate_state(1, np.uint64)[0] >> np.uint64(1))


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch reads `n` observations.

    >>> permutation(4, seed=0, epoch=1).tolist() == permutation(4, seed=0, epoch=1).tolist()
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which observations each batch of one pass holds.

    Args:
        order: of the observations, `None` for the order they stand in.
        begin: how many observations of the order were received before this pass.
        end: where the last batch ends.
        size: of a batch.
        single: batches are single observations without a batch axis.
    """

    order: np.ndarray | None
    begin: int
    end: int
    size: int
    single: bool

    def __len__(self) -> int:
        return -(-max(self.end - self.begin, 0) // self.size)

    def start(self, k: int) -> int:
        """How many observations stand before batch `k` of this pass."""
        return min(self.begin + k * self.size, max(self.end, self.begin))

    def where(self, k: int) -> int | slice | np.ndarray:
        """The observations of batch `k`: an int, a slice, or an array of ints."""
        start, stop = self.start(k), self.start(k + 1)
        if self.order is None:
            return start if self.single else slice(start, stop)
        return int(self.order[start]) if self.single else self.order[start:stop]
