"""Different rules for different parts, parts put in later, and what "frozen" means."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _plans
from fluxax._compile import _program
from tests.witness import compiling, snapshot


def bimodel() -> fx.Chain:
    return fx.Chain(enc=fx.Dense(2, 3, fx.tanh, rng=1), dec=fx.Dense(3, 1, rng=2))


X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
Y = np.ones((4, 1), np.float32)


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def rules(tree: Any) -> list[Any]:
    leaves = [leaf for layer in tree.layers for leaf in (layer.weight, layer.bias)]
    return [leaf and leaf.rule for leaf in leaves]


ADAM, LION, NONE = fx.Adam(1e-4), fx.Lion(), None
BY_PARTS = {
    "names": ({"layers.enc": ADAM, "layers.dec": LION}, [ADAM, ADAM, LION, LION]),
    "numbers": ({"layers[0]": ADAM, "layers.1": LION}, [ADAM, ADAM, LION, LION]),
    "the longest wins": ({"": ADAM, "layers.dec": LION, "layers.dec.bias": None},
                         [ADAM, ADAM, LION, NONE]),
    "only a part": ({"layers.dec.weight": LION}, [NONE, NONE, LION, NONE]),
    "a function of the path": (lambda path, _: ADAM if path.startswith("layers.enc") else LION,
                               [ADAM, ADAM, LION, LION]),
    "a function of the array": (lambda _, x: ADAM if x.ndim > 1 else None,
                                [ADAM, NONE, ADAM, NONE]),
}  # fmt: skip


@pytest.mark.parametrize("choice, wanted", BY_PARTS.values(), ids=list(BY_PARTS))
def test_rules_by_parts(choice: Any, wanted: Any) -> None:
    model = bimodel()
    before = snapshot(model)
    tree = fx.setup(choice, model)
    assert rules(tree) == wanted
    fx.trainstep(mse, model, (X, Y), tree)
    now = snapshot(model)
    moved = [a != b for a, b in zip(before, now, strict=True) if "weight" in a[0] or "bias" in a[0]]
    assert moved == [rule is not None for rule in wanted]


def test_paths_are_spelled_as_prefixes_are() -> None:
    seen = []
    model = {
        "net": fx.Chain(fx.Dense(2, 2), fx.Chain(tail=fx.Dense(2, 2))),
        "list": [jnp.ones(1)],
    }
    fx.setup(lambda path, x: seen.append((path, x.shape)) or ADAM, model)
    assert seen[0] == ("net.layers[0].weight", (2, 2))
    assert [path for path, _ in seen][2:] == [
        "net.layers[1].layers.tail.weight",
        "net.layers[1].layers.tail.bias",
        "list[0]",
    ]
    for path, _ in seen:
        assert len([leaf for leaf in _leaves(fx.setup({path: ADAM}, model)) if leaf]) == 1


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda v: isinstance(v, fx.Leaf))


def test_no_decay_on_biases_and_norms_in_one_line() -> None:
    model = fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3), fx.Dense(3, 1))
    tree = fx.setup(lambda path, x: fx.AdamW(1e-3, lam=0.1 if x.ndim > 1 else 0.0), model)
    assert tree.layers[0].weight.rule.lam == 0.1
    assert tree.layers[0].bias.rule.lam == 0.0
    assert tree.layers[1].scale.rule.lam == 0.0


def test_the_global_norm_is_global_whatever_the_parts() -> None:
    model = {"a": jnp.zeros(1), "b": jnp.zeros(1), "c": jnp.zeros(5000)}
    clip = fx.ClipGlobalNorm(1.0)
    plain, decayed = (
        fx.OptimiserChain(clip, fx.Descent(1.0)),
        fx.OptimiserChain(fx.WeightDecay(0.0), clip, fx.Descent(1.0)),
    )
    tree = fx.setup({"a": plain, "b": decayed, "c": fx.Descent(1.0)}, model)
    fx.update(tree, model, {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "c": jnp.ones(5000)})
    np.testing.assert_allclose([model["a"][0], model["b"][0], model["c"][0]], [-0.6, -0.8, -1.0])


def test_a_replaced_layer_gets_a_new_state_and_the_whole_goes_on() -> None:
    model, twin = bimodel(), bimodel()
    tree = fx.setup(fx.Adam(0.1), model)
    for _ in range(2):
        fx.trainstep(mse, model, (X, Y), tree)
    model.layers[1] = fx.Dense(3, 1, rng=5)
    twin.layers[0], twin.layers[1] = copy.deepcopy(model.layers[0]), copy.deepcopy(model.layers[1])
    apart = copy.deepcopy(tree.layers[0]), fx.setup(fx.Momentum(0.1), twin.layers[1])
    tree.layers[1] = fx.setup(fx.Momentum(0.1), model.layers[1])
    for how in ("update", "trainstep", "update"):
        grad = fx.gradient(lambda m: mse(m, X, Y), twin)[0]
        for part, layer, g in zip(apart, twin.layers, grad.layers, strict=True):
            fx.update(part, layer, g)
        if how == "update":
            fx.update(tree, model, fx.gradient(lambda m: mse(m, X, Y), model)[0])
        else:
            fx.trainstep(mse, model, (X, Y), tree)
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert (tree.layers[0].weight.steps, tree.layers[1].weight.steps) == (5, 3)


def test_an_update_over_parts_is_all_or_nothing() -> None:
    class Broken(fx.Rule):
        def apply(self, state: Any, x: Any, dx: Any) -> Any:
            raise RuntimeError("broken")

    model = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tree = {
        "a": fx.setup(fx.Adam(), {"a": model["a"]})["a"],
        "b": fx.setup(Broken(), {"b": model["b"]})["b"],
    }
    before = snapshot(model, tree)
    with pytest.raises(RuntimeError, match="broken"):
        fx.update(tree, model, {"a": jnp.ones(2), "b": jnp.ones(3)})
    assert snapshot(model, tree) == before


# --- frozen: a clause of the contract each ------------------------------------------------

RULE = fx.OptimiserChain(
    fx.AccumGrad(1), fx.ClipGlobalNorm(0.01), fx.WeightDecay(0.1), fx.Adam(0.1), fx.EMA(0.9)
)


def normed() -> Any:
    return fx.Chain(enc=fx.Chain(fx.Dense(2, 3, rng=1), fx.BatchNorm(3)), dec=fx.Dense(3, 1, rng=2))


def by_update(model: Any, tree: Any) -> None:
    fx.update(tree, model, fx.gradient(lambda m: mse(m, X, Y), model)[0])


def by_trainstep(model: Any, tree: Any) -> None:
    fx.trainstep(mse, model, (X, Y), tree)


WAYS = pytest.mark.parametrize("step", [by_update, by_trainstep])


@WAYS
def test_no_update_no_decay_no_count_no_average_and_the_state_stays(step: Any) -> None:
    model = normed()
    tree = fx.setup(RULE, model)
    step(model, tree)
    fx.freeze(tree.layers.enc)
    trained = lambda: snapshot([leaf.weight for leaf in (model[0][0],)], tree.layers.enc)
    before, steps = trained(), int(tree.layers.enc.layers[0].weight.steps)
    other = snapshot(model.layers.dec)
    for _ in range(2):
        step(model, tree)
    assert trained() == before
    assert tree.layers.enc.layers[0].weight.steps == steps
    assert snapshot(model.layers.dec) != other
    averaged = fx.ema(tree, model)
    kept = tree.layers.enc.layers[0].weight.state[-1]
    assert averaged[0][0].weight.tolist() == kept.tolist()


@WAYS
def test_not_in_the_global_norm(step: Any) -> None:
    clip = fx.OptimiserChain(fx.ClipGlobalNorm(1e-3), fx.Descent(1.0))
    model, grads = bimodel(), fx.gradient(lambda m: mse(m, X, Y), bimodel())[0]
    tree = fx.setup(clip, model)
    fx.freeze(tree.layers.enc)
    before = jax.tree.map(np.asarray, model.layers.dec)
    step(model, tree)
    moved = [np.asarray(a) - b for a, b in zip(
        jax.tree.leaves(model.layers.dec), jax.tree.leaves(before), strict=True)]  # fmt: skip
    size = np.sqrt(sum(np.sum(m**2) for m in moved))
    np.testing.assert_allclose(size, 1e-3, rtol=1e-4)  # all of it is the other part's
    direction = -np.asarray(grads.layers[1].weight)
    np.testing.assert_allclose(
        moved[0] / np.linalg.norm(moved[0]), direction / np.linalg.norm(direction), rtol=1e-3
    )


def test_norm_layers_below_use_and_keep_their_statistics() -> None:
    model = normed()
    tree = fx.setup(RULE, model)
    fx.freeze(tree.layers.enc)
    before = snapshot(model.layers.enc)
    value = fx.trainstep(mse, model, (X, Y), tree)
    with fx.testmode(twin := normed()):
        np.testing.assert_allclose(value, mse(twin, X, Y), rtol=1e-5)
    assert snapshot(model.layers.enc) == before
    fx.trainmode(model.layers.enc)  # unless set by hand
    fx.trainstep(mse, model, (X, Y), tree)
    assert snapshot(model.layers.enc) != before


def flops(model: Any, tree: Any, x: Any) -> float:
    """What the compiled step costs, as XLA counts."""
    fx.trainstep(mse, model, (x, np.ones((len(x), 8), np.float32)), tree)
    plan = _plans._recent[0][1]
    programs = [e.program for site in _program._sites.values() for e in site.recent]
    fused = next(p.by_plan[plan.number] for p in programs if plan.number in p.by_plan)
    inputs = fused.program.closed.in_avals[:-1]  # the last is not of a program that draws nothing
    chosen = set(fused.program.parameters or ())
    split = (
        [a for i, a in enumerate(inputs) if i in chosen],
        [a for i, a in enumerate(inputs) if i not in chosen],
    )
    store = plan.store()
    assert store is not None
    states = store.arrays, store.counts
    arguments = (*split, *states, fused.numbers.placeholder(), np.True_)
    cost = jax.jit(fused.run).lower(*arguments).compile().cost_analysis()
    assert cost is not None
    return cost["flops"]


def test_the_backward_pass_of_a_frozen_part_is_not_computed() -> None:
    """Below the trained layer only the forward pass is left: a third of the products."""
    model = fx.Chain(*(fx.Dense(64, 64, rng=i) for i in range(6)), fx.Dense(64, 8, rng=9))
    x = np.ones((32, 64), np.float32)
    tree = fx.setup(fx.Descent(0.1), model)
    whole = flops(model, tree, x)
    fx.freeze(tree.layers[:6])
    part = flops(model, tree, x)
    product = 2 * 32 * 64 * 64
    assert whole > 16 * product  # three products a layer, but the first has no input gradient
    assert part < 8 * product


def test_the_mark_is_kept_by_copies() -> None:
    tree = fx.setup(fx.Adam(), normed())
    fx.freeze(tree.layers.enc)
    for again in (copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
        assert again.layers.enc.frozen_mark
        assert again.layers.enc.layers[0].weight.frozen
        assert not again.layers.dec.weight.frozen


def test_a_pattern_compiles_once() -> None:
    model = bimodel()
    tree = fx.setup(fx.Adam(0.1), model)
    by_trainstep(model, tree)
    grad = fx.gradient(lambda m: mse(m, X, Y), model)[0]
    fx.update(tree, model, grad)
    counts = []
    for turn in (fx.freeze, fx.thaw, fx.freeze, fx.thaw):
        turn(tree.layers.enc)
        with compiling() as seen:
            by_trainstep(model, tree)
            fx.update(tree, model, grad)
        counts.append(len(seen))
    # one pattern is new: a program for each of the two ways, unless an earlier test has made one
    assert counts[0] <= 2
    assert counts[1:] == [0, 0, 0]


# --- ties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_ties_last(again: Any) -> None:
    layer = fx.Dense(2, 2, rng=0)
    model = fx.Chain(layer, fx.tanh, layer)
    tree = fx.setup(fx.OptimiserChain(fx.ClipGlobalNorm(0.1), fx.Adam(0.1)), model)
    model, tree = again((model, tree))
    assert tree.layers[0].weight is tree.layers[2].weight
    fx.adjust(tree.layers[0], 0.5)
    assert tree.layers[2].weight.rule.opts[1].eta == 0.5
    fx.freeze(tree.layers[2])
    assert tree.layers[0].weight.frozen
    fx.thaw(tree)
    fx.trainstep(lambda m, x: jnp.sum(m(x) ** 2), model, (X,), tree)
    assert model[0] is model[2]
    assert tree.layers[0].weight.steps == 1
