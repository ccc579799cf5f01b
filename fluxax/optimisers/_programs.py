"""What of leaves shapes a program, and the numbers that go into it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._compile._program import at_clear
from fluxax._module import static_key
from fluxax.optimisers._hyper import Pack, Timed, pack_dtype, value_at
from fluxax.optimisers._meeting import Place, rehearsing, restart
from fluxax.optimisers._rule import fields_of, is_rule, rules_in, watched
from fluxax.optimisers._state import Leaf, Slot
from fluxax.optimisers._taken import take
from fluxax.optimisers._views import (
    array_view,
    hyper_view,
    room,
    schedules_in,
    static_view,
    timed,
)

_VIEWS = ("hyper", "array", "static")
_views: dict[Any, str] = {}  # by the classes in a rule: how its numbers stand in a program


def _classes(rule: Any) -> tuple[type, ...]:
    return tuple(type(r) for r in rules_in(rule))


def settle_view(rule: Any, leaf: Leaf) -> None:
    """Find out, by an abstract trace, how a rule's numbers can stand in a program."""
    if _classes(rule) in _views:
        return
    x = jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
    vector = jax.ShapeDtypeStruct((size_for([rule]),), pack_dtype())
    count = jax.ShapeDtypeStruct((), np.int32)

    def attempt(vector: Any, state: Any, x: Any, count: Any) -> Any:
        return apply_one(now(rule, count), Pack(vector), 0, state, x, x)[1]

    with rehearsing():
        jax.eval_shape(attempt, vector, leaf.abstract_state(), x, count)


def has_constants(rule: Any) -> bool:
    """Whether a rule's numbers are constants of its programs, because it branches on them."""
    return _views.get(_classes(rule)) == "static"


def signature(leaf: Leaf) -> Any:
    """What of a leaf a program depends on: everything but its numbers."""
    return (
        rule_signature(leaf.rule),
        leaf.structure,
        tuple(leaf.slots),
        leaf.shape,
        leaf.dtype,
        leaf.clock,
    )


def meeting_key(leaves: list[Leaf]) -> Any:
    """What of leaves whose rules look at the whole tree a program depends on, beside signatures."""
    places = [leaf.place for leaf in leaves]
    if not any(places):
        return None
    trees = list({id(p.tree): p.tree for p in places if p}.values())
    ids = [id(tree) for tree in trees]
    met = tuple(p and (p.number, ids.index(id(p.tree))) for p in places)
    return tuple(map(jax.tree.structure, trees)), met


def rule_signature(rule: Any) -> Any:
    """What of a rule a program depends on: its class, static fields and schedules."""
    return _rule_signature(rule, has_constants(rule))


def _rule_signature(rule: Any, fixed: bool) -> Any:
    static, names = getattr(rule, "static", ()), fields_of(rule)
    return (
        type(rule),
        tuple((n, _field_signature(getattr(rule, n), fixed or n in static)) for n in names),
    )


def _field_signature(value: Any, static: bool) -> Any:
    if is_rule(value):
        return _rule_signature(value, static)
    if isinstance(value, (tuple, list)):
        return tuple(_field_signature(v, static) for v in value)
    if (
        not static
        and isinstance(value, (int, float, np.generic))
        and not isinstance(value, (bool, np.bool_))
    ):
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


class Template(NamedTuple):
    """What of a leaf is needed to trace its step."""

    rule: Any
    structure: Any  # of its state
    slots: list[Slot]
    shape: tuple[int, ...]
    clock: int  # which count says how many steps it has taken
    place: Place | None


def template(leaf: Leaf) -> Template:
    """What of a leaf is needed to trace its step."""
    slots = list(leaf.slots)
    return Template(leaf.rule, leaf.structure, slots, leaf.shape, leaf.clock, leaf.place)


def now(rule: Any, clock: Any) -> Any:
    """A rule with its schedules evaluated at the steps taken so far."""
    if not schedules_in(rule):
        return rule
    if not clock.ndim:
        return timed(rule, lambda f: Timed(jnp.asarray(value_at(f, clock))))
    at = lambda f: jax.vmap(lambda t: jnp.asarray(value_at(f, t)))(clock[:, 0])[:, None]
    return timed(rule, lambda f: Timed(at(f)))


def apply_one(rule: Any, pack: Pack, i: int, state: Any, x: Any, dx: Any) -> tuple[Any, Any, Any]:
    """One step, with a rule's numbers as hyperparameters of the program as far as it lets them."""
    how = _views.setdefault(_classes(rule), "hyper")
    restart()
    if how == "static":
        return take(static_view(rule), state, x, dx)
    view = hyper_view(rule, pack, i) if how == "hyper" else array_view(rule, pack, i, x)
    try:
        return take(view, state, x, dx)
    except (TypeError, jax.errors.JAXTypeError):
        _views[_classes(rule)] = _VIEWS[_VIEWS.index(how) + 1]
        return apply_one(rule, pack, i, state, x, dx)


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


at_clear(_programs.clear)


def size_for(rules: list[Any]) -> int:
    """The length of the vector of hyperparameters for rules."""
    return max(8, room(rules))


def all_watched(rules: list[Any]) -> bool:
    """Whether every change of these rules is noted in `version`."""
    return all(watched(rule) for rule in rules)
