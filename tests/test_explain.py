"""The reasons that `explain` gives say what changed, as a reader of the code would."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

X = jnp.ones(3)

CHANGES = {
    "shape": (np.ones(3), np.ones((2, 3)), "c changed shape from (3,) to (2, 3)"),
    "dtype": (np.ones(3, int), np.ones(3, np.float32), "c changed dtype from i64 to f32"),
    "kind": (np.ones(3, np.float32), jnp.ones(3), "c changed from a NumPy array to a JAX array"),
    "weak": (jnp.ones(()), jnp.asarray(1.0), "c changed from a JAX array to a JAX array of weak"),
    "number": (1, 2.0, "c changed from 1 to 2.0"),
    "list": ([1.0], [1.0, 2.0], "c changed length from 1 to 2"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_reason_names_what_changed(what: str) -> None:
    before, after, reason = CHANGES[what]
    total = lambda c: sum(c) if isinstance(c, list) else jnp.sum(jnp.asarray(c))
    for c in (before, after):
        fx.gradient(lambda x: jnp.sum(x) * total(c), X)
    record = next(r for r in fx.explain() if __file__ in r.where and r.traces == 2)
    assert record.reasons[0] == "first call"
    assert record.reasons[1].startswith(reason)


def test_a_constant_reached_through_a_class_is_named_by_its_attribute() -> None:
    class Settings:
        weights = jnp.ones(3)

        def loss(self, x: Any) -> Any:
            return jnp.sum(x * Settings.weights)

    settings = Settings()
    for weights in (jnp.ones(3), 2 * jnp.ones(3)):
        Settings.weights = weights
        grads = fx.gradient(lambda x: settings.loss(x), X)
        np.testing.assert_array_equal(grads[0], weights)
    record = next(r for r in fx.explain() if __file__ in r.where and r.traces == 2)
    assert record.reasons[1] == "Settings.weights is another object"


@pytest.fixture(autouse=True)
def forgotten() -> None:
    fx.clear_cache()
