"""A line through noisy points: everything a training run needs, in 40 lines.

python examples/line.py
"""

from __future__ import annotations

import numpy as np

import fluxax as fx


def points(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Points near y = 4 x + 2."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (n, 1)).astype(np.float32)
    return x, 4 * x + 2 + 0.1 * rng.standard_normal((n, 1), np.float32)


def fit(epochs: int) -> fx.Dense:
    """The line that is nearest to the points, found step by step."""
    fx.seed(0)
    data = fx.DataLoader(points(), batchsize=20, shuffle=True)
    model = fx.Dense(1, 1)
    opt_state = fx.setup(fx.Descent(0.1), model)
    for epoch in range(epochs):
        for x, y in data:
            loss, grads = fx.withgradient(lambda m: fx.mse(m(x), y), model)
            fx.update(opt_state, model, grads[0])
        print(f"epoch {epoch + 1}: loss {loss:.4f}")
    return model


def main(epochs: int = 20) -> tuple[float, float]:
    model = fit(epochs)
    slope, offset = model.weight.item(), model.bias.item()
    print(f"y = {slope:.2f} x + {offset:.2f}")
    return slope, offset


if __name__ == "__main__":
    main()
