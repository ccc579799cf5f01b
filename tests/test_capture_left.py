"""After an uncompiled call no tracer and no copy is left, wherever the function put it."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import enum
import functools
import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer
from objectives import quietly

import fluxax as fx

X = jnp.arange(3.0)
EAGER = {"uncompiled": contextlib.nullcontext, "eager": fx.eager}
NAME = ["la", "st"]  # joined when it is used: no code names what it is


def name() -> str:
    return "".join(NAME)


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    fx.clear_cache()
    yield
    globals().pop("last", None)
    for owner in (sys, sys.modules["__main__"], Holder):
        if "last" in vars(owner):
            delattr(owner, "last")


class Holder:
    pass


class Slot:
    __slots__ = "last"


class Mangled:
    __slots__ = ("__last",)


class Color(enum.Enum):
    RED = 1


class AttrDict(dict[str, Any]):
    pass


# --- where a function may put a value: each gives how to put it, and how to look -----------

Place = tuple[Callable[[Any], Any], Callable[[], Any]]
PLACES: dict[str, Callable[[], Place]] = {}


def place(make: Callable[[], Place]) -> Callable[[], Place]:
    PLACES[make.__name__] = make
    return make


@place
def globals_by_a_computed_name() -> Place:
    return (lambda v: globals().__setitem__(name(), v)), lambda: globals()["last"]


@place
def the_main_module() -> Place:
    main = sys.modules["__main__"]
    return (lambda v: setattr(sys.modules["__" + "main__"], name(), v)), lambda: vars(main)["last"]


@place
def a_module_of_python() -> Place:
    return (lambda v: setattr(sys, name(), v)), lambda: vars(sys)["last"]


@place
def a_module_nobody_names() -> Place:
    module = types.ModuleType("of_the_user")
    return (lambda v: setattr(module, name(), [v])), lambda: vars(module)["last"][0]


@place
def a_class_by_a_computed_name() -> Place:
    return (lambda v: setattr(Holder, name(), v)), lambda: vars(Holder)["last"]


@place
def an_attribute_of_a_function() -> Place:
    helper = lambda: None
    return (lambda v: setattr(helper, name(), v)), lambda: vars(helper)["last"]


@place
def a_member_of_an_enum() -> Place:
    return (lambda v: setattr(Color.RED, name(), v)), lambda: vars(Color.RED)["last"]


@place
def a_weak_dictionary() -> Place:
    kept, key = weakref.WeakKeyDictionary(), Holder()
    return (lambda v: kept.__setitem__(key, v)), lambda: kept[key]


@place
def dicts_of_all_kinds() -> Place:
    kinds = (collections.OrderedDict, collections.UserDict, collections.ChainMap, AttrDict, dict)
    all_of_them = [kind() for kind in kinds]

    def put(v: Any) -> None:
        for d in all_of_them:
            d["last"] = v

    return put, lambda: [d["last"] for d in all_of_them]


@place
def a_default_dict() -> Place:
    kept = collections.defaultdict(list)
    return (lambda v: kept["a"].append(v)), lambda: kept["a"][0]


@place
def attributes_of_containers() -> Place:
    kept, part = AttrDict(), functools.partial(max)

    def put(v: Any) -> None:
        kept.last = part.last = v

    return put, lambda: [kept.last, part.last]


@place
def lists_of_all_kinds() -> Place:
    all_of_them = [collections.deque(maxlen=1), collections.UserList(), []]
    return (lambda v: [x.append(v) for x in all_of_them]), lambda: [x[0] for x in all_of_them]


@place
def an_array_of_objects() -> Place:
    kept = np.empty((2, 2), object)
    return (lambda v: kept.__setitem__((0, 1), v)), lambda: kept[0, 1]


@place
def slots() -> Place:
    one, two = Slot(), Mangled()

    def put(v: Any) -> None:
        one.last = v
        two._Mangled__last = v

    return put, lambda: [one.last, two._Mangled__last]


@place
def deep_in_tuples() -> Place:
    kept: list[Any] = []

    def put(v: Any) -> None:
        for _ in range(5):
            v = (v, 1)
        kept.append(v)

    return put, lambda: kept[0][0][0][0][0][0]


@place
def thread_local_data() -> Place:
    kept = threading.local()
    return (lambda v: setattr(kept, name(), v)), lambda: vars(kept)["last"]


@place
def a_suspended_generator() -> Place:
    def holding() -> Any:
        held = None
        while True:
            held = (yield held) or held

    kept = holding()
    next(kept)
    return (lambda v: kept.send([v]) and None), lambda: next(kept)[0]


@place
def a_suspended_coroutine() -> Place:
    async def holding(v: Any) -> Any:
        return v

    kept: list[Any] = []

    def look() -> Any:
        with pytest.raises(StopIteration) as done:
            kept[0].send(None)
        return done.value.value

    return (lambda v: kept.append(holding(v))), look


@place
def a_context_variable() -> Place:
    kept: contextvars.ContextVar[Any] = contextvars.ContextVar("kept")
    return (lambda v: kept.set((v,)) and None), lambda: kept.get()[0]


@place
def behind_an_iterator() -> Place:
    kept: dict[str, Any] = {}
    views = iter([kept])
    return (lambda v: kept.update(last=v)), lambda: next(views)["last"]


@place
def an_exception() -> Place:
    kept: list[Any] = []
    return (lambda v: kept.append(KeyError(v))), lambda: kept[0].args[0]


@place
def caches() -> Place:
    box: list[Any] = []
    bounded = functools.lru_cache(4)(lambda: box[0])
    unbounded = functools.lru_cache(None)(lambda: box[0])

    def put(v: Any) -> None:
        box[:] = [v]
        bounded(), unbounded()

    return put, lambda: [bounded(), unbounded()]


@place
def a_function_made_inside() -> Place:
    kept: list[Any] = []

    def put(v: Any) -> None:
        kept.append(lambda: v)

    return put, lambda: kept[0]()


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("where", PLACES)
def test_what_is_put_somewhere_is_an_array(where: str, way: str) -> None:
    put, look = PLACES[where]()
    calls: list[int] = []

    def f(x: Any) -> Any:
        calls.append(1)
        loss = jnp.sum(x * 2)
        put(loss)
        return loss

    with EAGER[way]():
        quietly(lambda: fx.gradient(f, X))
    found = look()
    for value in found if isinstance(found, list) else [found]:
        assert not isinstance(value, Tracer)
        assert float(value) == 6.0
    assert calls == [1]
    del found
    assert not living()


def living() -> list[Any]:
    """Tracers of gradients that are still alive."""
    gc.collect()
    kinds = ("GradTracer", "LinearizeTracer", "JVPTracer")
    return [
        v for v in gc.get_objects() if issubclass(type(v), Tracer) and type(v).__name__ in kinds
    ]


class Model(fx.Module):
    def __init__(self) -> None:
        self.w = jnp.ones(3)

    def __call__(self, x: Any) -> Any:
        return jnp.sum(self.w * x)


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("where", [n for n in PLACES if n != "an_array_of_objects"])
def test_a_model_that_is_put_somewhere_is_the_callers(where: str, way: str) -> None:
    put, look = PLACES[where]()
    model, calls = Model(), []

    def f(m: Any) -> Any:
        calls.append(1)
        put(m)
        return m(X)

    with EAGER[way]():
        quietly(lambda: fx.gradient(f, model))
    found = look()
    assert all(v is model for v in (found if isinstance(found, list) else [found]))
    assert calls == [1]


def test_the_garbage_collector_is_not_asked_where_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("somebody asked")

    model, log = fx.Chain(fx.Dense(3, 3, fx.relu), fx.BatchNorm(3)), []
    monkeypatch.setattr(gc, "get_referrers", refuse)
    with fx.eager():
        fx.gradient(lambda m: (log.append(jnp.sum(m(jnp.eye(3)))), log[-1])[1], model)
    assert not isinstance(log[0], Tracer)


# --- what is returned -----------------------------------------------------------------------------


@dataclasses.dataclass
class Out:
    h: Any
    of: Any


@pytest.mark.parametrize("way", EAGER)
def test_what_is_returned_is_what_plain_python_returns(way: str) -> None:
    model, items, space, log = Model(), [X], types.SimpleNamespace(a=1), []
    rows = np.ones(3)

    def f(m: Any, items: Any, space: Any, x: Any, rows: Any, k: float) -> Any:
        log.append(1)
        made = Holder()
        made.h, made.m, made.get = x * 2, m, lambda: (x, x * 2)
        made.part, made.nested = functools.partial(max, x), (m, [{"h": (x * 3,)}])
        out = Out(x * 2, m)
        loss = m(x) * k
        return loss, m, items, space, m.w, m.__call__, made, out, {m}, frozenset([m]), rows, k

    with EAGER[way]():
        value, _ = quietly(lambda: fx.withgradient(f, model, items, space, X, rows, 2.0))
    loss, m, same, same_space, w, method, made, out, members, frozen, same_rows, k = value
    assert float(loss) == 6.0
    same_objects = [
        (m, model),
        (same, items),
        (same_space, space),
        (w, model.w),
        (method.__self__, model),
        (same_rows, rows),
        (made.m, model),
        (made.get()[0], X),
        (made.part.args[0], X),
        (made.nested[0], model),
        (out.of, model),
        (members.pop(), model),
        (next(iter(frozen)), model),
    ]
    assert all(a is b for a, b in same_objects)
    assert k == 2.0
    for h in (made.h, made.get()[1], made.nested[1][0]["h"][0], out.h):
        assert not isinstance(h, Tracer)
    assert log == [1]


def test_a_gradient_inside_keeps_the_outer_derivative_of_what_it_passes() -> None:
    def outer(w: Any) -> Any:
        value, grads = fx.withgradient(lambda u, v: jnp.sum(u * v), w, w * 2)
        return jnp.sum(grads[0] * w) + value

    with fx.eager():
        np.testing.assert_allclose(fx.gradient(outer, X)[0], 8 * X)


def test_a_call_without_a_gradient_inside_leaves_the_outer_tracers() -> None:
    def outer(m: Any) -> Any:
        return fx.compiled(lambda m, x: m(x))(m, X) ** 2

    with fx.eager():
        np.testing.assert_allclose(fx.gradient(outer, Model())[0].w, 6 * X)
