"""Labels are for people: nothing is found by one, whatever variables, attributes and keys say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _pieces

X = np.random.default_rng(0).normal(size=(64, 4)).astype("f")
LOADER = fx.DataLoader((X,), 8)
RATE = fx.Descent(1e-2)


def net(seed: int) -> Any:
    return fx.Chain(fx.Dense(4, 8, fx.tanh, rng=seed), fx.Dense(8, 2, rng=seed + 1))


def steps(loss: Any, student: Any, opt_state: Any) -> Any:
    return [fx.trainstep(loss, student, (X[i : i + 8],), opt_state) for i in range(0, 64, 8)]


def singly(loss: Any, student: Any, opt_state: Any) -> Any:
    return fx.train(loss, student, list(LOADER), opt_state)


def in_pieces(loss: Any, student: Any, opt_state: Any) -> Any:
    return fx.train(loss, student, LOADER, opt_state)


WAYS = [steps, singly, in_pieces]


def by_hand(loss: Any, student: Any, opt_state: Any) -> Any:
    """The same steps by gradient and update, which look at no name."""
    losses = []
    for i in range(0, 64, 8):
        val, grads = fx.withgradient(lambda m, i=i: loss(m, X[i : i + 8]), student)
        losses.append(val)
        fx.update(opt_state, student, grads[0])
    return losses


def agrees(way: Any, make: Callable[[], Any], loss_for: Callable[[Any], Any]) -> None:
    """A way to train gives the losses and the parameters of training by hand."""
    fx.clear_cache()
    found = []
    for run in (by_hand, way):
        student = make()
        losses = run(loss_for(student), student, fx.setup(fx.Adam(1e-2), student))
        arrays = [np.asarray(p) for p in fx.params(student)]
        found.append([np.asarray(losses), *arrays])
    fresh = make()
    start = [np.asarray(p) for p in fx.params(fresh)]
    assert all((a != b).any() for a, b in zip(start, found[0][1:], strict=True))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_captured_variable_called_model_is_not_the_model(way: Any) -> None:
    model = net(7)  # the frozen teacher
    before = [np.asarray(p) for p in fx.params(model)]
    agrees(way, lambda: net(0), lambda _: lambda m, x: fx.mse(m(x), model(x)))
    assert all((a == b).all() for a, b in zip(before, fx.params(model), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_captured_variable_called_like_another_argument(way: Any) -> None:
    parameters, argument_1 = net(7), net(9)
    labels = {"argument 1": argument_1, "argument 0": parameters}
    agrees(way, lambda: net(0), lambda _: lambda m, x: fx.mse(m(x), labels["argument 1"](x)))


@pytest.mark.parametrize("way", WAYS)
def test_the_model_is_captured_too(way: Any) -> None:
    agrees(way, lambda: net(0), lambda model: lambda m, x: fx.mse(m(x), model(x) + 1))


@pytest.mark.parametrize("way", WAYS)
def test_a_part_of_the_model_is_captured(way: Any) -> None:
    def loss_for(model: Any) -> Any:
        first = model.layers[0]
        return lambda m, x: fx.mse(m(x), 1.0) + jnp.sum(first.weight * m.layers[0].weight)

    agrees(way, lambda: net(0), loss_for)


class Odd(fx.Module):
    """Attributes and keys that read like paths of each other."""

    def __init__(self) -> None:
        one = jnp.ones(4)
        self.a = {"b": one * 1, "['b']": one * 2}
        for i, name in enumerate(("a['b']", "a.b", "a", "layers[0].weight", "model.a"), 3):
            setattr(self, name, {"b": one * i} if name == "a" else one * i)
        self.d = {"a.b": one * 8, "a": {"b": one * 9}, 0: one * 10, "0": one * 11, (1, "b"): one}
        self.ordered = OrderedDict([("b", one * 12), ("a", one * 13)])
        self.layers = [{"weight": one * 14}]


def weighed(m: Any, x: Any) -> Any:
    parts = enumerate(fx.params(m), 1)
    return sum(i * jnp.mean((x * p) ** 2) for i, p in parts) / 100


@pytest.mark.parametrize("way", WAYS)
def test_names_with_dots_and_brackets(way: Any) -> None:
    agrees(way, Odd, lambda _: weighed)


def test_names_with_dots_and_brackets_are_loaded_one_by_one() -> None:
    first, second = Odd(), Odd()
    for i, layer in enumerate(fx.params(second)):
        assert layer.shape == (4,), i
    second = fx.fmap(lambda a: a * 0 + float(a[0]) + 100, second)
    fx.loadmodel(first, second)
    for a, b in zip(fx.params(first), fx.params(second), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()


@pytest.mark.parametrize("way", WAYS)
def test_two_models_that_share_a_label(way: Any) -> None:
    teachers = [(lambda model: lambda x: model(x))(net(seed)) for seed in (7, 9)]
    agrees(way, lambda: net(0), lambda _: lambda m, x: fx.mse(m(x), sum(t(x) for t in teachers)))


@pytest.mark.parametrize("way", WAYS)
def test_tied_parameters_in_an_untrained_place_first(way: Any) -> None:
    class Tied(fx.Module):
        trainable = ("weight",)

        def __init__(self) -> None:
            self.shadow = self.weight = jnp.arange(1.0, 5.0)  # `shadow` comes first

    model = Tied()
    way(lambda m, x: jnp.mean((x * m.weight + m.shadow) ** 2), model, fx.setup(RATE, model))
    plain = {"w": jnp.arange(1.0, 5.0)}
    way(lambda m, x: jnp.mean((x * m["w"] + m["w"]) ** 2), plain, fx.setup(RATE, plain))
    assert model.weight is model.shadow or (model.weight == model.shadow).all()
    np.testing.assert_allclose(model.weight, plain["w"], rtol=1e-5)
    assert (plain["w"] != jnp.arange(1.0, 5.0)).all()


def test_batches_are_found_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of a batch that are alike, and a captured dict that has them too; it runs in pieces."""
    ran = []
    one = _pieces.Pieces._one
    monkeypatch.setattr(_pieces.Pieces, "_one", lambda *a: (ran.append(a), one(*a))[1])
    batch = {"b.a": X, "b": {"a": X * 2}, "a": X * 3}
    other = {"b.a": jnp.ones(4), "b": {"a": jnp.ones(4) * 5}}

    def loss(m: Any, d: Any) -> Any:
        made = (d["b.a"] + 3 * d["b"]["a"] * d["a"]) * m["w"]
        return jnp.mean((made - other["b"]["a"]) ** 2)

    found = []
    for way in (list, lambda data: data):
        model = {"w": jnp.ones(4)}
        losses = fx.train(loss, model, way(fx.DataLoader(batch, 8)), fx.setup(fx.Adam(), model))
        found.append((losses, np.asarray(model["w"])))
    assert ran
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
