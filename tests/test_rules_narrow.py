"""float16 and bfloat16 parameters: every rule as in float32, and the parameter rounded once."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax.optimisers._rule import rules_in
from tests.rule_formulas import RULES, name

NARROW = [jnp.float16, jnp.bfloat16]
SIZES = [1e-4, 1.0, 1e3]
#: Beside the rules of the formulas' table: chains of rules that look at norms, decay, or wait.
CHAINS = [
    fx.OptimiserChain(fx.ClipNorm(0.7), fx.WeightDecay(0.1), fx.Adam(0.1)),
    fx.OptimiserChain(fx.ClipGlobalNorm(0.7), fx.SignDecay(0.1), fx.Momentum(0.1)),
    fx.OptimiserChain(fx.AccumGrad(2), fx.ClipGrad(0.7), fx.RMSProp(0.1), fx.EMA(0.7)),
    fx.MixedPrecision(fx.OptimiserChain(fx.ClipNorm(0.7), fx.AdamW(0.1, lam=0.1))),
]  # fmt: skip
#: One test of all rules of a class, since most of them need the same few programs.
kinds = pytest.mark.parametrize(
    "kind", dict.fromkeys(map(type, RULES + CHAINS)), ids=lambda c: c.__name__
)
SHAPES = {"w": (3, 4), "b": (4,), "k": (2, 3), "large": (70, 60)}


@pytest.fixture(autouse=True)
def _own_programs() -> None:
    """All tests have one objective, which is warned of when it has many programs."""
    fx.clear_cache()


def problem(dtype: Any, size: float) -> tuple[Any, list[Any]]:
    """Parameters, small ones among them that share arrays, and gradients, all in a narrow dtype."""
    rng = np.random.default_rng(5)
    draw = lambda at: {
        k: jnp.asarray((rng.normal(size=s) + at) * size, dtype) for k, s in SHAPES.items()
    }
    return draw(0.0), [draw(0.3) for _ in range(10)]


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def by_update(tree: Any, model: Any, g: Any) -> None:
    fx.update(tree, model, g)


def by_trainstep(tree: Any, model: Any, g: Any) -> None:
    """A loss whose gradient is `g`, exactly."""
    fx.trainstep(lambda m, g: sum(_product(m[k], g[k]) for k in g), model, (g,), tree)


def _product(x: Any, g: Any) -> Any:
    return jnp.sum(x.astype(jnp.float32) * jax.lax.stop_gradient(g).astype(jnp.float32))


def ulp(a: Any, dtype: Any) -> Any:
    """The distance of neighbours of a narrow dtype at the numbers of an array."""
    info = jnp.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(a), float(info.tiny))))
    return np.exp2(exponent - info.nmant)


@pytest.mark.slow
@kinds
def test_steps_are_those_of_float32_rounded_once(kind: type) -> None:
    rules = [rule for rule in RULES + CHAINS if type(rule) is kind]
    for rule, dtype in itertools.product(rules, NARROW):
        fused = rule is rules[0] and dtype == jnp.bfloat16
        one_step_is_that_of_float32(rule, dtype, (by_update, by_trainstep)[: 1 + fused])
        ten_steps_are_those_of_float32(rule, dtype)


def one_step_is_that_of_float32(rule: Any, dtype: Any, steps: tuple[Any, ...]) -> None:
    for size, step in itertools.product(SIZES, steps):
        x, gs = problem(dtype, size)
        mine, theirs = copy.copy(x), wide(x)
        tree, reference = fx.setup(rule, mine), fx.setup(rule, theirs)
        step(tree, mine, gs[0])
        by_update(reference, theirs, wide(gs[0]))
        for k, new in theirs.items():
            assert mine[k].dtype == dtype
            rounded = wide(new.astype(dtype))
            off = np.abs(wide(mine)[k] - rounded)
            assert np.all(off <= ulp(rounded, dtype)), (rule, k)  # another order of sums, a tie
            assert np.mean(off == 0) > 0.99, (rule, k)
            flat = map(jax.tree.leaves, (tree[k].state, reference[k].state))
            for a, b in zip(*flat, strict=True):
                assert a.dtype == b.dtype
                largest = float(jnp.max(jnp.abs(b)))
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest)


def ten_steps_are_those_of_float32(rule: Any, dtype: Any) -> None:
    """Of float32 with the parameter rounded after each step; and, less exactly, without that."""
    for size in SIZES:
        x, gs = problem(dtype, size)
        mine, rounded, free, largest = x, wide(x), wide(x), wide(x)
        trees = [fx.setup(rule, model) for model in (mine, rounded, free)]
        for g in gs:
            fx.update(trees[0], mine, g)
            fx.update(trees[1], rounded, wide(g))
            fx.update(trees[2], free, wide(g))
            largest = {k: np.maximum(np.abs(v), np.abs(largest[k])) for k, v in free.items()}
            for k, new in rounded.items():
                rounded[k] = wide(new.astype(dtype))
                off = np.abs(wide(mine)[k] - rounded[k])
                assert np.all(off <= ulp(largest[k], dtype)), (rule, k)
                assert np.mean(off == 0) > 0.98, (rule, k)
        if any(isinstance(r, fx.SignDecay) for r in rules_in(rule)):
            continue  # its steps jump where a parameter passes 0, which rounding may move
        once = any(isinstance(r, fx.MixedPrecision) for r in rules_in(rule))
        for k, new in free.items():
            off = np.abs(wide(mine)[k] - new)
            assert np.all(off <= (0.51 if once else 5.5) * ulp(largest[k], dtype)), (rule, k)


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.__name__)
@pytest.mark.parametrize("rule", RULES + CHAINS, ids=name)
def test_called_by_hand_it_computes_in_float32_too(rule: Any, dtype: Any) -> None:
    x, gs = problem(dtype, 1.0)
    x, g = x["w"], gs[0]["w"]
    state, step = rule.apply(rule.init(x), x, g)
    wide_state, wide_step = rule.apply(rule.init(wide(x)), wide(x), wide(g))
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, wide_state)
    if step is None:
        assert wide_step is None
        return
    assert step.dtype == dtype
    off = np.abs(np.asarray(x - step, np.float32) - (wide(x) - wide_step))
    assert np.all(off <= 1.5 * ulp(np.maximum(np.abs(wide(x)), np.abs(wide_step)), dtype))


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.__name__)
def test_adams_first_step_is_eta(dtype: Any) -> None:
    for size in (1e-7, 1e-4, 1.0, 1e3):
        model = {"w": jnp.zeros(3, dtype)}
        tree = fx.setup(fx.Adam(), model)
        fx.update(tree, model, {"w": jnp.full(3, size, dtype)})
        np.testing.assert_allclose(
            np.asarray(model["w"], float), -1e-3, rtol=0.11 if size < 1e-5 else 0.004
        )


def test_a_mean_of_many_small_gradients() -> None:
    model = {"w": jnp.zeros(2, jnp.bfloat16)}
    tree = fx.setup(fx.OptimiserChain(fx.AccumGrad(512), fx.Descent(1.0)), model)
    for _ in range(512):
        fx.update(tree, model, {"w": jnp.ones(2, jnp.bfloat16)})
    assert model["w"].tolist() == [-1, -1]


def test_an_average_follows() -> None:
    model = {"w": jnp.zeros(2, jnp.bfloat16)}
    tree = fx.setup(fx.OptimiserChain(fx.Descent(1.0), fx.EMA(0.999)), model)
    fx.update(tree, model, {"w": -jnp.ones(2, jnp.bfloat16)})
    for _ in range(999):
        fx.update(tree, model, {"w": jnp.zeros(2, jnp.bfloat16)})
    average = fx.ema(tree, model)["w"]
    assert average.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(average, float), 1 - 0.999**1000, rtol=0.004)


@pytest.mark.parametrize("p", [0, 1, 2, 3, np.inf])
def test_norms_are_summed_in_float32(p: float) -> None:
    g = jnp.full(5000, 300.0, jnp.float16)  # the sum of their squares is far above 65504
    model = {"w": jnp.zeros(5000, jnp.float16)}
    tree = fx.setup(fx.OptimiserChain(fx.ClipNorm(1.0, p), fx.Descent(1.0)), model)
    fx.update(tree, model, {"w": g})
    size = np.linalg.norm(np.full(5000, 300.0), p)
    np.testing.assert_allclose(np.asarray(model["w"], float), -300 / size, rtol=1e-3, atol=6e-8)


def test_gradients_of_a_tied_array_are_summed_in_float32() -> None:
    w = jnp.zeros(1, jnp.float16)
    model = [w] * 3
    tree = fx.setup(fx.OptimiserChain(fx.ClipNorm(1.0), fx.Descent(1.0)), model)
    fx.update(tree, model, [jnp.full(1, 40000.0, jnp.float16)] * 3)  # 120,000 is none of float16
    assert model[0].tolist() == [-1]


def test_a_gradient_beyond_the_parameters_type_is_taken_as_it_is() -> None:
    model = {"w": jnp.zeros(1, jnp.float16)}
    tree = fx.setup(fx.OptimiserChain(fx.ClipNorm(1.0), fx.Descent(1.0)), model)
    fx.update(tree, model, {"w": jnp.full(1, 1e6)})
    assert model["w"].tolist() == [-1]


@kinds
def test_an_empty_array_is_no_trouble(kind: type) -> None:
    rules = [rule for rule in RULES + CHAINS if type(rule) is kind]
    for rule, dtype in itertools.product(rules, (jnp.float32, jnp.bfloat16)):
        empty_arrays_are_no_trouble(rule, dtype)


def empty_arrays_are_no_trouble(rule: Any, dtype: Any) -> None:
    shapes = {"a": (0,), "b": (0, 3), "c": (3, 0), "d": (0, 0, 2), "v": (2,)}
    model = {k: jnp.ones(shape, dtype) for k, shape in shapes.items()}
    tree, g = fx.setup(rule, model), copy.copy(model)
    by_update(tree, model, g)
    if dtype == jnp.float32:
        by_trainstep(tree, model, g)
    assert {k: a.shape for k, a in model.items()} == shapes
    assert bool(jnp.all(jnp.isfinite(model["v"])))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.__name__)
def test_a_pass_over_a_loader_and_a_converted_state(dtype: Any) -> None:
    """Steps on the device in one piece; and a run in float32 that goes on in a narrow dtype."""
    convert = fx.f16 if dtype == jnp.float16 else fx.bf16
    model = fx.Chain(fx.Dense(3, 8, fx.tanh, rng=0), fx.Dense(8, 1, rng=1))
    tree = fx.setup(fx.OptimiserChain(fx.ClipGlobalNorm(1.0), fx.Adam(0.01), fx.EMA(0.9)), model)
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    data = fx.DataLoader((x, x.sum(1, keepdims=True)), batchsize=8)
    loss = lambda m, x, y: fx.mse(m(x.astype(m[0].weight.dtype)).astype(jnp.float32), y)
    fx.train(loss, model, data, tree)
    narrow, state = convert(model), convert(tree)
    dtypes = {a.dtype for leaf in _leaves(state) for a in jax.tree.leaves(leaf.state)}
    assert dtypes == {np.dtype(np.float32), np.dtype(np.int32)}
    losses = [fx.train(loss, m, data, t).mean() for m, t in ((model, tree), (narrow, state))]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert narrow[0].weight.dtype == dtype
    assert fx.ema(state, narrow)[0].weight.dtype == dtype


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda v: isinstance(v, fx.Leaf))
