"""Both ways across: an Equinox model in our loop, and a model of ours in a plain Optax loop.

    python examples/interop.py

Needs Equinox and Optax: `pip install equinox optax`.
"""

from __future__ import annotations

import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import fluxax as fx


def spiral(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of a spiral, and which of them a point is on."""
    rng = np.random.default_rng(0)
    arm = rng.integers(0, 2, n)
    t = np.sqrt(rng.uniform(0.05, 1, n))
    angle = 5 * t + np.pi * arm
    x = np.stack([t * np.cos(angle), t * np.sin(angle)], -1) + 0.02 * rng.standard_normal((n, 2))
    return x.astype(np.float32), arm.astype(np.int32)


def accuracy(scores: Any, labels: np.ndarray) -> float:
    return float(np.mean(np.argmax(scores, -1) == labels))


def equinox_in_our_loop(x: np.ndarray, y: np.ndarray, steps: int) -> float:
    """An Equinox module cannot be changed in place, so `update` gives a new one back."""
    model = eqx.nn.MLP(2, 2, 32, 2, activation=jax.nn.tanh, key=jax.random.key(0))
    opt_state = fx.setup(fx.Adam(0.01), model)
    for _ in range(steps):
        grads = fx.gradient(lambda m: fx.logitcrossentropy(jax.vmap(m)(x), y), model)
        opt_state, model = fx.update(opt_state, model, grads[0])
    return accuracy(jax.vmap(model)(x), y)


def ours_in_an_optax_loop(x: np.ndarray, y: np.ndarray, steps: int) -> float:
    """A model of ours is a pytree, so JAX and Optax train it as they train any other."""
    fx.seed(0)
    model = fx.Chain(fx.Dense(2, 32, fx.tanh), fx.Dense(32, 32, fx.tanh), fx.Dense(32, 2))
    tx = optax.adam(0.01)
    state = tx.init(model)

    @jax.jit
    def step(model: Any, state: Any) -> tuple[Any, Any]:
        grads = jax.grad(lambda m: fx.logitcrossentropy(m(jnp.asarray(x)), y))(model)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(model, updates), state

    for _ in range(steps):
        model, state = step(model, state)
    return accuracy(model(x), y)


def main(steps: int = 400) -> list[float]:
    x, y = spiral()
    found = [equinox_in_our_loop(x, y, steps), ours_in_an_optax_loop(x, y, steps)]
    print(f"Equinox's model, our loop: {found[0]:.1%}")
    print(f"our model, Optax's loop:   {found[1]:.1%}")
    return found


if __name__ == "__main__":
    main(20 if "--smoke" in sys.argv else 400)
