"""Observations chosen by a function or by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fluxax import _random
from fluxax._errors import short
from fluxax.data._observations import count, getobs
from fluxax.data._split import part_of
from fluxax.data._views import called, positive


def filterobs(f: Callable[[Any], Any], data: Any, *, axis: int = 0) -> Any:
    """The observations for which a function is true: arrays are copied, data sets are not.

    Args:
        f: of one observation, as `getobs(data, i)` gives it; called once for each, at once.
        data: as for `numobs`.
        axis: along which the observations stand in arrays.

    Raises:
        TypeError: for what cannot be called, or says something else than true or false.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.filterobs(lambda obs: obs[1] == "a", (np.arange(3), ["a", "b", "a"]))
        (array([0, 2]), ['a', 'a'])
    """
    called("filterobs", f)
    n = count(data, axis, "filterobs")
    chosen = [i for i in range(n) if _truth(f(getobs(data, i, axis)))]
    return part_of(data, np.array(chosen, np.intp), axis)


def _truth(said: Any) -> bool:
    if not isinstance(said, bool) and (np.shape(said) or np.asarray(said).dtype != bool):
        raise TypeError(
            f"filterobs expects a function that gives True or False, got {short(said)}."
        )
    return bool(said)


def groupobs(f: Callable[[Any], Any], data: Any, *, axis: int = 0) -> dict[Any, Any]:
    """The observations by what a function says of them, in the order of first appearance.

    Args:
        f: of one observation, as `getobs(data, i)` gives it; called once for each, at once.
        data: as for `numobs`.
        axis: along which the observations stand in arrays.

    Returns:
        A dict: by each value of `f` the observations that have it, as `filterobs` gives them.

    Raises:
        TypeError: for what cannot be called, or gives what no key of a dict can be.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.groupobs(lambda x: x % 2 == 0, np.arange(5))
        {True: array([0, 2, 4]), False: array([1, 3])}
    """
    called("groupobs", f)
    groups: dict[Any, list[int]] = {}
    for i in range(count(data, axis, "groupobs")):
        groups.setdefault(_key(f(getobs(data, i, axis))), []).append(i)
    return {key: part_of(data, np.array(at), axis) for key, at in groups.items()}


def _key(said: Any) -> Any:
    """A value as a key: numbers of arrays as Python's."""
    if isinstance(said, (np.generic, np.ndarray, jax.Array)) and said.shape == ():
        return said.item()
    try:
        hash(said)
    except TypeError:
        raise TypeError(
            f"groupobs expects a function that gives keys of a dict, got {short(said)}. "
            "Give a number, text, or a tuple of them."
        ) from None
    return said


def randobs(data: Any, n: int | None = None, *, rng: Any = None, axis: int = 0) -> Any:
    """A random observation, or `n` of them, each drawn from all: one may come twice.

    Args:
        data: as for `numobs`, with at least one observation.
        n: how many; `None` for one without a batch axis.
        rng: an int, a `numpy.random.Generator`, a JAX key, or `None`, which `fx.seed` fixes.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: for data without observations, or an `n` below 1.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> x, y = fx.randobs((np.arange(9), np.arange(9) * 2), 4, rng=0)
        >>> x.shape, bool((y == 2 * x).all())
        ((4,), True)
    """
    total = count(data, axis, "randobs")
    if not total:
        raise ValueError(f"randobs expects at least one observation, got {short(data)}.")
    draw = _random.generator(rng)
    if n is None:
        return getobs(data, int(draw.integers(total)), axis)
    positive("randobs", "n", n)
    return getobs(data, draw.integers(total, size=n), axis)
