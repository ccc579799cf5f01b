"""Tables of vectors: Embedding, EmbeddingBag."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._half import like, take_rows, wide
from fluxax._integers import fitting, indices
from fluxax._jax import is_tracer
from fluxax._module import Module
from fluxax.init import randn32
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import as_array, drawn, floating, function, whole


class Embedding(Module):
    """A table with a row of numbers for each index: `y[…, :] = weight[x[…], :]`.

    Args:
        in_: how many indices there are, `0 … in - 1`; or the table itself, `(in, out)`.
        out: how many numbers stand for each.
        padding_idx: an index whose row is zeros, and stays so: nothing of it is trained.
        init: initialiser of the table, `init(in, out)`.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for a `padding_idx` out of range; for indices that are not integers or, where
            their values can be seen, that are out of range. In compiled code such a row is NaN.

    Example:
        >>> import fluxax as fx, numpy as np
        >>> table = fx.Embedding(10, 4)
        >>> table(np.array([[1, 9, 0], [2, 2, 2]])).shape
        (2, 3, 4)
        >>> table(3).shape
        (4,)
        >>> fx.Embedding(10, 4, padding_idx=0)(0).tolist()
        [0.0, 0.0, 0.0, 0.0]

    Takes one-hot input too: boolean, with the last axis of length `in`.
    """

    padding_idx: int | None = None

    def __init__(
        self,
        in_: Any,
        out: Any = None,
        *,
        padding_idx: int | None = None,
        init: Callable[..., Any] = randn32,
        rng: Any = None,
    ):
        self.weight = table("Embedding", in_, out, init, rng)
        if padding_idx is not None:
            self.padding_idx = _row("Embedding", padding_idx, len(self.weight))
            self.weight = _zeroed(self.weight, self.padding_idx)

    def __call__(self, x: Any) -> jax.Array:
        if self.padding_idx is None:
            return rows_of(self, x)
        rows = len(self.weight)
        index = as_index(self, x, rows)
        if index.dtype == bool and index.shape[-1:] == (rows,):
            return rows_of(self, index & (np.arange(rows) != self.padding_idx))
        return jnp.where((index == self.padding_idx)[..., None], 0, rows_of(self, index))

    def _arguments(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("", n) for n in self.weight.shape[-2:]]
        padding = self.padding_idx
        return shown if padding is None else [*shown, ("padding_idx", padding)]


def table(who: str, in_: Any, out: Any, init: Any, rng: Any) -> jax.Array:
    """A table that is given, or drawn with so many rows and columns."""
    if hasattr(in_, "shape") and np.ndim(in_) == 2 and out is None:
        return floating(in_)
    return drawn(who, init, (whole(who, "in", in_), whole(who, "out", out)), rng)


def _row(who: str, index: Any, n: int) -> int:
    """An index into a table of `n` rows."""
    index = whole(who, "padding_idx", index, 0)
    if index >= n:
        raise ValueError(f"{who} expects padding_idx from 0 to {n - 1}, got {index}.")
    return index


def _zeroed(weight: jax.Array, row: int) -> jax.Array:
    """A table with zeros in a row; outside of compiled code nothing is compiled for it."""
    if is_tracer(weight):
        return weight.at[row].set(0)
    new = np.array(weight)
    new[row] = 0
    return jax.device_put(new)


class EmbeddingBag(Module):
    """One vector for each bag of indices: the rows of its table, reduced.

        y[n, :] = reduction over i in bag n of weight[i, :]

    Args:
        in_: how many indices there are, `0 … in - 1`; or the table itself, `(in, out)`, which the
            reduction may follow.
        out: how many numbers stand for each.
        reduction: a function `reduction(array, axis=…)`: `jnp.mean`, `jnp.sum`, `jnp.max`, …
        init: initialiser of the table, `init(in, out)`.
        rng: an int, a NumPy generator or a JAX key for `init`.

    Raises:
        ValueError: for indices as in Embedding; for offsets that do not start at 0, fall, or lead
            out of the indices, where their values can be seen.
        TypeError: where an argument is of the wrong kind.

    Called as `bag(x)` with bags of one size along the last axis, or a list of bags of any sizes;
    or as `bag(x, offsets)`, where `x` has all indices in a row and bag `n` starts at `offsets[n]`.
    With offsets an empty bag gives zeros, and `reduction` is `jnp.mean`, `sum`, `max` or `min`.

    Example:
        >>> import fluxax as fx, numpy as np
        >>> bag = fx.EmbeddingBag(10, 4)
        >>> bag(np.array([[1, 9, 0], [2, 2, 2]])).shape
        (2, 4)
        >>> bag([[1], [2, 3]]).shape, bag(np.array([1, 2, 3]), np.array([0, 1])).shape
        ((2, 4), (2, 4))

    Takes one-hot input too: boolean, with another axis of length `in` at the end.
    """

    def __init__(
        self,
        in_: Any,
        out: Any = None,
        reduction: Callable[..., Any] = jnp.mean,
        *,
        init: Callable[..., Any] = randn32,
        rng: Any = None,
    ):
        given = hasattr(in_, "shape") and np.ndim(in_) == 2
        self.weight = table("EmbeddingBag", in_, None if given else out, init, rng)
        reduction = out if given and out is not None else reduction
        self.reduction = function("EmbeddingBag", reduction, "reduction")

    def __call__(self, x: Any, offsets: Any = None) -> jax.Array:
        if isinstance(x, (list, tuple)) and offsets is None and all(map(np.ndim, x)):
            offsets = np.array([0, *accumulate(map(len, x))][:-1], np.int32)
            bags = [indices(bag) for bag in x if np.size(bag)]  # an empty one has no type
            x = jnp.concatenate(bags) if bags else jnp.zeros(0, int)
        rows = rows_of(self, x)
        if offsets is not None:
            return like(rows, self._by_offsets(wide(rows), as_array(self, offsets)))
        if rows.ndim < 2:
            raise unfit(self, f"expects bags of indices, got {short(x)}")
        return like(rows, self.reduction(wide(rows), axis=-2))

    def _by_offsets(self, rows: jax.Array, offsets: jax.Array) -> jax.Array:
        whole_numbers = jnp.issubdtype(offsets.dtype, jnp.integer)
        if rows.ndim != 2 or offsets.ndim != 1 or not whole_numbers:
            raise unfit(
                self,
                "expects its offsets as integers in one row, beside one row of indices, got "
                f"{short(offsets)} beside {short(rows)} from the table",
            )
        if not is_tracer(offsets) and offsets.size:
            at = np.asarray(offsets)
            if at[0] != 0 or (np.diff(at) < 0).any() or at[-1] > len(rows):
                raise unfit(
                    self, f"expects offsets that rise from 0 to at most {len(rows)}, got others"
                )
        reduce = _SEGMENTS.get(self.reduction)
        if reduce is None:
            raise unfit(
                self, "expects jnp.mean, sum, max or min for offsets, got another reduction"
            )
        n = len(offsets)
        bag = jnp.searchsorted(offsets, jnp.arange(len(rows)), side="right") - 1
        counts = jax.ops.segment_sum(jnp.ones(len(rows), rows.dtype), bag, n)[:, None]
        y = reduce(rows, bag, n)
        y = y / jnp.maximum(counts, 1) if self.reduction is jnp.mean else y
        return jnp.where(counts > 0, y, 0)

    def _arguments(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("", n) for n in self.weight.shape[-2:]]
        return shown if self.reduction is jnp.mean else [*shown, ("", self.reduction)]


_SEGMENTS = {
    jnp.mean: jax.ops.segment_sum,
    jnp.sum: jax.ops.segment_sum,
    jnp.max: jax.ops.segment_max,
    jnp.min: jax.ops.segment_min,
}


def rows_of(layer: Any, x: Any) -> jax.Array:
    """The rows of a layer's table at indices or for one-hot input: `(…)` to `(…, out)`."""
    rows = layer.weight.shape[0]
    index = as_index(layer, x, rows)
    if index.dtype != bool:
        # A negative index would count from the end; here it is as wrong as one too large.
        index = jnp.where(index < 0, rows, index)
        if index.dtype.itemsize > 4:  # cut to 32 bits it might be another; shorter ones stay inputs
            index = jnp.where(index > rows, rows, index).astype(jnp.int32)
        return take_rows(layer.weight, index)
    if index.ndim == 0 or index.shape[-1] != rows:
        raise refuse(layer, f"(…, {rows}) where it is one-hot", index)
    return index.astype(layer.weight.dtype) @ layer.weight


def as_index(layer: Any, x: Any, rows: int) -> jax.Array:
    """Indices into a table, or one-hot input, as a JAX array; seen values are checked."""
    x = np.asarray(x) if isinstance(x, (int, np.integer)) else x
    index = indices(as_array(layer, fitting(x)))
    if index.dtype == bool:
        return index
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise unfit(
            layer, f"expects integers, got {short(index)}", "Convert them with x.astype(int)."
        )
    if not is_tracer(index) and index.size:
        seen = x if isinstance(x, np.ndarray) else index
        low, high = int(np.min(seen)), int(np.max(seen))
        if low < 0 or high >= rows:
            wrong = low if low < 0 else high
            raise unfit(layer, f"expects indices from 0 to {rows - 1}, got {wrong}")
    return index
