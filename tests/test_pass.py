"""What a pass over data keeps of its steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax._pass import Pass

LOSSES = Pass.losses


def test_what_many_steps_gave_is_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(items: int) -> Any:
        fx.seed(0)
        model = fx.Dense(2, 1)
        data = [(jnp.full((1, 2), i / 8), jnp.zeros((1, 1))) for i in range(items)]
        loss = lambda m, x, y: (fx.mse(m(x), y), {"x": x, "name": "a"} if items > 40 else {"x": x})
        return fx.train(loss, model, data, fx.setup(fx.Descent(0.1), model), has_aux=True)

    singly = [run(40), run(41)]
    monkeypatch.setattr(Pass, "_TOGETHER", 3)
    held = []
    monkeypatch.setattr(Pass, "losses", lambda self: held.append(self.taken) or LOSSES(self))
    jax.tree.map(np.testing.assert_array_equal, [run(40), run(41)], singly)
    assert len(held[0]) < 25
    assert len(held[1]) == 41  # a string among them


def test_the_item_is_counted_where_steps_are_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pass, "_TOGETHER", 2)
    model = fx.Dense(1, 1, init=fx.ones32)
    data = [jnp.full((1, 1), np.nan if i == 17 else 1.0) for i in range(40)]
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(lambda m, x: jnp.sum(m(x)), model, data, fx.setup(fx.Descent(1.0), model))
    assert (caught.value.index, caught.value.losses.shape) == (17, (17,))
    assert caught.value.path == "batch"
