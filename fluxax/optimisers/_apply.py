"""The rules of many leaves as one program: traced once, for all leaves together."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._module import static_key
from fluxax.optimisers._hyper import Pack, pack_dtype
from fluxax.optimisers._rule import array_view, fields_of, hyper_view, is_rule, room, rules_in, static_view, watched
from fluxax.optimisers._state import Leaf

_VIEWS = ("hyper", "array", "static")
_views: dict[Any, str] = {}  # by the classes in a rule: how its numbers stand in a program


def _classes(rule: Any) -> tuple[type, ...]:
    return tuple(type(r) for r in rules_in(rule))


def settle_view(rule: Any, leaf: Leaf) -> None:
    """Find out, by an abstract trace, how a rule's numbers can stand in a program."""
    if _classes(rule) in _views:
        return
    x = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    size = size_for([rule])
    vector = jax.ShapeDtypeStruct((size,), pack_dtype())
    state = leaf.abstract_state()
    jax.eval_shape(lambda v, s, x, dx: _apply_one(rule, Pack(v), 0, s, x, dx)[1], vector, state, x, x)


def signature(leaf: Leaf) -> Any:
    """What of a leaf a program depends on: everything but its numbers."""
    return (rule_signature(leaf.rule), leaf.structure, tuple(leaf.slots), leaf.shape, leaf.dtype)


def rule_signature(rule: Any) -> Any:
    """What of a rule a program depends on: its class, static fields and schedules."""
    return _rule_signature(rule, _views.get(_classes(rule)) == "static")


def _rule_signature(rule: Any, fixed: bool) -> Any:
    static, names = getattr(rule, "static", ()), fields_of(rule)
    return (type(rule), tuple((n, _field_signature(getattr(rule, n), fixed or n in static)) for n in names))


def _field_signature(value: Any, static: bool) -> Any:
    if is_rule(value):
        return _rule_signature(value, static)
    if isinstance(value, (tuple, list)):
        return tuple(_field_signature(v, static) for v in value)
    if not static and isinstance(value, (int, float, np.generic)) and not isinstance(value, (bool, np.bool_)):
        return "number"
    return static_key(value)


class Numbers:
    """The hyperparameters of a program: where they lie in its vector, and the vector now."""

    def __init__(self, size: int):
        self.size = size
        self.pack: Pack | None = None

    def placeholder(self) -> Any:
        """A vector of the right size, for a trace."""
        return jax.ShapeDtypeStruct((self.size,), pack_dtype())

    def vector(self, rules: list[Any]) -> Any:
        """The vector for rules as they are; a trace must have come before."""
        assert self.pack is not None
        return jax.device_put(self.pack.values(rules))


def apply_rules(
    leaves: list[tuple[Any, Any, Any]],
    numbers: Numbers,
    vector: Any,
    arrays: list[Any],
    counts: Any,
    xs: list[Any],
    grads: list[Any],
) -> tuple[list[Any], list[Any], Any]:
    """New parameters, state arrays and step counts; to be traced.

    Args:
        leaves: by leaf its rule, the structure of its state and where that lies.
        xs: the parameters by leaf.
        grads: the gradients by leaf; `None` leaves a leaf and its state alone.
    """
    pack = numbers.pack = Pack(vector)
    new_arrays, new_counts, new_xs = list(arrays), {}, list(xs)
    for i, ((rule, structure, slots), x, dx) in enumerate(zip(leaves, xs, grads, strict=True)):
        if dx is None:
            continue
        values = [counts[k] if sort == "count" else arrays[k] for sort, k in slots]
        state, step = _apply_one(rule, pack, i, jax.tree.unflatten(structure, values), x, dx)
        for (sort, k), new in zip(slots, structure.flatten_up_to(state), strict=True):
            if sort == "count":
                new_counts[k] = new
            else:
                new_arrays[k] = new.astype(arrays[k].dtype)
        if step is not None:
            new_xs[i] = (x - step).astype(x.dtype)
    if new_counts:
        n = counts.shape[0]
        counts = jnp.stack([new_counts.get(k, counts[k]) for k in range(n)]).astype(counts.dtype)
    return new_xs, new_arrays, counts


def _apply_one(rule: Any, pack: Pack, i: int, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
    """One rule, with its numbers as hyperparameters of the program as far as it lets them."""
    how = _views.setdefault(_classes(rule), "hyper")
    if how == "static":
        return static_view(rule).apply(state, x, dx)
    view = hyper_view(rule, pack, i) if how == "hyper" else array_view(rule, pack, i, x)
    try:
        return view.apply(state, x, dx)
    except (TypeError, jax.errors.JAXTypeError):
        _views[_classes(rule)] = _VIEWS[_VIEWS.index(how) + 1]
        return _apply_one(rule, pack, i, state, x, dx)


# --- programs by structure ----------------------------------------------------------------

_programs: OrderedDict[Any, Any] = OrderedDict()
_LIMIT = 256


def program_for(key: Any, make: Any) -> Any:
    """The program of a key, made if it is not there; the oldest goes when there are many."""
    found = _programs.get(key)
    if found is None:
        found = _programs[key] = make()
        if len(_programs) > _LIMIT:
            _programs.popitem(last=False)
    else:
        _programs.move_to_end(key)
    return found


def clear_programs() -> None:
    """Forget every compiled update."""
    _programs.clear()


def size_for(rules: list[Any]) -> int:
    """The length of the vector of hyperparameters for rules."""
    return max(8, room(rules))


def all_watched(rules: list[Any]) -> bool:
    """Whether every change of these rules is noted in `version`."""
    return all(watched(rule) for rule in rules)

