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
    "dtype": (np.ones(3, int), np.ones(3, np.float32), "c changed dtype from i32 to f32"),
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


def test_the_hint_fits_the_cause() -> None:
    log: list[Any] = []
    functions = {
        "jnp.where": lambda x: jnp.sum(x) * (2.0 if x[0] > 0 else 1.0),
        "beside the loss, and keep it": lambda x: (log.append(1), jnp.sum(x))[1],
        "plain objects": lambda x: (jnp.sum(x), lambda: x),
    }
    for hint, f in functions.items():
        with pytest.warns(UserWarning, match="runs uncompiled") as seen:
            fx.withgradient(f, X)
        assert hint in str(seen[0].message)
        assert "correct" not in str(seen[0].message)
    square = lambda x: jnp.sum(x**2)
    with pytest.warns(UserWarning, match="pad them"):
        _ = [fx.gradient(square, jnp.ones(n)) for n in range(1, 11)]


def test_a_numpy_array_and_a_jax_array_have_one_program() -> None:
    arrays = (
        np.ones(3, np.float32),
        2 * jnp.ones(3),
        np.full(3, 3.0),
    )  # float64 is seen as float32
    for c in arrays:
        assert float(fx.withgradient(lambda x: jnp.sum(x * c), X).val) == 3.0 * float(c[0])
    assert [r.traces for r in fx.explain()] == [1]


def test_a_cell_that_is_run_again_has_the_same_program() -> None:
    for k in (1.0, 1.0, 1.0):
        space = {"jnp": jnp, "k": k}
        exec(compile("f = lambda x: jnp.sum(x) * k", "<ipython-input-1>", "exec"), space)
        assert float(fx.withgradient(space["f"], X).val) == 3.0
    assert [r.traces for r in fx.explain()] == [1]


@pytest.fixture(autouse=True)
def forgotten() -> None:
    fx.clear_cache()
