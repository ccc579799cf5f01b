"""Folds for cross-validation: by number, by size, and in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fluxax import _random
from fluxax._errors import short
from fluxax.data._observations import count
from fluxax.data._split import indices_of, labelled, part_of, slice_of
from fluxax.data._views import positive

Folds = Iterator[tuple[Any, Any]]


def kfolds(
    data: Any,
    k: int = 5,
    *,
    shuffle: bool = False,
    stratified: Any = None,
    rng: Any = None,
    axis: int = 0,
) -> Folds:
    """Pairs (train, validation), `k` of them: each observation is validated once.

    Folds are made one at a time, and differ by at most one observation in size. In order,
    validation parts of NumPy arrays are views of `data`.

    Args:
        data: as for `numobs`; an int n stands for the indices 0 to n - 1.
        k: from 2 to the number of observations.
        shuffle: permute the observations first, once for all folds.
        stratified: a label for each observation; the number of any label's observations differs
            by at most one between folds too.
        rng: for `shuffle`: an int, a `numpy.random.Generator`, a JAX key, or
            `None`, which `fx.seed` fixes.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: for a `k` out of range, or labels that do not fit the data.
        TypeError: for labels of several sorts.

    Example:
        >>> import fluxax as fx
        >>> for train, val in fx.kfolds(5, k=3):
        ...     print(train, val)
        [2 3 4] [0 1]
        [0 1 4] [2 3]
        [0 1 2 3] [4]
        >>> [val.tolist() for _, val in fx.kfolds(6, 2, stratified=list("aabbbb"))]
        [[0, 2, 4], [1, 3, 5]]
    """
    data = indices_of(data)
    n = count(data, axis, "kfolds")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 2 <= k <= n:
        raise ValueError(f"kfolds expects k from 2 to {n}, the number of observations, got {k!r}.")
    order = _random.generator(rng).permutation(n) if shuffle else None
    if stratified is not None:
        return _stratified(data, labelled("kfolds", stratified, n), order, int(k), axis)
    return (_fold(data, order, n, int(k), i, axis) for i in range(k))


def _fold(data: Any, order: Any, n: int, k: int, i: int, axis: int) -> tuple[Any, Any]:
    start = i * (n // k) + min(i, n % k)
    stop = start + n // k + (i < n % k)
    rest = np.concatenate([np.arange(start), np.arange(stop, n)])
    if order is None:
        return part_of(data, rest, axis), slice_of(data, start, stop, axis)
    return part_of(data, order[rest], axis), part_of(data, order[start:stop], axis)


def _stratified(data: Any, group: np.ndarray, order: Any, k: int, axis: int) -> Folds:
    """Label by label the observations go to fold 0, 1, …, k - 1 in turn, and on from there."""
    order = np.arange(len(group)) if order is None else order
    fold = np.empty(len(group), np.intp)
    fold[np.argsort(group[order], kind="stable")] = np.arange(len(group)) % k
    return (
        (part_of(data, order[fold != i], axis), part_of(data, order[fold == i], axis))
        for i in range(k)
    )


def leavepout(
    data: Any, p: int = 1, *, shuffle: bool = False, rng: Any = None, axis: int = 0
) -> Folds:
    """Pairs (train, validation) with `p` observations left out in turn.

    These are the folds of `kfolds` with k = ⌊n / p⌋. Where p does not divide n, the first folds
    leave out p + 1.

    Args:
        data: as for `numobs`; an int n stands for the indices 0 to n - 1.
        p: from 1 to half the number of observations; 1 is "leave one out".
        shuffle, rng, axis: as for `kfolds`.

    Raises:
        ValueError: for a `p` out of range.

    Example:
        >>> import fluxax as fx
        >>> [val.tolist() for _, val in fx.leavepout(7, 3)]
        [[0, 1, 2, 3], [4, 5, 6]]
    """
    data = indices_of(data)
    n = count(data, axis, "leavepout")
    if isinstance(p, bool) or not isinstance(p, (int, np.integer)) or not 1 <= p <= n // 2:
        raise ValueError(
            f"leavepout expects p from 1 to {n // 2}, half the number of observations, got {p!r}."
        )
    return kfolds(data, n // p, shuffle=shuffle, rng=rng, axis=axis)


def timefolds(
    data: Any,
    k: int = 5,
    *,
    size: int | None = None,
    gap: int = 0,
    window: int | None = None,
    axis: int = 0,
) -> Folds:
    """Pairs (train, validation) of observations in time: trained with is what came before.

    The last k·size observations are validated, `size` at a time, in order; each fold trains
    with all that came before, but the last `gap` of it.

    Args:
        data: as for `numobs`, in the order of time; an int n stands for the indices 0 to n - 1.
        k: how many folds, at least 1.
        size: observations that a fold validates; ⌊n / (k + 1)⌋ if `None`.
        gap: observations between training and validation that no fold uses.
        window: train with at most so many observations, the last ones.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: where the first fold would have nothing to train with.

    Example:
        >>> import fluxax as fx
        >>> for train, val in fx.timefolds(7, k=3, size=2):
        ...     print(train, val)
        [0] [1 2]
        [0 1 2] [3 4]
        [0 1 2 3 4] [5 6]
    """
    data = indices_of(data)
    n = count(data, axis, "timefolds")
    positive("timefolds", "k", k)
    if size is None and k >= n:
        raise ValueError(f"timefolds expects more than k={k} observations, got {n}. Take fewer.")
    size = n // (k + 1) if size is None else size
    for name, value in {"size": size, "window": 1 if window is None else window}.items():
        positive("timefolds", name, value, n)
    if isinstance(gap, bool) or not isinstance(gap, (int, np.integer)) or gap < 0:
        raise ValueError(f"timefolds expects gap of at least 0, got {short(gap)}.")
    first = n - k * size
    if first - gap < 1:
        raise ValueError(
            f"timefolds expects more observations than it validates and leaves out, got {n} for "
            f"{k} folds of {size} and a gap of {gap}. Take fewer or smaller folds."
        )
    return (_in_time(data, first + i * size, size, gap, window, axis) for i in range(k))


def _in_time(
    data: Any, start: int, size: int, gap: int, window: int | None, axis: int
) -> tuple[Any, Any]:
    stop = start - gap
    begin = 0 if window is None else max(0, stop - window)
    return slice_of(data, begin, stop, axis), slice_of(data, start, start + size, axis)
