"""Flux's page on training, topic by topic and in its order, as a user would write it here."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.training_page import arrays, batches, by_hand, cross, descend, net, problem, same

# --- the loop ------------------------------------------------------------------------------


def test_the_loop_gives_the_numbers_of_the_formula() -> None:
    model = net()
    expected = by_hand(model, batches(), descend)
    opt_state = fx.setup(fx.Descent(0.1), model)
    for data in batches():
        x, label = data
        grads = fx.gradient(lambda m: cross(m, x, label), model)
        fx.update(opt_state, model, grads[0])
    for got, want in zip(arrays(model), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_train_is_the_same_loop() -> None:
    written, trained = net(), net()
    opt_state = fx.setup(fx.Adam(0.1), written)
    for x, label in batches():
        grads = fx.gradient(lambda m: cross(m, x, label), written)
        fx.update(opt_state, written, grads[0])
    losses = fx.train(
        lambda m, x, y: cross(m, x, y), trained, batches(), fx.setup(fx.Adam(0.1), trained)
    )
    assert losses.shape == (3,)
    for a, b in zip(arrays(written), arrays(trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# --- model gradients -----------------------------------------------------------------------


def test_gradient_calls_f_with_all_arguments_and_gives_one_entry_each() -> None:
    grads = fx.gradient(lambda a, b: jnp.sum(a * b**2), jnp.array([1.0, 2.0]), jnp.array(3.0))
    assert isinstance(grads, tuple)
    assert len(grads) == 2
    assert grads[0].tolist() == [9.0, 9.0]
    assert float(grads[1]) == 18.0


def test_the_gradient_is_nested_like_the_model() -> None:
    model = net()
    x, y = problem()
    grads = fx.gradient(lambda m: cross(m, x, y), model)
    theta = lambda h: cross(_moved(model, h), x, y)
    slope = (float(theta(1e-2)) - float(theta(-1e-2))) / 2e-2
    assert float(grads[0].layers[0].weight[1, 2]) == pytest.approx(slope, rel=2e-3, abs=2e-5)
    assert grads[0].layers[0].activation is None
    assert [g.shape for g in jax.tree.leaves(grads[0])] == [a.shape for a in arrays(model)]


def _moved(model: Any, h: float) -> Any:
    w = model.layers[0].weight.at[1, 2].add(h)
    new = net()
    fx.loadmodel(new, model)
    new.layers[0].weight = w
    return new


def test_the_outer_model_has_no_influence() -> None:
    model = net()
    x, y = problem()
    with pytest.warns(UserWarning, match="does not depend on the model"):
        grads = fx.gradient(lambda m: cross(model, x, y), model)
    assert jax.tree.leaves(grads) == []


def test_a_new_gradient_at_every_step() -> None:
    model = net()
    x, y = problem()
    opt_state = fx.setup(fx.Descent(0.5), model)
    objective = lambda m: cross(m, x, y)
    first = fx.gradient(objective, model)[0].layers[1].bias
    fx.update(opt_state, model, fx.gradient(objective, model)[0])
    second = fx.gradient(objective, model)[0].layers[1].bias
    assert not np.array_equal(first, second)


def test_implicit_gradients_are_two_like_dictionaries() -> None:
    model = net()
    x, y = problem()
    pars = fx.params(model)
    grad = fx.gradient(lambda: cross(model, x, y), pars)
    explicit = fx.gradient(lambda m: cross(m, x, y), model)[0]
    for p, g in zip(pars, arrays(explicit), strict=True):
        np.testing.assert_allclose(grad[p], g, rtol=1e-5, atol=1e-6)


# --- loss functions ------------------------------------------------------------------------


def test_own_loss_and_library_losses() -> None:
    def loss(y_hat: Any, y: Any) -> Any:
        return ((y_hat - y) ** 2).sum()

    model = fx.Dense(4, 2, rng=1)
    x, y = problem()
    y = y.astype(np.float32)
    w, b = arrays(model)
    expected = 2 * x.T.astype(np.float64) @ (x @ w + b - y)
    own = fx.gradient(lambda m: loss(m(x), y), model)[0].weight
    library = fx.gradient(lambda m: fx.mse(m(x), y), model)[0].weight
    summed = fx.gradient(lambda m: fx.losses.mse(m(x), y, agg=sum), model)[0].weight
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(library, expected / y.size, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(summed, expected, rtol=1e-5, atol=1e-5)


def test_crossentropy_of_softmax_is_logitcrossentropy() -> None:
    model = fx.Chain(net(), fx.softmax)
    x, y = problem()
    a = fx.gradient(lambda m: fx.crossentropy(m(x), y), model)[0].layers[0]
    b = fx.gradient(lambda m: cross(m, x, y), model.layers[0])[0]
    for left, right in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)


def test_an_old_loss_reads_the_model_from_outside() -> None:
    model = fx.Dense(4, 2, rng=1)
    x, y = problem()
    loss = lambda x, y: ((model(x) - y) ** 2).sum()
    grad = fx.gradient(lambda: loss(x, y), fx.params(model))
    w, b = arrays(model)
    expected = 2 * x.T.astype(np.float64) @ (x @ w + b - y)
    np.testing.assert_allclose(grad[model.weight], expected, rtol=1e-5, atol=1e-5)


# --- optimisation rules --------------------------------------------------------------------


def test_update_by_hand_with_fmap() -> None:
    model, other = net(), net()
    x, y = problem()
    eta = 0.01
    grads = fx.gradient(lambda m: cross(m, x, y), model)
    fx.loadmodel(model, fx.fmap(lambda p, g: p - eta * g, model, grads[0]))
    fx.update(fx.setup(fx.Descent(eta), other), other, grads[0])
    for a, b in zip(arrays(model), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert not same(model, net())


def test_momentum_remembers() -> None:
    model = net()
    opt_state = fx.setup(fx.Momentum(0.01, 0.9), model)
    velocity = [np.zeros(a.shape) for a in arrays(model)]

    def step(parameters: Any, grads: Any) -> Any:
        velocity[:] = [0.9 * v + 0.01 * g for v, g in zip(velocity, grads, strict=True)]
        return tuple(p - v for p, v in zip(parameters, velocity, strict=True))

    expected = by_hand(model, batches(), step)
    for x, y in batches():
        grads = fx.gradient(lambda m: cross(m, x, y), model)
        fx.update(opt_state, model, grads[0])
    for got, want in zip(arrays(model), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    got = opt_state.layers[0].weight.state
    np.testing.assert_allclose(jax.tree.leaves(got)[0], velocity[0], rtol=1e-4, atol=1e-7)


def test_an_old_rule_keeps_its_state_itself() -> None:
    old, new = net(), net()
    opt, opt_state = fx.Momentum(0.01, 0.9), fx.setup(fx.Momentum(0.01, 0.9), new)
    for x, y in batches():
        pars = fx.params(old)
        fx.update(opt, pars, fx.gradient(lambda: cross(old, x, y), pars))
        fx.update(opt_state, new, fx.gradient(lambda m: cross(m, x, y), new)[0])
    for a, b in zip(arrays(old), arrays(new), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# --- datasets and batches ------------------------------------------------------------------


def test_a_list_of_tuples() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=28), draw.uniform(size=10)
    model = fx.Dense(28, 10)
    loss = lambda m, x, y: fx.mse(m(x), y)
    opt_state = fx.setup(fx.Descent(0.01), model)
    assert fx.train(loss, model, [(x, y)], opt_state).shape == (1,)
    losses = fx.train(loss, model, [(x, y), (x, y), (x, y)], opt_state)
    assert losses[0] > losses[1] > losses[2]


def test_zip_of_slices() -> None:
    draw = np.random.default_rng(0)
    X, Y = draw.uniform(size=(28, 28, 60)).astype("f4"), draw.uniform(size=(10, 60)).astype("f4")
    data = lambda: zip(np.moveaxis(X, -1, 0), Y.T)
    x, y = next(data())
    assert x.shape == (28, 28)
    assert y.shape == (10,)
    model = fx.Chain(lambda x: x.reshape(-1), fx.Dense(784, 10))
    loss = lambda m, x, y: fx.mse(m(x), y)
    losses = fx.train(loss, model, data(), fx.setup(fx.Descent(0.001), model))
    assert losses.shape == (60,)
    assert fx.trainables(model)[0].shape == (784, 10)


def test_the_loader_has_1875_batches() -> None:
    X, Y = np.zeros((28, 28, 60_000), np.uint8), np.zeros((10, 60_000), bool)
    data = fx.DataLoader((X, Y), batchsize=32, axis=-1)
    x1, y1 = next(iter(data))
    assert x1.shape == (28, 28, 32)
    assert y1.shape == (10, 32)
    assert len(data) == 1875 == 60_000 // 32
    first = fx.DataLoader((np.zeros((60_000, 3)), np.arange(60_000)), batchsize=32)
    assert len(first) == 1875
    assert next(iter(first))[1].tolist() == list(range(32))


# --- training loops ------------------------------------------------------------------------


def accuracy(model: Any, data: Any) -> float:
    hits = [fx.onecold(np.asarray(model(x))) == fx.onecold(y) for x, y in data]
    return float(np.mean(np.concatenate(hits)))


def test_epochs_of_train() -> None:
    model = net()
    opt_state = fx.setup(fx.Adam(0.05), model)
    for _ in range(40):
        fx.train(lambda m, x, y: cross(m, x, y), model, batches(), opt_state)
    assert accuracy(model, batches()) == 1.0


def test_a_loop_with_log_break_and_continue(capsys: pytest.CaptureFixture[str]) -> None:
    model = net()
    bad = (np.full((4, 4), np.inf, np.float32), batches()[0][1])
    train_set = [*batches(), bad]
    opt_state = fx.setup(fx.Adam(0.05), model)
    my_log: list[dict[str, Any]] = []
    skipped = 0
    for epoch in range(100):
        losses = []
        for data in train_set:
            x, label = data
            val, grads = fx.withgradient(lambda m: cross(m, x, label), model)
            losses.append(val)
            if not math.isfinite(val):
                skipped += 1
                continue
            fx.update(opt_state, model, grads[0])
        acc = accuracy(model, batches())
        my_log.append({"acc": acc, "losses": losses})
        if acc > 0.95:
            print(f"stopping after {epoch + 1} epochs, loss {losses[0]:.3f}")
            break
    assert 1 < len(my_log) < 100
    assert skipped == len(my_log)
    assert all(np.isfinite(a).all() for a in arrays(model))
    assert my_log[-1]["acc"] > 0.95 >= my_log[-2]["acc"]
    assert "stopping after" in capsys.readouterr().out


def test_the_old_method_of_train() -> None:
    old, new = net(), net()
    fx.train(lambda x, y: cross(old, x, y), fx.params(old), batches(), fx.Adam())
    fx.train(cross, new, batches(), fx.setup(fx.Adam(), new))
    for a, b in zip(arrays(old), arrays(new), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not same(old, net())
