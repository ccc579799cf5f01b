"""Objects that refuse assignment are never written to: their owners get new ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

X = np.ones((4, 2), np.float32)


@dataclasses.dataclass(frozen=True)
class Frozen:
    weight: Any

    def __call__(self, x: Any) -> Any:
        return self.weight * x


class OfEquinox(eqx.Module):
    weight: Any

    def __call__(self, x: Any) -> Any:
        return self.weight * x


MAKE: dict[str, Any] = {
    "equinox": lambda: OfEquinox(jnp.ones(2)),
    "dataclass": lambda: Frozen(jnp.ones(2)),
}


def loss(model: Any, x: Any) -> Any:
    return jnp.sum(model(x))


@pytest.mark.parametrize("kind", MAKE)
def test_a_root_that_refuses_assignment_trains_through_update_only(kind: str) -> None:
    model = MAKE[kind]()
    before = [np.asarray(a) for a in fx.trainables(model)]
    tree = fx.setup(fx.Descent(0.1), model)
    _, other = fx.update(tree, model, fx.gradient(loss, model, X)[0])
    for step in (fx.train, fx.trainstep):
        with pytest.raises(TypeError, match=r"changed in place, got .*model = fx\.update"):
            step(loss, model, X, tree)
    assert other is not model
    assert all(map(np.array_equal, before, fx.trainables(model)))
    assert not any(map(np.array_equal, before, fx.trainables(other)))


@pytest.mark.parametrize("way", ["update", "train", "loader"])
@pytest.mark.parametrize("kind", MAKE)
def test_what_holds_one_gets_a_new_one(kind: str, way: str) -> None:
    part = MAKE[kind]()
    before = [np.asarray(a) for a in fx.trainables(part)]
    model = fx.Chain(part, fx.Dense(2, 1))
    tree = fx.setup(fx.Descent(0.1), model)
    if way == "update":
        fx.update(tree, model, fx.gradient(loss, model, X)[0])
    else:
        fx.train(loss, model, [X] if way == "train" else fx.DataLoader(X, batchsize=2), tree)
    new = model.layers[0]
    assert type(new) is type(part)
    assert new is not part
    assert all(map(np.array_equal, before, fx.trainables(part)))
    assert not any(map(np.array_equal, before, fx.trainables(new)))
