"""Where random numbers of ours cannot be drawn anew at each call it is an error with the line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.drawing import W, calls
from tests.drawing_alone import Noise, X


@pytest.fixture(autouse=True)
def fresh() -> None:
    fx.clear_cache()


# --- errors ----------------------------------------------------------------------------------

JITTED: dict[str, Callable[..., Any]] = {
    "jit": lambda f: jax.jit(f)(W),
    "vmap": lambda f: jax.vmap(f)(jnp.ones((2, 3)))[0],
    "scan": lambda f: jax.lax.scan(lambda c, _: (f(c), None), W, jnp.ones(2))[0],
    "cond": lambda f: jax.lax.cond(True, f, lambda x: x, W),
    "checkpoint": lambda f: jax.checkpoint(f)(W),
    "vmap of ours": lambda f: jax.vmap(lambda v: fx.gradient(lambda u: jnp.sum(f(u) ** 2), v)[0])(
        jnp.ones((2, 3))
    )[0],
    "vmap of hessian": lambda f: jax.vmap(lambda v: fx.hessian(lambda u: jnp.sum(f(u) ** 2), v)[0])(
        jnp.ones((2, 3))
    )[0],
}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("inside", JITTED.values(), ids=list(JITTED))
def test_inside_jit_and_the_like_it_is_an_error_that_names_the_line(inside, eager: bool) -> None:
    def draws(x):
        return x + fx.randn32(3)

    line = f"{__file__}:{draws.__code__.co_firstlineno + 1}"
    with (
        fx.eager() if eager else warnings.catch_warnings(),
        pytest.raises(ValueError, match="expects its random numbers to be drawn outside") as found,
    ):
        fx.gradient(lambda w: jnp.sum(w * inside(draws)), W)
    assert line in str(found.value)
    assert calls() == 0


def test_around_an_objective_they_are_too() -> None:
    """Or else the user's program would have one draw in it for good."""
    f = lambda w: jnp.sum(w * fx.randn32(3))
    for around in (jax.jit, jax.vmap):
        with pytest.raises(ValueError, match="drawn outside of"):
            around(lambda w: fx.gradient(f, w)[0])(jnp.ones((3, 3)))
    fx.seed(1)
    want = fx.withgradient(f, W).val
    fx.seed(1)
    np.testing.assert_allclose(jax.grad(lambda w: fx.withgradient(f, w).val)(W).sum(), want)


def test_in_training_and_in_a_layer() -> None:
    class Scanned(fx.Module):
        def __call__(self, x):
            return jax.lax.scan(lambda c, v: (c + Noise()(v), None), x[0], x)[0]

    model = fx.Chain(fx.Dense(3, 3), Scanned())
    opt_state = fx.setup(fx.Descent(0.1), model)
    with pytest.raises(ValueError, match=r"drawn outside of jax.jit.*drawing_alone.py:\d+"):
        fx.train(lambda m, x: jnp.sum(m(x)), model, [X[:4]], opt_state)
    assert calls() == 0


@pytest.mark.parametrize("eager", [False, True])
def test_a_call_that_raised_did_not_take_place(eager: bool) -> None:
    def f(w):
        noise = fx.randn32(3)
        if fail:
            raise KeyError("no")
        return jnp.sum(w * noise)

    fail = False
    fx.seed(1)
    with fx.eager() if eager else warnings.catch_warnings():
        want = [fx.withgradient(f, W).val for _ in range(2)]
        fx.seed(1)
        got = [fx.withgradient(f, W).val]
        fail = True
        with pytest.raises(KeyError):
            fx.withgradient(f, W)
        assert calls() == 1
        fail = False
        got.append(fx.withgradient(f, W).val)
    assert got == want


def test_a_step_whose_arrays_have_other_shapes_takes_one_number() -> None:
    model = fx.Dense(3, 3)
    f = lambda m: jnp.sum(m(W) * fx.randn32(3))
    for width in (3, 1, 3):
        model.weight, model.bias = jnp.ones((3, width)), jnp.ones(width)
        fx.gradient(f, model)
    assert calls() == 3
