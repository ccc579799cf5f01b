"""Decays that change in mid-run: the running product is kept, as in Optimisers.jl."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax.optimisers._products import multiplied, products
from tests.rule_formulas import name, start

RULES = [
    fx.Adam(0.1), fx.AdamW(0.1, lam=0.1), fx.RAdam(0.1), fx.RAdam(0.1, (0.5, 0.8)), fx.AdaMax(0.1),
    fx.OAdam(0.1), fx.NAdam(0.1), fx.AdaBelief(0.1), fx.Adam(0.1, (0.9, 0.99999)),
    fx.OptimiserChain(fx.WeightDecay(0.1), fx.Adam(0.1)), fx.MixedPrecision(fx.NAdam(0.1)),
]  # fmt: skip
#: What β is set to, and after how many steps.
CHANGES = [
    {3: (0.5, 0.9)}, {4: (0.99, 0.9999)}, {8: (0.9, 0.5)}, {2: (0.5, 0.999), 6: (0.9, 0.9)},
    {k: (0.9 - 0.05 * k, 0.999 - 0.02 * k) for k in range(12)},
]  # fmt: skip
STEPS = 12


def holder(rule: Any) -> Any:
    """The rule inside that has decays."""
    return rule.opts[-1] if isinstance(rule, fx.OptimiserChain) else getattr(rule, "rule", rule)


def problem(seed: int = 2) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters that share arrays and one that does not, and gradients."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": (5,), "alone": (70, 60)}
    draw = lambda at: {k: np.float32(rng.normal(size=s) + at) for k, s in shapes.items()}
    return draw(0.0), [draw(0.3) for _ in range(STEPS)]


def expected(rule: Any, x: Any, gs: Any, changes: Any) -> Any:
    """The parameter after all steps, by the formula, and the sum of the sizes of the steps."""
    rule = copy.deepcopy(rule)
    x, size, steps = np.float64(x), 0.0, start(rule)
    for k, g in enumerate(gs):
        if k in changes:
            holder(rule).beta = changes[k]
        step = np.float64(steps.send((x, np.float64(g))))
        x, size = x - step, size + abs(step)
    return x, size


def check(rule: Any, model: Any, x: Any, gs: Any, changes: Any, tolerance: float = 1e-5) -> None:
    for k, found in model.items():
        wanted, size = expected(rule, x[k], [g[k] for g in gs], changes)
        assert np.max(abs(np.float64(found) - wanted) / np.maximum(size, 1e-3)) < tolerance, k


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=name)
def test_adjust_leaves_the_product_as_it_was(rule: Any, changes: Any) -> None:
    x, gs = problem()
    model = {k: jnp.asarray(v) for k, v in x.items()}
    tree = fx.setup(rule, model)
    loss = lambda m, g: sum(jnp.sum(m[k] * g[k]) for k in m)
    for k, g in enumerate(gs):
        if k in changes:
            fx.adjust(tree, beta=changes[k])
        fx.trainstep(loss, model, (g,), tree) if k % 2 else fx.update(tree, model, g)
    check(rule, model, x, gs, changes)


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_a_schedule_multiplies_what_it_gives(rule: Any) -> None:
    x, gs = problem()
    rule = copy.deepcopy(rule)
    holder(rule).beta = (lambda t: 0.5 + 0.03 * t, lambda t: jnp.where(t < 5, 0.9, 0.99 - 0.01 * t))
    model = {k: jnp.asarray(v) for k, v in x.items()}
    tree = fx.setup(rule, model)
    for g in gs:
        fx.update(tree, model, g)
    check(rule, model, x, gs, {}, 2e-5)  # a schedule's numbers are float32


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_float64_stays_exact(rule: Any) -> None:
    x, gs = problem()
    with jax.enable_x64(True):
        rule = fx.MixedPrecision(holder(rule), "float64") if hasattr(rule, "parameter") else rule
        model = {k: jnp.asarray(v, jnp.float64) for k, v in x.items()}
        tree = fx.setup(rule, model)
        for k, g in enumerate(gs):
            if k == 5:
                fx.adjust(tree, beta=(0.5, 0.9))
            fx.update(tree, model, g)
        check(rule, model, x, gs, {5: (0.5, 0.9)}, 1e-12)


def test_a_leaf_adjusted_alone_has_a_product_of_its_own() -> None:
    x, gs = problem()
    model = {k: jnp.asarray(v) for k, v in x.items()}
    tree, rule = fx.setup(fx.Adam(0.1), model), fx.Adam(0.1)
    for k, g in enumerate(gs):
        if k == 4:
            fx.adjust(tree["a"], beta=(0.5, 0.9))
        fx.update(tree, model, g)
    check(rule, {"a": model["a"]}, x, gs, {4: (0.5, 0.9)})
    check(rule, {k: v for k, v in model.items() if k != "a"}, x, gs, {})


def test_steps_that_are_none_multiply_nothing() -> None:
    """A step held back by the guard, a frozen leaf, no gradient, a micro-batch."""
    rule = fx.OptimiserChain(fx.AccumGrad(2), fx.Adam(0.1))
    x, gs = problem()
    model = {k: jnp.asarray(v) for k, v in x.items()}
    tree = fx.setup(rule, model)
    loss = lambda m, g: sum(jnp.sum(m[k] * g[k]) for k in m)
    for g in gs:
        fx.trainstep(loss, model, (g,), tree)
        fx.trainstep(loss, model, ({**g, "a": g["a"] * np.inf},), tree)
        fx.update(tree, model, dict.fromkeys(g))
        fx.freeze(tree)
        fx.update(tree, model, g)
        fx.thaw(tree)
        fx.trainstep(loss, model, (g,), tree)
    check(fx.Adam(0.1), model, x, gs, {})


@pytest.mark.parametrize("beta", [0.9, 0.999, 1 - 2.0**-20])
def test_of_a_decay_that_stays_the_product_is_a_power(beta: float) -> None:
    """Also after many steps: nothing is added up."""
    kept, x = products(jnp.ones(2), 1), jnp.ones(2)
    many = jax.jit(
        lambda k: jax.lax.fori_loop(0, 10_000, lambda _, k: multiplied(k, [beta], x)[0], k)
    )
    _, (power,) = multiplied(many(kept), [beta], x)
    assert float(power.one_minus()) == pytest.approx(-np.expm1(10_001 * np.log(beta)), rel=3e-7)
    assert float(power.excess) == 0


@pytest.mark.parametrize("rule", RULES[:3], ids=name)
def test_a_state_that_is_converted_keeps_its_products(rule: Any) -> None:
    """float64 notes more of a number: what float32 did not is 0, and comes to nothing."""
    x, gs = problem()
    with jax.enable_x64(True):
        model = {k: jnp.asarray(v, jnp.float32) for k, v in x.items()}
        tree = fx.setup(rule, model)
        for k, g in enumerate(gs):
            if k == 3:
                fx.adjust(tree, beta=(0.5, 0.9))
            if k in (2, 5):
                model, tree = fx.f64(model), fx.f64(tree)
            if k == 8:
                model, tree = fx.f32(model), fx.f32(tree)
            fx.update(tree, model, {n: jnp.asarray(v, model[n].dtype) for n, v in g.items()})
        check(rule, model, x, gs, {3: (0.5, 0.9)})


@pytest.mark.parametrize("way", ["compiled", "uncompiled"])
@pytest.mark.parametrize("rule", [fx.Adam(0.1), fx.NAdam(0.1), fx.RAdam(0.1, (0.5, 0.8))], ids=name)
def test_an_objective_is_differentiated_through_the_products(rule: Any, way: str) -> None:
    """By decays that every step has, and by those that later ones have."""
    g = jnp.array([0.5, -1.0, 2.0])

    def f(first: Any, second: Any) -> Any:
        q, new = {"w": jnp.ones(3)}, copy.copy(rule)
        new.beta = (first[0], first[1])
        state = fx.setup(new, q)
        for k in range(6):
            if k == 3:
                fx.adjust(state, beta=(second[0], second[1]))
            fx.update(state, q, {"w": g * (k + 1.0)})
        return jnp.sum(q["w"] ** 2)

    def exact(first: Any, second: Any) -> float:
        new, x = copy.copy(rule), np.ones(3)
        new.beta = tuple(first)
        steps = start(new)
        for k in range(6):
            new.beta = tuple(second if k >= 3 else first)
            x = x - np.float64(steps.send((x, np.float64(g) * (k + 1))))
        return float(np.sum(x**2))

    points = np.array([0.9, 0.97]), np.array([0.6, 0.8])
    with fx.eager() if way == "uncompiled" else fx.strict():
        value, grads = fx.withgradient(f, *(jnp.asarray(p, jnp.float32) for p in points))
    assert float(value) == pytest.approx(exact(*points), rel=1e-5)
    for which in range(2):
        for i in range(2):
            at = [[p.copy() for p in points] for _ in range(2)]
            at[0][which][i] += 1e-6
            at[1][which][i] -= 1e-6
            slope = (exact(*at[0]) - exact(*at[1])) / 2e-6
            assert float(grads[which][i]) == pytest.approx(slope, rel=2e-3, abs=1e-4)
