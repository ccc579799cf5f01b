"""What a rule remembers in the implicit style: its own state, by place, as long as it lives."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.test_implicit import PARTS, X, Y, assert_close, net


def test_the_state_is_that_very_rules_own() -> None:
    a, b = net(), net()
    first, second = fx.Momentum(0.1), fx.Momentum(0.1)
    assert first == second
    ps, qs = fx.params(a), fx.params(b)
    for opt in (first, first):
        fx.update(opt, ps, fx.gradient(lambda: fx.mse(a(X), Y), ps))
    for opt in (first, second):  # no velocity is left over from the other model, nor from `first`
        start = [np.asarray(p) for p in qs]
        gs = fx.gradient(lambda: fx.mse(b(X), Y), qs)
        fx.update(opt, qs, gs)
        for p, p0, g in zip(qs, start, gs, strict=True):
            np.testing.assert_allclose(p, p0 - 0.1 * g, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_one_rule_for_parts_in_turn() -> None:
    a, b, opt = net(), net(), fx.Momentum(0.1)
    opt_state = fx.setup(fx.Momentum(0.1), a)
    parts = [PARTS["part"], lambda m: m.layers.dec, PARTS["whole"], PARTS["part"]]
    for part in parts:
        grads = fx.gradient(lambda m: fx.mse(m(X), Y), a)
        fx.update(part(opt_state), part(a), part(grads[0]))
        ps = fx.params(part(b))
        fx.update(opt, ps, fx.gradient(lambda: fx.mse(b(X), Y), ps))
    assert_close(a, b)


def test_another_shape_starts_with_fresh_state() -> None:
    model, opt = {"w": jnp.ones(2)}, fx.Momentum(0.1)
    ps = fx.params(model)
    fx.update(opt, ps, fx.gradient(lambda: jnp.sum(model["w"]), ps))
    model["w"] = jnp.ones(3)
    fx.update(opt, ps, fx.gradient(lambda: jnp.sum(model["w"]), ps))
    np.testing.assert_allclose(model["w"], 0.9)


def trained_and_forgotten() -> tuple[Any, Any, list[Any]]:
    model, opt = net(), fx.Adam()
    ps = fx.params(model)
    gs = fx.gradient(lambda: fx.mse(model(X), Y), ps)
    fx.update(opt, ps, gs)
    fx.train(lambda x, y: fx.mse(model(x), y), ps, [(X, Y)], opt)
    return ps, gs, [weakref.ref(o) for o in (model, model.layers.enc, opt)]


def test_nothing_of_ours_keeps_model_or_rule_alive() -> None:
    ps, gs, gone = trained_and_forgotten()
    gc.collect()
    assert [r() for r in gone] == [None] * 3
    assert (len(ps), len(gs)) == (0, 4)
    with pytest.warns(UserWarning, match="no parameters in these Params"):
        assert len(fx.gradient(lambda: jnp.sum(X), ps)) == 0
    with pytest.raises(ValueError, match="it is gone; keep it alive"):
        fx.train(lambda x: jnp.sum(x), ps, [X], fx.Adam())
