"""Rules beyond one array's formula: averages, micro-batches, Muon, mixed precision, norms."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import compiling, snapshot


def step(tree: Any, model: Any, g: float = 1.0) -> None:
    fx.update(tree, model, jax.tree.map(lambda a: jnp.full_like(a, g), model))


def test_the_average_gives_a_model_of_its_own() -> None:
    model = fx.Chain(fx.Dense(2, 3, rng=0), fx.BatchNorm(3))
    tree = fx.setup(fx.OptimiserChain(fx.Descent(0.5), fx.EMA(0.75)), model)
    averaged = fx.ema(tree, model)
    assert snapshot(averaged) == snapshot(model)
    x = np.ones((4, 2), np.float32)
    for _ in range(2):
        fx.trainstep(lambda m, x: jnp.sum(m(x) ** 2), model, (x,), tree)
    assert snapshot(averaged) != snapshot(model)
    new = fx.ema(tree, model)
    before = snapshot(new)
    fx.trainstep(lambda m, x: jnp.sum(m(x) ** 2), model, (x,), tree)
    assert snapshot(new) == before  # later steps leave it alone
    assert new(x).shape == (4, 3)
    assert new[1].mean.tolist() != averaged[1].mean.tolist()  # statistics are the model's


def test_n_of_micro_batches_is_adjusted_without_compiling() -> None:
    model = {"w": jnp.zeros(2)}
    tree = fx.setup(fx.OptimiserChain(fx.AccumGrad(2), fx.Descent(1.0)), model)
    step(tree, model)
    assert model["w"].tolist() == [0, 0]
    fx.adjust(tree, n=1)
    with compiling() as seen:
        step(tree, model, 3.0)  # what was collected, 1/2, and 3/1
    assert seen == []
    assert model["w"].tolist() == [-3.5, -3.5]


def test_leaves_out_of_step_are_no_part_of_the_norm() -> None:
    """One was frozen for a micro-batch: at the other's step it has collected half."""
    model = {"a": jnp.zeros(1), "b": jnp.zeros(5000)}
    rule = fx.OptimiserChain(fx.AccumGrad(2), fx.ClipGlobalNorm(1.0), fx.Descent(1.0))
    tree = fx.setup(rule, model)
    fx.freeze(tree["b"])
    step(tree, model, 4.0)
    fx.thaw(tree)
    step(tree, model, 4.0)
    assert model["a"].tolist() == [-1.0]
    assert not model["b"].any()
    assert (tree["a"].steps, tree["b"].steps) == (1, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_passes(bad: float) -> None:
    model = {"a": jnp.zeros(1), "b": jnp.zeros(2)}
    tree = fx.setup(fx.OptimiserChain(fx.ClipGlobalNorm(0.1), fx.Descent(1.0)), model)
    fx.update(tree, model, {"a": jnp.ones(1), "b": jnp.array([bad, 2.0])})
    assert model["a"].tolist() == [-1.0]
    assert model["b"][1] == -2.0


def test_the_norm_of_large_gradients_is_finite_also_in_a_program() -> None:
    model = {"a": jnp.zeros(1), "b": jnp.zeros(1), "c": jnp.zeros(2)}
    together = fx.OptimiserChain(fx.ClipGlobalNorm(1.0), fx.Descent(1.0))
    alone = fx.OptimiserChain(fx.ClipNorm(1.0), fx.Descent(1.0))
    tree = fx.setup({"": together, "c": alone}, model)
    grad = {"a": jnp.array([3e25]), "b": jnp.array([4e25]), "c": jnp.array([3e25, 4e25])}
    fx.update(tree, model, grad)
    np.testing.assert_allclose([model["a"][0], model["b"][0]], [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_allclose(model["c"], [-0.6, -0.8], rtol=1e-6)


def test_muon_leaves_what_is_no_matrix_to_its_fallback() -> None:
    model = fx.Chain(fx.Conv((2, 2), 1, 3, rng=0), fx.flatten, fx.Dense(3, 2, rng=1))
    tree = fx.setup(fx.Muon(0.02, fallback=fx.Descent(0.1)), model)
    bias, kernel = np.asarray(model[0].bias), np.asarray(model[0].weight)
    step(tree, model)
    np.testing.assert_allclose(model[0].bias, bias - 0.1, rtol=1e-6)
    move = (kernel * (1 - 0.02 * 0.01) - np.asarray(model[0].weight)).reshape(4, 3)
    assert 0.5 < np.linalg.svd(move / 0.02)[1][0] < 1.3  # of rank one, as the gradient
    fx.adjust(tree, 0.04)
    assert tree.layers[0].bias.rule.fallback.eta == pytest.approx(0.2)  # the ratio stays


def test_mixed_precision_puts_the_rounded_copy_there_whatever_was() -> None:
    model = {"w": jnp.array([1.0, 3e4, 3.0], jnp.float16)}
    tree = fx.setup(fx.MixedPrecision(fx.Descent(1.0)), model)
    fx.update(tree, model, {"w": jnp.array([1e-4, -4e4, 0], jnp.float16)})
    assert model["w"].tolist() == [1.0, np.inf, 3.0]  # the copy is 70,000
    fx.update(tree, model, {"w": jnp.array([0, 4e4, 0], jnp.float16)})
    assert model["w"].tolist() == [1.0, 30000.0, 3.0]
    assert tree["w"].state[0][0] == np.float32(1 - np.float32(np.float16(1e-4)))
    model["w"] = jnp.array([7.0, 0, 0], jnp.float16)  # by hand: lost at the next step
    fx.update(tree, model, {"w": jnp.zeros(3, jnp.float16)})
    assert model["w"].tolist() == tree["w"].state[0].astype(jnp.float16).tolist()
    assert fx.MixedPrecision(jnp.float32, fx.Adam()) == fx.MixedPrecision(fx.Adam())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_go_on_as_the_original(again: Any) -> None:
    rule = fx.MixedPrecision(
        fx.OptimiserChain(fx.AccumGrad(2), fx.ClipGlobalNorm(0.1), fx.Adam(0.1), fx.EMA(0.9))
    )
    model = {"a": jnp.ones(3), "m": jnp.ones((2, 2))}
    tree = fx.setup({"a": rule, "m": fx.Muon()}, model)
    step(tree, model)
    other, twin = again((tree, model))
    for t, m in ((tree, model), (other, twin)):
        step(t, m, 0.5)
        step(t, m, 2.0)
    assert snapshot(model, tree) == snapshot(twin, other)


def test_after_an_update_there_is_one_copy_of_the_parameters() -> None:
    model = {"w": jnp.ones((500, 300))}
    tree = fx.setup(fx.Adam(), model)
    grad = {"w": jnp.ones((500, 300))}
    for _ in range(2):
        fx.update(tree, model, grad)
    mine = [a for a in jax.live_arrays() if a.shape == (500, 300)]
    assert len(mine) == 4  # the parameter, its gradient, two means
