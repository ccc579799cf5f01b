"""JAX's own settings: the same numbers under each, and what it means by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.test_interrupts import SETTINGS, switched

X, Y = np.ones((4, 2), "f"), np.zeros((4, 1), "f")


def net() -> Any:
    fx.seed(0)
    return fx.Chain(fx.Dense(2, 3, fx.tanh, rng=0), fx.BatchNorm(3), fx.Dense(3, 1, rng=1))


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def nan_loss(m: Any, x: Any, y: Any) -> Any:
    return jnp.log(-1 - jnp.abs(fx.mse(m(x), y)))


def nan_gradient(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y) + jnp.sqrt(0 * jnp.sum(m(x)))


def infinite(m: Any, x: Any, y: Any) -> Any:
    return jnp.exp(1e4 + fx.mse(m(x), y))


def _update(f: Any, m: Any, s: Any) -> Any:
    val, grads = fx.withgradient(f, m, X, Y)
    fx.update(s, m, grads[0])
    return val


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "gradient": lambda f, m, s: fx.gradient(f, m, X, Y)[0].layers[0].weight,
    "compiled": lambda f, m, s: fx.compiled(f)(m, X, Y),
    "update": _update,
    "trainstep": lambda f, m, s: fx.trainstep(f, m, (X, Y), s),
    "train": lambda f, m, s: fx.train(f, m, [(X, Y)] * 2, s),
    "pieces": lambda f, m, s: fx.train(f, m, fx.DataLoader((X, Y), 2), s),
}


def run(call: Any, f: Any) -> list[Any]:
    """What three calls give, and the parameters afterwards."""
    model = net()
    opt_state = fx.setup(fx.Momentum(0.1), model)
    found = [np.asarray(call(f, model, opt_state)) for _ in range(3)]
    return [*found, *map(np.asarray, fx.params(model))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", CALLS)
def test_the_numbers_are_the_same(kind: str, name: str) -> None:
    fx.clear_cache()
    expected = run(CALLS[kind], mse)
    for fresh in (False, True):  # compiled before, or under the setting
        if fresh:
            fx.clear_cache()
        with switched(name):
            found = run(CALLS[kind], mse)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert all(record.compiled and record.traces <= 3 for record in fx.explain())


BAD = [
    ("jax_debug_nans", nan_loss),
    ("jax_debug_nans", nan_gradient),
    ("jax_debug_infs", infinite),
]


@pytest.mark.slow
@pytest.mark.parametrize("name, f", BAD)
@pytest.mark.parametrize("kind", CALLS)
def test_bad_numbers_are_an_error_where_jax_is_to_find_them(kind: str, name: str, f: Any) -> None:
    if kind == "compiled" and f is nan_gradient:
        f = nan_loss  # which has no gradient
    fx.clear_cache()
    model = net()
    opt_state = fx.setup(fx.Momentum(0.1), model)
    before = [np.asarray(p) for p in fx.params(model)]
    for _ in range(2):
        with switched(name), pytest.raises(FloatingPointError):
            CALLS[kind](f, model, opt_state)
    for a, b in zip(before, fx.params(model), strict=True):  # and nothing has changed
        assert (a == np.asarray(b)).all()
    CALLS[kind](mse, model, opt_state)


@pytest.mark.parametrize("kind", ["gradient", "trainstep"])
def test_debug_nans_ends(kind: str) -> None:
    """It took a minute of compiling, and a RecursionError."""
    model = net()
    opt_state = fx.setup(fx.Momentum(0.1), model)
    fx.clear_cache()
    with switched("jax_debug_nans"):
        assert np.isfinite(CALLS[kind](mse, model, opt_state)).all()
        with pytest.raises(FloatingPointError):
            CALLS[kind](nan_loss, model, opt_state)
    assert [record.traces for record in fx.explain()] == [1, 1]


# --- a new shape inside a model, which only JAX's dispatch sees ----------------------------


class Sized(fx.Module):
    """A model whose size says what the loss does with it."""

    def __init__(self, n: int):
        self.w = jnp.ones(n)


def by_size(m: Any, *_: Any) -> Any:
    if m.w.shape[0] == 4:
        raise ValueError("four")
    return jnp.sum(m.w) * (float(jnp.sum(m.w)) if m.w.shape[0] == 5 else 1.0)


SHAPED = {
    **CALLS,
    "gradient": lambda f, m, s: fx.gradient(f, m, X)[0].w.sum(),
    "withgradient": lambda f, m, s: fx.withgradient(f, m)[0],
    "evaluate": lambda f, m, s: fx.evaluate(f, m, [(X,)] * 2),
}


@pytest.mark.filterwarnings("ignore:.*runs uncompiled")
@pytest.mark.parametrize("kind", SHAPED)
def test_a_new_shape_runs_uncompiled_or_raises_the_users_error(kind: str) -> None:
    fx.clear_cache()
    for n in (3, 5, 4, 3, 5, 6, 4, 3):
        model = Sized(n)
        call = lambda model=model: SHAPED[kind](by_size, model, fx.setup(fx.Descent(0.0), model))
        if n == 4:
            with pytest.raises(ValueError, match="four"):
                call()
            continue
        assert np.allclose(call(), n * n if n == 5 else n)
