"""Flux's page on training, its second half: regularisation, freezing and schedules."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.training_page import arrays, batches, bimodel, by_hand, cross, net, problem, same

# --- regularisation ------------------------------------------------------------------------


def decayed(kind: str) -> Any:
    """A model after ten steps of Adam with one of the three ways of L2."""
    model = net()
    x, y = problem()
    by_array = lambda m: sum(
        jnp.sum(p**2) / 2 for layer in m.layers for p in (layer.weight, layer.bias)
    )
    by_params = lambda m: sum(jnp.sum(p**2) / 2 for p in fx.params(m))
    penalty = {"arrays": by_array, "params": by_params}.get(kind, lambda m: 0.0)
    chain = fx.OptimiserChain(fx.WeightDecay(0.42), fx.Adam(0.1))
    opt_state = fx.setup(chain if kind == "decay" else fx.Adam(0.1), model)
    for _ in range(10):
        grads = fx.gradient(lambda m: cross(m, x, y) + 0.42 * penalty(m), model)
        fx.update(opt_state, model, grads[0])
    return model


def test_three_ways_of_l2_agree() -> None:
    first = decayed("arrays")
    for other in ("params", "decay"):
        for a, b in zip(arrays(first), arrays(decayed(other)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(arrays(first)[0], arrays(decayed("none"))[0], rtol=1e-2)


@pytest.mark.parametrize(
    "clip, direction, expected",
    [
        (fx.ClipGrad(1.0), [6.0, -0.5, -7.0], [1.0, -0.5, -1.0]),
        (fx.ClipNorm(1.0), [6.0, -8.0, 0.0], [0.6, -0.8, 0.0]),
        (fx.ClipNorm(20.0), [6.0, -8.0, 0.0], [6.0, -8.0, 0.0]),
    ],
)
def test_clipping(clip: Any, direction: list[float], expected: list[float]) -> None:
    model, slope = {"w": jnp.zeros(3)}, jnp.array(direction)
    opt_state = fx.setup(fx.OptimiserChain(clip, fx.Descent(1.0)), model)
    grads = fx.gradient(lambda m: jnp.sum(m["w"] * slope), model)
    fx.update(opt_state, model, grads[0])
    np.testing.assert_allclose(-model["w"], expected, rtol=1e-6)


def test_dropout_switches_by_itself() -> None:
    model = fx.Chain(fx.Dropout(0.5, rng=3), lambda x: x)
    x = jnp.ones((50, 20))
    assert np.array_equal(model(x), x)
    val, _ = fx.withgradient(lambda x: jnp.sum(model(x) == 0) * 1.0 + 0 * jnp.sum(x), x)
    assert 300 < val < 700
    fx.testmode(model)
    assert fx.withgradient(lambda x: jnp.sum(model(x) == 0) * 1.0 + 0 * jnp.sum(x), x)[0] == 0
    fx.trainmode(model)
    assert 300 < int((model(x) == 0).sum()) < 700
    fx.testmode(model, "auto")
    assert np.array_equal(model(x), x)


# --- freezing and schedules ----------------------------------------------------------------


def test_the_learning_rate_changes_mid_way() -> None:
    model, plain = net(), net()
    opt_state, other = fx.setup(fx.Descent(0.1), model), fx.setup(fx.Descent(0.1), plain)
    for epoch in range(1, 4):
        fx.train(cross, model, batches(), opt_state)
        if epoch == 1:
            assert (fx.train(cross, plain, batches(), other) > 0).all()
            assert same(model, plain)
            fx.adjust(opt_state, 0.01)
    expected = by_hand(plain, batches(), lambda p, g: tuple(a - 0.01 * b for a, b in zip(p, g)))
    fx.adjust(other, eta=0.01)
    fx.train(cross, plain, batches(), other)
    for got, want in zip(arrays(plain), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    fx.train(cross, plain, batches(), other)
    assert same(model, plain)


def test_adjust_other_fields_and_parts() -> None:
    model = bimodel()
    opt_state = fx.setup(fx.Adam(0.02), model)
    fx.adjust(opt_state, beta=(0.8, 0.99))
    fx.adjust(opt_state.layers.enc, 0.03)
    assert opt_state.layers.enc.weight.rule == fx.Adam(0.03, (0.8, 0.99))
    assert opt_state.layers[1].bias.rule == fx.Adam(0.02, (0.8, 0.99))
    before = [np.asarray(a) for a in arrays(model)]
    fx.train(cross, model, batches()[:1], opt_state)
    moved = [np.abs(a - b).max() for a, b in zip(arrays(model), before, strict=True)]
    np.testing.assert_allclose(moved, [0.03, 0.03, 0.02, 0.02], rtol=1e-2)  # Adam's first step


def test_freeze_and_thaw() -> None:
    model = bimodel()
    opt_state = fx.setup(fx.Adam(0.02), model)
    fx.freeze(opt_state.layers.enc)
    fx.train(cross, model, batches(), opt_state)
    assert same(model.layers.enc, bimodel().layers.enc)
    assert not same(model.layers.dec, bimodel().layers.dec)
    fx.thaw(opt_state)
    fx.train(cross, model, batches(), opt_state)
    assert not same(model.layers.enc, bimodel().layers.enc)


def test_the_old_ways_to_adjust_and_to_freeze() -> None:
    old, new = bimodel(), bimodel()
    opt, opt_state = fx.Adam(0.1), fx.setup(fx.Adam(0.1), new)
    fx.freeze(opt_state.layers.dec)
    for eta in (0.1, 0.001):
        opt.eta = eta
        fx.adjust(opt_state, eta)
        fx.train(lambda x, y: cross(old, x, y), fx.params(old.layers.enc), batches(), opt)
        fx.train(cross, new, batches(), opt_state)
    assert same(old.layers.dec, bimodel().layers.dec)
    for a, b in zip(arrays(old), arrays(new), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
