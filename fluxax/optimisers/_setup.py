"""setup: a state tree for a model."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._implicit._styles import check_setup
from fluxax._jax import beside, is_tracer
from fluxax._module import run
from fluxax._parameters import trainable_arrays
from fluxax._tensors import is_tensor
from fluxax.optimisers._meeting import Place, Speaker, converse
from fluxax.optimisers._optax import Transformation
from fluxax.optimisers._parts import chosen_rules
from fluxax.optimisers._rows import share_rows
from fluxax.optimisers._rule import rules_in
from fluxax.optimisers._state import Leaf, Store, joined
from fluxax.optimisers._widen import widened


def setup(rule: Any, model: Any) -> Any:
    """The state of an optimisation rule for every trained array of a model.

    Args:
        rule: a rule such as `Adam(1e-3)`, or an Optax transformation; each leaf gets a copy of its
            own. Or different ones for different parts: a dict from prefixes of paths
            (`{"layers.enc": Adam(1e-4), "layers[1]": Lion()}`; the longest that fits wins, `""`
            fits all), or a function of path and array. `None` there, or no prefix that fits,
            means that the array is not trained.
        model: any tree of arrays.

    Returns:
        A tree nested like the model, with a `Leaf` per trained array and `None` elsewhere. An
        array that stands in two places has one leaf, in both.

    Raises:
        TypeError: if `rule` is no rule, or the model holds tensors of another library.
        ValueError: if a prefix fits no array.

    Example:
        >>> import fluxax as fx
        >>> opt_state = fx.setup(fx.Momentum(0.1), fx.Dense(2, 3))
        >>> opt_state.weight
        Leaf(Momentum(eta=0.1, rho=0.9), f32[2,3])
        >>> opt_state.activation

        No weight decay on biases and norms:

        >>> rule = lambda path, x: fx.AdamW(1e-3, lam=0.1 if x.ndim > 1 else 0.0)
        >>> fx.setup(rule, fx.Dense(2, 3)).bias.rule.lam
        0.0
    """
    if isinstance(model, Leaf) or _is_state(model):
        raise TypeError(
            "setup expects a rule and a model, got a state tree. Write setup(rule, model)."
        )
    check_setup(model)
    _check_tensors(model)
    arrays = dict(trainable_arrays(model))
    rules = chosen_rules(rule, model, arrays)
    leaves = _leaves(model, {path: arrays[path] for path in rules}, rules)
    if not leaves:
        warnings.warn(
            f"setup found no trainable array in {short(model)}: nothing will be trained. "
            "Trained are floating and complex arrays.",
            stacklevel=2,
        )
    return _tree.mirror(
        model, lambda path, value: leaves.get(id(value)) if path in arrays else None
    )


def _leaves(
    model: Any, arrays: dict[_tree.Path, Any], rules: dict[_tree.Path, Any]
) -> dict[int, Leaf]:
    """A leaf for each array, by the array's identity, all in one store."""
    first: dict[int, _tree.Path] = {}
    for path, array in arrays.items():
        if is_tracer(array) and run.trace is None:
            raise TypeError(
                "setup expects concrete arrays, got a traced one. Call it outside of jax.jit."
            )
        first.setdefault(id(array), path)
    speakers = {path: _speaker(rules[path], arrays[path]) for path in first.values()}
    _give_places(model, speakers, rules)
    converse(list(speakers.values()))
    store = Store()
    leaves = {
        i: Leaf(rules[p], arrays[p], store, _tree.path_string(p), s.result, s.place)
        for (i, p), s in zip(first.items(), speakers.values(), strict=True)
    }
    own = {id(a) for a in store.arrays} - set(leaves)
    store.shared = len(own) < len(store.arrays)  # a rule may begin with the parameter itself
    if store.inside:  # a part of what is traced, where nothing is gained by common arrays
        _add_clocks(store, list(leaves.values()))
        return leaves
    share_rows(store, list(leaves.values()))
    _add_clocks(store, list(leaves.values()))
    store.counts = beside(store.counts, next(iter(arrays.values()), None))
    return leaves


def _speaker(rule: Any, array: Any) -> Speaker:
    return Speaker(rule, lambda: rule.init(widened(array)))


def _give_places(
    model: Any, speakers: dict[_tree.Path, Speaker], rules: dict[_tree.Path, Any]
) -> None:
    """Tell leaves where they stand among the others, if their rules want to know."""
    paths = [p for p in speakers if any(isinstance(r, Transformation) for r in rules_in(rules[p]))]
    if paths:
        index = {path: i for i, path in enumerate(paths)}
        tree = _tree.mirror(model, lambda path, _: index.get(path))
        for path, i in index.items():
            speakers[path].place = Place(i, tree)


def _add_clocks(store: Store, leaves: list[Leaf]) -> None:
    """Give every leaf a count of its steps, for schedules; they stand before the other counts."""
    n = len(leaves)
    store.counts = joined(np.zeros(n, np.int32), store.counts)
    for k, leaf in enumerate(leaves):
        leaf.clock = k
        leaf.slots = [s._replace(i=s.i + n) if s.sort == "count" else s for s in leaf.slots]


def _check_tensors(model: Any) -> None:
    for path, value in _tree.walk(model):
        if is_tensor(value):
            raise TypeError(
                f"setup expects arrays, got {short(value)} at {_tree.path_string(path)}. A tensor "
                "of another library is not trained: write jnp.asarray(tensor) there."
            )


def _is_state(tree: Any) -> bool:
    return any(isinstance(v, Leaf) for _, v in _tree.walk(tree))
