"""Parts of a data set: splits, shuffled copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fluxax import _random
from fluxax._errors import short
from fluxax.data._gather import is_array
from fluxax.data._observations import count, map_parts, read


class Subset:
    """Some observations of a data set, read when they are asked for.

    >>> Subset("abcdef", np.array([5, 0]))[0]
    'f'
    """

    def __init__(self, data: Any, indices: np.ndarray) -> None:
        self.data, self.indices = data, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.data[int(self.indices[i])]

    @property
    def __getitems__(self) -> Callable[[list[int]], list[Any]]:
        """Many at once, for data sets that can."""
        whole = self.data.__getitems__
        return lambda indices: whole([int(self.indices[i]) for i in indices])

    def __repr__(self) -> str:
        return f"Subset of {len(self)} observations of {short(self.data)}"


def splitobs(
    data: Any,
    at: Any = 0.7,
    *,
    shuffle: bool = False,
    stratified: Any = None,
    rng: Any = None,
    axis: int = 0,
) -> tuple[Any, ...]:
    """Split data into two or more parts.

    A part has round(n·at) observations, halves to even; the last part has the rest. In
    order, NumPy parts are views of `data`, as slices are; shuffled, they are
    copies. A part of a data set is read when it is asked for.

    Args:
        data: as for `numobs`; an int n stands for the indices 0 to n - 1.
        at: a fraction in [0, 1], a number of observations (an int), or a tuple of either.
        shuffle: permute the observations first.
        stratified: a label for each observation; each label is split by itself,
            so that every part has nearly the same proportions.
        rng: for `shuffle`: an int, a `numpy.random.Generator`, a JAX key, or
            `None`, which `fx.seed` fixes.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: for an `at` out of range, or labels that do not fit the data.
        TypeError: for labels of several sorts.

    Example:
        >>> import fluxax as fx
        >>> [part.tolist() for part in fx.splitobs(10, at=(0.5, 0.3))]
        [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    """
    data = indices_of(data)
    n = count(data, axis, "splitobs")
    cuts = _fractions(at, n)
    draw = _random.generator(rng) if shuffle else None
    if stratified is None:
        order = None if draw is None else draw.permutation(n)
        return tuple(_part(data, order, a, b, axis) for a, b in _bounds(cuts, n))
    pieces = _stratify(labelled("splitobs", stratified, n), cuts, n, draw)
    return tuple(part_of(data, piece, axis) for piece in pieces)


def shuffleobs(data: Any, *, rng: Any = None, axis: int = 0) -> Any:
    """The same observations in a random order; arrays are copied, data sets are not.

    Args:
        rng: an int, a `numpy.random.Generator`, a JAX key, or `None`, which `fx.seed` fixes.
        axis: along which the observations stand in arrays.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> x, y = fx.shuffleobs((np.arange(5), np.arange(5) * 10), rng=0)
        >>> bool((y == 10 * x).all()), sorted(x.tolist())
        (True, [0, 1, 2, 3, 4])
    """
    n = count(data, axis, "shuffleobs")
    return part_of(data, _random.generator(rng).permutation(n), axis)


def indices_of(data: Any) -> Any:
    """The data; a whole number n stands for the indices 0 to n - 1."""
    whole = isinstance(data, (int, np.integer)) and not isinstance(data, bool)
    return np.arange(data) if whole else data


def part_of(data: Any, order: np.ndarray, axis: int) -> Any:
    """The observations `order` of nested data: arrays are copied, data sets are not.

    >>> part_of((np.arange(3), ["a", "b", "c"]), np.array([2, 2]), 0)
    (array([2, 2]), ['c', 'c'])
    """
    return _part(data, order, 0, len(order), axis)


def slice_of(data: Any, start: int, stop: int, axis: int) -> Any:
    """The observations from one to another: views of NumPy arrays."""
    return _part(data, None, start, stop, axis)


def _part(data: Any, order: np.ndarray | None, start: int, stop: int, axis: int) -> Any:
    return map_parts(lambda part: _part_of(part, order, start, stop, axis), data)


def _part_of(part: Any, order: np.ndarray | None, start: int, stop: int, axis: int) -> Any:
    if is_array(part):
        if order is None and isinstance(part, np.ndarray):
            return part[(slice(None),) * (axis % part.ndim) + (slice(start, stop),)]
        return read(part, slice(start, stop) if order is None else order[start:stop], axis)
    where = np.arange(start, stop) if order is None else order[start:stop]
    return [part[i] for i in where.tolist()] if isinstance(part, list) else Subset(part, where)


def _fractions(at: Any, n: int) -> list[float]:
    """The wanted sizes as real numbers: n·at, or the counts themselves."""
    sizes = []
    for value in at if isinstance(at, (tuple, list)) else (at,):
        real = isinstance(value, (int, float, np.integer, np.floating))
        if isinstance(value, (bool, np.bool_)) or not real:
            raise TypeError(
                f"splitobs expects fractions or whole numbers as `at`, got {short(value)}."
            )
        fraction = isinstance(value, (float, np.floating))
        if not 0 <= value <= (1 if fraction else n):
            raise ValueError(
                f"splitobs expects `at` from 0 to {1 if fraction else n}, got {value}. "
                "A float is a fraction, an int a number of observations."
            )
        sizes.append(value * n if fraction else float(value))
    if sum(sizes) > n * (1 + 1e-9):
        raise ValueError(
            f"splitobs expects parts of at most {n} observations together, got at={at!r}."
        )
    return sizes


def _bounds(sizes: list[float], n: int) -> list[tuple[int, int]]:
    """Start and stop of each part, the rest included.

    >>> _bounds([2.5, 2.5], 5)
    [(0, 2), (2, 4), (4, 5)]
    """
    stops = [0]
    for size in sizes:
        stops.append(min(stops[-1] + round(size), n))
    return list(zip(stops, [*stops[1:], n], strict=True))


def labelled(who: str, stratified: Any, n: int) -> np.ndarray:
    """By observation the number of its label, in the order of the labels."""
    try:
        labels = np.asarray(stratified)
    except ValueError:  # lists of several lengths
        labels = np.zeros((), object)
    if labels.ndim != 1 or len(labels) != n:
        raise ValueError(
            f"{who} expects one label for each of {n} observations in `stratified`, "
            f"got {short(labels if labels.ndim else stratified)}."
        )
    return numbered(who, "labels", labels)


def numbered(who: str, what: str, labels: np.ndarray) -> np.ndarray:
    """Labels by their number, in their order."""
    try:
        return np.unique(labels, return_inverse=True)[1]
    except TypeError:
        raise TypeError(
            f"{who} expects {what} of one sort, which can be ordered, got {short(labels)} of "
            "several. Pass numbers or text alone."
        ) from None


def _stratify(
    group: np.ndarray, sizes: list[float], n: int, draw: np.random.Generator | None
) -> list[np.ndarray]:
    members: list[list[np.ndarray]] = [[] for _ in range(len(sizes) + 1)]
    for g in range(group.max(initial=-1) + 1):
        mine = np.flatnonzero(group == g)
        mine = mine if draw is None else draw.permutation(mine)
        for k, (a, b) in enumerate(_bounds([s * len(mine) / n for s in sizes], len(mine))):
            members[k].append(mine[a:b])
    joined = [np.concatenate([np.empty(0, np.intp), *m]) for m in members]
    return [np.sort(j) if draw is None else draw.permutation(j) for j in joined]
