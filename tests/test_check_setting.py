"""What `FLUXAX_CHECK` says: no checks, the usual ones, or every call beside an uncompiled run."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax._compile import _boxes
from tests.check_kinds import X, record


def test_another_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXAX_CHECK", "some")
    with pytest.raises(ValueError, match=r"FLUXAX_CHECK expects 0 .*, got 'some'"):
        fx.gradient(lambda x: jnp.sum(x), X)


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXAX_CHECK", "all")
    fx.clear_cache()


@pytest.mark.usefixtures("every")
def test_every_call_is_checked() -> None:
    f = lambda x: jnp.sum(x**2)
    for _ in range(5):
        fx.gradient(f, X)
    assert record(f).checks == 5


@pytest.mark.usefixtures("every")
def test_a_wrong_copy_is_found_by_the_uncompiled_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = _boxes.LIST.fill
    assert fill is not None
    back = lambda new, old, parts: (fill(new, old, parts), new.reverse())
    xs = [1.0, 2.0]
    f = lambda x: jnp.sum(x) * xs[0]
    monkeypatch.setattr(_boxes.LIST, "fill", back)
    with pytest.warns(fx.StaleProgram, match="the value is another than that of an uncompiled run"):
        assert float(fx.withgradient(f, X).val) == 3.0


@pytest.mark.usefixtures("every")
def test_a_wrong_gradient_is_found_by_the_uncompiled_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxax._compile._traced import Program

    real = Program.value_and_grads

    def wrong(self: Any, inputs: Any, used: Any) -> Any:
        outs, grads = real(self, inputs, used)
        return outs, [2 * g for g in grads]

    monkeypatch.setattr(Program, "value_and_grads", wrong)
    with pytest.warns(fx.StaleProgram, match="a gradient is another"):
        grads = fx.gradient(lambda x: jnp.sum(x), X)
    np.testing.assert_array_equal(grads[0], 1.0)


@pytest.mark.usefixtures("every")
def test_training_is_the_same_with_every_call_checked() -> None:
    def run() -> Any:
        fx.seed(0)
        fx.clear_cache()
        model = fx.Chain(fx.Dense(3, 8, fx.relu), fx.BatchNorm(8), fx.Dropout(0.5), fx.Dense(8, 1))
        opt_state = fx.setup(fx.Adam(0.01), model)
        rng = np.random.default_rng(0)
        data = rng.normal(size=(32, 3)).astype("f"), rng.normal(size=(32, 1)).astype("f")
        loader = fx.DataLoader(data, batchsize=8)
        loss = lambda m, x, y: fx.mse(m(x), y)
        losses = [fx.train(loss, model, loader, opt_state) for _ in range(2)]
        step = fx.trainstep(loss, model, data, opt_state)
        return losses, step, fx.compiled(lambda: model(data[0]))(), jax.tree.leaves(model)

    checked = run()
    os.environ["FLUXAX_CHECK"] = "1"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), checked, run())
