"""Uncompiled, an objective sees and leaves what it would compiled: arrays, logs, statistics."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import fluxax as fx

NOTED: list[Any] = []
TABLE = np.arange(3.0)
ROWS = np.arange(1.0, 4.0)  # float64, as NumPy makes them


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- NumPy arrays from outside ----------------------------------------------------------------


class Holder:
    def __init__(self) -> None:
        self.rows = np.ones(3)


def by_cell() -> tuple[Callable[[], Any], Callable[[], Any]]:
    rows = np.ones(3)
    return lambda: rows, lambda: rows


def by_default() -> tuple[Callable[[], Any], Callable[[], Any]]:
    ones = np.ones(3)

    def read(rows: Any = ones) -> Any:
        return rows

    return read, read


def by_container(wrap: Any, get: Any) -> Any:
    def make() -> tuple[Callable[[], Any], Callable[[], Any]]:
        kept = wrap(np.ones(3))
        return lambda: get(kept), lambda: get(kept)

    return make


def by_global() -> tuple[Callable[[], Any], Callable[[], Any]]:
    return lambda: TABLE, lambda: TABLE


def by_module() -> tuple[Callable[[], Any], Callable[[], Any]]:
    module = types.ModuleType("of_the_user")
    module.__dict__["rows"] = np.ones(3)
    return lambda: module.rows, lambda: module.rows


def by_method() -> tuple[Callable[[], Any], Callable[[], Any]]:
    class Reads:
        def rows(self) -> Any:
            return TABLE

    return Reads().rows, lambda: TABLE


PLACES: dict[str, Any] = {
    "cell": by_cell,
    "default": by_default,
    "global": by_global,
    "module": by_module,
    "method": by_method,
    "list": by_container(lambda a: [a], lambda v: v[0]),
    "tuple": by_container(lambda a: (1, (a,)), lambda v: v[1][0]),
    "dict": by_container(lambda a: {"a": a}, lambda v: v["a"]),
    "object": by_container(lambda a: Holder(), lambda v: v.rows),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_numpy_array_from_outside_is_seen_as_a_jax_array(place: str, fails: bool) -> None:
    read, look = PLACES[place]()
    before, seen = look(), []

    def f(w: Any) -> Any:
        rows = read()
        seen.append((isinstance(rows, jax.Array), rows.dtype))
        if fails:
            raise KeyError("mine")
        return jnp.sum(w * rows.at[0].set(0.0))

    with quiet(), pytest.raises(KeyError) if fails else nullcontext():
        grad = fx.gradient(f, jnp.ones(3))[0]
        np.testing.assert_allclose(grad, [0, *before[1:]])
    assert seen == [(True, jnp.float32)]
    assert look() is before
    assert before.flags.writeable


def test_numbers_are_those_of_the_compiled_call() -> None:
    big = np.array([2**31 - 1, 1])
    f = lambda w: jnp.sum(w) * (big + 1)[0] * (ROWS / 3 - 1 / 3)[0]
    compiled = fx.withgradient(f, jnp.ones(3))
    with fx.eager():
        eager = fx.withgradient(f, jnp.ones(3))
    assert float(compiled.val) == float(eager.val)
    assert fx.explain()[-1].compiled


def test_inside_another_transformation_it_is_still_a_number() -> None:
    rows = np.full(3, 2.0)
    scaled = lambda w: fx.gradient(lambda v: jnp.sum(v) * float(rows[0]), w)[0]
    np.testing.assert_allclose(jax.jit(scaled)(jnp.ones(3)), 2.0)


def test_without_a_gradient_too() -> None:
    rows, noted = np.ones(3), []

    def f(x: Any) -> Any:
        noted.append(1)
        return rows.at[0].set(4.0) + x.at[1].set(5.0)

    def writes() -> None:
        rows[0] = 1.0

    with quiet():
        np.testing.assert_allclose(fx.compiled(f)(np.ones(3)), [5, 6, 2])
    with fx.eager(), pytest.raises(TypeError, match="leave NumPy arrays"):
        fx.compiled(writes)()


def test_what_it_keeps_of_them_is_the_callers_array() -> None:
    rows, kept = np.ones(3), []

    def f(w: Any) -> Any:
        kept.append(rows)
        return jnp.sum(w * rows)

    with quiet():
        fx.gradient(f, jnp.ones(3))
    assert kept[0] is rows


def test_a_large_array_and_one_of_a_package_stay() -> None:
    large, seen = np.zeros(2**21 + 1), []
    foreign, records = np.ma.masked_array(np.ones(3)), np.zeros(2, [("a", "f4")])
    words = np.array(["a", "b"])

    def f(w: Any) -> Any:
        seen.extend(map(type, (large, foreign.data, records, words)))
        return jnp.sum(w)

    with quiet():
        fx.gradient(f, jnp.ones(3))
    assert seen == [np.ndarray] * 4


def test_a_write_to_one_names_the_line_uncompiled_too() -> None:
    rows = np.ones(3)

    def f(w: Any) -> Any:
        rows[0] = 5.0
        return jnp.sum(w * rows)

    with fx.eager(), pytest.raises(TypeError, match=r"leave NumPy arrays.*uncompiled\.py:\d+\. "):
        fx.gradient(f, jnp.ones(3))
    assert rows[0] == 1.0


# --- what methods keep ------------------------------------------------------------------------


class Noting(fx.Module):
    def __init__(self) -> None:
        self.scale = jnp.ones(3)

    def __call__(self, x: Any) -> Any:
        h = x * self.scale
        NOTED.append({"h": (h,)})
        return h


class Below(Noting):
    def __call__(self, x: Any) -> Any:
        return super().__call__(x)


class Task:
    seen: ClassVar[list[Any]] = []

    def loss(self, model: Any, x: Any) -> Any:
        y = model(x)
        self.seen.append(y)
        return jnp.sum(y)


def tracers(kept: Any) -> list[Any]:
    return [v for v in jax.tree.leaves(kept) if isinstance(v, Tracer)]


@pytest.mark.parametrize("model", [Noting(), Below(), fx.Chain(Noting())])
@pytest.mark.parametrize("how", ["gradient", "train", "method", "captured"])
def test_what_a_method_notes_is_detached(how: str, model: Any) -> None:
    NOTED.clear()
    Task.seen.clear()
    task, x = Task(), jnp.ones(3)
    calls: dict[str, Callable[[], Any]] = {
        "gradient": lambda: fx.gradient(lambda m: jnp.sum(m(x)), model),
        "train": lambda: fx.train(
            lambda m, x: jnp.sum(m(x)), model, [x], fx.setup(fx.Descent(0.0), model)
        ),
        "method": lambda: fx.gradient(task.loss, model, x),
        "captured": lambda: fx.gradient(lambda v: task.loss(model, v), x),
    }
    with quiet():
        calls[how]()
    assert len(NOTED) == 1
    assert not tracers([NOTED, Task.seen])
    np.testing.assert_allclose(NOTED[0]["h"][0], x)


def test_what_a_function_of_another_module_notes_is_detached() -> None:
    module = types.ModuleType("of_the_user")
    exec("kept = []\ndef note(x):\n    kept.append(x)\n    return x\n", module.__dict__)
    with quiet():
        fx.gradient(lambda w: jnp.sum(module.note(w)), jnp.ones(3))
    assert len(module.kept) == 1
    assert not tracers(module.kept)


# --- statistics -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["compiled", "eager", "uncompiled"])
@pytest.mark.parametrize("bad", [False, True])
def test_statistics_of_a_layer_from_outside_stay_if_the_value_is_not_finite(
    bad: bool, how: str
) -> None:
    norm, noted = fx.BatchNorm(2), []
    x = jnp.array([[1.0, 2.0], [jnp.inf if bad else 3.0, 5.0]])

    def f(w: Any) -> Any:
        if how == "uncompiled":
            noted.append(1)
        return jnp.sum(w * norm(x))

    before = np.asarray(norm.mean), np.asarray(norm.var)
    with quiet(), fx.eager() if how == "eager" else nullcontext():
        value = fx.withgradient(f, jnp.ones(2)).val
    assert math.isfinite(value) != bad
    after = np.asarray(norm.mean), np.asarray(norm.var)
    assert all(np.array_equal(a, b) == bad for a, b in zip(before, after, strict=True))


def with_aux(k: Any) -> Any:
    return jnp.sum(k**3), {"double": 2 * k, "name": "x"}


@pytest.mark.parametrize("way", ["compiled", "eager", "jit"])
def test_a_gradient_inside_a_gradient_shows_its_value(way: str) -> None:
    outer = lambda v: jnp.sum(fx.withgradient(with_aux, v).val[1]["double"])
    value = lambda v: fx.withgradient(lambda k: jnp.sum(k**2), v).val
    x = jnp.array([1.0, 3.0])
    with fx.eager() if way == "eager" else nullcontext():
        if way == "jit":
            assert jax.jit(outer)(x) == 8.0
            return
        np.testing.assert_allclose(fx.gradient(outer, x)[0], [2.0, 2.0])
        np.testing.assert_allclose(fx.gradient(value, x)[0], [2.0, 6.0])
