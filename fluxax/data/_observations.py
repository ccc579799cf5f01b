"""What an observation is: counting and reading the samples of nested data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fluxax._errors import short
from fluxax.data._gather import Where, checked_axis, is_array, take
from fluxax.data._place import Place, indices_of, named


def numobs(data: Any, axis: int = 0) -> int:
    """The number of observations (samples) in `data`.

    Args:
        data: an array; a tuple, named tuple or dict of data; or anything with
            `__len__` and `__getitem__`.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: if the parts differ in length, or an array lacks the axis.
        TypeError: if some part is no data.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.numobs((np.zeros((5, 2)), ["a", "b", "c", "d", "e"]))
        5
    """
    return count(data, axis, "numobs")


def getobs(data: Any, index: Any, axis: int = 0) -> Any:
    """The observation, or observations, of `data` at `index`, nested as `data` is.

    Arrays give fresh memory, never a view. A part that is no array gives its
    item, or a list of its items.

    Args:
        index: an int, a slice, an array of ints, or an array of booleans.
        axis: along which the observations stand in arrays; an int takes it away.

    Raises:
        IndexError: for an index outside of the data.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.getobs((np.arange(6).reshape(3, 2), ["a", "b", "c"]), [2, 0])
        (array([[4, 5],
               [0, 1]]), ['c', 'a'])
    """
    n = count(data, axis, "getobs")
    where = places(index, n, "getobs")
    return map_parts(lambda part: read(part, where, axis), data)


def places(index: Any, n: int, who: str) -> int | np.ndarray:
    """An index from the front, checked, since JAX clamps where NumPy raises."""
    if isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_)):
        if not -n <= index < n:
            raise IndexError(f"{who} expects an index into {n} observations, got {index}.")
        return int(index) % n
    where = index if isinstance(index, slice) else _indices(index, who)
    try:
        return np.arange(n)[where]
    except (TypeError, ValueError):
        raise TypeError(f"{who} expects a slice of ints, got {where}.") from None
    except IndexError:
        assert isinstance(where, np.ndarray)
        if where.dtype == bool:
            wanted, got = f"as many booleans as observations, {n}", str(where.size)
        else:
            wanted = f"indices into {n} observations"
            got = str(where[(where < -n) | (where >= n)][0])
        raise IndexError(f"{who} expects {wanted}, got {got}.") from None


def _indices(index: Any, who: str) -> np.ndarray:
    try:
        indices = np.asarray(index)
    except ValueError:  # lists of several lengths
        indices = np.zeros((), object)
    indices = indices if indices.size else indices.astype(np.intp)
    if indices.dtype.kind not in "iub" or indices.ndim != 1:
        raise TypeError(
            f"{who} expects an int, a slice, or a list of ints or booleans as index, "
            f"got {short(index if isinstance(index, (list, tuple)) else indices)}."
        )
    return indices


def parts(data: Any, path: str = "data") -> Iterator[tuple[str, Any]]:
    """Every part of nested data with its path.

    >>> list(parts(([1], {"y": [2]})))
    [('data[0]', [1]), ("data[1]['y']", [2])]
    """
    if isinstance(data, tuple):
        names = getattr(data, "_fields", None)
        for i, part in enumerate(data):
            yield from parts(part, f"{path}.{names[i]}" if names else f"{path}[{i}]")
    elif isinstance(data, Mapping):
        for key, part in data.items():
            yield from parts(part, f"{path}[{key!r}]")
    else:
        yield path, data


def map_parts(f: Callable[[Any], Any], data: Any) -> Any:
    """`f` of every part of nested data, nested alike.

    >>> map_parts(len, ([1], {"y": [2, 3]}))
    (1, {'y': 2})
    """
    if isinstance(data, tuple):
        return like_tuple(data, (map_parts(f, part) for part in data))
    if isinstance(data, Mapping):
        return {key: map_parts(f, part) for key, part in data.items()}
    return f(data)


def like_tuple(pattern: tuple, values: Iterator[Any]) -> tuple:
    """The values as a tuple, or as a named tuple if `pattern` is one."""
    make = getattr(pattern, "_make", tuple)
    return make(values)


def read(part: Any, where: Where, axis: int, place: Place | None = None) -> Any:
    """The observations `where` of one part: an array, or items.

    >>> read(["a", "b", "c"], slice(1, 3), 0)
    ['b', 'c']
    """
    return take(part, where, axis) if is_array(part) else items(part, where, place)


def items(part: Any, where: Where, place: Place | None = None) -> Any:
    """The item, or the list of items, at `where`; an error names the observation.

    Args:
        place: is told what is being read.
    """
    place = place or Place(0, 0)
    if isinstance(where, int):
        return _item(part, where, place)
    indices = indices_of(where)
    whole = getattr(part, "__getitems__", None)  # PyTorch's and Hugging Face's word for a batch
    if whole is None:
        return [_item(part, i, place) for i in indices]
    place.among(indices)
    try:
        return list(whole(indices))
    except Exception as error:
        named(error, place)
        raise


def _item(part: Any, i: int, place: Place) -> Any:
    place.at(i)
    try:
        return part[i]
    except Exception as error:
        named(error, place)
        raise


def count(data: Any, axis: int, who: str) -> int:
    """`numobs` on behalf of `who`, whose name stands in the errors."""
    first: tuple[str, int] | None = None
    for path, part in parts(data):
        n = _length(part, axis, who, path)
        if first is None:
            first = path, n
        elif n != first[1]:
            raise ValueError(
                f"{who} expects as many observations in every part, got {first[1]} at {first[0]} "
                f"and {n} at {path}. Observations stand along axis {axis}."
            )
    if first is None:
        raise ValueError(f"{who} expects at least one array, got an empty {type(data).__name__}.")
    return first[1]


def _length(part: Any, axis: int, who: str, path: str) -> int:
    if is_array(part):
        return part.shape[checked_axis(part, axis, who, path)]
    if hasattr(part, "iloc"):
        raise TypeError(
            f"{who} expects arrays or a data set, got {short(part)} at {path}. "
            "Pass its `.to_numpy()`, since indexing it gives columns or labels, not rows."
        )
    indexable = hasattr(part, "__len__") and hasattr(part, "__getitem__")
    if not indexable or isinstance(part, (str, bytes, type)):
        raise TypeError(
            f"{who} expects arrays, or data with `__len__` and `__getitem__`, "
            f"got {short(part)} at {path}."
        )
    return len(part)
