"""The implicit style's state: what a rule remembers of the parameters that it has updated.

As with Flux's old optimisers it belongs to that very rule object, and goes when the object goes.
It is by place, so the same rule may serve several Params, or Params that grow.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

from fluxax._errors import short
from fluxax._implicit._params import Live, Order, Params
from fluxax._implicit._places import Place
from fluxax._implicit._styles import check_train
from fluxax.optimisers._optax import as_rule
from fluxax.optimisers._rule import fields_of, is_rule, rules_in, version, watched
from fluxax.optimisers._setup import setup
from fluxax.optimisers._state import Leaf


def by_params(who: str, opt: Any, ps: Params) -> tuple[Live, list[Leaf]]:
    """The parameters as they stand now, and the state of a rule for them: model and state tree."""
    check_train(who, opt, ps)
    live = ps.live()
    if not live:
        raise ValueError(
            f"{who} expects Params with parameters in them, got none. Their model has none that "
            "are trained, or it is gone; keep it alive."
        )
    return live, remembered(who, opt, live)


def remembered(who: str, opt: Any, live: Live) -> list[Leaf]:
    """The state of a rule for some parameters, made at its first use.

    Raises:
        TypeError: if `opt` is no rule.
    """
    memory = _memories.get(id(opt))
    if memory is None or memory.opt() is not opt:
        as_rule(who, opt)
        memory = _memories[id(opt)] = _Memory(opt)
    memory.follow(opt)
    return memory.state(opt, live)


def remembers(opt: Any) -> bool:
    """Whether a rule object has updated parameters in the implicit style."""
    memory = _memories.get(id(opt))
    return memory is not None and memory.opt() is opt


class _Memory:
    """The leaves that one rule object has made, and a copy of the rule that they all share."""

    def __init__(self, opt: Any):
        key = id(opt)
        try:
            self.opt: Any = weakref.ref(opt, lambda _: _memories.pop(key, None))
        except TypeError:  # of a class that allows no weak references
            self.opt = lambda: opt
        self.rule: Any = None
        self.leaves: dict[Place, Leaf] = {}
        self.version, self.watched = -1, False  # whether writes to the rule move the version
        self.last: tuple[Order | None, Any, list[Leaf]] = (None, None, [])
        self.owners: dict[int, Any] = {}  # weak references to what holds the parameters

    def follow(self, opt: Any) -> None:
        """Take over fields of the rule that were set since, as by `opt.eta = 0.001`."""
        if self.rule is None or not is_rule(opt):  # Optax's transformations cannot change
            return
        if self.version == version.now and self.watched:
            return
        if list(map(type, rules_in(opt))) != list(map(type, rules_in(self.rule))):
            raise ValueError(
                f"update expects a rule of the same sort as before, {short(self.rule)}, got "
                f"{opt!r}. Its state would not fit: make a new rule object."
            )
        for mine, theirs in zip(rules_in(self.rule), rules_in(opt), strict=True):
            for name, value in _settings(theirs):
                old = getattr(mine, name)
                if value is not old and not (type(value) is type(old) and value == old):
                    setattr(mine, name, value)
        self._seen(opt)

    def _seen(self, opt: Any) -> None:
        self.version, self.watched = version.now, is_rule(opt) and watched(opt)

    def state(self, opt: Any, live: Live) -> list[Leaf]:
        """A leaf for each place."""
        # which arrays there are, of what shapes, and which of them are one
        shape = [a.shape for a in live], len(set(map(id, live)))
        order, known, leaves = self.last
        if order is live.order and known == shape:
            return leaves
        leaves = self._leaves(opt, live)
        self.last = (live.order, shape, leaves)
        return leaves

    def _leaves(self, opt: Any, live: Live) -> list[Leaf]:
        self.leaves = {p: leaf for p, leaf in self.leaves.items() if p.owner() is not None}
        by_array: dict[int, Leaf] = {}
        for place, array in zip(live.order, live, strict=True):
            leaf = self.leaves.get(place)
            if leaf is not None and leaf.shape == array.shape and leaf not in by_array.values():
                by_array.setdefault(id(array), leaf)
        new = {id(a): a for a in live if id(a) not in by_array}
        if new:
            self._make(opt, new, by_array)
        found = [by_array[id(a)] for a in live]
        self.leaves.update(zip(live.order, found, strict=True))
        self._watch(live.order)
        return found

    def _watch(self, order: Order) -> None:
        """Let go of the state of a model when it is gone, though the rule stays."""
        memory = weakref.ref(self)
        for place in order:
            owner = place.owner
            if isinstance(owner, weakref.ref) and id(owner()) not in self.owners:
                key = id(owner())
                self.owners[key] = weakref.ref(owner(), partial(_gone, memory, key))

    def _make(self, opt: Any, arrays: dict[int, Any], by_array: dict[int, Leaf]) -> None:
        leaves = setup(opt, list(arrays.values()))
        self.rule = self.rule or leaves[0].rule
        for key, leaf in zip(arrays, leaves, strict=True):
            leaf.rule = self.rule
            by_array[key] = leaf
        self._seen(opt)


def _gone(memory: Any, key: int, _: Any) -> None:
    """An owner of parameters is gone: forget what was remembered of them."""
    mine = memory()
    if mine is not None:
        del mine.owners[key]
        mine.leaves = {p: leaf for p, leaf in mine.leaves.items() if p.owner() is not None}
        mine.last = (None, None, [])


_memories: dict[int, _Memory] = {}


def _settings(rule: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a rule that are not rules themselves."""
    for name in fields_of(rule):
        value = getattr(rule, name)
        if not any(map(is_rule, value if isinstance(value, (tuple, list)) else [value])):
            yield name, value
