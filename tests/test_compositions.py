"""Accumulation, schedules, the global norm, decay, averages and mixed precision, in pairs.

Each against one reference loop in float64 NumPy, through `update` and through `trainstep`.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

N, OMEGA, LAM, GAMMA, BETA, EPSILON = 2, 0.9, 0.3, 0.6, (0.7, 0.9), 0.1
SHAPES = {"small": (3,), "flat": (2, 3), "large": (70, 70), "ice": (4,)}
FEATURES = ("accumulate", "schedule", "clip", "decay", "average", "mixed")
TURNS = 5
HELD = 2  # the turn whose loss is not finite, in `trainstep`


def rate(step: Any) -> Any:
    return 0.1 / (1 + step)


def rule_of(features: Any) -> Any:
    """The chain, in the order in which one would write it."""
    rules = [
        fx.EMA(GAMMA) if "average" in features else None,  # it watches, wherever it stands
        fx.AccumGrad(N) if "accumulate" in features else None,
        fx.ClipGlobalNorm(OMEGA) if "clip" in features else None,
        fx.WeightDecay(LAM) if "decay" in features else None,
        fx.Adam(rate if "schedule" in features else 0.1, BETA, EPSILON),
    ]
    chain = fx.OptimiserChain(*(r for r in rules if r is not None))
    return fx.MixedPrecision(chain) if "mixed" in features else chain


def problem(features: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters and gradients, which bfloat16 holds exactly."""
    draw = np.random.default_rng(0)
    coarse = lambda *shape: np.round(draw.normal(size=shape) * 32) / 32
    dtype = jnp.bfloat16 if "mixed" in features else jnp.float32
    xs = {k: jnp.asarray(np.clip(coarse(*s), -2, 2), dtype) for k, s in SHAPES.items()}
    gs = [{k: jnp.asarray(coarse(*s), dtype) for k, s in SHAPES.items()} for _ in range(TURNS)]
    return xs, gs


class Reference:
    """The loop in NumPy, one array at a time, as one would explain it."""

    def __init__(self, features: Any, xs: dict[str, Any]):
        self.features = features
        self.z = {k: np.float64(x) for k, x in xs.items() if k != "ice"}
        zeros = {k: np.zeros_like(z) for k, z in self.z.items()}
        self.m, self.v, self.sum = dict(zeros), dict(zeros), dict(zeros)
        self.average = dict(self.z)
        self.seen = self.steps = 0

    def step(self, gs: dict[str, Any]) -> None:
        g = {k: np.float64(gs[k]) for k in self.z}
        if "accumulate" in self.features:
            self.seen += 1
            self.sum = {k: s + g[k] / N for k, s in self.sum.items()}
            if self.seen < N:
                return
            g, self.seen = self.sum, 0
            self.sum = {k: np.zeros_like(s) for k, s in g.items()}
        if "clip" in self.features:
            size = np.sqrt(sum(np.sum(a**2) for a in g.values()))
            g = {k: a * min(1, OMEGA / size) for k, a in g.items()}
        if "decay" in self.features:
            g = {k: a + LAM * self.z[k] for k, a in g.items()}
        eta = rate(self.steps) if "schedule" in self.features else 0.1
        self.steps += 1
        for k, a in g.items():
            self.m[k] = BETA[0] * self.m[k] + (1 - BETA[0]) * a
            self.v[k] = BETA[1] * self.v[k] + (1 - BETA[1]) * a**2
            m, v = self.m[k] / (1 - BETA[0] ** self.steps), self.v[k] / (1 - BETA[1] ** self.steps)
            self.z[k] = self.z[k] - eta * m / (np.sqrt(v) + EPSILON)
            self.average[k] = GAMMA * self.average[k] + (1 - GAMMA) * self.z[k]


def loss(model: Any, c: Any, factor: Any) -> Any:
    """Its gradient is c."""
    return factor * sum(jnp.sum(model[k].astype("f4") * c[k]) for k in model)


def compare(ours: Any, reference: Reference, model: Any, features: Any) -> None:
    for k, z in reference.z.items():
        leaf = ours[k]
        assert leaf.steps == reference.steps
        if "mixed" in features:
            copy = leaf.state[0]
            np.testing.assert_allclose(copy, z, rtol=1e-5, atol=1e-5)
            assert bool(jnp.all(model[k] == copy.astype(jnp.bfloat16)))
        else:
            np.testing.assert_allclose(model[k], z, rtol=1e-5, atol=1e-5)
    if "average" in features:
        found = fx.ema(ours, model)
        for k, a in reference.average.items():
            tolerance = 1e-2 if "mixed" in features else 1e-5
            np.testing.assert_allclose(np.float64(found[k]), a, rtol=tolerance, atol=tolerance)
        assert found["ice"].tolist() == model["ice"].tolist()


PAIRS = [*itertools.combinations(FEATURES, 2), FEATURES]


@pytest.mark.parametrize("features", PAIRS, ids="+".join)
def test_update_is_the_reference_loop(features: Any) -> None:
    model, gs = problem(features)
    opt_state, reference = fx.setup(rule_of(features), model), Reference(features, model)
    fx.freeze(opt_state["ice"])
    before = model["ice"]
    for g in gs:
        fx.update(opt_state, model, g)
        reference.step(g)
    compare(opt_state, reference, model, features)
    assert model["ice"] is before


@pytest.mark.parametrize("features", PAIRS, ids="+".join)
def test_trainstep_is_the_reference_loop(features: Any) -> None:
    """One of its steps is held back, which counts nowhere."""
    model, gs = problem(features)
    opt_state, reference = fx.setup(rule_of(features), model), Reference(features, model)
    fx.freeze(opt_state["ice"])
    for turn, g in enumerate(gs):
        factor = np.float32(np.nan if turn == HELD else 1)
        fx.trainstep(loss, model, (g, factor), opt_state)
        if turn != HELD:
            reference.step(g)
    compare(opt_state, reference, model, features)
