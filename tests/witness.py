"""What the training tests look with: everything in a tree as bytes, and what JAX compiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

import fluxax as fx
from fluxax import _tree


def snapshot(*trees: Any) -> list[Any]:
    """Everything that training may change in models and state trees, as comparable values.

    Two snapshots are equal just when every array, state, count, hyperparameter, frozen mark and
    mode is bit for bit the same, and at the same place.
    """
    return [_seen(_tree.path_string(path), v) for tree in trees for path, v in _tree.walk(tree)]


def _seen(path: str, value: Any) -> Any:
    if isinstance(value, fx.Leaf):
        state = [(np.asarray(a).tobytes(), str(a.dtype)) for a in jax.tree.leaves(value.state)]
        return path, repr(value.rule), value.frozen, state
    if _tree.is_array(value):
        return path, np.asarray(value).tobytes(), str(value.dtype), value.shape
    return path, repr(value)


@contextmanager
def compiling() -> Iterator[list[str]]:
    """The names of the compilations inside the block; empty if there was none."""
    seen: list[str] = []
    on = [True]

    def listen(event: str, duration: float, **_: Any) -> None:
        del duration
        if on[0] and "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        on[0] = False
