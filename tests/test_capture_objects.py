"""Changes of objects, classes and wrapped functions are seen at the next call."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import functools
import operator
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import Cases, Turns, check_case, check_eager, quietly

case = Cases()
ARRAYS = [jnp.float32(c) for c in (2.0, 3.0, 5.0)]
SCALE: Any = 0.0


def two_deep(w: Any) -> Any:
    return SCALE * w**2


# --- objects, classes ----------------------------------------------------------------------


class Plain:
    shared: Any = 1.0

    def __init__(self, c: Any = 1.0):
        self.c = c

    def scaled(self, w: Any) -> Any:
        return self.c * w**2

    def by_global(self, w: Any) -> Any:
        return SCALE * w**2

    def by_class(self, w: Any) -> Any:
        return self.shared * w**2

    def by_type(self, w: Any) -> Any:
        return type(self).shared * w**2

    @property
    def doubled(self) -> Any:
        return 2 * self.c

    @classmethod
    def of_class(cls, w: Any) -> Any:
        return cls.shared * w**2

    @staticmethod
    def static(w: Any) -> Any:
        return SCALE * w**2

    def __call__(self, w: Any) -> Any:
        return jnp.sum(self.scaled(w))

    def __getitem__(self, i: int) -> Any:
        return self.c


class Child(Plain):
    def scaled(self, w: Any) -> Any:
        return 2 * super().scaled(w)


class Slotted:
    __slots__ = ("c", "other")


class SlottedAndMore(Slotted):
    __slots__ = ("more",)


@dataclasses.dataclass
class Config:
    lam: Any = 1.0
    unused: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    lam: float = 1.0


class Level(enum.Enum):
    LOW = 2
    HIGH = 3


@case(traces=6)
def settings_objects_changed_in_place() -> Turns:
    for cfg in (Config(), types.SimpleNamespace(lam=0.0), argparse.Namespace(lam=0.0)):
        for cfg.lam in (2.0, 3.0, 5.0):
            yield (lambda w: jnp.sum(cfg.lam * w**2)), cfg.lam


@case(traces=2)
def frozen_dataclass_replaced() -> Turns:
    cfg = Frozen()
    for c in (2.0, 3.0, 5.0):
        cfg = dataclasses.replace(cfg, lam=c)
        yield (lambda w: jnp.sum(cfg.lam * w**2)), c


@case(traces=1)
def plain_object() -> Turns:
    thing = Plain()
    for thing.c in ARRAYS:
        yield (lambda w: jnp.sum(thing.scaled(w))), thing.c


@case(traces=2)
def slots_object() -> Turns:
    thing = SlottedAndMore()
    for thing.c in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(thing.c * w**2)), thing.c


@case(traces=2)
def slot_that_appears() -> Turns:
    thing = Slotted()
    f = lambda w: jnp.sum((thing.c if hasattr(thing, "c") else 1.0) * w**2)
    yield f, 1
    thing.c = 2.0
    yield f, 2


@case(traces=3)
def attribute_that_appears_and_goes() -> Turns:
    thing = types.SimpleNamespace()
    f = lambda w: jnp.sum(getattr(thing, "late", 1.0) * w**2)
    yield f, 1
    thing.late = 2.0
    yield f, 2
    del thing.late
    yield f, 1


@case(traces=3)
def instance_attribute_hides_the_class_attribute() -> Turns:
    thing = Plain()
    f = lambda w: jnp.sum(thing.by_class(w))
    yield f, 1
    thing.shared = 2.0
    yield f, 2
    del thing.shared
    yield f, 1


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class attributes that cases change are as they were for the next case."""
    for owner, name in ((Plain, "shared"), (Plain, "scaled")):
        monkeypatch.setattr(owner, name, vars(owner)[name])


@case(traces=12)
def class_attribute_by_four_ways() -> Turns:
    thing = Child()
    ways = [
        lambda w: jnp.sum(thing.by_class(w)),
        lambda w: jnp.sum(thing.by_type(w)),
        lambda w: jnp.sum(Child.of_class(w)),
        lambda w: jnp.sum(Plain.shared * w**2),
    ]
    for Plain.shared in (2.0, 3.0, 5.0):
        for f in ways:
            yield f, Plain.shared


@case(traces=3)
def class_attribute_that_is_a_list() -> Turns:
    Plain.shared = [2.0]
    f = lambda w: jnp.sum(Plain.shared[0] * w**2)
    for c in (2.0, 3.0, 5.0):
        Plain.shared[0] = c
        yield f, c


@case(traces=3)
def class_attribute_hidden_by_a_subclass() -> Turns:
    class Sub(Plain):
        pass

    thing = Sub()
    f = lambda w: jnp.sum(thing.by_class(w))
    yield f, 1
    Sub.shared = 2.0
    yield f, 2
    del Sub.shared
    yield f, 1


@case(traces=3)
def class_of_an_object_changed() -> Turns:
    thing = Plain(2.0)
    f = lambda w: jnp.sum(thing.scaled(w))
    yield f, 2
    thing.__class__ = Child
    yield f, 4


@case(traces=2)
def method_redefined() -> Turns:
    thing = Child(2.0)
    f = lambda w: jnp.sum(thing.scaled(w))
    yield f, 4
    Plain.scaled = lambda self, w: 10 * self.c * w**2
    yield f, 40


@case(traces=3)
def method_global() -> Turns:
    global SCALE
    thing = Child()
    for SCALE in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum((thing.by_global(w) + Plain.static(w)) / 2)), SCALE


@case(traces=1)
def super_and_property() -> Turns:
    thing = Child()
    for thing.c in ARRAYS:
        yield (lambda w: jnp.sum(thing.scaled(w) * thing.doubled)), 4 * thing.c**2


@case(traces=1)
def objective_that_is_a_bound_method() -> Turns:
    thing = Plain()
    for thing.c in ARRAYS:
        yield thing.__call__, thing.c


@case(traces=1)
def objective_that_is_an_object() -> Turns:
    for c in ARRAYS:
        yield Child(c), 2 * c


@case(traces=1)
def item_of_an_object() -> Turns:
    thing = Plain()
    for thing.c in ARRAYS:
        yield (lambda w: jnp.sum(thing[0] * w**2)), thing.c


@case(traces=1)
def bound_method_of_a_list() -> Turns:
    xs = [None]
    get = xs.__getitem__
    for xs[0] in ARRAYS:
        yield (lambda w: jnp.sum(get(0) * w**2)), xs[0]


@case(traces=2)
def partial_arguments() -> Turns:
    for c in (2.0, 3.0, 5.0):
        yield functools.partial(lambda c, w, *, k: jnp.sum(c * k * w**2), c, k=ARRAYS[0]), 2 * c


@case(traces=1)
def partial_keywords_changed_in_place() -> Turns:
    f = functools.partial(lambda w, c: jnp.sum(c * w**2), c=None)
    for c in ARRAYS:
        f.keywords["c"] = c
        yield f, c


@case(traces=2)
def enumeration() -> Turns:
    for level in (Level.LOW, Level.HIGH, Level.LOW):
        yield (lambda w: jnp.sum(level.value * w**2)), level.value


# --- wrapped helpers, functions given to JAX -----------------------------------------------


@jax.jit
def jitted(w: Any) -> Any:
    return SCALE * w**2


@functools.cache
def cached(k: float) -> Any:
    return 2 * k


@jax.custom_jvp
def with_own_rule(w: Any) -> Any:
    return SCALE * w**2


with_own_rule.defjvps(lambda t, ans, w: 2 * SCALE * w * t)


@case(traces=1)
def global_of_a_jitted_helper() -> Turns:
    global SCALE
    for SCALE in ARRAYS:
        yield (lambda w: jnp.sum(jitted(w))), SCALE


@case(traces=3)
def cached_helper() -> Turns:
    for c in (2.0, 3.0, 2.0):
        yield (lambda w: jnp.sum(cached(c) * w**2)), 2 * c


@case(traces=1)
def functions_given_to_jax() -> Turns:
    global SCALE
    for SCALE in ARRAYS:
        row = lambda v: two_deep(v)
        yield (lambda w: jnp.sum(jax.vmap(row)(w))), SCALE


@case(traces=1)
def body_of_a_scan() -> Turns:
    for c in ARRAYS:
        body = lambda carry, v: (carry + c * v**2, None)
        yield (lambda w: jax.lax.scan(body, jnp.float32(0), w)[0]), c


@case(traces=2)
def mapped_and_reduced_by_python() -> Turns:
    for c in (2.0, 3.0, 5.0):
        term = lambda v: c * v**2
        yield (lambda w: functools.reduce(operator.add, map(term, [w[0], w[1]]))), c


@case(traces=2)
def decorated_helper() -> Turns:
    def doubled(g: Any) -> Any:
        @functools.wraps(g)
        def inner(w: Any) -> Any:
            return 2 * g(w)

        return inner

    for c in (2.0, 3.0, 5.0):

        @doubled
        def helper(w: Any) -> Any:
            return c * w**2

        yield (lambda w: jnp.sum(helper(w))), 2 * c


@case(traces=1)
def functions_in_containers() -> Turns:
    global SCALE
    table = {"f": [two_deep]}
    for SCALE in ARRAYS:
        yield (lambda w: jnp.sum(table["f"][0](w))), SCALE


@case(traces=2)
def array_that_is_a_class_attribute() -> Turns:
    for n in (2, 3):
        Plain.shared = np.full(2, n, np.float32)
        yield (lambda w: jnp.sum(Plain.shared * w**2)), n


@case(traces=2)
def class_attribute_array_written_in_place() -> Turns:
    Plain.shared = np.ones(2, np.float32)
    thing = Plain()
    for n in (2, 3):
        Plain.shared[:] = n
        yield (lambda w: jnp.sum(thing.by_class(w))), n


@pytest.mark.parametrize("name", list(case.table))
def test_arithmetic(name: str) -> None:
    check_case(*case.table[name])


# JAX itself remembers the jaxpr of a jitted helper whose global changed.
@pytest.mark.parametrize("name", [n for n in case.table if n != "global_of_a_jitted_helper"])
def test_eager(name: str) -> None:
    check_eager(case.table[name][0])


def test_a_custom_rule_of_the_users_is_not_compiled() -> None:
    """JAX runs it after the trace, when the copies are gone."""

    def turns() -> Turns:
        global SCALE
        for SCALE in (2.0, 3.0, 5.0):
            yield (lambda w: jnp.sum(with_own_rule(w))), SCALE

    quietly(lambda: check_case(turns, None, compiled=False))
