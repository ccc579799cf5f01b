"""A GAN: two models in turns, each loss reading the other model, as plain JAX trains them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fluxax as fx

_RNG = np.random.default_rng(0)
REAL = jnp.asarray(_RNG.normal(2.0, 0.5, (6, 8, 2)), jnp.float32)  # six batches
NOISE = jnp.asarray(_RNG.normal(size=(6, 8, 3)), jnp.float32)


def nets() -> tuple[Any, Any]:
    fx.seed(0)
    maker = fx.Chain(fx.Dense(3, 8, jnp.tanh), fx.Dense(8, 2))
    critic = fx.Chain(fx.Dense(2, 8, jnp.tanh), fx.Dense(8, 1))
    return maker, critic


def arrays(m: Any) -> list[Any]:
    return [a for layer in m.layers for a in (layer.weight, layer.bias)]


def run(p: list[Any], x: Any) -> Any:
    return jnp.tanh(x @ p[0] + p[1]) @ p[2] + p[3]


def bits(scores: Any, label: float) -> Any:
    return jnp.mean(jax.nn.softplus(scores) - label * scores)


def plainly() -> tuple[list[Any], list[Any], list[float]]:
    """The parameters of both and all losses, by `jax.grad` and Optax."""
    p, q = map(arrays, nets())
    rule = optax.adam(0.01)
    states, losses = [rule.init(p), rule.init(q)], []
    for real, noise in zip(REAL, NOISE, strict=True):
        judge = lambda q: bits(run(q, real), 1.0) + bits(run(q, run(p, noise)), 0.0)
        fool = lambda p: bits(run(q, run(p, noise)), 1.0)
        loss, grads = jax.value_and_grad(judge)(q)
        step, states[1] = rule.update(grads, states[1])
        q = optax.apply_updates(q, step)
        losses.append(loss)
        loss, grads = jax.value_and_grad(fool)(p)
        step, states[0] = rule.update(grads, states[0])
        p = optax.apply_updates(p, step)
        losses.append(loss)
    return p, q, losses


@pytest.mark.parametrize("way", ["withgradient", "trainstep", "train", "uncompiled"])
def test_each_sees_the_other_as_it_is_now(way: str) -> None:
    maker, critic = nets()
    made, judged = fx.setup(fx.Adam(0.01), maker), fx.setup(fx.Adam(0.01), critic)

    def judge(c: Any, real: Any, noise: Any) -> Any:
        real_loss = fx.logitbinarycrossentropy(c(real), jnp.ones((8, 1)))
        return real_loss + fx.logitbinarycrossentropy(c(maker(noise)), jnp.zeros((8, 1)))

    def fool(m: Any, noise: Any) -> Any:
        return fx.logitbinarycrossentropy(critic(m(noise)), jnp.ones((8, 1)))

    def step(loss: Any, model: Any, batch: Any, state: Any) -> Any:
        if way == "trainstep":
            return fx.trainstep(loss, model, batch, state)
        if way == "train":
            return fx.train(loss, model, [batch], state)[0]
        val, grads = fx.withgradient(lambda m: loss(m, *batch), model)
        fx.update(state, model, grads[0])
        return val

    fx.clear_cache()
    losses = []
    with fx.eager() if way == "uncompiled" else fx.strict():
        for real, noise in zip(REAL, NOISE, strict=True):
            losses.append(step(judge, critic, (real, noise), judged))
            losses.append(step(fool, maker, (noise,), made))
    p, q, want = plainly()
    np.testing.assert_allclose(losses, want, rtol=1e-4)
    for a, b in zip(arrays(maker) + arrays(critic), p + q, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    if way != "uncompiled":
        assert sum(r.traces for r in fx.explain()) == 2
