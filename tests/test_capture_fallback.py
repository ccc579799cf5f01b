"""What cannot be compiled still works: right values, and each side effect exactly once."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import itertools
import random
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import quietly, uncompiled

import fluxax as fx

W = jnp.array([1.0, 2.0])
COUNT, LOG = 0, []


class Counting:
    calls = 0
    seen: list[Any] = []  # noqa: RUF012  # shared on purpose

    def __init__(self) -> None:
        self.n = 0

    def by_class(self, w: Any) -> Any:
        type(self).calls += 1
        return jnp.sum(w**2)

    def by_self(self, w: Any) -> Any:
        self.n += 1
        return jnp.sum(w**2)

    def by_shared(self, w: Any) -> Any:
        self.seen.append(1)
        return jnp.sum(w**2)

    def by_log(self, w: Any) -> Any:
        LOG.append(1)
        return jnp.sum(w**2)

    def by_global(self, w: Any) -> Any:
        global COUNT
        COUNT += 1
        return jnp.sum(w**2)


class Slots:
    __slots__ = ("n",)


@pytest.fixture(autouse=True)
def empty() -> None:
    global COUNT
    fx.clear_cache()
    COUNT = 0
    LOG.clear()
    Counting.calls = 0
    Counting.seen.clear()


# --- side effects: a function makes (f, what to count) --------------------------------------

effects: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {}


def effect(make: Any) -> Any:
    effects[make.__name__] = make
    return make


@effect
def append_to_a_list() -> Any:
    log: list[int] = []
    return (lambda w: (log.append(1), jnp.sum(w**2))[1]), lambda: len(log)


@effect
def append_to_a_deque() -> Any:
    log: Any = collections.deque()
    return (lambda w: (log.append(1), jnp.sum(w**2))[1]), lambda: len(log)


@effect
def add_to_a_dict_counter_and_set() -> Any:
    d, c, s = {"n": 0}, collections.Counter(), set()

    def f(w: Any) -> Any:
        d["n"] += 1
        c["n"] += 1
        s.add(len(s))
        return jnp.sum(w**2)

    return f, lambda: d["n"] if d["n"] == c["n"] == len(s) else (d, c, s)


@effect
def nonlocal_counter() -> Any:
    n = 0

    def f(w: Any) -> Any:
        nonlocal n
        n += 1
        return jnp.sum(w**2)

    return f, lambda: n


@effect
def global_counter() -> Any:
    def f(w: Any) -> Any:
        global COUNT
        COUNT += 1
        return jnp.sum(w**2)

    return f, lambda: COUNT


@effect
def function_attribute() -> Any:
    def f(w: Any) -> Any:
        f.n += 1
        return jnp.sum(w**2)

    f.n = 0
    return f, lambda: f.n


@effect
def attributes_of_objects() -> Any:
    plain, space, slots = Counting(), types.SimpleNamespace(n=0), Slots()
    slots.n = 0

    def f(w: Any) -> Any:
        plain.n += 1
        space.n += 1
        slots.n += 1
        return jnp.sum(w**2)

    return f, lambda: plain.n if plain.n == space.n == slots.n else (plain.n, space.n, slots.n)


class Tally:
    calls = 0

    def count(self, w: Any) -> Any:
        type(self).calls += 1
        return jnp.sum(w**2)


@effect
def class_attribute() -> Any:
    Tally.calls = 0

    def f(w: Any) -> Any:
        Tally.calls += 1
        return jnp.sum(w**2)

    return f, lambda: Tally.calls


@effect
def class_attribute_by_a_method() -> Any:
    Tally.calls, tally = 0, Tally()
    return (lambda w: tally.count(w)), lambda: Tally.calls


for _name, _read in {
    "by_class": lambda thing: Counting.calls,
    "by_self": lambda thing: thing.n,
    "by_shared": lambda thing: len(Counting.seen),
    "by_log": lambda thing: len(LOG),
    "by_global": lambda thing: COUNT,
}.items():

    def _make(name: str = _name, read: Any = _read) -> Any:
        thing = Counting()
        return (lambda w: getattr(thing, name)(w)), lambda: read(thing)

    def _make_bound(name: str = _name, read: Any = _read) -> Any:
        thing = Counting()
        return getattr(thing, name), lambda: read(thing)

    effects[f"method {_name}"], effects[f"bound method {_name}"] = _make, _make_bound


@effect
def iterators() -> Any:
    it, gen, count = iter(range(100)), (i for i in range(100)), itertools.count()

    def f(w: Any) -> Any:
        next(it), next(gen), next(count)
        return jnp.sum(w**2)

    def used() -> Any:
        values = next(it), next(gen), next(count)
        return values[0] if len(set(values)) == 1 else values

    return f, used


@effect
def file_in_memory() -> Any:
    file = io.StringIO()
    return (lambda w: (file.write("x"), jnp.sum(w**2))[1]), lambda: len(file.getvalue())


@effect
def printed_to_a_file() -> Any:
    file = io.StringIO()
    f = lambda w: (print("x", file=file, end=""), jnp.sum(w**2))[1]
    return f, lambda: len(file.getvalue())


@effect
def print_in_a_bare_except() -> Any:
    file = io.StringIO()

    def f(w: Any) -> Any:
        try:
            print("x", file=file, end="")
        except:  # noqa: E722  # that is the case
            return -jnp.sum(w**2)
        return jnp.sum(w**2)

    return f, lambda: len(file.getvalue())


@effect
def print_under_suppress() -> Any:
    file = io.StringIO()

    def f(w: Any) -> Any:
        with contextlib.suppress(BaseException):
            print("x", file=file, end="")
        return jnp.sum(w**2)

    return f, lambda: len(file.getvalue())


@effect
def iterator_in_a_bare_except() -> Any:
    it = iter(range(100))

    def f(w: Any) -> Any:
        try:
            next(it)
        except:  # noqa: E722  # that is the case
            return -jnp.sum(w**2)
        return jnp.sum(w**2)

    return f, lambda: next(it)


@effect
def builtin_print_by_another_name() -> Any:
    file, say = io.StringIO(), builtins.print
    return (lambda w: (say("x", file=file, end=""), jnp.sum(w**2))[1]), lambda: len(file.getvalue())


@effect
def callback_at_run_time() -> Any:
    log: list[float] = []

    def f(w: Any) -> Any:
        jax.debug.callback(lambda v: log.append(float(v)), w[0])
        return jnp.sum(w**2)

    def count() -> int:
        jax.effects_barrier()
        return len(log)

    return f, count


@effect
def random_numbers() -> Any:
    np.random.seed(0)
    random.seed(0)
    f = lambda w: jnp.sum(w**2) + 0 * (np.random.rand() + random.random())

    def drawn() -> Any:
        a, b = np.random.rand(), random.random()
        np.random.seed(0)
        random.seed(0)
        n = next(i for i in range(100) if np.random.rand() == a)
        m = next(i for i in range(100) if random.random() == b)
        return n if n == m else (n, m)

    return f, drawn


@effect
def generator_of_numpy() -> Any:
    rng, twin = np.random.default_rng(0), np.random.default_rng(0)
    f = lambda w: jnp.sum(w**2) + 0 * rng.random()

    def drawn() -> Any:
        now = rng.random()
        return next(i for i in range(100) if twin.random() == now)

    return f, drawn


@effect
def counting_with_an_integer_argument() -> Any:
    log: list[int] = []
    f = lambda w: (log.append(1), sum(jnp.sum(w**2) / n for n in [2] for _ in range(n)))[1]
    return f, lambda: len(log)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", list(effects))
def test_each_side_effect_happens_once(name: str, eager: bool) -> None:
    f, count = effects[name]()

    def run() -> None:
        for _ in range(4):
            val, grads = fx.withgradient(f, W)
            assert float(val) == 5.0
            np.testing.assert_allclose(grads[0], [2.0, 4.0])

    with fx.eager() if eager else contextlib.nullcontext():
        quietly(run)
    assert count() == 4


def test_an_int_argument_needed_as_an_integer_repeats_no_side_effect() -> None:
    log: list[int] = []
    f = lambda w, n: (log.append(1), sum(jnp.sum(w) for _ in range(n)))[1]
    for turn in (1, 2, 3):
        val, grads = quietly(lambda: fx.withgradient(f, W, 3))
        assert (float(val), grads[1], len(log)) == (9.0, None, turn)


# --- switches -------------------------------------------------------------------------------


def test_strict_makes_it_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    f = lambda w: (print(), jnp.sum(w))[1]
    with fx.strict(), pytest.raises(RuntimeError, match="print"):
        fx.gradient(f, W)
    monkeypatch.setenv("FLUXAX_STRICT", "1")
    with pytest.raises(RuntimeError, match="print"):
        fx.gradient(f, W)
    fx.gradient(lambda w: jnp.sum(w), W)


def test_what_is_captured_and_not_touched_costs_nothing() -> None:
    it, rng, file = iter([1]), np.random.default_rng(), io.StringIO()
    things = {"it": it, "rng": rng, "file": file, "x": W}
    for _ in range(3):
        assert float(fx.withgradient(lambda w: jnp.sum(w * things["x"]), W).val) == 5.0
    assert fx.explain()[0].compiled
    assert fx.explain()[0].traces == 1


def test_one_objective_is_not_traced_again_and_again_before_it_steps_aside() -> None:
    log: list[Any] = []
    traced: list[int] = []

    def f(w: Any) -> Any:
        log.append(len(traced))
        return jnp.sum(w)

    uncompiled(f, W)
    quietly(lambda: [fx.gradient(f, W) for _ in range(20)])
    assert len(log) == 21
    assert fx.explain()[0].traces == 0


@pytest.mark.filterwarnings("ignore:.*runs uncompiled")
def test_a_value_with_a_derivative_is_no_numpy_array_and_the_line_is_named() -> None:
    def f(w: Any) -> Any:
        return jnp.sum(w) * np.asarray(2 * w).sum()

    line = f.__code__.co_firstlineno + 1
    with pytest.raises(TypeError, match=rf"NumPy array at .*:{line}, which would cut the gradient"):
        fx.gradient(f, W)
