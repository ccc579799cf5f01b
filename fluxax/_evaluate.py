"""evaluate: a pass over data without training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from fluxax._bar import Bar
from fluxax._compiled import compiled
from fluxax._errors import short
from fluxax._implicit._styles import check_evaluated
from fluxax._train import _items

_AHEAD = 64  # results that may wait on the device


def evaluate(f: Any, model: Any, data: Any, *, progress: bool | None = None) -> Any:
    """What `f` gives for all of the data: compiled, in test mode, one call for each item.

    The counterpart of `train`, called alike: with a loss it gives the losses of every batch; with
    something for each observation, all of them in one array, so that a mean over it is exact
    even if the last batch is shorter.

    Args:
        f: called as `f(model, *d)` for a plain tuple or list `d`, else `f(model, d)`.
        model: any model; nothing is changed.
        data: any iterable, as for `train`; a `DataLoader` stands at its next epoch afterwards.
        progress: as for `train`.

    Returns:
        A NumPy array: scalars are stacked, one for each item, and arrays are joined along their
        first axis. Nested like the result of `f`.

    Raises:
        TypeError: if `f` is no function of the model and an item, or data is not iterable.
        ValueError: if results of different items cannot be joined.

    Example:
        >>> import fluxax as fx, numpy as np
        >>> model = fx.Dense(2, 3, init=fx.ones32)
        >>> data = fx.DataLoader((np.eye(5, 2, dtype="float32"), np.arange(5) % 2), batchsize=2)
        >>> hits = fx.evaluate(lambda m, x, y: fx.onecold(m(x)) == y, model, data)
        >>> hits.shape, float(np.mean(hits))
        ((5,), 0.6)
    """
    if not callable(f):
        raise TypeError(
            f"evaluate expects a function first, got {short(f)}. "
            "The order is evaluate(f, model, data)."
        )
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise TypeError(
            f"evaluate expects an iterable of batches, got {short(data)}. "
            "Write [(x, y)] for a single batch."
        )
    call = compiled(f)
    results: list[Any] = []
    fetched = 0
    bar = Bar(data, progress)
    try:
        for item in bar.over(iter(data)):
            args = (model, *_items(item))
            check_evaluated(f, args)
            results.append(call(*args))
            if len(results) - fetched >= 2 * _AHEAD:  # the younger half is still being computed
                results[fetched : fetched + _AHEAD] = jax.device_get(
                    results[fetched : fetched + _AHEAD]
                )
                fetched += _AHEAD
    finally:
        bar.close()
    return _joined(jax.device_get(results))


def _joined(results: list[Any]) -> Any:
    if not results:
        warnings.warn("evaluate found no data: nothing was computed.", stacklevel=3)
        return np.empty(0, np.float32)
    try:
        return jax.tree.map(_join, *results)
    except ValueError as error:
        raise ValueError(
            "evaluate expects results of every item that can be joined along their first axis, "
            f"got others: {error} Return a scalar, or something for each observation."
        ) from error


def _join(*parts: Any) -> np.ndarray:
    return np.stack(parts) if np.ndim(parts[0]) == 0 else np.concatenate(parts)
