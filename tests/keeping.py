"""What the tests of checkpoints have in common."""

from __future__ import annotations

import jax
import numpy as np

import fluxax as fx


def net():
    return fx.Chain(fx.Dense(4, 3, fx.tanh), fx.BatchNorm(3), fx.Dropout(0.4), fx.Dense(3, 2))


def scrambled(tree):
    """A tree with other numbers in its floating arrays, in place."""
    rng = np.random.default_rng(1)
    other = lambda a: jax.device_put(rng.normal(size=a.shape).astype(a.dtype))
    return fx.loadmodel(tree, fx.fmap(lambda a: a if a.dtype.kind == "u" else other(a), tree))


def arrays(tree):
    return [np.asarray(a) for a in jax.tree.leaves(fx.state(tree))]


def equal(a, b):
    """Whether two trees have the same bits."""
    a, b = arrays(a), arrays(b)
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


class Foreign:
    """Somebody else's loader."""

    def __init__(self, at=0, broken=False):
        self.at, self.broken = at, broken

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]
        if self.broken:
            raise RuntimeError("no such place")
