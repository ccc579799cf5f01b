"""What a function returns beside its loss belongs to this call (§4.1.14)."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import quietly

import fluxax as fx

X = jnp.arange(3.0)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Data:
    h: Any
    n: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    h: Any


class Plain:
    def __init__(self, h: Any):
        self.h = h


class Items(list[Any]):
    note = ""


class Settings(dict[str, Any]):
    def __init__(self, **parts: Any):
        super().__init__(**parts)
        self.__dict__ = self


class Kind(enum.Enum):
    A = 1


#: Makes something around an array, and reads the array from it.
MADE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": (lambda h: [h, "a"], lambda o: o[0]),
    "dict": (lambda h: {"h": h, ("a", 1): None}, lambda o: o["h"]),
    "tuple": (lambda h: (h, 1), lambda o: o[0]),
    "named tuple": (lambda h: Pair(h, Kind.A), lambda o: o.first),
    "dataclass": (lambda h: Data(h), lambda o: o.h),
    "slots": (lambda h: Slotted(h), lambda o: o.h),
    "plain object": (lambda h: Plain(h), lambda o: o.h),
    "namespace": (lambda h: types.SimpleNamespace(h=h), lambda o: o.h),
    "list subclass": (lambda h: Items([h]), lambda o: o[0]),
    "AttrDict": (lambda h: Settings(h=h), lambda o: o.h),
    "OrderedDict": (lambda h: collections.OrderedDict(h=h), lambda o: o["h"]),
    "deque": (lambda h: collections.deque([h], 4), lambda o: o[0]),
    "nested": (lambda h: Data([Plain({"h": (h,)})]), lambda o: o.h[0].h["h"][0]),
}


@pytest.mark.parametrize("what", MADE)
def test_what_is_made_inside_is_new_at_every_call(what: str) -> None:
    make, read = MADE[what]
    seen = []
    for k in (1.0, 2.0, 3.0):
        (_, out), _ = fx.withgradient(lambda x: (jnp.sum(x), make(2 * x)), X * k)
        assert type(out) is type(make(X))
        assert not isinstance(read(out), jax.core.Tracer)
        np.testing.assert_array_equal(read(out), 2 * X * k)
        assert all(out is not other for other in seen)
        seen.append(out)
    assert all(r.compiled and r.traces == 1 for r in fx.explain())


@pytest.mark.parametrize("what", MADE)
def test_compiled_gives_it_too(what: str) -> None:
    make, read = MADE[what]
    for k in (1.0, 2.0):
        np.testing.assert_array_equal(read(fx.compiled(lambda x: make(2 * x))(X * k)), 2 * X * k)
    assert all(r.compiled for r in fx.explain())


def test_what_is_made_keeps_what_was_done_to_it() -> None:
    f = lambda x: (jnp.sum(x), Data(x, 0))
    for _ in range(3):
        (_, out), _ = fx.withgradient(f, X)
        out.n += 1
        assert out.n == 1
    out = fx.compiled(lambda: collections.deque([X], 4))()
    assert out.maxlen == 4


CALLERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, "a"],
    "dict": lambda: {"n": 1},
    "object": lambda: Plain(1.0),
    "with an array": lambda: Plain(jnp.ones(2)),
    "namespace": lambda: types.SimpleNamespace(n=1),
    "module": lambda: fx.Dense(2, 2),
    "set": lambda: {1, 2},
    "function": lambda: lambda v: v,
}


@pytest.mark.parametrize("what", CALLERS)
def test_an_object_of_the_callers_is_that_very_object(what: str) -> None:
    for k in (1.0, 2.0, 3.0):
        own = CALLERS[what]()
        (_, (out, inside)), _ = fx.withgradient(lambda x: (jnp.sum(x), (own, [own])), X * k)
        assert out is own
        assert inside[0] is own
    assert all(r.compiled for r in fx.explain())


def test_an_argument_that_is_returned_is_the_callers() -> None:
    for k in (1.0, 2.0):
        model, names = fx.Dense(3, 1, rng=0), ["a"]
        out = fx.compiled(lambda m, n: (jnp.sum(m(X * k)), m, n))(model, names)
        assert out[1] is model
        assert out[2] is names


def test_a_step_returns_the_callers_objects() -> None:
    model = fx.Dense(3, 1, rng=0)
    tree = fx.setup(fx.Descent(0.1), model)
    for i in range(3):
        note = types.SimpleNamespace(i=i)
        _, out = fx.trainstep(lambda m, x: (jnp.sum(m(x)), note), model, (X,), tree)
        assert out is note


class Closing:
    closed = 0

    def __init__(self, h: Any):
        self.h = h

    def __del__(self) -> None:
        Closing.closed += 1


def _generator(h: Any) -> Iterator[Any]:
    yield h


#: What cannot be made anew: the function runs uncompiled, and returns what it returns.
OTHERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "closure": (lambda h: lambda: h, lambda o: o()),
    "partial": (lambda h: functools.partial(jnp.add, h), lambda o: o(0)),
    "generator": (_generator, next),
    "finaliser": (Closing, lambda o: o.h),
    "iterator": (lambda h: iter([h]), next),
}


@pytest.mark.parametrize("what", OTHERS)
def test_anything_else_makes_it_uncompiled(what: str) -> None:
    make, read = OTHERS[what]
    for k in (1.0, 2.0, 3.0):
        (_, out), _ = quietly(lambda: fx.withgradient(lambda x: (jnp.sum(x), make(2 * x)), X * k))
        np.testing.assert_array_equal(read(out), 2 * X * k)
    assert not any(r.compiled for r in fx.explain())


@pytest.fixture(autouse=True)
def forgotten() -> None:
    fx.clear_cache()


def test_one_thing_in_two_places_of_a_result_is_one_thing() -> None:
    def f(w: Any) -> Any:
        xs, a = [w], w * 2
        return jnp.sum(w), (xs, {"again": xs}, [a, a])

    for _ in range(3):
        (_, (xs, d, arrays)), _ = fx.withgradient(f, X)
        assert d["again"] is xs
        assert arrays[0] is arrays[1]
        assert arrays[0] is not xs[0]
    assert all(r.compiled for r in fx.explain() if "test_capture_outputs" in r.where)


def test_a_numpy_array_that_the_function_makes_keeps_its_bits() -> None:
    f = lambda w: (jnp.sum(w), np.array([2**40 + 1]))
    for _ in range(3):
        (_, made), _ = fx.withgradient(f, X)
        assert made.dtype == np.int64
        assert made[0] == 2**40 + 1
        made[0] = 0  # it is this call's


def test_a_class_that_the_function_makes_is_this_calls() -> None:
    def f(w: Any) -> Any:
        return jnp.sum(w), type("Made", (), {"k": 1})

    found = []
    for _ in range(3):
        (_, made), _ = quietly(lambda: fx.withgradient(f, X))
        found.append(made.k)
        made.k = 2
    assert found == [1, 1, 1]
