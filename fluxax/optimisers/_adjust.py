"""Changing hyperparameters, freezing and thawing, on any part of a state tree."""

from __future__ import annotations

from typing import Any

from fluxax import _tree
from fluxax.optimisers._rule import assignments, changed, hyperparameters, unknown_field
from fluxax.optimisers._state import Leaf, leaves_of


def adjust(tree: Any, eta: Any = None, **fields: Any) -> None:
    """Change hyperparameters of every leaf below a node, in place, at any time.

    From number to number it compiles nothing. It reaches frozen leaves, and every member of a
    chain that has the field.

    Args:
        tree: the state tree from `setup`, a node of it, or a leaf.
        eta: the new learning rate.
        fields: other fields by name, as in `adjust(tree, beta=(0.8, 0.99))`.

    Raises:
        ValueError: if a value is not allowed, or no leaf there has a field of that name; nothing
            is changed then.
        TypeError: if `tree` is no state tree.

    Example:
        >>> import fluxax as fx
        >>> opt_state = fx.setup(fx.Adam(), fx.Dense(2, 3))
        >>> fx.adjust(opt_state, 0.01)
        >>> fx.adjust(opt_state.weight, beta=(0.8, 0.99))
        >>> opt_state.weight.rule
        Adam(eta=0.01, beta=(0.8, 0.99), epsilon=1e-08)
    """
    leaves = leaves_of("adjust", tree)
    if eta is not None:
        fields = {"eta": eta, **fields}
    if not fields:
        raise ValueError(
            "adjust expects something to set, got only the tree. Write adjust(tree, 0.01)."
        )
    plan: list[tuple[Any, str, Any]] = []
    for name, value in fields.items():
        found = [one for leaf in leaves for one in assignments(leaf.rule, name, value)]
        if not found:
            raise ValueError(_nobody(leaves, name))
        plan += [(rule, field, _checked(rule, field, new)) for rule, field, new in found]
    for rule, name, value in plan:
        setattr(rule, name, value)


def _checked(rule: Any, name: str, value: Any) -> Any:
    return rule.checked(name, value) if hasattr(rule, "checked") else value


def _nobody(leaves: list[Leaf], name: str) -> str:
    rules = list({type(leaf.rule): leaf.rule for leaf in leaves}.values())
    if len(rules) == 1:
        return unknown_field("adjust", rules[0], name)
    known = sorted({field for rule in rules for field in hyperparameters(rule)})
    names = ", ".join(known) or "there is none"
    return f"adjust expects a field of the rules there ({names}), got `{name}`."


def freeze(tree: Any) -> None:
    """Leave a part of the model as it is: no update, no decay, no step count, until `thaw`.

    In `train` and `trainstep` its gradient is not even computed, and norm layers below a frozen
    node use and keep their stored statistics.

    Args:
        tree: the state tree from `setup`, a node of it, or a leaf; changed in place.

    Raises:
        TypeError: if it is something else, such as the model.

    Example:
        >>> import fluxax as fx
        >>> opt_state = fx.setup(fx.Adam(), fx.Chain(enc=fx.Dense(2, 3), dec=fx.Dense(3, 1)))
        >>> fx.freeze(opt_state.layers.enc)
        >>> opt_state.layers.enc.weight.frozen, opt_state.layers.dec.weight.frozen
        (True, False)
    """
    _mark("freeze", tree, True)


def thaw(tree: Any) -> None:
    """Train a part of the model again that `freeze` had stopped, with the state as it was."""
    _mark("thaw", tree, False)


def _mark(who: str, tree: Any, frozen: bool) -> None:
    leaves = leaves_of(who, tree)
    for _, node in _tree.walk_nodes(tree):
        if isinstance(node, _tree.Node):
            node.frozen_mark = frozen
    for leaf in leaves:
        leaf.frozen = frozen
    changed()
