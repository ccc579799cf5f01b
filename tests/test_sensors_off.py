"""Each sensor of a trace is needed: with one switched off, a function that it stops goes wrong.

Beside each stands a function that only this sensor stops. With the sensor it runs uncompiled and is
right; without it, and without checks, it is compiled and gives the number of its first call, or
does what it does twice.
"""

from __future__ import annotations

import timeit
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax._compile import _trace, _tripwire

X = jnp.ones(3)
Objective = Callable[[Any], Any]


def of_package(package: Any, source: str) -> Any:
    """A function in an installed package."""
    exec(compile(source, package.__file__, "exec"), package.__dict__)
    return package.__dict__[source.split()[1].partition("(")[0]]


SENSORS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Any], Objective]]] = {}


def sensor(off: Callable[[pytest.MonkeyPatch], None]) -> Any:
    def register(make: Callable[[Any], Objective]) -> Callable[[Any], Objective]:
        SENSORS[make.__name__] = off, make
        return make

    return register


@sensor(lambda m: m.setattr(_tripwire, "is_harmless", lambda *_: True))
def c_functions(package: Any) -> Objective:
    return lambda x: jnp.sum(x) * timeit.default_timer()


@sensor(lambda m: m.setattr(_trace, "watch", lambda numbers: [*numbers] and None))
def questions_to_numbers(package: Any) -> Objective:
    box = types.SimpleNamespace(k=0.0)
    asked: Any = lambda k: 1.0 if hasattr(k, "shape") else 2.0

    def f(x: Any) -> Any:
        return jnp.sum(x) * box.k * asked(box.k)

    def turning(x: Any) -> Any:
        return f(x)

    turning.turn = lambda: setattr(box, "k", box.k + 1.0)  # type: ignore[attr-defined]
    return turning


@sensor(lambda m: m.setattr(_tripwire.Tripwire, "_called_user", lambda self, frame: None))
def code_that_was_not_seen(package: Any) -> Objective:
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    package.KEPT.append(count)
    called = of_package(package, "def called(): return KEPT[0]()")
    return lambda x: jnp.sum(x) * called()


@sensor(lambda m: m.setattr(_trace, "restore_random", lambda state: None))
def random_states(package: Any) -> Objective:
    draw = np.random.mtrand._rand.standard_normal  # Cython: no profile hook sees it
    package.draw = draw
    drawn = of_package(package, "def drawn(): return float(draw())")
    return lambda x: jnp.sum(x) * drawn()


@sensor(lambda m: m.setattr(_trace, "restore", lambda before: None))
def what_methods_write(package: Any) -> Objective:
    class Counter:
        calls = 0

        def next(self) -> int:
            Counter.calls += 1
            return Counter.calls

    counter = Counter()
    return lambda x: jnp.sum(x) * counter.next()


def values(f: Objective) -> list[float]:
    found = []
    for _ in range(3):
        getattr(f, "turn", lambda: None)()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(float(fx.withgradient(f, X).val))
    return found


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FLUXAX_CHECK", "0")
    fx.clear_cache()
    yield
    fx.clear_cache()


@pytest.mark.parametrize("name", SENSORS)
def test_with_the_sensor_a_function_is_right_and_without_it_wrong(
    name: str, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    off, make = SENSORS[name]
    np.random.seed(0)
    right = values(make(package))
    assert len(set(right)) == 3, right
    package.KEPT.clear()
    fx.clear_cache()
    np.random.seed(0)
    off(monkeypatch)
    found = values(make(package))
    assert found != right
    assert len(set(found)) < 3 or name in TWICE, fx.explain()


#: Without these sensors nothing is frozen, but an effect happens twice.
TWICE = {"what_methods_write"}
