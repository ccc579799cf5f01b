"""JAX remembers traces of helpers and loop bodies; a global behind a method is seen anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import compiling

SCALE: Any = 2.0


class Held:
    """A class whose attribute a helper reads."""

    scale: Any = 2.0


@jax.jit
def jitted(x: Any) -> Any:
    return x * SCALE


@jax.jit
def of_class(x: Any) -> Any:
    return x * Held.scale


def plain(x: Any) -> Any:
    return x * SCALE


def body(carry: Any, x: Any) -> Any:
    return carry + x * SCALE, None


class Net(fx.Module):
    """Its method calls helpers that run as they are."""

    def __init__(self) -> None:
        self.w = jnp.ones(3)

    def jit(self) -> Any:
        return jnp.sum(jitted(self.w))

    def of_class(self) -> Any:
        return jnp.sum(of_class(self.w))

    def scan(self) -> Any:
        return jax.lax.scan(body, 0.0, self.w)[0]

    def checkpoint(self) -> Any:
        return jnp.sum(jax.checkpoint(plain)(self.w))

    def cond(self) -> Any:
        return jnp.sum(jax.lax.cond(jnp.sum(self.w) > 0, plain, plain, self.w))


OBJECTIVES: dict[str, Callable[[Any], Any]] = {
    "jit": lambda m: m.jit(),
    "class": lambda m: m.of_class(),
    "scan": lambda m: m.scan(),
    "checkpoint": lambda m: m.checkpoint(),
    "cond": lambda m: m.cond(),
}


@pytest.fixture(autouse=True)
def forgotten() -> None:
    fx.clear_cache()


@pytest.mark.parametrize("way", OBJECTIVES)
def test_a_global_behind_a_method_is_read_at_every_call(way: str) -> None:
    global SCALE
    model = Net()
    jitted(model.w), of_class(model.w)  # so JAX has traces from elsewhere too
    for scale in (2.0, 3.0, 2.0, np.float32(5.0)):
        SCALE = Held.scale = scale
        value, grads = fx.withgradient(OBJECTIVES[way], model)
        assert float(value) == 3 * scale
        np.testing.assert_array_equal(grads[0].w, np.full(3, scale))
    assert all(r.compiled for r in fx.explain())


def test_programs_that_are_there_are_not_compiled_again() -> None:
    global SCALE
    model, x, SCALE = Net(), jnp.ones(4), 7.0
    other = lambda v: jnp.sum(jnp.tanh(v))
    fx.gradient(other, x)
    fx.gradient(OBJECTIVES["jit"], model)
    SCALE = 8.0
    fx.gradient(OBJECTIVES["jit"], model)
    with compiling() as seen:
        fx.gradient(other, x)
    assert not seen


FACTORS = np.ones(2)


@pytest.mark.parametrize("where", ["class", "global"])
def test_an_array_that_jax_converts_and_that_is_written_in_place(where: str) -> None:
    """JAX takes what it has made of a float64 array for the array, as long as that lives."""

    class Scale:
        by = np.ones(2)

        def of_class(self, w: Any) -> Any:
            return jnp.sum(Scale.by * w)

        def of_global(self, w: Any) -> Any:
            return jnp.sum(FACTORS * w)

    scale, w = Scale(), jnp.ones(2)
    array, f = (Scale.by, scale.of_class) if where == "class" else (FACTORS, scale.of_global)
    for c in (1.0, 3.0, 5.0, 2.0):
        array[:] = c
        assert float(fx.withgradient(lambda w: f(w), w).val) == 2 * c
        with fx.eager():
            assert float(fx.withgradient(lambda w: f(w), w).val) == 2 * c


def test_an_array_whose_old_conversion_lives_elsewhere_is_refused() -> None:
    class Scale:
        by = np.ones(2)

        def of(self, w: Any) -> Any:
            return jnp.sum(Scale.by * w)

    scale, w = Scale(), jnp.ones(2)
    keeps = jax.make_jaxpr(lambda w: jnp.multiply(Scale.by, w))(w)
    Scale.by[:] = 3.0
    with pytest.raises(ValueError, match=r"expects JAX to see `Scale\.by` as it is.*JAX array"):
        fx.gradient(lambda w: scale.of(w), w)
    del keeps
    np.testing.assert_array_equal(fx.gradient(lambda w: scale.of(w), w)[0], 3.0)
