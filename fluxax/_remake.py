"""A copy of a tree with other arrays: what was one object before is one object afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluxax import _tree


def remake(tree: Any, new: Callable[[Any], Any]) -> Any:
    """A tree of new containers with `new(leaf)` for every leaf; shared parts stay shared.

    Args:
        tree: any tree.
        new: called once for every leaf, tied ones once.
    """
    made: dict[int, Any] = {}

    def at(value: Any) -> Any:
        if id(value) not in made:
            kind = _tree.kind_of(value)
            if kind is None:
                made[id(value)] = new(value)
            else:
                made[id(value)] = kind.rebuild(value, [at(part) for _, part in kind.parts(value)])
                _keep_mark(value, made[id(value)])
        return made[id(value)]

    return at(tree)


def _keep_mark(old: Any, new: Any) -> None:
    if isinstance(old, _tree.Node):
        new.frozen_mark = old.frozen_mark
