"""Uncompiled, a function runs once: what stays of it, whatever it raises and whoever looks on."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import gc
import threading
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer
from objectives import quietly

import fluxax as fx

X = jnp.arange(3.0)
EAGER = {"uncompiled": contextlib.nullcontext, "eager": fx.eager}


@pytest.fixture(autouse=True)
def empty() -> None:
    fx.clear_cache()


class Model(fx.Module):
    def __init__(self) -> None:
        self.w = jnp.ones(3)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_happened_before_an_exception_has_happened(error: type[BaseException]) -> None:
    model, log, items = Model(), [], [X]
    w = model.w

    def f(model: Any, items: list[Any]) -> Any:
        log.append(model)
        items.append(items[0] * 2)
        model.n, model.h = 5, model.w * 2
        raise error(model.w)

    with fx.eager(), pytest.raises(error) as caught:
        fx.gradient(f, model, items)
    assert caught.value.args[0] is model.w is w
    assert log == [model]
    assert model.n == 5
    assert not any(isinstance(v, Tracer) for v in [model.h, items[1]])
    np.testing.assert_allclose(items[1], 2 * X)


# --- integers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", EAGER)
def test_a_type_error_of_the_users_happens_once(way: str) -> None:
    log: list[Any] = []

    def f(x: Any, n: int) -> Any:
        log.append(n)
        raise TypeError("mine")

    with EAGER[way](), pytest.raises(TypeError, match="mine"):
        quietly(lambda: fx.gradient(f, X, 2))
    assert log == [2]


INTS: dict[str, tuple[Any, Any]] = {
    "product": (lambda x, n: jnp.sum(x) * n, 3.0),
    "in a call": (lambda x, n: jnp.sum(x * n), 3.0),
    "range": (lambda x, n: sum(jnp.sum(x) for _ in range(n)), None),
    "index": (lambda x, n: jnp.sum(x) + X[n - 1], None),
    "one hot": (lambda x, n: jnp.sum(x * jax.nn.one_hot(jnp.array([1]), n)), None),
    "type": (lambda x, n: jnp.sum(x) * n.bit_length(), None),
}


@pytest.mark.parametrize("name", INTS)
def test_an_int_is_a_real_number_unless_it_is_needed_as_an_integer(name: str) -> None:
    f, want = INTS[name]
    with fx.eager():
        grad = fx.gradient(f, X, 3)[1]
    assert grad is want if want is None else float(grad) == want


@pytest.mark.parametrize("way", EAGER)
def test_two_numbers_that_are_one_object_have_a_derivative_each(way: str) -> None:
    log: list[int] = []
    f = lambda x, a, b: (log.append(1), jnp.sum(x) + 2 * a + 3 * b)[1]
    with EAGER[way]():
        grads = quietly(lambda: fx.gradient(f, X, 0, 0))
    assert [float(g) for g in grads[1:]] == [2.0, 3.0]
    assert log == [1]


# --- finalisers ---------------------------------------------------------------------------------

CLOSED: list[str] = []


class Handle(fx.Module):
    def __init__(self) -> None:
        self.w = X

    def __del__(self) -> None:
        CLOSED.append("module")


class Closing(list[Any]):
    def __del__(self) -> None:
        CLOSED.append("list")


class ClosingDict(collections.OrderedDict[str, Any]):
    def __del__(self) -> None:
        CLOSED.append("dict")


@dataclasses.dataclass(slots=True)
class ClosingSlots:
    w: Any

    def __del__(self) -> None:
        CLOSED.append("slots")


def test_a_copy_is_not_finalised() -> None:
    CLOSED.clear()
    things = Handle(), Closing([X]), ClosingDict(w=X), ClosingSlots(X)

    def f(a: Any, b: Any, c: Any, d: Any) -> Any:
        assert [type(v) for v in (a, b, c, d)] == [Handle, Closing, ClosingDict, ClosingSlots]
        return jnp.sum(a.w * b[0] * c["w"] * d.w)

    with fx.eager():
        for _ in range(2):
            fx.gradient(f, *things)
    gc.collect()
    assert CLOSED == []
    del things
    gc.collect()
    assert sorted(CLOSED) == ["dict", "list", "module", "slots"]


# --- other threads, and errors that say "read-only" -----------------------------------------


@pytest.mark.parametrize("how", ["closure", "helper", "default", "partial"])
def test_another_thread_writes_a_buffer_meanwhile(how: str) -> None:
    buffer, errors = np.zeros(3, np.float32), []
    running, written = threading.Event(), threading.Event()

    def loader() -> None:
        running.wait(10)
        try:
            buffer[:] = 7.0
        except Exception as error:
            errors.append(error)
        written.set()

    def helper(x: Any) -> Any:
        return x * buffer

    def f(x: Any, rows: Any = buffer) -> Any:
        running.set()
        written.wait(10)
        return jnp.sum(
            {"closure": lambda: x * buffer, "helper": lambda: helper(x)}.get(
                how, lambda: x * rows
            )()
        )

    thread = threading.Thread(target=loader)
    thread.start()
    with fx.eager():
        fx.gradient(functools.partial(f, rows=buffer) if how == "partial" else f, X)
    thread.join()
    assert errors == []
    np.testing.assert_allclose(buffer, 7.0)


def test_a_variable_that_is_assigned_stays_the_one_that_all_share() -> None:
    rows = np.zeros(3)

    def bump() -> None:
        nonlocal rows
        rows = rows + 1

    def f(x: Any) -> Any:
        bump()
        return jnp.sum(x * rows)

    assert [float(quietly(lambda: fx.withgradient(f, X)).val) for _ in range(3)] == [3, 6, 9]


def test_an_error_of_the_users_keeps_its_type_whatever_it_says() -> None:
    def raises(x: Any) -> Any:
        raise ValueError("the disk is read-only")

    def own(x: Any) -> Any:
        rows = np.zeros(2)
        rows.flags.writeable = False
        rows[0] = 1

    def traced(x: Any) -> Any:
        rows = jnp.zeros(2)
        rows[0] = 1

    large = np.zeros(2**23, np.float32)

    def writes(x: Any) -> Any:
        large[0] = 1.0

    with fx.eager():
        for f, error, words in (
            (raises, ValueError, "the disk is read-only"),
            (own, ValueError, "assignment destination is read-only"),
            (traced, TypeError, "JAX arrays are immutable"),
            (writes, TypeError, r"leave NumPy arrays.*test_capture_effects\.py:\d+\."),
        ):
            with pytest.raises(error, match=words):
                fx.gradient(f, X)
    assert large[0] == 0
    assert large.flags.writeable


# --- depth ----------------------------------------------------------------------------------------


def test_depth_is_no_matter() -> None:
    def inside(v: Any) -> Any:
        while isinstance(v, (list, tuple)):
            v = v[0]
        return v

    for wrap in (lambda v: [v], lambda v: (v,)):
        deep = X
        for _ in range(400):
            deep = wrap(deep)
        with fx.eager():
            value, grads = fx.withgradient(lambda v: jnp.sum(inside(v)), deep)
            captured = fx.withgradient(lambda x, deep=deep: jnp.sum(x * inside(deep)), X)
        assert float(value) == 3.0
        np.testing.assert_allclose(inside(grads[0]), 1.0)
        np.testing.assert_allclose(captured.grad[0], X)


def test_a_long_linked_list_is_no_matter() -> None:
    head = None
    for _ in range(600):
        head = types.SimpleNamespace(value=1.0, next=head)

    def total(x: Any, node: Any) -> Any:
        found = 0.0
        while node is not None:
            found, node = found + node.value, node.next
        return jnp.sum(x) * found

    with fx.eager():
        assert float(fx.withgradient(total, X, head).val) == 1800.0
        assert float(fx.withgradient(lambda x: total(x, head), X).val) == 1800.0
