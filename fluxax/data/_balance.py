"""Data with as many observations of one class as of another."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxax import _random
from fluxax._errors import short
from fluxax.data._observations import count
from fluxax.data._split import numbered, part_of


def oversample(
    data: Any,
    classes: Any = None,
    *,
    fraction: float = 1.0,
    shuffle: bool = True,
    rng: Any = None,
    axis: int = 0,
) -> tuple[Any, ...]:
    """Repeat observations of rare classes until each has `fraction` of the largest one's number.

    Each observation is repeated as often as any other of its class, give or take one.

    Args:
        data: as for `numobs`. Split it first: a repeated observation must not be on both sides.
        classes: the class of each observation; `None` if the last entry of the tuple `data` is it.
        fraction: in (0, 1].
        shuffle: in a random order; else what is repeated stands at the end, class by class.
        rng: which ones are repeated, and the order: an int, a `numpy.random.Generator`, a JAX
            key, or `None`, which `fx.seed` fixes.
        axis: along which the observations stand in arrays.

    Returns:
        The pair `(data, classes)`; of a tuple alone, that tuple.

    Raises:
        ValueError: for classes that do not fit the data, or a fraction out of range.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> x, y = fx.oversample((np.arange(4), np.array(["a", "a", "a", "b"])), shuffle=False)
        >>> x.tolist(), y.tolist()
        ([0, 1, 2, 3, 3, 3], ['a', 'a', 'a', 'b', 'b', 'b'])
    """
    if not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise ValueError(f"oversample expects a fraction above 0, up to 1, got {short(fraction)}.")
    members = _members("oversample", data, classes, axis)
    draw = _random.generator(rng)
    wanted = int(np.ceil(fraction * max(map(len, members), default=0)))
    chosen = [np.arange(sum(map(len, members)))]
    for mine in members:
        more = max(wanted - len(mine), 0)
        rounds = [draw.permutation(mine) for _ in range(-(-more // len(mine)))]
        chosen.append(np.concatenate([np.empty(0, np.intp), *rounds])[:more])
    order = np.concatenate(chosen)
    return _taken(data, classes, draw.permutation(order) if shuffle else order, axis)


def undersample(
    data: Any, classes: Any = None, *, shuffle: bool = True, rng: Any = None, axis: int = 0
) -> tuple[Any, ...]:
    """Leave observations away until each class has as many as the smallest one.

    Args:
        data, classes, axis: as for `oversample`.
        shuffle: in a random order; else as they stood.
        rng: which ones stay, and the order: as for `oversample`.

    Returns:
        The pair `(data, classes)`; of a tuple alone, that tuple.

    Raises:
        ValueError: for classes that do not fit the data.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> x, y = fx.undersample((np.arange(4), np.array(["a", "a", "a", "b"])), rng=0)
        >>> sorted(y.tolist())
        ['a', 'b']
    """
    members = _members("undersample", data, classes, axis)
    draw = _random.generator(rng)
    least = min(map(len, members), default=0)
    chosen = [draw.permutation(mine)[:least] for mine in members]
    order = np.sort(np.concatenate([np.empty(0, np.intp), *chosen]))
    return _taken(data, classes, draw.permutation(order) if shuffle else order, axis)


def _members(who: str, data: Any, classes: Any, axis: int) -> list[np.ndarray]:
    """The observations of each class, in the order of the classes."""
    n = count(data, axis, who)
    if classes is None:
        if not isinstance(data, tuple) or len(data) < 2:
            raise ValueError(
                f"{who} expects a class for each observation, got {short(data)} alone. "
                f"Write {who}((X, Y)) or {who}(X, Y)."
            )
        classes = data[-1]
    labels = np.asarray(classes)
    if labels.ndim != 1 or len(labels) != n:
        raise ValueError(
            f"{who} expects one class for each of {n} observations, got {short(labels)}. "
            "Pass labels, as `onecold` gives them."
        )
    group = numbered(who, "classes", labels)
    return [np.flatnonzero(group == g) for g in range(group.max(initial=-1) + 1)]


def _taken(data: Any, classes: Any, order: np.ndarray, axis: int) -> tuple[Any, ...]:
    taken = part_of(data, order, axis)
    return taken if classes is None else (taken, part_of(classes, order, 0))
