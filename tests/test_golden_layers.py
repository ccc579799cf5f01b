"""Every layer against PyTorch's numbers with copied weights: outputs, all gradients, what it keeps.

`golden/make_layers.py` made the numbers, and says how they are written down.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

FILE = np.load(Path(__file__).with_name("golden") / "layers.npz")
ROWS = {kind: FILE[kind] for kind in ("f", "i")}
CASES = json.loads(str(FILE["cases"]))["cases"]
NAMES = [f"{i} {c['layer']} {c['mode']}" for i, c in enumerate(CASES)]

SPACE = {**vars(fx), "fx": fx, "jnp": jnp}


def array(entry: Any) -> Any:
    kind, start, *shape = entry
    return ROWS[kind][start : start + math.prod(shape)].reshape(shape)


def one_row(outputs: Any) -> Any:
    return jnp.concatenate([part.ravel() for part in jax.tree.leaves(outputs)])


def close(ours: Any, golden: Any) -> None:
    golden = array(golden)
    assert ours.shape == golden.shape
    np.testing.assert_allclose(ours, golden, rtol=1e-5, atol=1e-5 * abs(golden).max())


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_numbers_of_pytorch(case: dict[str, Any]) -> None:
    fx.clear_cache()  # else it would count as one objective that changes every time
    layer = eval(case["layer"], SPACE)
    for path, entry in case["weights"].items():
        exec(f"layer.{path} = value", {"layer": layer, "value": jnp.asarray(array(entry))})
    if case["mode"] == "test":
        _ = fx.testmode(layer)
    xs = [jnp.asarray(array(x)) for x in case["x"]]
    c, call = array(case["c"]), eval(f"lambda layer, x: {case['call']}", SPACE)

    def loss(layer: Any, *xs: Any) -> Any:
        y = one_row(call(layer, xs))
        return jnp.sum(y * c), y

    with fx.strict():
        (_, y), (dlayer, *dxs) = fx.withgradient(loss, layer, *xs)
    close(y, case["y"])
    for n, dx in case["dx"].items():
        close(dxs[int(n)], dx)
    for path, dw in case["dweights"].items():
        close(eval(f"grads.{path}", {"grads": dlayer}), dw)
    for name, value in case["state"].items():
        close(getattr(layer, name), value)


#: No numbers of PyTorch: what is random (its laws are in test_layers_alone.py).
RANDOM = {"Dropout", "AlphaDropout"}
OTHERS = {"activations", "outputsize", "summary", "make_causal_mask", "make_padding_mask"}
#: What other layers run, or has a test of its own in test_layers_as_flux.py.
OTHERS |= {"dot_product_attention", "normalise", "dropout", "Recurrence", "initialstates"}


def test_every_layer_has_numbers() -> None:
    seen = {word for c in CASES for word in re.findall(r"\w+", c["layer"] + " " + c["call"])}
    assert set(fx.layers.__all__) - OTHERS - seen == {"GRUv3Cell"}  # which GRUv3 runs
    assert all(c["mode"] == "test" for c in CASES if c["layer"].partition("(")[0] in RANDOM)
