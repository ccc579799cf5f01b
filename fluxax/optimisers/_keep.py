"""All of a leaf on the host, and back: what a checkpoint keeps, however the store lays it out.

Nothing is compiled: whole store arrays go to the host and come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fluxax._jax import beside
from fluxax.optimisers._products import Products, powers
from fluxax.optimisers._rule import with_states
from fluxax.optimisers._state import Leaf, Store


def states_of(leaf: Leaf) -> list[Any]:
    """The states of a leaf in order: step counts as ints, small ones as NumPy arrays, JAX's."""
    return [_read(leaf, slot) for slot in leaf.slots]


def _read(leaf: Leaf, slot: Any) -> Any:
    if slot.sort == "count":
        return int(np.asarray(leaf.store.counts)[slot.i])
    array = leaf.store.arrays[slot.i]
    if slot.row is None:
        return array
    return np.asarray(array)[slot.row, : math.prod(leaf.shape)].reshape(leaf.shape)


def completed(leaf: Leaf, states: list[Any], beta_of: Callable[[Any], Any]) -> list[Any]:
    """The states of a leaf from those of an older version, which noted step counts and no products.

    Args:
        leaf: the leaf as it is now.
        states: the states as they were noted.
        beta_of: the decays that a rule of the leaf had then: the products were powers of these.
    """
    state = leaf.abstract_state()
    nodes = jax.tree.leaves(state, is_leaf=_is_products)
    if len(states) != len(nodes) or not any(map(_is_products, nodes)):
        return states
    betas = (
        beta_of(rule)
        for rule, own in with_states(leaf.rule, state)
        if isinstance(own, tuple) and any(map(_is_products, own))
    )
    whole = []
    for node, old in zip(nodes, states, strict=True):
        if _is_products(node) and isinstance(old, int):
            new = powers(leaf, next(betas)[: len(node.since)], old)
            whole += map(int, jax.tree.leaves(new))
        else:
            whole.append(old)
    return whole


def _is_products(value: Any) -> bool:
    return isinstance(value, Products)


def places_of(leaf: Leaf) -> list[Any]:
    """By state: the array in whose place a new one is to be put; `None` for counts and rows."""
    whole = lambda slot: slot.sort == "array" and slot.row is None
    return [leaf.store.arrays[slot.i] if whole(slot) else None for slot in leaf.slots]


class Refill:
    """New states for leaves, put into their stores by one assignment each."""

    def __init__(self) -> None:
        self._stores: dict[int, tuple[Store, list[Any], np.ndarray]] = {}
        self._rows: dict[tuple[int, int], np.ndarray] = {}

    def add(self, leaf: Leaf, states: Sequence[Any], steps: int) -> None:
        """Take the states of a leaf, in the order and of the shapes of `states_of`."""
        _, arrays, counts = self._of(leaf.store)
        counts[leaf.clock] = steps
        for slot, state in zip(leaf.slots, states, strict=True):
            if slot.sort == "count":
                counts[slot.i] = state
            elif slot.row is None:
                arrays[slot.i] = state
            else:
                row = self._block(leaf.store, slot.i)[slot.row]
                row[: math.prod(leaf.shape)] = np.asarray(state).ravel()

    def _of(self, store: Store) -> tuple[Store, list[Any], np.ndarray]:
        if id(store) not in self._stores:
            counts = np.array(store.counts, copy=True)
            self._stores[id(store)] = store, list(store.arrays), counts
        return self._stores[id(store)]

    def _block(self, store: Store, i: int) -> np.ndarray:
        """The rows that small leaves share, as a copy on the host."""
        key = id(store), i
        if key not in self._rows:
            self._rows[key] = np.array(store.arrays[i], copy=True)
        return self._rows[key]

    def ready(self) -> list[tuple[Store, list[Any], Any]]:
        """By store: its new arrays and step counts, where the old ones lie."""
        for (store_id, i), block in self._rows.items():
            store, arrays, _ = self._stores[store_id]
            arrays[i] = beside(block, store.arrays[i])
        return [(s, arrays, beside(c, s.counts)) for s, arrays, c in self._stores.values()]
