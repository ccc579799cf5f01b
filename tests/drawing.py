"""What the tests of random numbers in objectives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import fluxax as fx
from fluxax import _random
from tests.drawing_alone import Noise

W = jnp.ones(3)


def calls() -> int:
    """How many calls have drawn since the seed."""
    return _random.position()["calls"]


def traces() -> int:
    assert all(record.compiled for record in fx.explain()), fx.explain()
    return sum(record.traces for record in fx.explain())


def drawn(make: Callable[[], Any], n: int = 3) -> np.ndarray:
    """What `make` gives inside an objective, at `n` calls after the same seed."""
    fx.seed(1)
    values = [fx.withgradient(lambda w: (jnp.sum(w), make()), W).val[1] for _ in range(n)]
    return np.stack([np.asarray(v) for v in values])


def all_differ(rows: Any) -> bool:
    rows = [np.asarray(row).tobytes() for row in rows]
    return len(set(rows)) == len(rows)


#: What may be made in an objective, and the numbers that it has of its own.
MADE: dict[str, Callable[[], Any]] = {
    "randn32": lambda: fx.randn32(4),
    "rand32": lambda: fx.rand32(4),
    "glorot_uniform": lambda: fx.glorot_uniform(3, 4),
    "glorot_normal": lambda: fx.glorot_normal(3, 4),
    "kaiming_uniform": lambda: fx.kaiming_uniform(3, 4),
    "kaiming_normal": lambda: fx.kaiming_normal(3, 4),
    "lecun_normal": lambda: fx.lecun_normal(3, 4),
    "truncated_normal": lambda: fx.truncated_normal(3, 4, mean=1),
    "orthogonal": lambda: fx.orthogonal(3, 4),
    "sparse_init": lambda: fx.sparse_init(9, 4, sparsity=0.5),
    "an initialiser": lambda: fx.glorot_uniform(gain=2)(3, 4),
    "Dense": lambda: fx.Dense(3, 4).weight,
    "Dense with init": lambda: fx.Dense(3, 4, init=fx.lecun_normal).weight,
    "Bilinear": lambda: fx.Bilinear((2, 3), 4).weight,
    "Embedding": lambda: fx.Embedding(5, 4).weight,
    "Conv": lambda: fx.Conv((3, 3), 1, 4).weight,
    "ConvTranspose": lambda: fx.ConvTranspose((3, 3), 1, 4).weight,
    "LSTM": lambda: fx.LSTM(3, 4)(jnp.ones((1, 5, 3))),
    "GRU": lambda: fx.GRU(3, 4)(jnp.ones((1, 5, 3))),
    "RNN": lambda: fx.RNN(3, 4)(jnp.ones((1, 5, 3))),
    "MultiHeadAttention": lambda: fx.MultiHeadAttention(8)(jnp.ones((1, 5, 8))),
    "WeightNorm": lambda: fx.WeightNorm(fx.Dense(3, 4))(W),
    "Maxout": lambda: fx.Maxout(lambda: fx.Dense(3, 4), 3)(W),
    "Chain": lambda: fx.Chain(fx.Dense(3, 4, fx.tanh), fx.Dense(4, 4))(W),
    "Dropout": lambda: fx.Dropout(0.5)(jnp.ones(64)),
    "AlphaDropout": lambda: fx.AlphaDropout(0.5)(jnp.ones(64)),
    "a stream": lambda: fx.Dropout(0.5).stream,
    "own layer": lambda: Noise()(W),
}
