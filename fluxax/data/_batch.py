"""Many observations into one batch, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._tensors import array_of, is_tensor
from fluxax.data._observations import count, getobs, like_tuple


def batch(observations: Iterable[Any], axis: int = 0) -> Any:
    """Stack observations into one batch: the loader's default `collate`.

    Numbers and arrays are stacked along a new axis; tuples, named tuples and
    dicts are batched entry by entry, and so are lists, unless they hold nothing
    but numbers: then they are arrays. Strings stay a list.

    Args:
        observations: at least one, all nested alike and of one shape.
        axis: where the new axis stands.

    Raises:
        ValueError: for no observations, or ones that differ in shape or structure.
        TypeError: for what cannot be stacked.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.batch([(np.array([1, 2]), "a"), (np.array([3, 4]), "b")])
        (array([[1, 2],
               [3, 4]]), ['a', 'b'])
    """
    if not isinstance(observations, Iterable):
        raise TypeError(f"batch expects a list of observations, got {short(observations)}.")
    rows = list(observations)
    if not rows:
        raise ValueError("batch expects at least one observation, got an empty list.")
    return _batch(rows, axis, "observations[{}]")


def unbatch(data: Any, axis: int = 0) -> list[Any]:
    """The observations of `data` as a list, without the batch axis: the inverse of `batch`.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.unbatch(np.array([[1, 2], [3, 4]]))
        [array([1, 2]), array([3, 4])]
    """
    return [getobs(data, i, axis) for i in range(count(data, axis, "unbatch"))]


def _batch(rows: list[Any], axis: int, path: str) -> Any:
    first = rows[0]
    if isinstance(first, Mapping):
        return _batch_dicts(rows, axis, path)
    if isinstance(first, tuple) or (isinstance(first, list) and not _is_numbers(first)):
        return _batch_sequences(rows, axis, path)
    if isinstance(first, (str, bytes)):
        return rows
    return _stack(rows, axis, path)


def _batch_dicts(rows: list[Any], axis: int, path: str) -> dict:
    keys = rows[0].keys()
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.keys() != keys:
            got = f"the keys {list(row)}" if isinstance(row, Mapping) else short(row)
            raise ValueError(
                f"batch expects the keys {list(keys)} in every observation, "
                f"got {got} at {path.format(i)}."
            )
    return {key: _batch([row[key] for row in rows], axis, f"{path}[{_plain(key)}]") for key in keys}


def _plain(key: Any) -> str:
    return repr(key).replace("{", "{{").replace("}", "}}")


def _batch_sequences(rows: list[Any], axis: int, path: str) -> Any:
    first = rows[0]
    for i, row in enumerate(rows):
        if not isinstance(row, type(first)) or len(row) != len(first):
            raise ValueError(
                f"batch expects {short(first)} as every observation, got {short(row)} "
                f"at {path.format(i)}. Pad them to one length, or pass `collate=` to the loader."
            )
    columns = (_batch(list(c), axis, f"{path}[{k}]") for k, c in enumerate(zip(*rows, strict=True)))
    return like_tuple(first, columns) if isinstance(first, tuple) else list(columns)


def _is_numbers(x: Any) -> bool:
    if isinstance(x, list):
        return bool(x) and all(map(_is_numbers, x))
    return isinstance(x, (bool, int, float, complex, np.generic))


def _stack(rows: list[Any], axis: int, path: str) -> Any:
    arrays = [
        row if isinstance(row, jax.Array) else _asarray(row, path, i) for i, row in enumerate(rows)
    ]
    shape = arrays[0].shape
    for i, x in enumerate(arrays):
        if x.shape != shape:
            raise ValueError(
                f"batch expects observations of one shape, got {short(arrays[0])} and {short(x)} "
                f"at {path.format(i)}. Pad them to one shape, or pass `collate=` to the loader."
            )
    if not -len(shape) - 1 <= axis <= len(shape):
        raise ValueError(
            f"batch expects observations that can get an axis {axis}, got {short(arrays[0])} "
            f"at {path.format(0)}."
        )
    traced = any(isinstance(x, jax.Array) for x in arrays)
    return (jnp if traced else np).stack(arrays, axis=axis)


def _asarray(x: Any, path: str, i: int) -> Any:
    known = isinstance(x, (list, bool, int, float, complex, np.ndarray, np.generic))
    if isinstance(x, np.ma.MaskedArray) or not (
        known or hasattr(x, "__array__") or hasattr(x, "__array_interface__")
    ):
        raise TypeError(
            f"batch expects numbers, arrays, strings, or tuples, lists and dicts of them, "
            f"got {short(x)} at {path.format(i)}. Pass a function as `collate=` to the loader."
        )
    try:
        return array_of(x) if is_tensor(x) else np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"batch expects lists of numbers that form an array, got {short(x)} of uneven lists "
            f"at {path.format(i)}. Use a tuple for parts of different shapes."
        ) from error
