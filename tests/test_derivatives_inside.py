"""Derivatives inside derivatives: the same as plain JAX's, compiled, uncompiled, and in training.

Each case is an objective of a model, and the same function of its arrays written with `jax.grad`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fluxax as fx

_RNG = np.random.default_rng(0)
X = jnp.asarray(_RNG.normal(size=(8, 3)), jnp.float32)
Y = jnp.asarray(_RNG.normal(size=(8, 1)), jnp.float32)
TIMES = jnp.array([0.1, 0.5])
Arrays = list[Any]


def net() -> Any:
    fx.seed(0)
    return fx.Chain(fx.Dense(3, 8, jnp.tanh), fx.Dense(8, 1))


def arrays(m: Any) -> Arrays:
    return [a for layer in m.layers for a in (layer.weight, layer.bias)]


def plain(p: Arrays, x: Any) -> Any:
    return jnp.tanh(x @ p[0] + p[1]) @ p[2] + p[3]


def plain_loss(p: Arrays, x: Any, y: Any) -> Any:
    return jnp.mean((plain(p, x) - y) ** 2)


Case = tuple[Callable[[Any, Any, Any], Any], Callable[[Arrays, Any, Any], Any]]
CASES: dict[str, Case] = {}


# --- penalties -----------------------------------------------------------------------------

CASES["gradient penalty by the input"] = (
    lambda m, x, y: fx.mse(m(x), y) + jnp.sum(fx.gradient(lambda z: jnp.sum(m(z)), x)[0] ** 2),
    lambda p, x, y: plain_loss(p, x, y) + jnp.sum(jax.grad(lambda z: jnp.sum(plain(p, z)))(x) ** 2),
)
CASES["gradient penalty by the model"] = (
    lambda m, x, y: sum(
        jnp.sum(g**2) for g in jax.tree.leaves(fx.gradient(lambda q: fx.mse(q(x), y), m)[0])
    ),
    lambda p, x, y: sum(jnp.sum(g**2) for g in jax.grad(lambda q: plain_loss(q, x, y))(p)),
)
CASES["the value of an inner withgradient"] = (
    lambda m, x, y: fx.withgradient(lambda z: fx.mse(m(z), y), x).val,
    plain_loss,
)
CASES["an inner compiled"] = (
    lambda m, x, y: fx.compiled(lambda z: fx.mse(m(z), y))(x),
    plain_loss,
)


# --- physics: second derivatives by time ----------------------------------------------------


def at(m: Any, t: Any) -> Any:
    return m(jnp.stack([t, t * t, jnp.ones_like(t)])[None])[0, 0]


def plain_at(p: Arrays, t: Any) -> Any:
    return plain(p, jnp.stack([t, t * t, jnp.ones_like(t)])[None])[0, 0]


def second(m: Any, t: Any) -> Any:
    first = lambda s: fx.gradient(lambda r: at(m, r), s)[0]
    return fx.gradient(first, t)[0]


def plain_second(p: Arrays, t: Any) -> Any:
    return jax.grad(jax.grad(lambda s: plain_at(p, s)))(t)


CASES["an oscillator at single times"] = (
    lambda m, x, y: sum((second(m, t) + at(m, t)) ** 2 for t in TIMES),
    lambda p, x, y: sum((plain_second(p, t) + plain_at(p, t)) ** 2 for t in TIMES),
)
CASES["an oscillator by vmap"] = (
    lambda m, x, y: jnp.mean(jax.vmap(lambda t: second(m, t) + at(m, t))(TIMES) ** 2),
    lambda p, x, y: jnp.mean(jax.vmap(lambda t: plain_second(p, t) + plain_at(p, t))(TIMES) ** 2),
)


# --- learning to learn ----------------------------------------------------------------------


def adapted(rule: Any, steps: int = 2) -> Callable[[Any, Any, Any], Any]:
    def loss(m: Any, x: Any, y: Any) -> Any:
        q = fx.fmap(lambda w: w, m)
        state = fx.setup(rule, q)
        for _ in range(steps):
            grads = fx.gradient(lambda q: fx.mse(q(x[::2]), y[::2]), q)
            fx.update(state, q, grads[0])
        return fx.mse(q(x[1::2]), y[1::2])

    return loss


def plainly_adapted(rule: Any, steps: int = 2) -> Callable[[Arrays, Any, Any], Any]:
    def loss(p: Any, x: Any, y: Any) -> Any:
        state = rule.init(p)
        for _ in range(steps):
            grads = jax.grad(plain_loss)(p, x[::2], y[::2])
            step, state = rule.update(grads, state, p)
            p = optax.apply_updates(p, step)
        return plain_loss(p, x[1::2], y[1::2])

    return loss


def by_hand(m: Any, x: Any, y: Any) -> Any:
    log = []

    def inner(q: Any) -> Any:
        log.append(fx.mse(q(x[::2]), y[::2]))
        return log[-1]

    grads = fx.gradient(inner, m)[0]
    return fx.mse(fx.fmap(lambda w, d: w - 0.1 * d, m, grads)(x[1::2]), y[1::2])


CASES["MAML with Descent"] = adapted(fx.Descent(0.1)), plainly_adapted(optax.sgd(0.1))
CASES["MAML with Momentum"] = (
    adapted(fx.Momentum(0.1, 0.9)),
    plainly_adapted(optax.sgd(0.1, 0.9)),
)
CASES["MAML with Adam"] = adapted(fx.Adam(0.01)), plainly_adapted(optax.adam(0.01))
DECAY: Any = optax.linear_schedule(0.1, 0.0, 4)
CASES["MAML with a schedule"] = (
    adapted(fx.Descent(DECAY), 3),
    plainly_adapted(optax.sgd(DECAY), 3),
)
CASES["MAML with clipping"] = (
    adapted(fx.OptimiserChain(fx.ClipGlobalNorm(0.1), fx.Descent(0.5))),
    plainly_adapted(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5))),
)
CASES["MAML by hand, with a log"] = by_hand, plainly_adapted(optax.sgd(0.1), 1)


def close(mine: Arrays, want: Arrays) -> None:
    norm = np.sqrt(sum(float(jnp.sum(w**2)) for w in want))
    for a, b in zip(mine, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * norm)


@pytest.mark.parametrize("way", ["compiled", "uncompiled"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_what_plain_jax_says(name: str, way: str) -> None:
    f, reference = CASES[name]
    m = net()
    want, slopes = jax.value_and_grad(reference)(arrays(m), X, Y)
    fx.clear_cache()
    for _ in range(2):
        with fx.eager() if way == "uncompiled" else fx.strict():
            val, grads = fx.withgradient(lambda m: f(m, X, Y), m)
        np.testing.assert_allclose(val, want, rtol=1e-5)
        close(arrays(grads[0]), slopes)
    if way == "compiled":
        assert [r.traces for r in fx.explain()] == [1]


@pytest.mark.parametrize("way", ["trainstep", "train", "in pieces"])
@pytest.mark.parametrize(
    "name", ["gradient penalty by the input", "an oscillator by vmap", "MAML with Adam"]
)
def test_it_trains(name: str, way: str) -> None:
    f, reference = CASES[name]
    m, eta = net(), 0.01
    p, want = arrays(m), []
    for _ in range(3):
        loss, slopes = jax.value_and_grad(reference)(p, X, Y)
        p = [w - eta * d for w, d in zip(p, slopes, strict=True)]
        want.append(loss)
    opt_state = fx.setup(fx.Descent(eta), m)
    if way == "trainstep":
        losses = [fx.trainstep(f, m, (X, Y), opt_state) for _ in range(3)]
    elif way == "train":
        losses = fx.train(f, m, [(X, Y)] * 3, opt_state)
    else:
        data = tuple(np.tile(np.asarray(a), (3, 1)) for a in (X, Y))
        losses = fx.train(f, m, fx.DataLoader(data, batchsize=8), opt_state)
    np.testing.assert_allclose(losses, want, rtol=1e-4)
    close(arrays(m), p)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["compiled", "uncompiled"])
def test_a_rate_is_learnt(way: str) -> None:
    m = net()

    def f(eta: Any) -> Any:
        q = fx.fmap(lambda w: w, m)
        state = fx.setup(fx.Momentum(0.1, 0.9), q)
        fx.adjust(state, eta)
        for _ in range(2):
            grads = fx.gradient(lambda q: fx.mse(q(X[::2]), Y[::2]), q)
            fx.update(state, q, grads[0])
        return fx.mse(q(X[1::2]), Y[1::2])

    slow = lambda eta: plainly_adapted(optax.sgd(eta, 0.9))(arrays(m), X, Y)
    with fx.eager() if way == "uncompiled" else fx.strict():
        for eta in (0.1, 0.2):
            val, grads = fx.withgradient(f, eta)
            want, slope = jax.value_and_grad(slow)(eta)
            np.testing.assert_allclose((val, grads[0]), (want, slope), rtol=1e-4)


@pytest.mark.parametrize("way", ["compiled", "uncompiled"])
def test_a_state_from_outside_is_refused_inside(way: str) -> None:
    m = net()
    state = fx.setup(fx.Adam(), m)
    before = [np.asarray(a) for a in jax.tree.leaves(state.layers[0].weight.state)]

    def f(q: Any) -> Any:
        grads = fx.gradient(lambda q: fx.mse(q(X), Y), q)
        fx.update(state, q, grads[0])
        return fx.mse(q(X), Y)

    sentence = (
        r"update expects a state that was made in the objective .*, got one from outside at "
        r"model\.layers\[0\]\.weight\. Call update after gradient"
    )
    with fx.eager() if way == "uncompiled" else warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TypeError, match=sentence):
            fx.gradient(f, m)
    after = jax.tree.leaves(state.layers[0].weight.state)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    fx.update(state, m, fx.gradient(lambda q: fx.mse(q(X), Y), m)[0])


@pytest.mark.slow
def test_another_model_can_be_trained_inside_as_an_effect() -> None:
    m, other = net(), fx.Dense(3, 1, init=fx.ones32)
    state = fx.setup(fx.Descent(0.1), other)

    def f(q: Any) -> Any:
        grads = fx.gradient(lambda o: jnp.mean(o(X) ** 2), other)
        fx.update(state, other, grads[0])
        return fx.mse(q(X), Y)

    want = other.weight - 0.1 * fx.gradient(lambda o: jnp.mean(o(X) ** 2), other)[0].weight
    with pytest.warns(UserWarning, match="runs uncompiled"):
        fx.gradient(f, m)
    np.testing.assert_allclose(other.weight, want, rtol=1e-6)
