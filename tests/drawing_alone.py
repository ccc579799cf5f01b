"""A run with noise in its loss, of which one part or the other is done in a process of its own.

    python tests/drawing_alone.py path

goes on from the checkpoint to the end and prints what the parameters are, bit for bit.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np

import fluxax as fx

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")


class Noise(fx.Module):
    """A random layer of one's own."""

    def __call__(self, x):
        return x + 0.3 * fx.randn32(*x.shape) if fx.is_training(self) else x


def loss(m, x):
    return fx.mse(fx.Dropout(0.2)(m(x)), x)


class Run:
    """A model, its state and a loader."""

    def __init__(self, seed: int):
        fx.seed(seed)
        self.model = fx.Chain(fx.Dense(3, 6, fx.tanh), Noise(), fx.Dense(6, 3))
        self.opt_state = fx.setup(fx.Adam(0.01), self.model)
        self.loader = fx.DataLoader((X,), batchsize=8, shuffle=True)

    def things(self) -> dict[str, Any]:
        return {"model": self.model, "opt_state": self.opt_state, "loader": self.loader}

    def epoch(self) -> None:
        """A pass in pieces, and two steps of other kinds."""
        fx.train(loss, self.model, self.loader, self.opt_state)
        fx.trainstep(loss, self.model, X[:8], self.opt_state)
        _, grads = fx.withgradient(lambda m: loss(m, X[:5]), self.model)
        fx.update(self.opt_state, self.model, grads[0])

    def end(self) -> str:
        return b"".join(np.asarray(a).tobytes() for a in jax.tree.leaves(self.model)).hex()


if __name__ == "__main__":
    run = Run(seed=99)  # nothing may come from this seed
    fx.load(sys.argv[1], **run.things())
    run.epoch()
    print(run.end())
