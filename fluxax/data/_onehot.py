"""One-hot arrays: labels to booleans and back."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._jax import is_tracer

_RAISE: Any = object()  # `None` may be a label


def onehot(x: Any, labels: Iterable[Any], default: Any = _RAISE) -> Any:
    """One label as a boolean vector: `onehotbatch` for a single label.

    Args:
        x: a label.
        labels: all labels, in order.
        default: the label used for an `x` that is none of them.

    Raises:
        ValueError: if `x` is not among the labels and there is no default.

    Example:
        >>> import fluxax as fx
        >>> fx.onehot("b", ["a", "b", "c"])
        array([False,  True, False])
    """
    names = _Labels(labels, "onehot")
    if isinstance(x, jax.Array):
        return names.encode(x, default)
    return names.encode(_boxed(x, ()), default)


def onehotbatch(xs: Any, labels: Iterable[Any], default: Any = _RAISE) -> Any:
    """Labels as a boolean array of shape `(*xs.shape, K)`; the classes come last.

    The first of equal labels counts, NaN equals NaN, and floating labels are
    rounded to the type of `xs`. JAX input gives a JAX array, all other a NumPy array.

    Args:
        xs: an array or a list of labels; a string is a list of letters.
        labels: all K labels, in order.
        default: the label used for every x that is none of them.

    Raises:
        ValueError: if some x is not among the labels and there is no default.
            Under `jax.jit` the values are not known: such a row is all `False`.
        TypeError: if `labels` is no sequence.

    Example:
        >>> import fluxax as fx
        >>> fx.onehotbatch([2, 0], range(3))
        array([[False, False,  True],
               [ True, False, False]])
    """
    names = _Labels(labels, "onehotbatch")
    if isinstance(xs, jax.Array):
        return names.encode(xs, default)
    nested = hasattr(xs, "__iter__") and not hasattr(xs, "dtype")
    return names.encode(_array(list(xs) if nested else np.asarray(xs)), default)


def onecold(y: Any, labels: Iterable[Any] | None = None) -> Any:
    """The label of the largest entry along the last axis; the first of equal ones.

    Scores do as well as one-hot arrays. In an array of several rows, NaN counts as largest.

    Args:
        y: shape `(…, K)`.
        labels: K of them; `None` for 0 to K - 1.

    Raises:
        ValueError: if there are not K labels, or a single row has a NaN.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> fx.onecold(np.array([[0.1, 0.9], [0.8, 0.2]]), ["cat", "dog"]).tolist()
        ['dog', 'cat']
    """
    scores = y if isinstance(y, jax.Array) else _regular(y)
    if scores is None:
        raise ValueError(f"onecold expects rows of one length, got {short(y)}.")
    y = scores
    names = None if labels is None else _Labels(labels, "onecold")
    _check_scores(y, names)
    if isinstance(y, jax.Array):
        best = jnp.argmax(y, axis=-1)
        numeric = names is not None and names.array.dtype.kind in "biufc"
        if names is None or numeric:
            return best if names is None else names.columns()[best]
        if is_tracer(best):
            raise ValueError(
                "onecold expects numbers as labels under `jax.jit`, got others. "
                "Call it outside, or leave the labels away."
            )
        y = np.asarray(y)
    best = np.argmax(y, axis=-1)
    return best if names is None else names.array[best]


def _check_scores(y: Any, names: _Labels | None) -> None:
    if y.ndim == 0 or y.shape[-1] == 0:
        raise ValueError(
            f"onecold expects an array with classes along its last axis, got {short(y)}."
        )
    if names is not None and len(names.array) != y.shape[-1]:
        raise ValueError(
            f"onecold expects as many labels as classes, "
            f"got {len(names.array)} labels for {short(y)}."
        )
    known = y.ndim == 1 and not is_tracer(y) and y.dtype.kind not in "OUS"
    if known and bool((y != y).any()):
        bad = int(np.flatnonzero(np.asarray(y != y))[0])
        raise ValueError(f"onecold expects numbers that can be compared, got nan at index {bad}.")


class _Labels:
    """The labels in order, and where in them a value stands."""

    def __init__(self, labels: Iterable[Any], who: str) -> None:
        if isinstance(labels, (set, frozenset)) or not hasattr(labels, "__iter__"):
            hint = "sorted(labels)" if isinstance(labels, (set, frozenset)) else "range(n)"
            raise TypeError(
                f"{who} expects the labels in order, got {short(labels)}. Pass `{hint}`."
            )
        self.who = who
        self.listed: list[Any] = list(labels)
        self.array = _array(labels if hasattr(labels, "dtype") else self.listed)
        if self.array.ndim != 1 or not self.listed:
            raise ValueError(f"{who} expects a flat list of labels, got {short(self.array)}.")

    def encode(self, xs: Any, default: Any) -> Any:
        fallback = -1 if default is _RAISE else self._default(default)
        if isinstance(xs, jax.Array):
            return self._encode_jax(xs, fallback)
        place = self._places(xs)
        place = np.where(place < 0, fallback, place)
        if (place < 0).any():
            self._refuse(xs, place < 0)
        hot = np.zeros((*xs.shape, len(self.listed)), dtype=bool)
        np.put_along_axis(hot, place[..., None], True, axis=-1)
        return hot

    def _encode_jax(self, xs: jax.Array, fallback: int) -> jax.Array:
        if self.array.dtype.kind not in "biufc":
            raise ValueError(
                f"{self.who} expects numbers as labels of a JAX array, got {short(self.listed[0])}."
            )
        hot, found = _hot(xs, self.columns(xs.dtype), fallback)
        if fallback < 0 and not is_tracer(found) and not bool(found.all()):
            self._refuse(np.asarray(xs), ~np.asarray(found))
        return hot

    def columns(self, beside: Any = None) -> jax.Array:
        """The labels as JAX has them; one that does not fit its 32 bits is an error.

        Args:
            beside: the dtype of what they are compared with.
        """
        dtype = jax.dtypes.canonicalize_dtype(self.array.dtype)
        cast = self.array.astype(dtype)
        if self.array.dtype.kind in "iu" and (cast != self.array).any():
            raise ValueError(
                f"{self.who} expects labels that fit {dtype.name}, got {self.array.max()}. "
                "Pass a NumPy array instead of a JAX array."
            )
        if (
            beside is not None
            and self.array.dtype.kind == "f"
            and jnp.issubdtype(beside, jnp.floating)
        ):
            dtype = beside
        return jnp.asarray(cast, dtype=dtype)

    def _default(self, default: Any) -> int:
        place = int(self._places(_boxed(default, ())))
        if place < 0:
            raise ValueError(f"{self.who} expects a default among {self._text()}, got {default!r}.")
        return place

    def _places(self, xs: np.ndarray) -> np.ndarray:
        """The first label equal to each x, -1 where there is none."""
        labels = self.array
        if labels.dtype.kind == "f" and xs.dtype.kind == "f":
            labels = labels.astype(xs.dtype)
        if not _sortable(labels.dtype, xs.dtype):
            return self._places_by_hash(xs)
        order = np.argsort(labels, kind="stable")
        ordered = labels[order]
        at = np.minimum(np.searchsorted(ordered, xs), len(labels) - 1)
        return np.where(_equal(ordered[at], xs), order[at], -1)

    def _places_by_hash(self, xs: np.ndarray) -> np.ndarray:
        table: dict[Any, int] = {}
        for i, label in enumerate(self.listed):
            table.setdefault(_key(label), i)
        try:
            places = [table.get(_key(x), -1) for x in xs.ravel().tolist()]
        except TypeError:
            wrong = next(x for x in xs.ravel().tolist() if not isinstance(x, Hashable))
            raise TypeError(f"{self.who} expects single labels, got {short(wrong)}.") from None
        return np.array(places, dtype=np.intp).reshape(xs.shape)

    def _refuse(self, xs: np.ndarray, missing: np.ndarray) -> None:
        index = tuple(int(i) for i in np.argwhere(missing)[0])
        value = xs[index].item() if isinstance(xs[index], np.generic) else xs[index]
        place = f" at index {index[0] if len(index) == 1 else index}" if index else ""
        raise ValueError(
            f"{self.who} expects labels among {self._text()}, got {value!r}{place}. "
            "Pass `default=` to say which label stands for unknown ones."
        )

    def _text(self) -> str:
        shown = [repr(x.item() if isinstance(x, np.generic) else x) for x in self.listed[:10]]
        return ", ".join(shown) + (", ..." if len(self.listed) > 10 else "")


@partial(jax.jit, static_argnums=2)
def _hot(xs: jax.Array, labels: jax.Array, fallback: int) -> tuple[jax.Array, jax.Array]:
    """The one-hot array, and which of the xs are among the labels: one program for both."""
    same = _equal(xs[..., None], labels)
    found = jnp.any(same, axis=-1)
    place = jnp.where(found, jnp.argmax(same, axis=-1), fallback)
    return place[..., None] == jnp.arange(len(labels)), found


def _equal(a: Any, b: Any) -> Any:
    """Elementwise equality under which NaN is NaN."""
    return (a == b) | ((a != a) & (b != b))


def _key(x: Any) -> Any:
    """What a label is looked up by: NaN has one key, whichever object it is."""
    return "nan", None if x != x else (x,)


def _sortable(a: np.dtype, b: np.dtype) -> bool:
    """Whether a search in sorted labels compares exactly: both numbers or both strings."""
    if a.kind in "biufc" and b.kind in "biufc":
        both_whole = a.kind in "biu" and b.kind in "biu"
        return not both_whole or np.result_type(a, b).kind in "biu"
    return a.kind == b.kind and a.kind in "US"


def _boxed(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One label as an array of no axes, a tuple included."""
    if isinstance(x, (np.ndarray, np.generic, bool, int, float, complex, str)):
        return np.asarray(x)
    box = np.empty(shape, dtype=object)
    box[()] = x
    return box


def _array(values: Any) -> np.ndarray:
    """Labels as an array; what NumPy would turn into text stays what it is."""
    if hasattr(values, "dtype"):
        return np.asarray(values)
    array = _regular(values) if not any(isinstance(v, tuple) for v in values) else None
    text = array is not None and array.dtype.kind in "US"
    if array is not None and (not text or _all_text(values)):
        return array
    boxes = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # at once, NumPy would take tuples apart
        boxes[i] = value
    return boxes


def _regular(values: Any) -> np.ndarray | None:
    try:
        return np.asarray(values)
    except ValueError:  # lists of several lengths
        return None


def _all_text(values: Any) -> bool:
    return all(_all_text(v) if isinstance(v, list) else isinstance(v, (str, bytes)) for v in values)
