"""What an uncompiled objective can ask for, and what it stored, are numbers and arrays."""

from __future__ import annotations

import collections
import contextlib
import pprint
import time
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import quietly

import fluxax as fx

W = jnp.array([1.0, 2.0])
LAST = None


class Holder:
    last: Any = None


class Slots:
    __slots__ = ("n",)


class Writer:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def write(self, w: Any) -> Any:
        BUFFER[0] += 1.0
        return jnp.sum(w)


BUFFER = np.zeros(2, np.float32)


@pytest.fixture(autouse=True)
def empty() -> None:
    global LAST
    fx.clear_cache()
    LAST, Holder.last = None, None
    BUFFER[:] = 0


# --- values that only an uncompiled run has -------------------------------------------------

ASKED: dict[str, Any] = {
    "float": lambda v: float(v),
    "int": lambda v: int(v) + 0.0,
    "item": lambda v: v.item(),
    "tolist": lambda v: v.tolist(),
    "f-string": lambda v: float(f"{v:.3f}"),
    "format": lambda v: float("{:.2f}".format(v)),  # noqa: UP032
    "bool": lambda v: 5.0 if v > 4 else 0.0,
    "str": lambda v: float(str(v)),
    "in a list": lambda v: float("Tracer" in str([v])) or float(v),
    "round": lambda v: float(round(v, 2)),
    "swallowed": lambda v: _float_or(v, -1.0),
    "stopped and NumPy": lambda v: float(np.asarray(fx.stop_gradient(v))),
}


def _float_or(v: Any, other: float) -> float:
    try:
        return float(v)
    except Exception:
        return other


@pytest.mark.parametrize("name", ASKED)
def test_numbers_asked_for_are_there(name: str) -> None:
    ask = ASKED[name]
    for w, want in ((W, 5.0), (W * 2, 20.0)):
        f = lambda w: (jnp.sum(w**2), ask(jnp.sum(w**2)))
        val, grads = quietly(lambda: fx.withgradient(f, w))
        assert float(val[0]) == want
        assert val[1] == (5.0 if name == "bool" else want)
        np.testing.assert_allclose(grads[0], 2 * w)


def test_printing_a_traced_value_inside_a_package_gives_the_number() -> None:
    for scale in (1.0, 2.0):
        val, _ = quietly(
            lambda: fx.withgradient(lambda w: (jnp.sum(w), pprint.pformat(w)), W * scale)
        )
        assert val[1] == pprint.pformat(W * scale)


def test_the_warning_names_line_reason_and_remedy_once() -> None:
    def f(w: Any) -> Any:
        loss = jnp.sum(w)
        print(float(loss))
        return loss

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(4):
            fx.gradient(f, W)
    [w] = seen
    assert f"{__file__}:{f.__code__.co_firstlineno}" in str(w.message)
    assert w.filename == __file__
    assert "print" in fx.explain()[0].reasons[-1] or "float" in fx.explain()[0].reasons[-1]


def test_a_clock_is_read_at_every_call() -> None:
    f = lambda w: (jnp.sum(w), time.perf_counter())
    first, second = quietly(lambda: [fx.withgradient(f, W).val[1] for _ in range(2)])
    assert second > first


def test_numpy_of_a_value_with_a_derivative_is_an_error() -> None:
    with pytest.raises(TypeError, match="jnp") as caught:
        quietly(lambda: fx.gradient(lambda w: jnp.sum(w) * np.asarray(w).sum(), W))
    assert "fx.stop_gradient" in str(caught.value)


def test_writing_to_a_captured_numpy_array_is_an_error_that_names_the_line() -> None:
    buffer = np.zeros(2, np.float32)
    for context in (contextlib.nullcontext(), fx.eager()):

        def f(w: Any) -> Any:
            buffer[0] = 1.0
            return jnp.sum(w)

        with context, pytest.raises(Exception, match=r".") as caught:
            quietly(lambda: fx.gradient(f, W))
        assert "test_capture_stored.py" in "".join(traceback.format_exception(caught.value))
        assert buffer[0] == 0


def test_a_method_that_writes_to_a_global_numpy_array_is_an_error() -> None:
    writer = Writer(None)
    with pytest.raises(Exception, match=r".") as caught:
        quietly(lambda: fx.gradient(lambda w: writer.write(w), W))
    assert "BUFFER" in "".join(traceback.format_exception(caught.value))
    assert BUFFER[0] == 0


# --- what was stored holds arrays -----------------------------------------------------------

STORES: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {}


def store(make: Any) -> Any:
    STORES[make.__name__] = make
    return make


@store
def in_a_list() -> Any:
    log: list[Any] = []
    return (lambda v: log.append(v)), lambda: log[-1]


@store
def in_a_tuple_in_a_list() -> Any:
    log: list[Any] = []
    return (lambda v: log.append(("a", [v]))), lambda: log[-1][1][0]


@store
def in_a_deque() -> Any:
    log: Any = collections.deque(maxlen=3)
    return (lambda v: log.append(v)), lambda: log[-1]


@store
def in_a_class_attribute() -> Any:
    return (lambda v: setattr(Holder, "last", v)), lambda: Holder.last


@store
def in_a_new_class_attribute() -> Any:
    class New:
        pass

    return (lambda v: setattr(New, "late", v)), lambda: New.late


@store
def in_a_function_attribute() -> Any:
    def keep(v: Any) -> None:
        keep.last = v

    return keep, lambda: keep.last


@store
def in_a_slot() -> Any:
    slots = Slots()
    return (lambda v: setattr(slots, "n", v)), lambda: slots.n


@store
def in_a_global() -> Any:
    def keep(v: Any) -> None:
        global LAST
        LAST = v

    return keep, lambda: LAST


@store
def in_an_object_in_a_dict() -> Any:
    d = {"o": types.SimpleNamespace(last=None)}
    return (lambda v: setattr(d["o"], "last", v)), lambda: d["o"].last


@pytest.mark.parametrize("name", list(STORES))
def test_what_was_stored_is_an_array_detached(name: str) -> None:
    keep, read = STORES[name]()

    def f(w: Any) -> Any:
        loss = jnp.sum(w**2)
        keep(loss)
        return loss

    for scale in (1.0, 2.0, 3.0):
        quietly(lambda: fx.gradient(f, W * scale))
        assert not isinstance(read(), jax.core.Tracer)
        assert float(read()) == 5 * scale**2


def test_what_was_stored_before_an_error_is_an_array() -> None:
    log: list[Any] = []

    def f(w: Any) -> Any:
        log.append(jnp.sum(w))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        quietly(lambda: fx.gradient(f, W))
    assert [float(v) for v in log] == [3.0]
