"""What layers keep while a model trains: statistics, modes, what freezing and the guard hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

RNG = np.random.default_rng(0)
X, Y = (2 + 3 * RNG.normal(size=(6, 3))).astype("f4"), RNG.normal(size=(6, 2)).astype("f4")
MEAN, VAR = 0.1 * X.mean(0), 0.9 + 0.1 * X.var(0, ddof=1)


def loss(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def made(norm: Any = None) -> tuple[Any, Any]:
    fx.seed(1)
    model = fx.Chain(norm or fx.BatchNorm(3), fx.Dense(3, 2))
    return model, fx.setup(fx.Descent(0.1), model)


def stats(model: Any) -> list[Any]:
    return [np.asarray(model[0].mean), np.asarray(model[0].var)]


def close(model: Any, mean: Any, var: Any) -> None:
    for ours, wanted in zip(stats(model), (mean, var), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5)


WAYS = {
    "gradient": lambda m, s: fx.gradient(loss, m, X, Y),
    "a closure": lambda m, s: fx.gradient(lambda k: k * loss(m, X, Y), 1.0),
    "trainstep": lambda m, s: fx.trainstep(loss, m, (X, Y), s),
    "train": lambda m, s: fx.train(loss, m, [(X, Y)], s),
    "uncompiled": lambda m, s: eagerly(m),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


def eagerly(model: Any) -> None:
    with fx.eager():
        fx.gradient(loss, model, X, Y)


@ways
def test_statistics_move_by_the_formula(way: Any) -> None:
    model, opt_state = made()
    way(model, opt_state)
    close(model, MEAN, VAR)
    before = stats(model)
    model(X)  # outside: the stored ones are used and kept
    fx.compiled(lambda: model(X))()
    assert all(np.array_equal(a, b) for a, b in zip(before, stats(model), strict=True))


@ways
def test_a_mode_set_by_hand_stays(way: Any) -> None:
    model, opt_state = made()
    fx.testmode(model)
    way(model, opt_state)
    close(model, np.zeros(3), np.ones(3))
    assert model[0].active is False
    fx.trainmode(model)
    way(model, opt_state)
    close(model, MEAN, VAR)
    assert model[0].active is True
    model(X)  # in train mode outside too
    close(model, MEAN + 0.9 * MEAN, 0.9 * VAR + 0.1 * X.var(0, ddof=1))


def test_frozen_layers_use_and_keep_what_is_stored() -> None:
    for norm in (fx.BatchNorm(3), fx.InstanceNorm(3, affine=True, track_stats=True)):
        model, opt_state = made(norm)
        fx.freeze(opt_state.layers[0])
        x = X if isinstance(norm, fx.BatchNorm) else X[:, None]
        y = Y if isinstance(norm, fx.BatchNorm) else Y[:, None]
        stored = loss(model, x, y)  # in test mode
        before = stats(model)
        value = fx.trainstep(loss, model, (x, y), opt_state)
        np.testing.assert_allclose(value, stored, rtol=1e-6)
        assert all(np.array_equal(a, b) for a, b in zip(before, stats(model), strict=True))
    model, opt_state = made()
    fx.freeze(opt_state.layers[0])
    fx.trainmode(model)  # set by hand, that wins
    fx.trainstep(loss, model, (X, Y), opt_state)
    close(model, MEAN, VAR)


def test_thawed_layers_move_again() -> None:
    model, opt_state = made()
    fx.freeze(opt_state.layers[0])
    fx.trainstep(loss, model, (X, Y), opt_state)
    fx.thaw(opt_state)
    fx.trainstep(loss, model, (X, Y), opt_state)
    close(model, MEAN, VAR)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_guard_holds_statistics_back(bad: float) -> None:
    model, opt_state = made()
    fx.trainstep(loss, model, (X, Y), opt_state)
    before = jax.tree.leaves((model, opt_state))
    x = X.copy()
    x[0, 0] = bad
    assert not np.isfinite(fx.trainstep(loss, model, (x, Y), opt_state))
    with pytest.raises(fx.NonFiniteLoss):
        fx.train(loss, model, [(x, Y)], opt_state)
    for old, new in zip(before, jax.tree.leaves((model, opt_state)), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "layer, x",
    [(fx.BatchNorm(3), X[:1]), (fx.InstanceNorm(3, track_stats=True), X[:, None][:, :1])],
    ids=["BatchNorm", "InstanceNorm"],
)
def test_one_value_per_channel_is_refused_in_training(layer: Any, x: Any) -> None:
    model = fx.Chain(fx.Dense(3, 3), layer)
    opt_state = fx.setup(fx.Adam(), model)
    square = lambda m, x: jnp.sum(m(x) ** 2)
    for call in (
        lambda: fx.gradient(square, model, x),
        lambda: fx.trainstep(square, model, (x,), opt_state),
    ):
        with pytest.raises(ValueError, match=r"expects more than one .* at model\.layers\[1\]\."):
            call()
    assert model(x).shape == x.shape  # in test mode it is fine
    assert layer.mean.tolist() == [0, 0, 0]


def test_without_statistics_the_batch_is_all_there_is() -> None:
    bare = fx.BatchNorm(3, track_stats=False)
    np.testing.assert_allclose(np.asarray(bare(X)).mean(0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="one value per channel where it keeps no statistics"):
        bare(X[:1])
