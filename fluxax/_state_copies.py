"""Copies of state trees: on another device, in another dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.tree_util import tree_flatten_with_path

from fluxax import _tree
from fluxax._remake import remake
from fluxax.optimisers._keep import Refill, states_of
from fluxax.optimisers._setup import setup
from fluxax.optimisers._state import Leaf, leaves_of


def is_state(tree: Any) -> bool:
    """Whether a tree holds leaves and nothing else."""
    found = [v for _, v in _tree.walk(tree) if v is not None]
    return bool(found) and all(isinstance(v, Leaf) for v in found)


def moved_state(tree: Any, move: Callable[[Any], Any]) -> Any:
    """A copy of a state tree with `move(array)` for every array of it."""
    new = copy.deepcopy(tree)
    for store in {id(leaf.store): leaf.store for leaf in leaves_of("move", new)}.values():
        store.arrays, store.counts = [move(a) for a in store.arrays], move(store.counts)
    return new


def converted_state(tree: Any, convert: Callable[[Any], Any]) -> Any:
    """The state tree that `setup` makes for converted parameters, with the states of this one.

    Setup says which dtype each state has for such a parameter: some rules keep wider ones.
    """
    rules: dict[int, Any] = {}

    def parameter(leaf: Any) -> Any:
        if leaf is None:
            return None
        array = convert(np.zeros(leaf.shape, leaf.dtype))
        rules[id(array)] = leaf.rule
        return array

    fake = remake(tree, parameter)
    new = setup(lambda _, array: rules[id(array)], fake)
    refill = Refill()
    for mine, theirs in _pairs(tree, new):
        if isinstance(mine, Leaf):
            refill.add(theirs, _as_states_of(theirs, mine), int(mine.steps))
            theirs.frozen, theirs.where = mine.frozen, mine.where
        elif isinstance(mine, _tree.Node):
            theirs.frozen_mark = mine.frozen_mark
    for store, arrays, counts in refill.ready():
        store.arrays, store.counts, store.shared = arrays, counts, True
    return new


def _pairs(tree: Any, other: Any) -> list[tuple[Any, Any]]:
    """What stands at the same places of two trees nested alike."""
    theirs = dict(_tree.walk_nodes(other))
    return [(value, theirs[path]) for path, value in _tree.walk_nodes(tree)]


def _as_states_of(leaf: Leaf, other: Leaf) -> list[Any]:
    """The states of another leaf in this one's dtypes; what only a wider dtype notes is 0."""
    paths = [path for path, _ in tree_flatten_with_path(other.abstract_state())[0]]
    states = dict(zip(paths, states_of(other), strict=True))
    wanted = [
        (states.get(path, 0), like)
        for path, like in tree_flatten_with_path(leaf.abstract_state())[0]
    ]
    return [s if isinstance(s, int) else s.astype(like.dtype) for s, like in wanted]
