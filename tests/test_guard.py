"""The guard of train and trainstep: a step whose loss or gradient is not finite never happened.

Also what steps do to layers: random streams, statistics, modes, frozen parts.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import snapshot

BAD = [np.nan, np.inf, -np.inf]


def net() -> fx.Chain:
    return fx.Chain(fx.Dense(2, 5, fx.tanh, rng=1), fx.Dense(5, 1, rng=2))


def items(n: int, at: int | None = None, value: float = np.nan) -> list[Any]:
    """Batches with one bad number at an item."""
    draw = np.random.default_rng(7)
    xs = draw.normal(size=(n, 4, 2)).astype(np.float32)
    ys = xs.sum(-1, keepdims=True)
    if at is not None:
        ys[at, 1] = value
    return list(zip(xs, ys))


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def backward(m: Any, x: Any, y: Any) -> Any:
    """A loss that is finite where its gradient is NaN: the square root of zero."""
    bad = jnp.isnan(y).any()
    z = jnp.where(bad, 0.0, 1.0) * jnp.sum(m(x) ** 2)
    return fx.mse(m(x), jnp.nan_to_num(y)) + jnp.sqrt(z)


RULES = [fx.Momentum(0.01), fx.Adam(0.05), fx.OptimiserChain(fx.ClipNorm(1.0), fx.AdamW(0.05))]


# --- train stops ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("at, value", [(37, np.nan), (0, np.nan), (15, np.inf), (49, np.nan)])
def test_train_stops_with_the_state_before_that_item(at: int, value: float, rule: Any) -> None:
    model, plain = net(), net()
    opt_state, other = fx.setup(rule, model), fx.setup(rule, plain)
    expected = [float(fx.trainstep(mse, plain, d, other)) for d in items(50)[:at]]
    with pytest.raises(fx.NonFiniteLoss, match=f"item {at}") as caught:
        fx.train(mse, model, items(50, at, value), opt_state)
    assert isinstance(caught.value, FloatingPointError)
    assert caught.value.index == at
    assert caught.value.phase == "forward"
    assert not np.isfinite(caught.value.value)
    np.testing.assert_allclose(caught.value.losses, expected, rtol=1e-5)
    assert isinstance(caught.value.losses, np.ndarray)
    assert snapshot(model, opt_state) == snapshot(plain, other)
    fx.train(mse, model, items(50)[at:], opt_state)
    fx.train(mse, plain, items(50)[at:], other)
    assert snapshot(model, opt_state) == snapshot(plain, other)


def test_a_gradient_alone_that_is_not_finite() -> None:
    model, plain = net(), net()
    opt_state, other = fx.setup(fx.Adam(0.05), model), fx.setup(fx.Adam(0.05), plain)
    for d in items(20)[:3]:
        fx.trainstep(backward, plain, d, other)
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(backward, model, items(20, 3), opt_state)
    assert (caught.value.index, caught.value.phase) == (3, "backward")
    assert np.isfinite(caught.value.value)
    assert snapshot(model, opt_state) == snapshot(plain, other)


def test_trainstep_holds_the_step_back_and_returns_the_value() -> None:
    for loss, finite in ((mse, False), (backward, True)):
        model = net()
        opt_state = fx.setup(fx.Adam(0.05), model)
        fx.trainstep(loss, model, items(1)[0], opt_state)
        before = snapshot(model, opt_state)
        value = fx.trainstep(loss, model, items(1, 0)[0], opt_state)
        assert np.isfinite(value) == finite
        assert snapshot(model, opt_state) == before
        fx.trainstep(loss, model, items(1)[0], opt_state)
        assert snapshot(model, opt_state) != before


def test_the_guard_uncompiled() -> None:
    model, plain = net(), net()
    opt_state, other = fx.setup(fx.Adam(0.05), model), fx.setup(fx.Adam(0.05), plain)
    with fx.eager():
        fx.train(mse, plain, items(3), other)
        with pytest.raises(fx.NonFiniteLoss) as caught:
            fx.train(mse, model, items(9, 3), opt_state)
    assert caught.value.index == 3
    assert len(caught.value.losses) == 3
    assert snapshot(model, opt_state) == snapshot(plain, other)


def test_the_first_of_several_values_counts() -> None:
    model = net()
    loss = lambda m, x, y: (fx.mse(m(x), x.sum(-1, keepdims=True)), jnp.sum(y))
    opt_state = fx.setup(fx.Adam(0.05), model)
    value, aux = fx.trainstep(loss, model, items(1, 0)[0], opt_state)
    assert np.isfinite(value)
    assert np.isnan(aux)
    assert np.isfinite(fx.train(loss, model, items(5, 2), opt_state)).all()


def test_huge_but_finite_numbers_pass() -> None:
    model = {"w": jnp.array([1e30, -1e30], jnp.float32)}
    loss = lambda m, x: jnp.sum(m["w"] * x)
    x = np.array([3e38, 3e38], np.float32)
    value = fx.trainstep(loss, model, (x * 1e-31,), fx.setup(fx.Descent(0.0), model))
    assert np.isfinite(value)
    big = {"w": jnp.zeros(2)}
    fx.trainstep(loss, big, (x,), fx.setup(fx.Descent(1e-37), big))
    np.testing.assert_allclose(big["w"], [-30.0, -30.0], rtol=1e-5)


@pytest.mark.parametrize("shape", [(80, 80), (6400,), (400, 16), (2, 40, 80)], ids=str)
@pytest.mark.parametrize("way", ["trainstep", "pieces", "plain"])
def test_one_bad_number_in_a_large_gradient(shape: tuple[int, ...], way: str) -> None:
    def root(model: Any, x: Any) -> Any:  # of zero: its derivative is infinite
        return jnp.sum(jnp.sqrt(model["w"].ravel()[-7]) * x)

    huge = lambda model, x: jnp.sum(model["w"] * 3e38 * x)
    model = {"w": jnp.zeros(shape)}
    opt_state = fx.setup(fx.Descent(1e-37), model)
    for x in (1.0, -1.0, 0.0):  # to ∞, -∞, NaN
        data = np.full((40 if way == "pieces" else 1, 1), x, np.float32)
        with fx.kernels.choose("plain" if way == "plain" else "auto"):
            if way == "pieces":
                with pytest.raises(fx.NonFiniteLoss):
                    fx.train(root, model, fx.DataLoader(data, batchsize=1), opt_state)
            else:
                assert float(fx.trainstep(root, model, data, opt_state)) == 0.0
        assert not model["w"].any()
    fx.trainstep(huge, model, np.ones((1, 1), np.float32), opt_state)
    np.testing.assert_allclose(model["w"], np.full(shape, -30.0), rtol=1e-5)


# --- layers with state ---------------------------------------------------------------------


def noisy() -> fx.Chain:
    return fx.Chain(
        fx.Dense(2, 5, rng=1), fx.BatchNorm(5), fx.Dropout(0.5, rng=3), fx.Dense(5, 1, rng=2)
    )


def test_streams_advance_where_a_step_is_held_back_and_statistics_stay() -> None:
    model = noisy()
    opt_state = fx.setup(fx.Adam(0.05), model)
    norm, drop = model[1], model[2]
    before = snapshot(norm), np.array(drop.stream)
    fx.trainstep(mse, model, items(1, 0)[0], opt_state)
    assert snapshot(norm) == before[0]
    assert not np.array_equal(drop.stream, before[1])
    fx.trainstep(mse, model, items(1)[0], opt_state)
    assert snapshot(norm) != before[0]


def test_streams_after_a_stop_are_those_after_the_bad_item() -> None:
    model, plain = noisy(), noisy()
    opt_state, other = fx.setup(fx.Adam(0.05), model), fx.setup(fx.Adam(0.05), plain)
    for d in items(50, 37)[:38]:
        fx.trainstep(mse, plain, d, other)
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(mse, model, items(50, 37), opt_state)
    assert caught.value.index == 37
    assert snapshot(model, opt_state) == snapshot(plain, other)


def test_dropout_draws_anew_at_every_step_and_the_same_with_the_same_seed() -> None:
    seen: list[Any] = []
    for _ in range(2):
        model = fx.Chain(fx.Dense(2, 3, rng=1), fx.Dropout(0.5, rng=3))
        opt_state = fx.setup(fx.Descent(0.0), model)
        loss = lambda m, x: jnp.sum(m(x) ** 2)
        seen.append(fx.train(loss, model, [np.ones((8, 2), np.float32)] * 6, opt_state))
    assert len(set(seen[0].tolist())) > 3
    assert np.array_equal(seen[0], seen[1])


def test_statistics_are_those_of_the_formula() -> None:
    model = fx.Chain(fx.BatchNorm(2), fx.Dense(2, 1, rng=1))
    x, y = items(1)[0]
    fx.trainstep(mse, model, (x, y), fx.setup(fx.Descent(0.1), model))
    names = {k: np.asarray(v) for k, v in vars(model[0]).items() if isinstance(v, jax.Array)}
    tracked = [v for k, v in names.items() if k not in model[0].trainable]
    expected = [0.1 * x.mean(0), 0.9 + 0.1 * x.var(0, ddof=1)]
    for want in expected:
        assert any(np.allclose(have, want, rtol=1e-5, atol=1e-7) for have in tracked), names


def test_modes_set_by_hand_are_left_alone() -> None:
    model = noisy()
    opt_state = fx.setup(fx.Adam(0.05), model)
    fx.testmode(model)
    stream, norm = np.array(model[2].stream), snapshot(model[1].mean, model[1].var)
    fx.train(mse, model, items(3), opt_state)
    assert (model[1].active, model[2].active) == (False, False)
    assert np.array_equal(model[2].stream, stream)
    assert snapshot(model[1].mean, model[1].var) == norm
    fx.testmode(model, "auto")
    fx.train(mse, model, items(3), opt_state)
    assert (model[1].active, model[2].active) == (None, None)
    assert not np.array_equal(model[2].stream, stream)


# --- frozen parts --------------------------------------------------------------------------


def test_frozen_parts_are_bit_for_bit_as_before() -> None:
    model = noisy()
    opt_state = fx.setup(fx.OptimiserChain(fx.WeightDecay(0.1), fx.Adam(0.05)), model)
    fx.train(mse, model, items(2), opt_state)
    fx.freeze(opt_state.layers[0])
    fx.freeze(opt_state.layers[1])
    below = lambda: snapshot(*model.layers[:2], *opt_state.layers[:2])
    before, other = below(), snapshot(model[3])
    fx.train(mse, model, items(3), opt_state)
    assert below() == before
    assert snapshot(model[3]) != other
    fx.thaw(opt_state)
    fx.train(mse, model, items(1), opt_state)
    assert below() != before


def test_norm_layers_below_a_frozen_node_use_their_stored_statistics() -> None:
    model = fx.Chain(fx.BatchNorm(2), fx.Dense(2, 1, rng=1))
    opt_state = fx.setup(fx.Descent(0.0), model)
    x, y = items(1)[0]
    stored = float(fx.mse(model(x), y))
    batch = float(fx.trainstep(mse, model, (x, y), opt_state))
    assert batch != pytest.approx(stored, rel=1e-3)
    stored = float(fx.mse(model(x), y))
    fx.freeze(opt_state.layers[0])
    assert float(fx.trainstep(mse, model, (x, y), opt_state)) == pytest.approx(stored, rel=1e-5)
    fx.trainmode(model[0])
    assert float(fx.trainstep(mse, model, (x, y), opt_state)) == pytest.approx(batch, rel=1e-5)


def test_a_frozen_gradient_that_is_not_finite_does_not_matter() -> None:
    model = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    loss = lambda m, x: jnp.sum(jnp.sqrt(m["a"] ** 2) * 0 + m["b"] * x)
    opt_state = fx.setup(fx.Descent(0.1), model)
    before = snapshot(model)
    fx.trainstep(loss, model, (np.ones(2, np.float32),), opt_state)
    assert snapshot(model) == before
    fx.freeze(opt_state["a"])
    fx.trainstep(loss, model, (np.ones(2, np.float32),), opt_state)
    np.testing.assert_allclose(model["b"], [0.9, 0.9], rtol=1e-6)


def test_one_compile_per_frozen_pattern() -> None:
    model = fx.Chain(enc=fx.Dense(2, 3, rng=1), dec=fx.Dense(3, 1, rng=2))
    opt_state = fx.setup(fx.Adam(0.05), model)
    fx.clear_cache()
    for _ in range(3):
        fx.trainstep(mse, model, items(1)[0], opt_state)
        fx.freeze(opt_state.layers.enc)
        fx.trainstep(mse, model, items(1)[0], opt_state)
        fx.thaw(opt_state)
    assert sum(r.traces for r in fx.explain()) <= 2


def test_everything_frozen() -> None:
    model = net()
    opt_state = fx.setup(fx.Adam(0.05), model)
    fx.freeze(opt_state)
    before = snapshot(model, opt_state)
    losses = fx.train(mse, model, items(3), opt_state)
    x, y = items(1)[0]
    assert losses[0] == pytest.approx(float(fx.mse(model(x), y)), rel=1e-5)
    assert snapshot(model, opt_state) == before
