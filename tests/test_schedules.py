"""Schedules as hyperparameters: evaluated inside the program, at the steps taken so far."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fluxax as fx

RATE = lambda step: 1.0 / (1 + step)
SIZES = {"small": 2, "large": 5000}  # small arrays share one, large ones do not


def model() -> dict[str, Any]:
    return {name: jnp.zeros(n) for name, n in SIZES.items()}


def ones() -> dict[str, Any]:
    return {name: jnp.ones(n) for name, n in SIZES.items()}


def loss(m: dict[str, Any]) -> Any:
    return sum(jnp.sum(a) for a in m.values())


@pytest.mark.parametrize("how", ["update", "trainstep", "both"])
def test_descent_takes_the_scheduled_steps(how: str) -> None:
    m = model()
    opt_state = fx.setup(fx.Descent(RATE), m)
    for turn in range(4):
        if how == "update" or (how == "both" and turn % 2):
            fx.update(opt_state, m, ones())
        else:
            fx.trainstep(loss, m, (), opt_state)
    want = -sum(RATE(t) for t in range(4))
    for name in SIZES:
        np.testing.assert_allclose(m[name], want, rtol=1e-6)
        assert opt_state[name].steps == 4


def test_optax_schedules_fit_also_in_chains() -> None:
    schedule = optax.cosine_decay_schedule(1.0, 10)
    m = model()
    opt_state = fx.setup(fx.OptimiserChain(fx.ClipGrad(0.5), fx.Descent(schedule)), m)
    for _ in range(3):
        fx.update(opt_state, m, ones())
    want = -0.5 * sum(float(schedule(t)) for t in range(3))
    np.testing.assert_allclose(m["small"], want, rtol=1e-5)
    np.testing.assert_allclose(m["large"], want, rtol=1e-5)


def test_adam_with_a_schedule() -> None:
    m = model()
    opt_state = fx.setup(fx.Adam(eta=lambda step: 1e-3 * RATE(step)), m)
    for _ in range(3):
        fx.trainstep(loss, m, (), opt_state)
    np.testing.assert_allclose(m["large"], -1e-3 * (1 + 1 / 2 + 1 / 3), rtol=1e-4)


def test_frozen_parts_and_held_steps_do_not_count() -> None:
    m = model()
    opt_state = fx.setup(fx.Descent(RATE), m)
    fx.freeze(opt_state["small"])
    fx.trainstep(loss, m, (), opt_state)
    fx.trainstep(lambda m: loss(m) * jnp.nan, m, (), opt_state)
    assert (opt_state["small"].steps, opt_state["large"].steps) == (0, 1)


def test_a_number_takes_a_schedules_place_and_back() -> None:
    m = model()
    opt_state = fx.setup(fx.Descent(RATE), m)
    fx.update(opt_state, m, ones())
    fx.adjust(opt_state, 0.25)
    fx.update(opt_state, m, ones())
    fx.adjust(opt_state, RATE)
    fx.update(opt_state, m, ones())
    np.testing.assert_allclose(m["small"], -(1 + 0.25 + 1 / 3), rtol=1e-6)


def test_the_present_value_and_the_count_are_on_the_device_and_are_printed() -> None:
    m = model()
    rule = fx.OptimiserChain(fx.ClipGrad(9.0), fx.Descent(optax.cosine_decay_schedule(1.0, 10)))
    opt_state = fx.setup(rule, m)
    assert "Descent(eta=1 by cosine_decay_schedule(0))" in repr(opt_state)
    for _ in range(3):
        fx.update(opt_state, m, ones())
    leaf = opt_state["large"]
    count, eta = leaf.steps, leaf.now.opts[1].eta
    assert isinstance(count, jax.Array)  # nothing waits until somebody looks
    assert isinstance(eta, jax.Array)
    assert leaf.now.opts[0].delta == 9.0
    fx.update(opt_state, m, ones())  # which gives the counts' memory away
    want = float(optax.cosine_decay_schedule(1.0, 10)(3))
    assert (int(count), float(eta)) == (3, pytest.approx(want))
    text = repr(opt_state["small"])
    assert "by cosine_decay_schedule(4)" in text
    assert "steps=4" in text


def test_a_schedule_is_not_rounded_to_a_narrow_dtype_before_arithmetic() -> None:
    m = {"w": jnp.zeros(4, jnp.bfloat16)}
    opt_state = fx.setup(fx.Adam(0.1, beta=(lambda step: 0.999, 0.999)), m)
    fx.update(opt_state, m, {"w": jnp.ones(4, jnp.bfloat16)})
    # 1 - 0.999 of a bfloat16 0.999 would be 0; the state has that dtype, 8 bits
    np.testing.assert_allclose(np.float32(opt_state["w"].state[0]), 1e-3, rtol=2**-8)
