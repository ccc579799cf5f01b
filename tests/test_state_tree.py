"""The state tree: setup, update, adjust, freeze and thaw on any part of it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import compiling, snapshot


def bimodel() -> fx.Chain:
    return fx.Chain(enc=fx.Dense(2, 3, fx.tanh, rng=1), dec=fx.Dense(3, 1, rng=2))


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, Y = draw(4, 2), draw(4, 1, seed=1)


def slope(model: Any) -> Any:
    return fx.gradient(lambda m: fx.mse(m(X), Y), model)[0]


def ones_like(tree: Any) -> Any:
    return jax.tree.map(jnp.ones_like, tree)


# --- setup ---------------------------------------------------------------------------------


def test_the_tree_has_the_models_shape() -> None:
    model = fx.Chain(enc=fx.Dense(2, 3, fx.tanh), norm=fx.BatchNorm(3), drop=fx.Dropout(0.5))
    tree = fx.setup(fx.Adam(), model)
    assert isinstance(tree, fx.Node)
    assert isinstance(tree.layers.enc.weight, fx.Leaf)
    assert tree.layers[0] is tree.layers.enc
    assert tree.layers.enc.activation is None
    assert tree.layers.norm.mean is None
    assert tree.layers.drop.stream is None
    assert not tree.layers.enc.weight.frozen
    assert jax.tree.leaves(tree.layers.enc.weight.state)[0].shape == (2, 3)


def test_what_is_trained() -> None:
    model = {
        "w": jnp.ones(2),
        "c": jnp.ones(2, jnp.complex64),
        "i": jnp.arange(2),
        "b": jnp.ones(2, bool),
        "key": jax.random.key(0),
        "n": 3.0,
        "f": jnp.tanh,
        "none": None,
    }
    tree = fx.setup(fx.Descent(), model)
    assert {k for k, v in tree.items() if v is not None} == {"w", "c"}


def test_trainable_narrows_it() -> None:
    class Half(fx.Module):
        trainable = ("a",)

        def __init__(self) -> None:
            self.a, self.b = jnp.ones(2), jnp.ones(2)

    model = Half()
    tree = fx.setup(fx.Descent(1.0), model)
    assert tree.b is None
    grad = fx.gradient(lambda m: jnp.sum(m.a) + jnp.sum(m.b), model)[0]
    fx.update(tree, model, grad)
    assert model.a.tolist() == [0.0, 0.0]
    assert model.b.tolist() == [1.0, 1.0]


def test_nothing_to_train_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="no trainable array"):
        tree = fx.setup(fx.Descent(), {"i": jnp.arange(3)})
    assert tree == {"i": None}


def test_every_leaf_has_its_own_rule() -> None:
    rule = fx.OptimiserChain(fx.ClipNorm(1.0), fx.Adam(0.1))
    tree = fx.setup(rule, bimodel())
    tree.layers.enc.weight.rule.opts[1].eta = 0.5
    fx.adjust(tree.layers.enc, omega=3.0)
    assert tree.layers.dec.weight.rule == rule
    assert rule.opts[1].eta == 0.1
    assert rule.opts[0].omega == 1.0
    assert tree.layers.enc.bias.rule.opts[1].eta == 0.1


# --- update --------------------------------------------------------------------------------


def test_update_returns_both_and_changes_in_place() -> None:
    model = bimodel()
    tree = fx.setup(fx.Descent(0.1), model)
    weight, grad = np.array(model.layers.enc.weight), slope(model)
    out = fx.update(tree, model, grad)
    assert out[0] is tree
    assert out[1] is model
    expected = weight - 0.1 * np.asarray(grad.layers[0].weight)
    np.testing.assert_allclose(model.layers.enc.weight, expected, rtol=1e-6)


GRADIENTS = {
    "node": lambda g: g,
    "dict": lambda g: {"layers": [{"weight": n.weight, "bias": n.bias} for n in g.layers]},
    "numpy": lambda g: jax.tree.map(np.asarray, g),
    "jax.grad": lambda g: jax.grad(lambda m: fx.mse(m(X), Y))(bimodel()),
    "scaled": lambda g: jax.tree.map(lambda a: 1.0 * a, g),
}


@pytest.mark.parametrize("make", GRADIENTS.values(), ids=list(GRADIENTS))
def test_anything_nested_alike_is_a_gradient(make: Any) -> None:
    model, other = bimodel(), bimodel()
    fx.update(fx.setup(fx.Adam(0.1), model), model, slope(model))
    fx.update(fx.setup(fx.Adam(0.1), other), other, make(slope(other)))
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


RULES = [fx.Momentum(0.1), fx.Adam(0.1), fx.OptimiserChain(fx.WeightDecay(0.1), fx.Adam(0.1))]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_none_is_no_step_and_zeros_are_one(rule: Any) -> None:
    model = {"a": jnp.ones(2), "b": {"c": jnp.ones(2)}}
    tree = fx.setup(rule, model)
    fx.update(tree, model, ones_like(model))
    before = snapshot(model["b"], tree["b"])
    fx.update(tree, model, {"a": jnp.ones(2), "b": None})
    fx.update(tree, model, {"a": jnp.ones(2), "b": {"c": None}})
    assert snapshot(model["b"], tree["b"]) == before
    fx.update(tree, model, {"a": jnp.ones(2), "b": {"c": jnp.zeros(2)}})
    assert model["b"]["c"][0] != np.frombuffer(before[0][1], np.float32)[0]
    now = snapshot(model, tree)
    fx.update(tree, model, None)
    assert snapshot(model, tree) == now


def test_a_sub_node_is_a_tree() -> None:
    model, whole = bimodel(), bimodel()
    tree, other = fx.setup(fx.Adam(0.1), model), fx.setup(fx.Adam(0.1), whole)
    grad = slope(model)
    fx.update(tree.layers.enc, model.layers.enc, grad.layers.enc)
    assert snapshot(model.layers.dec) == snapshot(whole.layers.dec)
    fx.update(tree.layers.dec, model.layers.dec, grad.layers.dec)
    fx.update(other, whole, grad)
    assert snapshot(model, tree) == snapshot(whole, other)
    fx.update(tree, model, grad)
    fx.update(other, whole, grad)
    assert snapshot(model, tree) == snapshot(whole, other)


def test_setup_on_a_part_and_two_optimisers_on_one_model() -> None:
    model, first = bimodel(), bimodel()
    enc, dec = fx.setup(fx.Descent(0.1), model.layers.enc), fx.setup(fx.Adam(0.1), model.layers.dec)
    for _ in range(2):
        grad = slope(model)
        fx.update(enc, model.layers.enc, grad.layers.enc)
        fx.update(dec, model.layers.dec, grad.layers.dec)
    tree, adam = fx.setup(fx.Descent(0.1), first), fx.setup(fx.Adam(0.1), first)
    for _ in range(2):
        grad = slope(first)
        fx.update(tree.layers.enc, first.layers.enc, grad.layers.enc)
        fx.update(adam.layers.dec, first.layers.dec, grad.layers.dec)
    assert snapshot(model) == snapshot(first)


def test_roots_that_cannot_change_train_through_what_update_returns() -> None:
    array, grad = jnp.ones(2), jnp.array([1.0, 2.0])
    tree, new = fx.update(fx.setup(fx.Descent(0.1), array), array, grad)
    np.testing.assert_allclose(new, [0.9, 0.8], rtol=1e-6)
    assert array.tolist() == [1.0, 1.0]
    pair = (jnp.ones(2), {"w": jnp.ones(1)})
    tree, out = fx.update(fx.setup(fx.Momentum(0.1), pair), pair, ones_like(pair))
    assert isinstance(out, tuple)
    np.testing.assert_allclose(out[0], 0.9, rtol=1e-6)
    tree, out = fx.update(tree, out, ones_like(pair))
    np.testing.assert_allclose(out[0], 0.9 - 0.19, rtol=1e-6)


def test_an_equinox_module() -> None:
    model = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    opt_state = fx.setup(fx.Adam(0.05), model)
    loss = lambda m: fx.mse(jax.vmap(m)(X), Y)
    losses, kind = [], type(model)
    for _ in range(30):
        val, grads = fx.withgradient(loss, model)
        losses.append(float(val))
        opt_state, model = fx.update(opt_state, model, grads[0])
    assert type(model) is kind
    assert losses[-1] < losses[0] / 2


def test_other_containers() -> None:
    @dataclasses.dataclass
    class Point:
        x: Any
        y: Any
        name: str = "p"

    model = {"p": Point(jnp.ones(1), jnp.ones(1)), "t": (jnp.ones(1), [jnp.ones(1)])}
    tree = fx.setup(fx.Descent(0.5), model)
    point, inner = model["p"], model["t"][1]
    grads = fx.gradient(lambda m: jnp.sum(m["p"].x * 2 + m["t"][0] + m["t"][1][0]), model)
    fx.update(tree, model, grads[0])
    assert model["p"] is point
    assert model["t"][1] is inner
    got = point.x, point.y, *model["t"][:1], inner[0]
    assert [float(a[0]) for a in got] == [0.0, 1.0, 0.5, 0.5]


def test_half_precision_stays() -> None:
    model = {"h": jnp.ones(3, jnp.float16), "b": jnp.ones(3, jnp.bfloat16)}
    tree = fx.setup(fx.Adam(0.1), model)
    fx.update(tree, model, ones_like(model))
    assert (model["h"].dtype, model["b"].dtype) == (jnp.float16, jnp.bfloat16)


# --- ties ----------------------------------------------------------------------------------


def test_tied_arrays_have_one_leaf_and_stay_one() -> None:
    twice = jnp.array([1.0, 2.0])
    model = [twice, [jnp.array([1.0, 2.0]), twice]]
    tree = fx.setup(fx.Momentum(0.1), model)
    assert tree[0] is tree[1][1]
    assert tree[0] is not tree[1][0]
    grad = [jnp.full(2, 3.0), [jnp.full(2, 10.0), jnp.full(2, 7.0)]]
    fx.update(tree, model, grad)
    assert model[0] is model[1][1]
    for a in (model[0], model[1][0]):
        np.testing.assert_allclose(a, [0.0, 1.0], atol=1e-6)
    fx.freeze(tree[1])
    assert tree[0].frozen


def test_a_layer_used_twice() -> None:
    layer = fx.Dense(2, 2, rng=1)
    model = fx.Chain(layer, fx.tanh, layer)
    grad = fx.gradient(lambda m: jnp.sum(m(X)), model)[0]
    assert grad.layers[2].weight is None
    tree = fx.setup(fx.Descent(0.1), model)
    before = np.array(layer.weight)
    fx.update(tree, model, grad)
    assert model[0] is model[2] is layer
    np.testing.assert_allclose(before - 0.1 * grad.layers[0].weight, layer.weight, rtol=1e-5)
    fx.train(lambda m, x: jnp.sum(m(x) ** 2), model, [(X,)] * 3, tree)
    assert model[0] is model[2]


# --- adjust --------------------------------------------------------------------------------


def test_a_hundred_adjustments_compile_nothing() -> None:
    model = bimodel()
    tree = fx.setup(fx.OptimiserChain(fx.ClipGrad(1.0), fx.Adam(0.1)), model)
    step = lambda: fx.trainstep(lambda m, x, y: fx.mse(m(x), y), model, (X, Y), tree)
    grad = slope(model)
    fx.update(tree, model, grad)
    step()
    with compiling() as seen:
        for i in range(100):
            fx.adjust(tree, 0.1 / (i + 1), delta=1.0 + i)
            fx.adjust(tree.layers.enc, beta=(0.8, 0.9 + i / 2000))
            tree.layers.dec.weight.rule.opts[1].eta = i
            fx.update(tree, model, grad)
            step()
    assert seen == []
    assert tree.layers.enc.weight.rule.opts[0].delta == 100.0


def test_adjust_takes_effect_at_the_next_step() -> None:
    model = {"w": jnp.zeros(1)}
    tree = fx.setup(fx.Descent(1.0), model)
    expected = 0.0
    for i in range(5):
        if i % 2:
            fx.adjust(tree, 0.1 * i)
        else:
            tree["w"].rule.eta = 0.1 * i
        fx.update(tree, model, {"w": jnp.ones(1)})
        expected -= 0.1 * i
        np.testing.assert_allclose(model["w"], [expected], rtol=1e-5, atol=1e-6)


def test_a_schedule_is_a_hyperparameter() -> None:
    model = {"w": jnp.zeros(1)}
    tree = fx.setup(fx.Descent(eta=lambda step: 1.0 / (1 + step)), model)
    for _ in range(3):
        fx.update(tree, model, {"w": jnp.ones(1)})
    np.testing.assert_allclose(-model["w"], [1 + 1 / 2 + 1 / 3], rtol=1e-5)


# --- freeze and thaw -----------------------------------------------------------------------


def test_freeze_thaw_adjust_in_turn() -> None:
    model = {"x": jnp.array([1.0, 2.0]), "y": [jnp.array(3.0), jnp.array(4.0)]}
    tree = fx.setup(fx.Descent(0.1), model)
    grad = {"x": jnp.array([1.0, 10.0]), "y": [jnp.array(100.0), jnp.array(1000.0)]}
    fx.freeze(tree["y"])
    fx.update(tree, model, grad)
    np.testing.assert_allclose(model["x"], [0.9, 1.0], rtol=1e-6)
    assert [float(v) for v in model["y"]] == [3.0, 4.0]
    fx.adjust(tree, 0.2)
    fx.thaw(tree)
    fx.update(tree, model, grad)
    np.testing.assert_allclose(model["x"], [0.7, -1.0], rtol=1e-6)
    np.testing.assert_allclose(model["y"], [-17.0, -196.0], rtol=1e-6)


@pytest.mark.parametrize("looked_at", [False, True])
def test_thaw_counts_from_the_next_update(looked_at: bool) -> None:
    model, plain = bimodel(), bimodel()
    tree = fx.setup(fx.Descent(0.1), model)
    fx.freeze(tree.layers.enc)
    for thawed in (False, True, True):
        if thawed:
            fx.thaw(tree)
        grad = slope(model)
        if looked_at:
            repr(grad)
        fx.update(tree, model, grad)
        assert (snapshot(model[0].weight) != snapshot(plain[0].weight)) == thawed


def test_a_leaf_can_be_frozen_alone_and_keeps_its_state() -> None:
    model = bimodel()
    tree = fx.setup(fx.OptimiserChain(fx.WeightDecay(0.1), fx.Adam(0.1)), model)
    fx.update(tree, model, slope(model))
    fx.freeze(tree.layers.enc.weight)
    before = snapshot(model.layers.enc.weight, tree.layers.enc.weight)
    bias = np.array(model.layers.enc.bias)
    fx.update(tree, model, slope(model))
    assert snapshot(model.layers.enc.weight, tree.layers.enc.weight) == before
    assert not np.array_equal(model.layers.enc.bias, bias)


# --- as a Python object --------------------------------------------------------------------


def test_it_prints_rules_and_marks_not_arrays() -> None:
    tree = fx.setup(fx.Adam(0.1), bimodel())
    fx.freeze(tree.layers.enc)
    text = str(tree)
    assert text.count("frozen") >= 1
    assert "Adam(eta=0.1" in text
    assert "Array(" not in text
    assert "frozen" in repr(tree.layers.enc.weight)
    assert "frozen" not in repr(tree.layers.dec.weight)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_are_equal_and_their_own(again: Any) -> None:
    model = bimodel()
    tree = fx.setup(fx.Adam(0.1), model)
    fx.update(tree, model, slope(model))
    fx.freeze(tree.layers.enc.bias)
    other_model, other = again((model, tree))
    assert snapshot(other_model, other) == snapshot(model, tree)
    grad = slope(model)
    fx.update(tree, model, grad)
    assert snapshot(other_model, other) != snapshot(model, tree)
    fx.update(other, other_model, grad)
    assert snapshot(other_model, other) == snapshot(model, tree)
    fx.adjust(other, 0.7)
    fx.thaw(other)
    assert tree.layers.enc.weight.rule.eta == 0.1
    assert tree.layers.enc.bias.frozen


@pytest.mark.parametrize("n", [3, 5000])
@pytest.mark.parametrize("bad", ["abc", np.ones(2, "f"), np.ones(1, "f"), 1.0, None, "complex"])
def test_a_state_that_does_not_fit_is_refused_as_a_whole(bad: object, n: int) -> None:
    opt_state = fx.setup(fx.Adam(0.1), {"a": jnp.ones(n), "b": jnp.ones(n)})
    m, v, kept = opt_state["a"].state
    wrong = np.ones(n, complex) if isinstance(bad, str) and bad == "complex" else bad
    with pytest.raises(ValueError, match=r"The leaf at .*\['a'\] expects"):
        opt_state["a"].state = m + 1, wrong, kept
    assert not np.asarray(opt_state["a"].state[0]).any()
    with pytest.raises(ValueError, match=r"expects i32\[\] in its state"):
        opt_state["a"].state = m + 1, v, kept._replace(steps=1.5)
    opt_state["a"].state = m + 1, np.asarray(v) + 2, kept._replace(steps=4)
    m, v, kept = opt_state["a"].state
    assert (float(m[-1]), float(v[0]), int(kept.steps)) == (1, 2, 4)
