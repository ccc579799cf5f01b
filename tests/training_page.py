"""The problem that the tests of Flux's training page are about: two classes, a small net."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import fluxax as fx


def problem(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and the labels of two classes that a line divides."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(n, 4)).astype(np.float32)
    return x, fx.onehotbatch((x[:, 0] + 0.5 * x[:, 2] > 0).astype(int), [0, 1])


def batches(n: int = 12, size: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = problem(n)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, n, size)]


def net() -> fx.Chain:
    return fx.Chain(fx.Dense(4, 5, fx.tanh, rng=1), fx.Dense(5, 2, rng=2))


def bimodel() -> fx.Chain:
    return fx.Chain(enc=fx.Dense(4, 3, fx.tanh, rng=1), dec=fx.Dense(3, 2, rng=2))


def cross(m: Any, x: Any, y: Any) -> Any:
    return fx.logitcrossentropy(m(x), y)


def arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(tree)]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def by_hand(model: Any, data: Any, step: Any) -> list[np.ndarray]:
    """Weights after a pass in float64 NumPy: tanh, then softmax cross-entropy."""
    w1, b1, w2, b2 = (a.astype(np.float64) for a in arrays(model))
    for x, y in data:
        h = np.tanh(x @ w1 + b1)
        z = h @ w2 + b2
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        dz = (p - y) / len(x)
        dh = (dz @ w2.T) * (1 - h**2)
        w1, b1, w2, b2 = step((w1, b1, w2, b2), (x.T @ dh, dh.sum(0), h.T @ dz, dz.sum(0)))
    return [w1, b1, w2, b2]


def descend(parameters: Any, grads: Any) -> Any:
    return tuple(p - 0.1 * g for p, g in zip(parameters, grads, strict=True))
