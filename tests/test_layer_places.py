"""Refused input is named with the layer's path, whatever the model is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


class Net(fx.Module):
    """A user's model: layers in attributes, in a list, in a dict, and a layer used twice."""

    def __init__(self, **parts: Any):
        self.blocks = [fx.Dense(4, 4), fx.Chain(fx.relu, parts.get("deep", fx.Dense(4, 4)))]
        self.heads = {"a": parts.get("head", fx.Dense(4, 2))}
        self.norm = parts.get("norm", fx.LayerNorm(4))

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.read(self.norm(x))

    def read(self, x: Any) -> Any:
        return self.heads["a"](x)


class Foreign(eqx.Module):
    enc: Any

    def __call__(self, x: Any) -> Any:
        return self.enc(x)


class Plain:
    def __init__(self, enc: Any):
        self.enc = enc

    def __call__(self, x: Any) -> Any:
        return self.enc(x)


class Mapped(fx.Module):
    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(self, x: Any) -> Any:
        return jax.vmap(jax.checkpoint(lambda row: self.layer(row)))(x)


def wide() -> fx.Dense:
    """The layer that every case refuses: it wants nine features and gets four."""
    return fx.Dense(9, 4)


square = fx.Dense(4, 3)

PLACES: dict[str, tuple[Any, str]] = {
    "list": (Net(deep=wide()), ".blocks[1].layers[1]"),
    "dict": (Net(head=wide()), ".heads['a']"),
    "attribute": (Net(norm=fx.LayerNorm(5)), ".norm"),
    "inside ours": (fx.Chain(fx.relu, Net(head=wide())), ".layers[1].heads['a']"),
    "named": (fx.Chain(act=fx.relu, out=wide()), ".layers[1]"),
    "shared": (fx.Chain(square, square), ".layers[1]"),
    "skip": (fx.Chain(fx.SkipConnection(fx.Chain(fx.relu, wide()), jnp.add)), None),
    "parallel": (fx.Parallel(jnp.add, fx.relu, wide()), ".layers[1]"),
    "fusion": (fx.PairwiseFusion(jnp.add, fx.Dense(4, 4), wide()), ".layers[1]"),
    "maxout": (fx.Maxout(fx.relu, wide()), ".layers[1]"),
    "maxout's outputs": (fx.Chain(fx.Maxout(fx.relu, fx.Dense(4, 3))), ".layers[0]"),
    "attention": (fx.Chain(fx.MultiHeadAttention(4, nheads=1)), ".layers[0]"),
    "cell": (fx.Chain(fx.LSTM(4, 3)), ".layers[0]"),
    "equinox": (Foreign(fx.Chain(fx.relu, wide())), ".enc.layers[1]"),
    "equinox inside": (fx.Chain(Foreign(wide())), ".layers[0].enc"),
    "mapped": (Mapped(fx.Chain(wide())), ".layer.layers[0]"),
    "a class that is no model": (Plain(fx.Chain(wide())), ".layers[0]"),
    "alone": (wide(), ""),
}
PLACES["skip"] = (PLACES["skip"][0], ".layers[0].layers.layers[1]")


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError, match="expects ") as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("model, place", PLACES.values(), ids=list(PLACES))
def test_place(model: Any, place: str) -> None:
    sentence = refused(lambda: model(ones(3, 4)))
    at = f" at model{place}." if place else "got f32[3,4]."
    assert at in sentence
    assert sentence.count("at model") == bool(place)


def test_functions_have_places_too() -> None:
    model = fx.Chain(fx.Parallel(jnp.add, jnp.sum, jnp.sum), fx.flatten)
    assert refused(lambda: model(ones(3))) == (
        "flatten expects an array with a batch axis, got a single number at model.layers[1]."
    )


def test_models_that_are_plain_data() -> None:
    model = {"enc": fx.Chain(fx.relu, wide())}
    loss = lambda m, x: jnp.sum(m["enc"](x))
    assert " at model['enc'].layers[1]." in refused(lambda: fx.gradient(loss, model, ones(3, 4)))
    pair = (fx.relu, [wide()])
    loss = lambda m, x: jnp.sum(m[1][0](x))
    assert " at model[1][0]." in refused(lambda: fx.gradient(loss, pair, ones(3, 4)))


def test_a_container_around_the_model_is_no_part_of_its_path() -> None:
    world = {"model": fx.Chain(wide()), "x": ones(3, 4)}
    assert " at model.layers[0]." in refused(lambda w=world: w["model"](w["x"]))


BROKEN = Net(deep=wide())
STATE = fx.setup(fx.Adam(), BROKEN)
DATA = [(jnp.ones((3, 4)),)]
SUM = lambda m, x: jnp.sum(m(x))

CALLS: dict[str, Callable[[], Any]] = {
    "gradient": lambda: fx.gradient(SUM, BROKEN, *DATA[0]),
    "withgradient": lambda: fx.withgradient(lambda m: jnp.sum(m(DATA[0][0])), BROKEN),
    "a closure": lambda: fx.withgradient(lambda s: s * jnp.sum(BROKEN(DATA[0][0])), 1.0),
    "compiled": lambda: fx.compiled(lambda: BROKEN(DATA[0][0]))(),
    "trainstep": lambda: fx.trainstep(SUM, BROKEN, DATA[0], STATE),
    "train": lambda: fx.train(SUM, BROKEN, DATA, STATE),
    "outputsize": lambda: fx.outputsize(BROKEN, (3, 4)),
    "summary": lambda: fx.summary(BROKEN, DATA[0][0]),
    "jax.jit": lambda: jax.jit(SUM)(BROKEN, DATA[0][0]),
    "jax.grad": lambda: jax.jit(jax.grad(SUM))(BROKEN, DATA[0][0]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_it_is_said_before_anything_is_compiled_or_changed(call: Callable[[], Any]) -> None:
    before = jax.tree.leaves(BROKEN)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        sentence = refused(call)
        assert compiled == []
        jax.jit(lambda x: x - 3)(ones(7))
        assert compiled, "the listener does not listen"
    finally:
        jax.monitoring.clear_event_listeners()
    assert sentence == (
        "Dense(9, 4) expects input of shape (…, 9), got f32[3,4] at model.blocks[1].layers[1]."
    )
    assert all(a is b for a, b in zip(jax.tree.leaves(BROKEN), before, strict=True))


def test_uncompiled_objectives_say_the_same() -> None:
    with fx.eager():
        assert " at model.blocks[1].layers[1]." in refused(
            lambda: fx.gradient(SUM, BROKEN, *DATA[0])
        )


def test_an_objective_may_catch_it() -> None:
    def either(m: Any, x: Any) -> Any:
        try:
            return jnp.sum(m(x))
        except ValueError:
            return jnp.sum(m(x.T))

    model = fx.Chain(fx.Dense(3, 2))
    assert fx.gradient(either, model, ones(3, 4))[0].layers[0].weight.shape == (3, 2)


def attending(mask: Any) -> Any:
    """A user's model that passes a mask on."""

    class Attending(fx.Module):
        def __init__(self) -> None:
            self.blocks = [fx.MultiHeadAttention(4, nheads=2)]

        def __call__(self, x: Any) -> Any:
            return self.blocks[0](x, mask=mask)

    return Attending()


IN_A_MODEL: dict[str, tuple[Any, Any, str]] = {
    "channels": (fx.Conv((3, 3), 3, 4), ones(2, 8, 8, 1), "(N, H, W, 3), got f32[2,8,8,1]"),
    "rank": (fx.Conv((3, 3), 3, 4), ones(8, 8, 3), "(N, H, W, 3), got f32[8,8,3]"),
    "pool's rank": (fx.MaxPool((2, 2)), ones(2, 8, 3), "(N, H, W, C), got f32[2,8,3]"),
    "norm's channels": (fx.BatchNorm(3), ones(2, 5), "(N, …, 3), got f32[2,5]"),
    "integers": (fx.Dense(3, 2), np.ones((4, 3), int), "floating input, got i32[4,3]"),
    "floats": (fx.Embedding(3, 2), ones(4), "integers, got f32[4]"),
    "mask": (attending(np.ones((2, 2), bool)), ones(1, 3, 4), "(1, 2, 3, 3), got bool[2,2]"),
    "mask's kind": (attending(ones(3, 3)), ones(1, 3, 4), "a mask of booleans, got f32[3,3]"),
    "mask's word": (attending("padding"), ones(1, 3, 4), "booleans, got 'padding'"),
}


@pytest.mark.parametrize("layer, x, words", IN_A_MODEL.values(), ids=list(IN_A_MODEL))
def test_bad_input_inside_a_model(layer: Any, x: Any, words: str) -> None:
    """By hand and in training, with the path."""
    place = "model.layers[1]" + (".blocks[0]" if hasattr(layer, "blocks") else "")
    model = fx.Chain(fx.identity, layer)
    for call in (lambda: model(x), lambda: fx.gradient(lambda m, x: jnp.sum(m(x)), model, x)):
        with pytest.raises(ValueError, match="expects") as caught:
            call()
        assert f"{words} at {place}." in str(caught.value)
