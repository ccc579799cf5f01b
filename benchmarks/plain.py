"""The reference: a training step as one writes it by hand for `jax.jit`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from works import BETA, EPSILON, ETA, Work


def scores(params: Any, x: Any) -> Any:
    """The net: products and offsets, relu between."""
    for w, b in params[:-1]:
        x = jnp.maximum(x @ w + b, 0)
    w, b = params[-1]
    return x @ w + b


def cross_entropy(params: Any, x: Any, y: Any) -> Any:
    """The mean over the batch of -log p(label)."""
    logp = jax.nn.log_softmax(scores(params, x))
    return -jnp.mean(jnp.take_along_axis(logp, y[:, None], axis=1))


def squared_error(params: Any, x: Any, y: Any) -> Any:
    """The mean of (ŷ - y)²."""
    return jnp.mean((scores(params, x) - y) ** 2)


def loss_of(work: Work) -> Any:
    """The loss of a work."""
    return cross_entropy if work.classes else squared_error


def adam(x: Any, dx: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
    """One array's step."""
    m = BETA[0] * m + (1 - BETA[0]) * dx
    v = BETA[1] * v + (1 - BETA[1]) * dx * dx
    rate = ETA / (1 - BETA[0] ** t)
    root = jnp.sqrt(v / (1 - BETA[1] ** t)) + EPSILON
    return x - rate * m / root, m, v


def step_of(loss: Any) -> Any:
    """The step: parameters and state are given away, so that XLA writes into their memory."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        ms, vs, t = state
        value, grads = jax.value_and_grad(loss)(params, x, y)
        t = t + 1
        tree = jax.tree.structure(params)
        flat = [jax.tree.leaves(part) for part in (params, grads, ms, vs)]
        new = [adam(*arrays, t) for arrays in zip(*flat, strict=True)]
        params, ms, vs = (jax.tree.unflatten(tree, part) for part in zip(*new, strict=True))
        return value, params, (ms, vs, t)

    return step


class Plain:
    """The hand-written step, in a loop over batches that lie on the device."""

    name = "hand-written jax.jit"

    def __init__(self, work: Work):
        self.loss = loss_of(work)
        self.step = step_of(self.loss)
        self.params = jax.tree.map(jnp.asarray, work.weights())
        nothing = lambda: jax.tree.map(jnp.zeros_like, self.params)
        self.state = (nothing(), nothing(), jnp.float32(0))
        self.batches = jax.tree.map(jnp.asarray, work.batches())

    def run(self, steps: int) -> float:
        """Train; the last loss."""
        value: Any = None
        step, params, state = self.step, self.params, self.state
        for x, y in self.batches[:steps]:
            value, params, state = step(params, state, x, y)
        self.params, self.state = jax.block_until_ready((params, state))
        return float(value)

    def gradient(self) -> list[np.ndarray]:
        """The gradient of the first batch, as plain autodiff gives it."""
        grads = jax.jit(jax.grad(self.loss))(self.params, *self.batches[0])
        return [np.asarray(g) for g in jax.tree.leaves(grads)]
