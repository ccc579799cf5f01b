"""Params and Grads as collections, and calls that mix the two styles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import snapshot


def net() -> fx.Chain:
    return fx.Chain(enc=fx.Dense(2, 3, rng=1), dec=fx.Dense(3, 1, rng=2))


def same(a: Any, b: Any) -> bool:
    """Whether two collections hold the very same arrays in the same order."""
    return [id(x) for x in a] == [id(x) for x in b]


# --- Params -------------------------------------------------------------------------------


def test_params_are_the_trained_arrays_in_order() -> None:
    model = fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3), fx.relu, fx.Dense(3, 1, bias=False))
    ps = fx.params(model)
    assert same(ps, fx.trainables(model))
    assert same(ps[1:3], list(ps)[1:3])
    assert model.layers[1].mean not in ps
    assert np.asarray(ps[0]) not in ps  # equal is not the same


def test_reading_follows_the_place() -> None:
    model = net()
    ps, old = fx.params(model), model.layers.enc.weight
    model.layers.enc.weight = jnp.zeros((2, 3))
    assert model.layers.enc.weight in ps
    assert old not in ps
    model.layers.enc.bias = False
    assert len(ps) == 3


def test_nested_params_and_numpy_arrays() -> None:
    model, w = net(), np.ones(3, np.float32)
    ps = fx.params(fx.params(model.layers.dec), [w, {"n": np.arange(3)}], model, w)
    assert same(ps, [*fx.params(model.layers.dec), w, *fx.params(model.layers.enc)])


def test_set_operations() -> None:
    model = net()
    enc, dec = fx.params(model.layers.enc), fx.params(model.layers.dec)
    ps = fx.params(model)
    assert same(enc | dec, ps)
    assert same(dec.union(enc, ps), [*dec, *enc])
    assert same(ps & dec, dec)
    assert same(ps.intersect(model.layers.dec, dec), dec)
    assert same(ps - enc, dec)
    assert same(ps.difference(model.layers.dec, ps[0]), [ps[1]])
    assert len(enc & dec) == len(enc - ps) == len(fx.params()) == 0
    assert len(ps) == 4


def test_params_are_equal_that_hold_the_same_places_in_order() -> None:
    model = net()
    ps, enc, dec = (fx.params(m) for m in (model, model.layers.enc, model.layers.dec))
    assert ps == fx.params(model) == enc | dec
    assert ps != dec | enc
    assert ps != fx.params(net())
    assert ps != [*ps]
    model.layers.enc.weight = jnp.ones_like(model.layers.enc.weight)
    assert ps == fx.params(model)


def test_push_and_delete_change_in_place() -> None:
    model = net()
    ps = fx.params()
    copy = ps.push(model.layers.dec).push(model).copy()
    assert copy is not ps
    assert same(ps, [*fx.params(model.layers.dec), *fx.params(model.layers.enc)])
    assert ps.delete(model.layers.enc, model.layers.dec.bias) is ps
    assert same(ps, [model.layers.dec.weight])
    assert len(copy) == 4
    with pytest.raises(ValueError, match=r"delete expects arrays of these Params, got f32\[1\]"):
        ps.delete(ps[0], model.layers.dec.bias)
    assert len(ps) == 1


def test_params_are_one_vector() -> None:
    model, w = net(), np.zeros(2)
    w_is = w
    ps = fx.params(model, w)
    vector = np.arange(15.0)
    assert ps.copy(vector) is ps
    assert model.layers.enc.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert model.layers.dec.bias.dtype == jnp.float32
    assert w_is.tolist() == [13, 14]
    np.testing.assert_array_equal(ps.flat(), vector)
    with pytest.raises(ValueError, match=r"copy expects a vector of 15 numbers, got f64\[14\]"):
        ps.copy(vector[1:])
    assert fx.params().flat().shape == (0,)


def test_params_print_and_pass_through_jax() -> None:
    model = fx.Dense(2, 3)
    ps = fx.params(model)
    assert repr(ps) == "Params([f32[2,3], f32[3]])"
    assert [p.shape for p in jax.tree.map(lambda p: p.T, ps)] == [(3, 2), (3,)]
    assert float(jax.jit(lambda ps: sum(p.size for p in ps))(ps)) == 9


# --- Grads --------------------------------------------------------------------------------


def gradients() -> tuple[Any, Any, Any]:
    model = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([3.0]), "unused": jnp.zeros(2)}
    ps = fx.params(model)
    return model, ps, fx.gradient(lambda: jnp.sum(model["w"] ** 2) + model["b"][0], ps)


def test_grads_are_read_by_array_now_and_then_and_by_place() -> None:
    model, ps, gs = gradients()
    w = model["w"]
    fx.update(fx.Descent(0.1), ps, gs)
    assert model["w"] is not w
    assert gs[w] is gs[model["w"]] is gs[model, "w"]
    assert gs[model["unused"]] is None
    assert (w in gs, model["w"] in gs, jnp.ones(2) in gs, (model, "z") in gs) == (
        True, True, False, False,
    )  # fmt: skip
    with pytest.raises(KeyError, match=r"an array of its Params, got f32\[5\]"):
        gs[jnp.ones(5)]


def test_grads_are_a_collection() -> None:
    model, ps, gs = gradients()
    assert same(gs.keys(), ps)
    assert same(gs.params, ps)
    assert [k.shape for k, g in gs.items() if g is not None] == [(2,), (1,)]
    assert len(list(gs)) == len(gs) == 3
    assert repr(gs) == "Grads({model['w']: f32[2], model['b']: f32[1], model['unused']: None})"
    gs[model["w"]] = jnp.clip(gs[model["w"]], -1, 1)
    assert gs.values()[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"shape \(2,\) at model\['w'\], got f32\[3\]"):
        gs[model["w"]] = jnp.ones(3)


def test_arithmetic_takes_none_as_zero() -> None:
    model, ps, gs = gradients()
    other = fx.gradient(lambda: jnp.sum(model["unused"]) + jnp.sum(model["w"]), ps)
    values = lambda gs: [None if g is None else g.tolist() for g in gs]
    assert values(gs + other) == [[3, 5], [1], [1, 1]]
    assert values(gs - other) == [[1, 3], [1], [-1, -1]]
    assert values(2 * gs) == values(gs * 2.0) == values(gs / 0.5) == [[4, 8], [2], None]
    assert values(-gs) == [[-2, -4], [-1], None]
    assert values(gs.map(lambda g, h: g + 10 * h, gs)) == [[22, 44], [11], None]
    copy = gs.copy()
    copy[model["w"]] = None
    assert values(gs) == [[2, 4], [1], None]
    with pytest.raises(ValueError, match=r"\+ expects Grads of the same Params, got Grads of oth"):
        gs + fx.gradient(lambda: jnp.sum(model["w"]), fx.params({"w": model["w"]}))


def test_a_sum_of_grads_is_a_gradient_too() -> None:
    model, ps, gs = gradients()
    fx.update(fx.Descent(1.0), ps, gs / 2 + gs / 2)
    assert model["w"].tolist() == [-1, -2]
    fx.update(fx.Descent(1.0), ps - fx.params([]).push(fx.params({"b": model["b"]})), gs)
    assert (model["w"].tolist(), model["b"].tolist()) == ([-3, -6], [2])


# --- which style? -------------------------------------------------------------------------

Case = tuple[str, Callable[[Any], Any]]
X, Y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
IMPLICIT = r"looks like the implicit style.*fx\.gradient\(lambda: "
EXPLICIT = r"looks like the explicit style"


def loss(m: Any, x: Any = X, y: Any = Y) -> Any:
    return fx.mse(m(x), y)


def tree(m: Any) -> Any:
    return fx.setup(fx.Adam(), m)


def gs_of(m: Any) -> Any:
    return fx.gradient(lambda: loss(m), fx.params(m))


MIXED: dict[str, Case] = {
    "gradient of nothing": (IMPLICIT, lambda m: fx.gradient(lambda: loss(m))),
    "withgradient of nothing": (IMPLICIT, lambda m: fx.withgradient(lambda: loss(m))),
    "implicit function, explicit model": (IMPLICIT, lambda m: fx.gradient(lambda: loss(m), m)),
    "explicit function, Params": (
        EXPLICIT + r".*fx\.gradient\(lambda m: ",
        lambda m: fx.gradient(lambda m: loss(m), fx.params(m)),
    ),
    "Params and more": ("Params alone", lambda m: fx.gradient(lambda: loss(m), fx.params(m), X)),
    "more and Params": ("Params alone", lambda m: fx.gradient(lambda x, p: 0.0, X, fx.params(m))),
    "ints": (r"got a list of 3.*explicit style", lambda m: fx.params([1, 2, 3])),
    "one int": (r"got 3\..*implicit style", lambda m: fx.params(m, 3)),
    "whole numbers": (r"got i64\[2\]", lambda m: fx.params(np.array([1, 2]))),
    "a JAX array": (
        r"changed in place, got f32\[2\].*make it a NumPy array",
        lambda m: fx.params(jnp.ones(2)),
    ),
    "a tuple of JAX arrays": (r"f32\[2\] at model\[1\]", lambda m: fx.params((m, jnp.ones(2)))),
    "setup of Params": (r"setup expects a model, got Params", lambda m: tree(fx.params(m))),
    "update: tree and Params": (
        r"state tree, which belongs to the explicit style.*fx\.update\(opt, ps, gs\)",
        lambda m: fx.update(tree(m), fx.params(m), gs_of(m)),
    ),
    "update: Params and a tuple": (
        r"got a tuple of 1, which " + EXPLICIT,
        lambda m: fx.update(fx.Adam(), fx.params(m), fx.gradient(loss, m)),
    ),
    "update: model and Grads": (
        r"got Grads, which belong to the implicit style",
        lambda m: fx.update(tree(m), m, gs_of(m)),
    ),
    "update: rule and model": (
        r"got an Adam. Write opt_state = fx\.setup",
        lambda m: fx.update(fx.Adam(), m, fx.gradient(loss, m)[0]),
    ),
    "update: class and Params": (
        r"update expects a rule, got the class Adam",
        lambda m: fx.update(fx.Adam, fx.params(m), gs_of(m)),
    ),
    "train: tree and Params": (
        r"train expects an optimisation rule with Params, got a state tree",
        lambda m: fx.train(lambda x, y: loss(m, x, y), fx.params(m), [(X, Y)], tree(m)),
    ),
    "train: loss of the model, Params": (
        r"train expects a loss of the data alone with Params.*`m, x, y` for 2.*" + EXPLICIT,
        lambda m: fx.train(lambda m, x, y: loss(m, x, y), fx.params(m), [(X, Y)], fx.Adam()),
    ),
    "train: loss of data alone, tree": (
        r"a loss of the model and the data, got one of `x, y` for 2.*implicit style",
        lambda m: fx.train(lambda x, y: loss(m, x, y), m, [(X, Y)], tree(m)),
    ),
    "train: rule and model": (
        r"train expects a state tree, got a rule",
        lambda m: fx.train(loss, m, [(X, Y)], fx.Adam()),
    ),
    "trainstep: tree and Params": (
        r"trainstep expects an optimisation rule with Params",
        lambda m: fx.trainstep(lambda x, y: loss(m, x, y), fx.params(m), (X, Y), tree(m)),
    ),
}


@pytest.mark.parametrize("case", MIXED)
def test_mixed_styles_are_told_apart(case: str) -> None:
    sentence, call = MIXED[case]
    model = net()
    before = snapshot(model)
    with pytest.raises(TypeError, match=sentence):
        call(model)
    assert snapshot(model) == before


def test_grads_of_other_params_are_refused() -> None:
    model, other = net(), net()
    with pytest.raises(ValueError, match=r"has none for model\.layers\[0\]\.weight"):
        fx.update(fx.Adam(), fx.params(model), gs_of(other))


def test_a_jax_array_that_the_loss_names_itself_cannot_be_updated() -> None:
    w = jnp.ones((2, 1))
    ps, opt = fx.params([w]), fx.Descent(0.1)
    gs = fx.gradient(lambda: fx.mse(X @ w, Y), ps)
    np.testing.assert_allclose(gs[w], [[4.0], [4.0]])
    for call in (
        lambda: fx.update(opt, ps, gs),
        lambda: fx.train(lambda x, y: fx.mse(x @ w, y), ps, [(X, Y)], opt),
    ):
        with pytest.raises(TypeError, match=r"a JAX array f32\[2,1\] that the loss names itself"):
            call()
    assert ps[0] is w


def test_a_rule_of_another_sort_does_not_fit_the_state() -> None:
    model = net()
    opt, ps, gs = fx.OptimiserChain(fx.Adam()), fx.params(model), gs_of(model)
    fx.update(opt, ps, gs)
    opt.opts = (fx.Momentum(),)
    with pytest.raises(ValueError, match="a rule of the same sort as before"):
        fx.update(opt, ps, gs)
