"""A state tree stays with the model that it was made for."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import fluxax as fx
from tests.witness import snapshot


def other_layer(model: Any) -> Any:
    model.layers.append(fx.Dense(1, 1))
    return model


@pytest.mark.parametrize("way", ["train", "trainstep"])
@pytest.mark.parametrize(
    "change",
    [
        other_layer,
        lambda m: fx.Chain(m.layers[0]),
        lambda m: fx.Chain(fx.Dense(2, 3), fx.Dense(3, 4)),
        lambda m: fx.Chain(m.layers[0], fx.Dense(3, 1, bias=False)),
    ],
    ids=["more", "fewer", "shapes", "no bias"],
)
def test_another_models_state_is_refused_after_steps_too(change: Any, way: str) -> None:
    model, x = fx.Chain(fx.Dense(2, 3), fx.Dense(3, 1)), jnp.ones((4, 2))
    loss, opt_state = lambda m, x: jnp.sum(m(x) ** 2), fx.setup(fx.Adam(), model)
    run = lambda m: (
        fx.trainstep(loss, m, x, opt_state)
        if way == "trainstep"
        else fx.train(loss, m, [x], opt_state)
    )
    run(model)
    model = change(model)
    before = snapshot(model, opt_state)
    with pytest.raises(ValueError, match=rf"^{way} expects .* Call setup"):
        run(model)
    assert snapshot(model, opt_state) == before


def test_parts_of_a_state_tree_in_a_dict_are_refused() -> None:
    model = fx.Chain(fx.Dense(2, 1))
    tree = fx.setup(fx.Adam(), model)
    with pytest.raises(TypeError, match=r"^trainstep expects the state tree that setup gave"):
        fx.trainstep(lambda m, x: jnp.sum(m(x)), model, jnp.ones((1, 2)), {"layers": tree.layers})
