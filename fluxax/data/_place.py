"""Which observation is being read: its random numbers, and its name when something goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from fluxax import _random
from fluxax.data._gather import Where

_SHOWN = 10  # observations in a message


class Place:
    """Where the reading of one batch stands; a new one for each batch.

    Args:
        seed, epoch: of the pass.

    >>> place = Place(seed=1, epoch=0)
    >>> place.at(7); str(place)
    'observation 7'
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed, self._epoch = seed, epoch
        self._indices: list[int] = []
        self._watched: Callable[[], list[int]] | None = None
        self._generator: np.random.Generator | None = None

    def at(self, index: int) -> None:
        """Observation `index` is read next."""
        self._indices, self._generator = [index], None

    def among(self, indices: list[int]) -> None:
        """These observations are read, or collated, together."""
        self._indices, self._generator = indices, None

    def watch(self, indices: Callable[[], list[int]]) -> None:
        """A worker process reads them; this is how to ask it where it stands."""
        self._watched = indices

    def rng(self) -> np.random.Generator:
        """Random numbers that depend on the seed, the epoch and the observation alone."""
        if self._generator is None:
            together = () if len(self._indices) == 1 else (1,)
            key = (self._epoch, self._indices[0], *together)
            self._generator = np.random.default_rng(
                np.random.SeedSequence(self._seed, spawn_key=key)
            )
        return self._generator

    def __str__(self) -> str:
        indices = self._indices if self._watched is None else self._watched()
        if not indices:
            return "its first observation"
        more = ", ..." if len(indices) > _SHOWN else ""
        plural = "s" if len(indices) > 1 else ""
        return f"observation{plural} {', '.join(map(str, indices[:_SHOWN]))}{more}"


class Passed(Place):
    """The place of who reads for somebody else: that one's random numbers, if there is one."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self._outer = now.place

    def rng(self) -> np.random.Generator:
        return _random.generator() if self._outer is None else self._outer.rng()


class _Now(threading.local):
    place: Place | None = None


now = _Now()  # the place that this thread reads


def obsrng() -> np.random.Generator:
    """Random numbers for the observation that a `DataLoader` is reading.

    For `__getitem__` of a data set, and for `collate`. They depend on the loader's seed, the
    epoch and the observation's index alone: not on the batch, the number of workers or whether
    those are processes, and they are the same after `load_state_dict`. Within one observation all
    calls give one generator, which goes on. Where no loader reads, a new one that `fx.seed` fixes.

    Example:
        >>> import fluxax as fx
        >>> class Noisy:
        ...     def __len__(self):
        ...         return 4
        ...
        ...     def __getitem__(self, i):
        ...         return i + fx.obsrng().normal(scale=0.1)
        >>> one, two = (fx.DataLoader(Noisy(), 2, rng=0, workers=w) for w in (0, 2))
        >>> [x.tolist() for x in one] == [x.tolist() for x in two]
        True
    """
    return _random.generator() if now.place is None else now.place.rng()


def indices_of(where: Where) -> list[int]:
    """The indices that a place in arrays stands for.

    >>> indices_of(3), indices_of(slice(1, 3)), indices_of(np.array([4, 0]))
    ([3], [1, 2], [4, 0])
    """
    if isinstance(where, int):
        return [where]
    return list(range(where.start, where.stop)) if isinstance(where, slice) else where.tolist()


def named(error: Any, place: Any) -> None:
    """Put the place into an error's sentence; leave its type, traceback and handlers alone."""
    note = f"(while reading {place})"
    plain = len(error.args) == 1 and isinstance(error.args[0], str)
    if plain and type(error).__str__ is BaseException.__str__:
        error.args = (f"{error.args[0]} {note}",)
    else:
        error.add_note(note)
