"""The order of an epoch: a pure function of a seed and the epoch's number."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fluxax import _random

_STREAM = 0x10ADE5  # keeps the loaders' seeds apart from other children of the same root

_lock = threading.Lock()
_root: np.random.Generator | None = None
_loaders = 0


@dataclass(frozen=True, eq=False)
class Seed:
    """A loader's seed, which follows `fx.seed` if it has a root.

    Args:
        value: an int of at least 0.
        root: the generator of `fx.seed` that the value belongs to; `None` if it is pinned.
        number: of the loader, among those made since `fx.seed`.
    """

    value: int
    root: np.random.Generator | None = None
    number: int = 0

    def renewed(self) -> Seed:
        """This seed; or, if `fx.seed` was called since, the one for the same number now."""
        root = _random._generator
        if self.root is None or self.root is root:
            return self
        return Seed(_child(root, self.number), root, self.number)

    def __reduce__(self) -> Any:
        """A copy is pinned: in another process the root has no meaning."""
        return Seed, (self.value,)


def new_seed(rng: Any = None) -> Seed:
    """The seed of a new loader.

    The k-th loader made after `fx.seed(n)` gets a seed that depends on n and k
    alone, and a loader made before takes a new one, with its own k, at its next
    pass. So it does not matter how much else was drawn in between. One that is
    made inside an objective is another at every call, and takes no number.

    Args:
        rng: `None`, or what pins the seed: an int, a NumPy generator, a JAX key.

    >>> new_seed(1).value == new_seed(1).value
    True
    """
    if rng is None and _random.now.draws is None:
        root, number = _enter()
        return Seed(_child(root, number), root, number)
    return Seed(int(_random.generator(rng).integers(0, 2**63)))


def _enter() -> tuple[np.random.Generator, int]:
    global _root, _loaders
    with _lock:
        root = _random._generator
        if _root is not root:
            _root, _loaders = root, 0
        _loaders += 1
        return root, _loaders


def made() -> int:
    """How many loaders took a number since `fx.seed`."""
    with _lock:
        return _loaders if _root is _random._generator else 0


def go_on(number: int) -> None:
    """Count on from that many loaders, for the random numbers as they are now."""
    global _root, _loaders
    with _lock:
        _root, _loaders = _random._generator, number


def following(value: int, number: int) -> Seed:
    """A seed that is taken anew when `fx.seed` is called, as that of the loader of that number."""
    return Seed(value, _random._generator, number)


def _child(root: np.random.Generator, number: int) -> int:
    source = cast(np.random.SeedSequence, root.bit_generator.seed_seq)
    child = np.random.SeedSequence(source.entropy, spawn_key=(_STREAM, number))
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
        seed, epoch: what the order, and all else that is random in the pass, is drawn from.
    """

    order: np.ndarray | None
    begin: int
    end: int
    size: int
    single: bool
    seed: int = 0
    epoch: int = 0

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
