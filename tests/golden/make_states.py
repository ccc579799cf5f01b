"""Writes states_1.safetensors: states as they were kept before 0.1.1, which later versions read.

python tests/golden/make_states.py, with such a version. It noted a step count where there is a
product of decays now, and states of float16 and bfloat16 parameters in their own dtype.
"""

import copy
import math
from pathlib import Path

import jax.numpy as jnp

import fluxax as fx

RULES = {
    "adam": fx.Adam(0.1), "adamw": fx.AdamW(0.1, lam=0.1), "radam": fx.RAdam(0.1, (0.9, 0.95)),
    "adamax": fx.AdaMax(0.1), "oadam": fx.OAdam(0.1), "nadam": fx.NAdam(0.1),
    "adabelief": fx.AdaBelief(0.1), "momentum": fx.Momentum(0.1),
    "chain": fx.OptimiserChain(fx.Adam(0.1), fx.AccumGrad(2), fx.EMA(0.5)),
    "wide": fx.MixedPrecision(fx.Adam(0.1)),
}  # fmt: skip
DTYPES = "float32", "bfloat16", "float16"
SHAPES = {"w": (2, 3), "b": (3,), "alone": (70,)}


def fresh(dtype):
    """A model for each rule, and its state."""
    draw = lambda shape: (jnp.arange(math.prod(shape)).reshape(shape) % 7 - 3).astype(dtype)
    model = {k: {s: draw(shape) for s, shape in SHAPES.items()} for k in RULES}
    return model, {k: fx.setup(rule, model[k]) for k, rule in RULES.items()}


def train(model, states, steps):
    """Some steps down a bowl."""
    for _ in range(steps):
        for k, tree in states.items():
            fx.update(tree, model[k], {s: x * 0.5 for s, x in model[k].items()})


if __name__ == "__main__":
    things = {}
    for dtype in DTYPES:
        model, states = fresh(dtype)
        train(model, states, 3)
        things[f"model_{dtype}"], things[f"states_{dtype}"] = copy.deepcopy((model, states))
        if dtype == "float32":
            train(model, states, 3)
            things["after"] = model
    fx.save(Path(__file__).parent / "states_1.safetensors", **things)
