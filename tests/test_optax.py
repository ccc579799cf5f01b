"""Optax transformations wherever a rule is, with their own meaning: the whole tree at once."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fluxax as fx
from tests.witness import compiling, snapshot

SHAPES = {"a": (2, 3), "b": (3,), "c": (40, 40)}


def problem() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    draw = np.random.default_rng(1)
    arrays = lambda: {k: jnp.asarray(draw.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
    return arrays(), [arrays() for _ in range(4)]


def by_optax(tx: Any, xs: Any, gs: list[Any]) -> Any:
    state = tx.init(xs)
    for g in gs:
        updates, state = tx.update(g, state, xs)
        xs = optax.apply_updates(xs, updates)
    return xs


def near(found: Any, wanted: Any) -> None:
    """Equal but for 1e-4 of a step: Optax computes 1 - βᵗ in float32, where that much is lost."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
named = lambda params: jax.tree_util.tree_map_with_path(
    lambda path, _: "slow" if "b" in str(path) else "fast", params
)
WHOLE = {
    "adamw with a schedule": optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    "global norm": optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
    "a mask by shape": optax.chain(optax.masked(optax.add_decayed_weights(0.1), matrices),
                                   optax.sgd(0.1, 0.9)),
    "labels by path": optax.multi_transform({"slow": optax.sgd(0.01), "fast": optax.adam(0.1)},
                                            named),
    "one vector for all": optax.flatten(optax.adam(0.1)),
}  # fmt: skip


@pytest.mark.parametrize("how", ["update", "trainstep"])
@pytest.mark.parametrize("tx", WHOLE.values(), ids=list(WHOLE))
def test_a_transformation_is_a_rule(tx: Any, how: str) -> None:
    model, gs = problem()
    wanted = by_optax(tx, dict(model), gs)
    opt_state = fx.setup(tx, model)
    loss = lambda m, g: sum(jnp.vdot(m[k], g[k]) for k in m)
    for g in gs:
        if how == "update":
            fx.update(opt_state, model, g)
        else:
            fx.trainstep(loss, model, (g,), opt_state)
    near(model, wanted)
    assert opt_state["a"].steps == len(gs)


EQUAL = {
    "before ours": ((optax.clip_by_global_norm(0.5), fx.Momentum(0.1)),
                    (fx.ClipGlobalNorm(0.5), fx.Momentum(0.1))),
    "after ours": ((fx.WeightDecay(0.1), optax.adam(0.1)), (fx.WeightDecay(0.1), fx.Adam(0.1))),
    "its parts": ((optax.scale_by_adam(), fx.Descent(0.1)), (fx.Adam(0.1),)),
    "its parts, last": ((fx.ClipGlobalNorm(0.5), optax.scale_by_adam(), optax.scale(-0.1)),
                        (fx.ClipGlobalNorm(0.5), fx.Adam(0.1))),
    "nested": ((fx.OptimiserChain(fx.WeightDecay(0.1), optax.scale_by_adam()), fx.Descent(0.1)),
               (fx.WeightDecay(0.1), fx.Adam(0.1))),
    "micro-batches": ((fx.AccumGrad(2), optax.adam(0.1)), (fx.AccumGrad(2), fx.Adam(0.1))),
}  # fmt: skip


@pytest.mark.parametrize("mixed, ours", EQUAL.values(), ids=list(EQUAL))
def test_chains_of_both(mixed: Any, ours: Any) -> None:
    model, gs = problem()
    twin = dict(model)
    tree, other = (
        fx.setup(fx.OptimiserChain(*mixed), model),
        fx.setup(fx.OptimiserChain(*ours), twin),
    )
    for g in gs:
        fx.update(tree, model, g)
        fx.update(other, twin, g)
    near(model, twin)


def test_a_chain_of_optax_alone_is_optax_chain() -> None:
    model, gs = problem()
    parts = optax.scale(-1.0), optax.adam(0.1)  # uphill, on purpose
    wanted = by_optax(optax.chain(*parts), dict(model), gs)
    tree = fx.setup(fx.OptimiserChain(*parts), model)
    for g in gs:
        fx.update(tree, model, g)
    near(model, wanted)


def test_mixed_precision_and_the_average_around_it() -> None:
    model, gs = problem()
    wanted = by_optax(optax.adam(0.1), dict(model), gs)
    narrow = {k: v.astype(jnp.bfloat16) for k, v in model.items()}
    wide = by_optax(optax.adam(0.1), {k: v.astype("f4") for k, v in narrow.items()}, gs)
    rule = fx.OptimiserChain(optax.adam(0.1), fx.EMA(0.0))
    tree, other = fx.setup(rule, model), fx.setup(fx.MixedPrecision(rule), narrow)
    for g in gs:
        fx.update(tree, model, g)
        fx.update(other, narrow, g)
    near(fx.ema(tree, model), wanted)
    for k, leaf in other.items():
        found = np.asarray(leaf.state[0])
        exact = all(bool(jnp.all(g[k].astype(jnp.bfloat16) == g[k])) for g in gs)
        np.testing.assert_allclose(found, wide[k], rtol=1e-5 if exact else 0.1, atol=0.02)


def test_frozen_parts_are_out_and_come_back_as_they_were() -> None:
    """As if they had not been in the tree: not in the norm, moments kept, the count goes on."""
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
    model, gs = problem()
    tree = fx.setup(tx, model)
    state, xs = tx.init(model), dict(model)

    def by_hand(g: Any, state: Any, xs: Any, out: str | None) -> Any:
        part = {k: v for k, v in xs.items() if k != out}
        cut = lambda s: jax.tree.map(
            lambda v: {k: v[k] for k in part} if isinstance(v, dict) else v,
            s,
            is_leaf=lambda v: isinstance(v, dict),
        )
        updates, new = tx.update({k: g[k] for k in part}, cut(state), part)
        full = jax.tree.map(
            lambda n, o: {**o, **n} if isinstance(n, dict) else n,
            new,
            state,
            is_leaf=lambda v: isinstance(v, dict),
        )
        return full, {**xs, **optax.apply_updates(part, updates)}

    for g, out in zip(gs, (None, "b", "b", None)):
        (fx.freeze if out else fx.thaw)(tree["b"])
        before = snapshot(model["b"])
        fx.update(tree, model, g)
        state, xs = by_hand(g, state, xs, out)
        assert (snapshot(model["b"]) == before) == bool(out)
    near(model, xs)
    assert (tree["a"].steps, tree["b"].steps) == (4, 2)


def test_none_in_a_gradient_is_out_too_and_state_is_by_leaf() -> None:
    model, gs = problem()
    tree = fx.setup(optax.adam(0.1), model)
    fx.update(tree, model, gs[0])
    before = snapshot(model["c"]), np.asarray(tree["c"].state["[0].mu['c']"])
    fx.update(tree, model, {**gs[1], "c": None})
    assert (snapshot(model["c"]), before[1].tolist()) == (
        before[0],
        np.asarray(tree["c"].state["[0].mu['c']"]).tolist(),
    )
    assert tree["c"].state["[0].count"] == tree["a"].state["[0].count"] == 2


def test_one_vector_for_all_cannot_be_frozen_in_part() -> None:
    model, gs = problem()
    tree = fx.setup(optax.flatten(optax.adam(0.1)), model)
    fx.freeze(tree["b"])
    before = snapshot(model, tree)
    with pytest.raises(
        ValueError, match=r"expects all parameters of optax\.flatten to step together"
    ):
        fx.update(tree, model, gs[0])
    assert snapshot(model, tree) == before


def test_modules_ties_copies_and_steps_without_compiling() -> None:
    layer = fx.Dense(3, 3, rng=0)
    model = fx.Chain(layer, fx.tanh, layer, fx.Dense(3, 1, rng=1))
    tree = fx.setup(optax.adam(0.01), model)
    x = np.ones((4, 3), np.float32)
    loss = lambda m, x: jnp.mean(m(x) ** 2)
    for _ in range(2):
        fx.trainstep(loss, model, (x,), tree)
    with compiling() as seen:
        fx.trainstep(loss, model, (x,), tree)
    assert seen == []
    twin, other = copy.deepcopy((model, tree))
    fx.trainstep(loss, model, (x,), tree)
    fx.trainstep(loss, twin, (x,), other)
    assert snapshot(model, tree) == snapshot(twin, other)
    assert model[0].weight is model[2].weight


def test_parts_with_transformations_of_their_own() -> None:
    model, gs = problem()
    tx = optax.adam(0.1)
    tree = fx.setup({"a": tx, "b": tx, "c": optax.sgd(0.1)}, model)
    wanted = by_optax(tx, {k: model[k] for k in "ab"}, [{k: g[k] for k in "ab"} for g in gs])
    for g in gs:
        fx.update(tree, model, g)
    near({k: model[k] for k in "ab"}, wanted)


REFUSED = [
    ((optax.adam(0.1), fx.ClipGrad(1.0)), "turns the gradient around, to stand last"),
    ((fx.Descent(0.1), optax.clip(1.0)), "expects its last Optax transformation to turn the"),
]


@pytest.mark.parametrize("opts, sentence", REFUSED, ids=["not last", "last"])
def test_a_chain_that_goes_uphill_is_refused(opts: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fx.setup(fx.MixedPrecision(fx.OptimiserChain(*opts, fx.EMA())), {"w": jnp.ones(2)})


@pytest.mark.parametrize(
    "tx", [optax.add_noise(0.1, 0.5, 0), optax.apply_if_finite(optax.sgd(1.0), 3)]
)
def test_a_state_with_keys_or_flags_is_put_back(tx: Any) -> None:
    model = {"a": jnp.ones(3)}
    opt_state = fx.setup(tx, model)
    data = lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a
    seen = lambda: [np.asarray(data(a)).tolist() for a in jax.tree.leaves(opt_state["a"].state)]
    kept, before = opt_state["a"].state, seen()
    fx.update(opt_state, model, {"a": jnp.full(3, jnp.nan)})
    assert seen() != before
    opt_state["a"].state = kept
    assert seen() == before
