"""How to run the steps of a state tree: what is worked out once, when it is checked."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from fluxax import _tree
from fluxax._compile._program import at_clear
from fluxax._compile._site import Purpose
from fluxax._module import Module
from fluxax.optimisers._gather import Gather, make_gather
from fluxax.optimisers._match import match_model
from fluxax.optimisers._state import Leaf, Store, merge_stores
from fluxax.optimisers._update import Group


class Plan(NamedTuple):
    """How to run the steps of a state tree that was checked against a model.

    It keeps neither of the two alive, and goes when the state does.
    """

    tree: Gather | None
    group: Group
    store: Callable[[], Store | None]  # weak
    names: list[tuple[Any, ...]]  # by leaf: what leads to its array in the model
    frozen: tuple[Any, ...]  # paths of frozen Modules, which shape the objective
    purposes: dict[int, Purpose]  # by number of arguments
    number: int  # by which programs know it


_recent: list[tuple[Any, Plan]] = []
_RECENT, _numbers = 8, itertools.count()
at_clear(_recent.clear)


def new_purpose(plan: Plan, n: int) -> Purpose:
    purpose = plan.purposes[n] = Purpose("step", (True,) + (False,) * (n - 1), plan.frozen)
    return purpose


def find_plan(who: str, opt_state: Any, model: Any) -> tuple[Plan, Store]:
    """The plan for a state tree; the tree is checked against the model when it is new."""
    for made_for, plan in _recent:
        if made_for is not type(model) or plan.tree is None:
            continue
        leaves = plan.tree.read(opt_state)
        store = None if leaves is None else leaves[0][0].store
        if store is None or plan.store() is not store:
            continue
        if not plan.group.stale:
            return plan, store
        _recent[:] = [pair for pair in _recent if pair[1] is not plan]
        break
    return _make_plan(who, opt_state, model)


def _make_plan(who: str, opt_state: Any, model: Any) -> tuple[Plan, Store]:
    found = match_model(who, opt_state, model)
    if not _changeable(model):
        raise TypeError(
            f"{who} expects a model that can be changed in place, got {type(model).__name__}. "
            "Use fx.gradient and `opt_state, model = fx.update(opt_state, model, grads[0])`."
        )
    stores = {id(leaf.store): leaf.store for _, leaf, _ in found}
    if len(stores) > 1:
        merge_stores([leaf for _, leaf, _ in found])
    store = found[0][1].store if found else Store()
    first: dict[int, tuple[_tree.Path, Leaf]] = {}
    for path, leaf, _ in found:
        first.setdefault(id(leaf), (path, leaf))
    leaves = [leaf for _, leaf in first.values()]
    names = [tuple(map(_tree.key_name, path)) for path, _ in first.values()]
    group = Group(leaves)
    tokens = {path: leaf.token for path, leaf, _ in found}
    try:
        tree = make_gather(opt_state, tokens, lambda x, k: f"{x}.token is {k}") if tokens else None
    except KeyError:  # nested alike, but of other containers
        raise TypeError(
            f"{who} expects the state tree that setup gave, got a {type(opt_state).__name__} with "
            "parts of one. Pass opt_state as it is."
        ) from None
    frozen = _frozen_paths(opt_state, model)
    plan = Plan(tree, group, weakref.ref(store, _forget), names, frozen, {}, next(_numbers))
    if tree is not None:
        _recent.insert(0, (type(model), plan))
        del _recent[_RECENT:]
    return plan, store


def _forget(store: Any) -> None:
    """The plans of a state that is gone go with it."""
    _recent[:] = [pair for pair in _recent if pair[1].store is not store]


def _changeable(model: Any) -> bool:
    kind = _tree.kind_of(model)
    return kind is not None and kind.assign is not None


def frozen_nodes(tree: Any, model: Any, path: _tree.Path = ()) -> list[tuple[_tree.Path, Any]]:
    """The Modules whose nodes in the state tree are frozen, with their paths."""
    found = []
    if isinstance(tree, _tree.Node) and tree.frozen_mark and isinstance(model, Module):
        found.append((path, model))
    for (_, below), (key, part) in zip(_tree.parts(tree), _tree.parts(model), strict=False):
        found += frozen_nodes(below, part, (*path, key))
    return found


def _frozen_paths(tree: Any, model: Any) -> tuple[Any, ...]:
    return tuple(path for path, _ in frozen_nodes(tree, model))


def frozen_modules(tree: Any, model: Any) -> frozenset[int]:
    return frozenset(id(module) for _, module in frozen_nodes(tree, model))
