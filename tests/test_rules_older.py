"""State trees that an older version wrote: what it did not note is made good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.golden.make_states import DTYPES, RULES, fresh, train

OLD = Path(__file__).parent / "golden" / "states_1.safetensors"


def test_a_run_in_float32_goes_on_bit_for_bit() -> None:
    model, states = fresh("float32")
    after = fx.load(OLD, model_float32=model, states_float32=states)["after"]
    train(model, states, 3)
    for k in RULES:
        for s, x in model[k].items():
            np.testing.assert_allclose(x, after[k][s], rtol=1e-6, atol=1e-6, err_msg=f"{k} {s}")


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_narrow_states_become_wide(dtype: str) -> None:
    model, states = fresh(dtype)
    fx.load(OLD, **{f"model_{dtype}": model, f"states_{dtype}": states})
    saved = fx.load(OLD)[f"states_{dtype}"]
    for k in RULES:
        for s, leaf in states[k].items():
            assert int(leaf.steps) == int(saved[k][s].steps) > 0
            mine = [a for a in jax.tree.leaves(leaf.state) if a.shape]
            theirs = [a for a in saved[k][s].state if np.shape(a)]
            for a, b in zip(mine, theirs, strict=True):
                assert a.dtype == jnp.float32
                np.testing.assert_array_equal(a, np.asarray(b, np.float32))
    train(model, states, 3)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(model))


def test_the_products_are_powers_of_the_decays_that_were_noted() -> None:
    """Whatever the decays are in the state that is filled, and become after it."""
    model, states = fresh("float32")
    reference, fine = fresh("float32")
    train(reference, fine, 3)
    decaying = set(RULES) - {"momentum"}
    for k in decaying:
        fx.adjust(states[k], beta=(0.1, 0.2))
    fx.load(OLD, model_float32=model, states_float32=states)
    for tree in (states, fine):
        for k in decaying:
            fx.adjust(tree[k], beta=(0.5, 0.8))
    train(model, states, 2)
    train(reference, fine, 2)
    for a, b in zip(*map(jax.tree.leaves, (model, reference)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_another_structure_is_still_refused() -> None:
    model, states = fresh("bfloat16")
    wrong: Any = {**states, "momentum": fx.setup(fx.RMSProp(), model["momentum"])}
    with pytest.raises(ValueError, match="Momentum in the checkpoint, RMSProp here"):
        fx.load(OLD, states_bfloat16=wrong)
    half, _ = fresh("float16")
    wrong = {**states, "momentum": fx.setup(fx.Momentum(), half["momentum"])}
    with pytest.raises(ValueError, match=r"bf16\[2,3\] in the checkpoint, f32\[2,3\] here"):
        fx.load(OLD, states_bfloat16=wrong)
