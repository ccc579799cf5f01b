"""An Optax transformation as a rule. Optax itself is not imported: `init` and `update` are all."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path, tree_unflatten

from fluxax.optimisers._meeting import Part, Place, WholeTree, ask
from fluxax.optimisers._rule import check_rule, is_rule
from fluxax.optimisers._state import Shared


@dataclass(repr=False)
class Transformation(WholeTree):
    """A transformation from Optax, given wherever a rule is expected.

    It sees all leaves that have it as one tree, nested like the model, with `None` for what takes
    no part. What belongs to a parameter is in that leaf's state, by its name in Optax's state; a
    count is common to all leaves, and goes on as long as one of them steps.

    Args:
        tx: anything with `init(params)` and `update(updates, state, params)`.
        last: whether its result is added to the parameter, as Optax does; before other rules of a
            chain it is passed on as it is.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp, optax
        >>> model = {"w": jnp.array([3.0, 4.0])}
        >>> rule = fx.OptimiserChain(optax.clip_by_global_norm(1.0), fx.Descent(0.1))
        >>> opt_state = fx.setup(rule, model)
        >>> fx.update(opt_state, model, {"w": jnp.array([30.0, 40.0])})[1]
        {'w': Array([2.94, 3.92], dtype=float32)}
    """

    placed: ClassVar[bool] = True

    tx: Any
    last: bool = True

    def circle(self) -> Hashable:
        return self.tx.init, self.tx.update

    def __repr__(self) -> str:
        return f"optax.{getattr(self.tx.update, '__qualname__', 'transformation').split('.')[0]}"

    def init(self, x: Any) -> Any:
        return ask(Part(self, None, x))

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        state, update = ask(Part(self, state, x, dx))
        return state, -update if self.last else update

    def rehearse(self, part: Part) -> Any:
        return part.state, part.dx

    def begin(self, parts: list[Part]) -> list[Any]:
        """The state for all parameters, taken apart: by leaf a dict from a path to an array."""
        tree = _tree_of(parts, [p.x for p in parts])
        state = {path: jnp.asarray(v) for path, v in _by_path(self.tx.init(tree)).items()}
        common = self._common(_tree_of(parts, [None] * len(parts)))
        paths = {k: path for path, k in tree_flatten_with_path(_indices(parts))[0]}
        kept: list[dict[str, Any]] = [{} for _ in parts]
        for path, value in state.items():
            fitting = [k for k, end in paths.items() if path[len(path) - len(end) :] == end]
            if path in common or not fitting:
                shared = Shared(value)
                for mine in kept:
                    mine[jax.tree_util.keystr(path)] = shared
            else:
                owner = max(fitting, key=lambda k: len(paths[k]))
                kept[owner][jax.tree_util.keystr(path)] = value
        return kept if len(parts) > 1 or parts[0].place else [_plain(kept[0])]

    def _common(self, nothing: Any) -> dict[Any, Any]:
        """What the state has without any parameter: that belongs to none."""
        try:
            return _by_path(jax.eval_shape(self.tx.init, nothing))
        except (ValueError, TypeError, IndexError):  # one that cannot do without
            return {}

    def meet(self, parts: list[Part]) -> list[Any]:
        """By leaf: its new state, and what Optax gives for it."""
        params, grads = (_tree_of(parts, [getattr(p, n) for p in parts]) for n in ("x", "dx"))
        have = {path: value for part in parts for path, value in part.state.items()}
        wanted, structure = tree_flatten_with_path(jax.eval_shape(self.tx.init, params))
        names = [jax.tree_util.keystr(path) for path, _ in wanted]
        for name, (_, like) in zip(names, wanted, strict=True):
            if name not in have or have[name].shape != like.shape:
                raise ValueError(
                    f"update expects all parameters of {self!r} to step together, got a part of "
                    f"them: it keeps {name} for all as one. Thaw the others, or call setup again."
                )
        state = tree_unflatten(structure, [have[name] for name in names])
        updates, new = self.tx.update(grads, state, params)
        news = dict(zip(names, jax.tree.leaves(new), strict=True))
        steps = dict(zip(jax.tree.leaves(_indices(parts)), jax.tree.leaves(updates), strict=True))
        return [
            ({n: news.get(n, old) for n, old in p.state.items()}, steps[k].astype(p.x.dtype))
            for k, p in enumerate(parts)
        ]


@functools.lru_cache(maxsize=64)
def direction(init: Any, update: Any) -> int:
    """-1 if a transformation turns a gradient around, 1 if not, 0 if that cannot be seen."""

    def probe() -> Any:
        x = [jnp.zeros((2, 2))]
        return update([jnp.ones((2, 2))], init(x), x)[0][0]

    try:
        return int(np.sign(np.sum(jax.jit(probe)())))
    except (TypeError, ValueError, AttributeError, KeyError):  # it wants a model, or a loss
        return 0


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.value if isinstance(v, Shared) else v for k, v in state.items()}


def _by_path(tree: Any) -> dict[Any, Any]:
    return dict(tree_flatten_with_path(tree)[0])


def _indices(parts: list[Part]) -> Any:
    """A tree nested like the model, with the number of a part where its array stands."""
    places = [p.place or Place(0, 0) for p in parts]
    order = {place.number: k for k, place in enumerate(places)}
    return jax.tree.map(order.get, places[0].tree)


def _tree_of(parts: list[Part], values: list[Any]) -> Any:
    """A tree nested like the model with the values of the parts, `None` elsewhere."""
    return jax.tree.map(lambda k: values[k], _indices(parts))


def as_rule(who: str, value: Any) -> Any:
    """A rule, or a transformation from Optax as one; else an error that says what came instead."""
    methods = (getattr(value, name, None) for name in ("init", "update"))
    if is_rule(value) or isinstance(value, type) or not all(map(callable, methods)):
        return check_rule(who, value)
    return Transformation(value)
