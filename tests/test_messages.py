"""Bad input: a sentence that says what to do, and nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import snapshot


class World(NamedTuple):
    """What a bad call gets, and must leave alone."""

    model: Any
    tree: Any
    grads: Any
    x: Any
    y: Any


def world() -> World:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(4, 2)).astype("f4"), draw.normal(size=(4, 1)).astype("f4")
    model = fx.Chain(enc=fx.Dense(2, 3, fx.tanh, rng=1), dec=fx.Dense(3, 1, rng=2))
    tree = fx.setup(fx.Adam(0.1), model)
    fx.update(tree, model, fx.gradient(lambda m: fx.mse(m(x), y), model)[0])
    return World(model, tree, fx.gradient(lambda m: fx.mse(m(x), y), model), x, y)


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def other() -> Any:
    return fx.Chain(fx.Dense(2, 3, rng=1), fx.Dense(3, 3), fx.Dense(3, 1, rng=2))


def wider() -> Any:
    return fx.Chain(enc=fx.Dense(2, 4, rng=1), dec=fx.Dense(4, 1, rng=2))


def gradient_of(model: Any, w: World) -> Any:
    return fx.gradient(lambda m: fx.mse(m(w.x), w.y), model)[0]


def stepped(loss: Any) -> Callable[[World], Any]:
    return lambda w: fx.trainstep(loss, w.model, (w.x, w.y), w.tree)


def trained(loss: Any) -> Callable[[World], Any]:
    return lambda w: fx.train(loss, w.model, [(w.x, w.y)] * 2, w.tree)


def differentiated(f: Any) -> Callable[[World], Any]:
    return lambda w: fx.gradient(lambda m: f(m, w.x, w.y), w.model)


BAD: dict[str, tuple[type[Exception], str, Callable[[World], Any]]] = {
    # --- update
    "tuple": (
        ValueError,
        "update expects the gradient of the model, got a tuple of 1. Pass `grads[0]`.",
        lambda w: fx.update(w.tree, w.model, w.grads),
    ),
    "value and gradient": (
        ValueError,
        "grads[0]",
        lambda w: fx.update(w.tree, w.model, fx.withgradient(lambda m: jnp.sum(m(w.x)), w.model)),
    ),
    "gradient of another model": (
        ValueError,
        "at grad.layers",
        lambda w: fx.update(w.tree, w.model, gradient_of(other(), w)),
    ),
    "gradient of a part": (
        ValueError,
        "at grad",
        lambda w: fx.update(w.tree, w.model, w.grads[0].layers.enc),
    ),
    "gradient of other shapes": (
        ValueError,
        "at grad.layers[0].weight, got f32[2,4]",
        lambda w: fx.update(w.tree, w.model, gradient_of(wider(), w)),
    ),
    "state of another model": (
        ValueError,
        "at model.layers",
        lambda w: fx.update(fx.setup(fx.Adam(), other()), w.model, w.grads[0]),
    ),
    "state of other shapes": (
        ValueError,
        "at model.layers[0].weight",
        lambda w: fx.update(fx.setup(fx.Adam(), wider()), w.model, w.grads[0]),
    ),
    "state of a part": (
        ValueError,
        "at model",
        lambda w: fx.update(w.tree.layers.enc, w.model, w.grads[0]),
    ),
    "rule in update": (
        TypeError,
        "update expects the state tree from `setup`, got an Adam.",
        lambda w: fx.update(fx.Adam(), w.model, w.grads[0]),
    ),
    "a last leaf that does not fit": (
        ValueError,
        "at grad.layers[1].bias",
        lambda w: fx.update(
            w.tree, w.model, fx.Node(layers=[w.grads[0].layers[0], fx.Node(bias=jnp.ones(9))])
        ),
    ),
    # --- setup
    "rule's class": (
        TypeError,
        "setup expects a rule, got the class Adam. Write Adam().",
        lambda w: fx.setup(fx.Adam, w.model),
    ),
    "setup the wrong way round": (
        TypeError,
        "setup expects a rule such as fx.Adam(1e-3), got a Chain.",
        lambda w: fx.setup(w.model, fx.Adam()),
    ),
    "setup of a state": (TypeError, "got a state tree", lambda w: fx.setup(fx.Adam(), w.tree)),
    "negative rate": (
        ValueError,
        "Adam expects `eta` of at least 0, got -1.",
        lambda w: fx.Adam(-1),
    ),
    # --- adjust, freeze, thaw
    "unknown name": (
        ValueError,
        "adjust expects a field of Adam (beta, epsilon, eta), got `zeta`.",
        lambda w: fx.adjust(w.tree, zeta=0.1),
    ),
    "unknown name beside a known one": (
        ValueError,
        "got `zeta`",
        lambda w: fx.adjust(w.tree, 0.5, zeta=0.1),
    ),
    "adjust to a negative rate": (
        ValueError,
        "Adam expects `eta` of at least 0, got -0.1.",
        lambda w: fx.adjust(w.tree, -0.1),
    ),
    "adjust to a negative rate after a good field": (
        ValueError,
        "of at least 0, got -0.1.",
        lambda w: fx.adjust(w.tree, beta=(0.5, 0.5), eta=-0.1),
    ),
    "adjust to one beta": (TypeError, "2 numbers", lambda w: fx.adjust(w.tree, beta=0.9)),
    "adjust to a word": (TypeError, "`eta`", lambda w: fx.adjust(w.tree, "fast")),
    "adjust with nothing": (ValueError, "adjust(tree, 0.01)", lambda w: fx.adjust(w.tree)),
    "adjust a model": (
        TypeError,
        "adjust expects the state tree from `setup`, got a Chain.",
        lambda w: fx.adjust(w.model, 0.1),
    ),
    "freeze a model": (
        TypeError,
        "freeze expects the state tree from `setup`, got a Chain. "
        "Pass `opt_state`, or a part of it.",
        lambda w: fx.freeze(w.model),
    ),
    "freeze an array": (
        TypeError,
        "freeze expects the state tree from `setup`, got f32[2,3].",
        lambda w: fx.freeze(w.model[0].weight),
    ),
    "thaw a model's dict": (
        TypeError,
        "thaw expects the state tree from `setup`",
        lambda w: fx.thaw({"w": w.model[0].weight}),
    ),
    # --- losses
    "loss is an array": (
        ValueError,
        "expects to return a real scalar, got f32[4,1]",
        stepped(lambda m, x, y: m(x) - y),
    ),
    "loss of gradient is an array": (
        ValueError,
        "fx.jacobian",
        differentiated(lambda m, x, y: m(x) - y),
    ),
    "loss is complex": (
        ValueError,
        "real scalar, got c64[]",
        differentiated(lambda m, x, y: jnp.sum(m(x)) * 1j),
    ),
    "loss is an int": (ValueError, "real number, got 3", differentiated(lambda m, x, y: 3)),
    "loss is an integer array": (
        ValueError,
        "real scalar, got i32[]",
        differentiated(lambda m, x, y: jnp.sum(m(x) > 0)),
    ),
    "loss is nothing": (
        ValueError,
        "real number, got None. Return the loss.",
        stepped(lambda m, x, y: None),
    ),
    "train with no loss": (ValueError, "got None", trained(lambda m, x, y: None)),
    "train with an array": (ValueError, "got f32[4,1]", trained(lambda m, x, y: m(x) - y)),
    "mismatch in a loss": (
        ValueError,
        "mse expects `y_hat` and `y` of one shape, got f32[4,1] and f32[4].",
        lambda w: fx.train(mse, w.model, [(w.x, w.y[:, 0])], w.tree),
    ),
    # --- train
    "rule in train": (
        TypeError,
        "opt_state = fx.setup(fx.Adam(...), model)",
        lambda w: fx.train(mse, w.model, [(w.x, w.y)], fx.Adam()),
    ),
    "rule in trainstep": (
        TypeError,
        "trainstep expects a state tree, got a rule.",
        lambda w: fx.trainstep(mse, w.model, (w.x, w.y), fx.Descent()),
    ),
    "callback": (
        TypeError,
        "train expects no callback, got `cb`. Write the loop",
        lambda w: fx.train(mse, w.model, [(w.x, w.y)], w.tree, cb=print),
    ),
    "old order": (
        ValueError,
        "train expects the state tree of this model, got one of another structure at model: "
        "the model has the function mse there.",
        lambda w: fx.train(w.model, mse, [(w.x, w.y)], w.tree),
    ),
    "data and state swapped": (
        TypeError,
        "train expects an iterable of batches, got a Node.",
        lambda w: fx.train(mse, w.model, w.tree, [(w.x, w.y)]),
    ),
    "one number as data": (TypeError, "iterable", lambda w: fx.train(mse, w.model, 3, w.tree)),
    "state tree of another model in train": (
        ValueError,
        "train expects the state tree of this model",
        lambda w: fx.train(mse, other(), [(w.x, w.y)], w.tree),
    ),
    "NaN in item 3": (
        fx.NonFiniteLoss,
        "item 3",
        lambda w: fx.train(mse, w.model, [(w.x, w.y)] * 3 + [(w.x * np.nan, w.y)], w.tree),
    ),
    "no state": (TypeError, "None", lambda w: fx.train(mse, w.model, [(w.x, w.y)], None)),
    # --- layers and data
    "unknown activation": (
        TypeError,
        "Dense expects a function as activation, got 'relu'. Write fx.relu.",
        lambda w: fx.Dense(2, 3, "relu"),
    ),
    "unknown activation of Conv": (
        TypeError,
        "Conv expects a function as activation, got 'sqare'.",
        lambda w: fx.Conv((3, 3), 1, 2, "sqare"),
    ),
    "too many features": (
        ValueError,
        "Dense(2, 3, tanh) expects input of shape (…, 2), got f32[4,5] at model.layers[0].",
        lambda w: w.model(np.ones((4, 5), "f4")),
    ),
    "too many features inside train": (
        ValueError,
        "Dense(2, 3, tanh) expects input of shape (…, 2), got f32[4,5] at model.layers[0].",
        lambda w: fx.train(mse, w.model, [(np.ones((4, 5), "f4"), w.y)], w.tree),
    ),
    "wrong channels": (
        ValueError,
        "Conv((3, 3), 3, 8, relu) expects input of shape (N, H, W, 3), got f32[2,8,8,1] "
        "at model.layers[0].",
        lambda w: fx.Chain(fx.Conv((3, 3), 3, 8, fx.relu), fx.flatten)(np.ones((2, 8, 8, 1))),
    ),
    "no batch axis": (
        ValueError,
        "Conv((3, 3), 3, 8) expects input of shape (N, H, W, 3), got f32[8,8,3]. "
        "Add a batch axis, x[None].",
        lambda w: fx.Conv((3, 3), 3, 8)(np.ones((8, 8, 3), "f4")),
    ),
    "X and Y of different length": (
        ValueError,
        "DataLoader expects as many observations in every part",
        lambda w: fx.DataLoader((np.ones((5, 2)), np.ones(4)), batchsize=2),
    ),
    "loadmodel of another structure": (
        ValueError,
        "loadmodel expects",
        lambda w: fx.loadmodel(w.model, other()),
    ),
    "loadmodel of other shapes": (
        ValueError,
        "f32[2,3] at model.layers[0].weight, got f32[2,4]",
        lambda w: fx.loadmodel(w.model, wider()),
    ),
    "bad mode": (ValueError, '"auto"', lambda w: fx.testmode(w.model, "off")),
}


@pytest.mark.parametrize("error, sentence, call", BAD.values(), ids=list(BAD))
def test_bad_input(error: Any, sentence: str, call: Any) -> None:
    w = world()
    good = 3 if error is fx.NonFiniteLoss else 0
    twin = world()
    for _ in range(good):
        fx.trainstep(mse, twin.model, (w.x, w.y), twin.tree)
    with pytest.raises(error, match=re.escape(sentence)):
        call(w)
    assert snapshot(w.model, w.tree) == snapshot(twin.model, twin.tree)
    value = fx.trainstep(mse, w.model, (w.x, w.y), w.tree)  # and it still works
    assert np.isfinite(value)


def test_immutable_roots_are_refused_with_the_hint() -> None:
    pair = (jnp.ones(2), jnp.ones(2))
    tree = fx.setup(fx.Adam(), pair)
    before = snapshot(pair, tree)
    loss = lambda m, x: jnp.sum(m[0] * x + m[1])
    hint = re.escape("opt_state, model = fx.update(opt_state, model, grads[0])")
    with pytest.raises(TypeError, match=hint):
        fx.train(loss, pair, [(np.ones(2, "f4"),)], tree)
    with pytest.raises(TypeError, match=hint):
        fx.trainstep(loss, pair, (np.ones(2, "f4"),), tree)
    with pytest.raises(TypeError, match=hint):
        fx.trainstep(lambda m, x: jnp.sum(m * x), pair[0], (np.ones(2, "f4"),), tree[0])
    assert snapshot(pair, tree) == before


def test_a_loss_that_does_not_touch_the_model_is_a_warning() -> None:
    w = world()
    with pytest.warns(UserWarning, match="does not depend on the model"):
        grads = fx.gradient(lambda m: fx.mse(w.model(w.x), w.y), w.model)
    assert jax.tree.leaves(grads[0]) == []
    before = snapshot(w.model, w.tree)
    fx.update(w.tree, w.model, grads[0])
    assert snapshot(w.model, w.tree) == before


def test_train_with_a_loss_that_does_not_touch_the_model_is_a_warning() -> None:
    w = world()
    before = snapshot(w.model, w.tree)
    with pytest.warns(UserWarning, match="does not depend on the model"):
        fx.train(lambda m, x, y: fx.mse(jnp.sum(x), 0.0), w.model, [(w.x, w.y)] * 2, w.tree)
    assert snapshot(w.model, w.tree) == before


def test_an_unknown_part_names_those_there_are() -> None:
    w = world()
    with pytest.raises(AttributeError, match="Its names are: enc, dec"):
        _ = w.tree.layers.encoder
    with pytest.raises(AttributeError, match=r"Its parts are: .*weight"):
        _ = w.grads[0].layers[0].wait


def test_a_mistake_made_twice_and_then_mended_is_compiled() -> None:
    """Errors of the user's own do not make an objective slow for ever."""
    w = world()
    loss = lambda m, x, y: fx.mse(m(x), y)
    for _ in range(3):
        with pytest.raises(ValueError, match="Dense"):
            fx.trainstep(loss, w.model, (np.ones((4, 5), "f4"), w.y), w.tree)
    fx.trainstep(loss, w.model, (w.x, w.y), w.tree)
    assert all(r.compiled for r in fx.explain() if "test_messages" in r.where)
