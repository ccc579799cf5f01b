"""Fine-tuning: a trained encoder, a new head; freeze, thaw, different rates, a schedule.

    python examples/finetune.py

An encoder learns to tell how many periods a noisy wave has. Then its head is replaced by one for
another question, of which there are few labelled examples: does the wave start by rising? First the
new head is trained alone, with the encoder frozen; then both are, the encoder at a tenth of the
rate.
"""

from __future__ import annotations

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

import fluxax as fx

POSITIONS = 32


def waves(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy waves with one to eight periods, and whether they start by rising."""
    periods, rising = rng.integers(0, 8, n), rng.integers(0, 2, n)
    shift = rng.uniform(0, np.pi, n) + np.pi * rising
    place = np.arange(POSITIONS) / POSITIONS
    x = np.sin(2 * np.pi * (periods[:, None] + 1) * place - shift[:, None])
    return (x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32), periods, rising


def loss(m: Any, x: Any, y: Any) -> Any:
    return fx.logitcrossentropy(m(x), y)


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(fx.onecold(fx.compiled(lambda: model(x))()) == y))


def pretrained(x: np.ndarray, y: np.ndarray, epochs: int) -> fx.Chain:
    """A net that knows the periods, trained with a rate that warms up and then falls."""
    model = fx.Chain(
        enc=fx.Chain(fx.Dense(POSITIONS, 64, fx.relu), fx.Dense(64, 64, fx.relu)),
        head=fx.Dense(64, 8),
    )
    data = fx.DataLoader((x, y), batchsize=50, shuffle=True)
    steps = epochs * len(data)
    cosine = lambda step: 3e-3 * jnp.minimum((step + 1) / 20, jnp.cos(1.4 * step / steps))
    opt_state = fx.setup(fx.Adam(cosine), model)
    for _ in range(epochs):
        fx.train(loss, model, data, opt_state)
    return model


def main(epochs: int = 20) -> dict[str, float]:
    fx.seed(0)
    rng = np.random.default_rng(0)
    x, periods, _ = waves(2000, rng)
    model = pretrained(x, periods, epochs)

    x, _, rising = waves(400, rng)
    test_x, _, test_rising = waves(1000, rng)
    few = fx.DataLoader((x, rising), batchsize=40, shuffle=True)
    model.layers.head = fx.Dense(64, 2)  # another question
    found = {"new head": accuracy(model, test_x, test_rising)}

    opt_state = fx.setup(fx.AdamW(1e-2, lam=1e-2), model)
    fx.freeze(opt_state.layers.enc)
    before = model.layers.enc.layers[0].weight
    for _ in range(epochs):
        fx.train(loss, model, few, opt_state)
    assert model.layers.enc.layers[0].weight is before
    found["encoder frozen"] = accuracy(model, test_x, test_rising)

    fx.thaw(opt_state)
    fx.adjust(opt_state, 1e-3)
    fx.adjust(opt_state.layers.enc, 1e-4)
    for _ in range(epochs):
        fx.train(loss, model, few, opt_state)
    found["all, at two rates"] = accuracy(model, test_x, test_rising)
    for what, share in found.items():
        print(f"{what:18s} {share:6.1%}")
    return found


if __name__ == "__main__":
    main(2 if "--smoke" in sys.argv else 20)
