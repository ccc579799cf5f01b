"""Module is plain Python and a pytree: the laws of both."""

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


class Affine(fx.Module):
    """Counts how often it is constructed."""

    made = 0

    def __init__(self, n: int):
        Affine.made += 1
        self.scale = jnp.arange(1.0, n + 1)
        self.shift = jnp.zeros(n)
        self.power = 2

    def __call__(self, x: Any) -> Any:
        return self.scale * x**self.power + self.shift


class Net(fx.Module):
    """Children in every sort of container, and things that are none."""

    def __init__(self) -> None:
        self.enc = fx.Dense(2, 3, fx.tanh, rng=1)
        self.blocks = [fx.Dense(3, 3, rng=2), (fx.Dense(3, 3, rng=3), "note")]
        self.heads = {"a": jnp.ones(3), "n": 4}
        self.ids = jnp.arange(3)
        self.name, self.sizes, self.act = "net", [1, 2], fx.relu

    def __call__(self, x: Any) -> Any:
        h = self.enc(x)
        for block in (self.blocks[0], self.blocks[1][0]):
            h = self.act(block(h)) + h
        return h * self.heads["a"]


MODELS = {
    "affine": (lambda: Affine(2), (5, 2)),
    "net": (Net, (5, 2)),
    "chain": (lambda: fx.Chain(fx.Dense(2, 3, fx.relu, rng=1), fx.Dense(3, 1, rng=2)), (5, 2)),
    "named": (lambda: fx.Chain(enc=fx.Dense(2, 3, rng=1), dec=fx.Dense(3, 1, rng=2)), (5, 2)),
    "norms": (lambda: fx.Chain(fx.Dense(2, 3, rng=1), fx.BatchNorm(3), fx.Dropout(0.5)), (5, 2)),
    "conv": (lambda: fx.Chain(fx.Conv((3, 3), 1, 2, rng=1), fx.flatten), (2, 4, 4, 1)),
}
each = pytest.mark.parametrize("make, shape", MODELS.values(), ids=list(MODELS))


def draw(shape: tuple[int, ...]) -> Any:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))


# --- a pytree ------------------------------------------------------------------------------


@each
def test_flatten_and_unflatten(make: Any, shape: Any) -> None:
    model = make()
    leaves, structure = jax.tree.flatten(model)
    assert all(isinstance(a, jax.Array) for a in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(model)
    assert snapshot(again) == snapshot(model)
    assert list(vars(again)) == list(vars(model))
    assert jax.tree.structure(again) == structure
    assert hash(jax.tree.structure(again)) == hash(structure)


@each
def test_jit_vmap_grad_and_map(make: Any, shape: Any) -> None:
    model, x = make(), draw(shape)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(model, x), expected, rtol=1e-5, atol=1e-6)
    stack = jax.tree.map(lambda a: jnp.stack([a, a]), model)
    out = jax.vmap(lambda m: m(x))(stack)
    np.testing.assert_allclose(out[1], expected, rtol=1e-5, atol=1e-6)
    double = jax.tree.map(lambda a: 2 * a, model)
    assert type(double) is type(model)
    theirs = jax.grad(lambda m: jnp.sum(m(x) ** 2), allow_int=True)(model)
    assert type(theirs) is type(model)
    fx.testmode(model)
    own = fx.gradient(lambda m: jnp.sum(m(x) ** 2), model)[0]
    named = {jax.tree_util.keystr(p): a for p, a in jax.tree.flatten_with_path(theirs)[0]}
    for path, a in jax.tree.flatten_with_path(own)[0]:
        b = named[jax.tree_util.keystr(path)]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=str(path))


@each
def test_copies(make: Any, shape: Any) -> None:
    model = make()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert snapshot(again) == snapshot(model)
        assert jax.tree.structure(again) == jax.tree.structure(model)
        np.testing.assert_array_equal(again(draw(shape)), model(draw(shape)))
    other = copy.deepcopy(model)
    fx.loadmodel(other, jax.tree.map(lambda a: a + 1, model))
    assert snapshot(other) != snapshot(model)


def test_rebuilding_does_not_call_init() -> None:
    model = Affine(2)
    made = Affine.made
    jax.tree.map(lambda a: a, model)
    jax.jit(lambda m: m)(model)
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))
    fx.gradient(lambda m: jnp.sum(m.scale), model)
    assert Affine.made == made


def test_key_paths_read_like_python() -> None:
    model = fx.Chain(enc=fx.Dense(2, 3), dec=fx.Dense(3, 1))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.flatten_with_path(model)[0]]
    assert names == [f".layers[{i}].{n}" for i in (0, 1) for n in ("weight", "bias")]
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.flatten_with_path(Net())[0]]
    assert {".enc.weight", ".blocks[1][0].bias", ".heads['a']", ".ids"} <= set(names)


def test_static_parts_are_compared_by_content() -> None:
    def structure(value: Any) -> Any:
        model = Affine(2)
        model.extra = value
        return jax.tree.structure(model)

    same = [(1, 1), ("a", "a"), ([1, [2]], [1, [2]]), ({"a": 1}, {"a": 1}), (jnp.tanh, jnp.tanh)]
    same += [(float("nan"), float("nan")), ((1, 2), (1, 2)), (None, None)]
    for a, b in same:
        assert structure(a) == structure(b), a
    for a, b in [(1, 2), (1, 1.0), (1, True), (0.0, -0.0), ([1], (1,)), ("a", "b"), ([1], [1, 2])]:
        assert structure(a) != structure(b), (a, b)


def test_a_static_change_is_seen_by_jit_and_by_us() -> None:
    model, x = Affine(2), jnp.array([2.0, 3.0])
    run = jax.jit(lambda m: m(x))
    objective = lambda m: jnp.sum(m(x))
    assert run(model).tolist() == [4.0, 18.0]
    assert fx.gradient(objective, model)[0].scale.tolist() == [4.0, 9.0]
    model.power = 3
    assert run(model).tolist() == [8.0, 54.0]
    assert fx.gradient(objective, model)[0].scale.tolist() == [8.0, 27.0]


def test_attributes_become_children_by_what_they_hold() -> None:
    model = Affine(2)
    assert len(jax.tree.leaves(model)) == 2
    model.power = jnp.array(2.0)
    model.more = [jnp.ones(1), {"k": jnp.ones(1)}]
    assert len(jax.tree.leaves(model)) == 5
    del model.more
    assert len(jax.tree.leaves(model)) == 3


def test_a_cycle_is_refused() -> None:
    model = Affine(2)
    model.parent = [model]
    uses: list[Any] = [
        fx.trainables,
        lambda m: fx.setup(fx.Adam(), m),
        lambda m: fx.gradient(lambda m: jnp.sum(m(jnp.ones(2))), m),
        lambda m: fx.outputsize(m, (2,)),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"cycle at model\.parent"):
            use(model)
    for use in (jax.tree.leaves, jax.jit(lambda m: m.scale)):
        with pytest.raises(ValueError, match="cycle at model"):
            use(model)
    assert len(jax.tree.leaves(Affine(2))) == 2  # JAX is none the worse for it


def test_numpy_in_jax_out() -> None:
    y = fx.Dense(2, 3)(np.ones((4, 2)))
    assert isinstance(y, jax.Array)
    assert y.dtype == jnp.float32
    assert np.argmax(y, -1).shape == (4,)


# --- writes --------------------------------------------------------------------------------


class Counter(fx.Module):
    """A layer with a state that it writes itself."""

    trainable = ("w",)

    def __init__(self) -> None:
        self.w, self.calls = jnp.ones(2), jnp.zeros(())

    def __call__(self, x: Any) -> Any:
        self.calls = self.calls + 1
        return self.w * x


def test_plain_assignment_lands_on_the_callers_model() -> None:
    model = Counter()
    x = jnp.ones(2)
    fx.gradient(lambda m: jnp.sum(m(x)), model)
    fx.withgradient(lambda m: jnp.sum(m(m(x))), model)
    assert float(model.calls) == 3
    tree = fx.setup(fx.Descent(0.1), model)
    fx.train(lambda m, x: jnp.sum(m(x)), model, [(x,)] * 4, tree)
    assert float(model.calls) == 7
    fx.compiled(lambda: model(x))()
    assert float(model.calls) == 8
    assert isinstance(model.calls, jax.Array)


def test_a_foreign_jit_drops_the_write_and_says_so() -> None:
    model = Counter()
    with pytest.warns(UserWarning, match="wrote its state `calls`"):
        jax.jit(lambda x: model(x))(jnp.ones(2))
    assert float(model.calls) == 0


def test_inside_scan_it_is_an_error_that_names_the_layer() -> None:
    model = Counter()
    scan = lambda m: jax.lax.scan(lambda c, x: (c + jnp.sum(m(x)), None), 0.0, jnp.ones((3, 2)))[0]
    with pytest.raises(ValueError, match="Counter expects to write its state `calls` outside"):
        fx.gradient(scan, model)
    assert float(model.calls) == 0


# --- ties ----------------------------------------------------------------------------------


def test_ties_survive_what_they_should() -> None:
    layer = fx.Dense(2, 2, rng=1)
    model = fx.Chain(layer, layer, fx.Dense(layer.weight, False))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again[0] is again[1]
        assert again[2].weight is again[0].weight
    assert len(fx.trainables(model)) == 2
    new = fx.fmap(lambda a: a + 1, model)
    assert new[0].weight is new[1].weight is new[2].weight
    fx.loadmodel(model, new)
    assert model[0] is model[1] is layer
    assert model[2].weight is layer.weight
    untied = jax.tree.map(lambda a: a + 0, model)
    assert untied[0].weight is not untied[2].weight


# --- NamedList -----------------------------------------------------------------------------


def test_a_named_chain_answers_to_names_indices_and_slices() -> None:
    a, b, c = fx.Dense(2, 3), fx.Dense(3, 3), fx.Dense(3, 1)
    model = fx.Chain(enc=a, mid=b, dec=c)
    assert isinstance(model.layers, list)
    assert model.layers.enc is model.layers[0] is model[0] is a
    assert [*model] == [a, b, c]
    assert len(model) == 3
    assert model.layers[1:].dec is c
    assert len(model[:2]) == 2
    new = fx.Dense(3, 3)
    model.layers.mid = new
    assert model.layers[1] is new
    model.layers[1] = b
    assert model.layers.mid is b
    model.layers.pop(1)
    assert model.layers.dec is c
    assert model(jnp.ones((1, 2))).shape == (1, 1)


# --- walking -------------------------------------------------------------------------------


def test_fmap_with_partners() -> None:
    tree = {"a": jnp.ones(2), "b": [jnp.ones(1), 3, None], "c": jnp.arange(2)}
    grad = {"a": jnp.array([1.0, 2.0]), "b": [None, None, None]}
    new = fx.fmap(lambda p, g: p - g, tree, grad)
    assert new["a"].tolist() == [0.0, -1.0]
    assert new["b"][0] is tree["b"][0]
    assert new["b"][1:] == [3, None]
    assert new["c"] is tree["c"]
    assert tree["a"].tolist() == [1.0, 1.0]
    calls: list[Any] = []
    fx.fmap(lambda a: (calls.append(a), a)[1], [tree["a"], tree["a"]])
    assert len(calls) == 1


def test_trainables_and_params() -> None:
    model = fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3), fx.Dense(3, 1, bias=False))
    arrays = fx.trainables(model)
    assert [a.shape for a in arrays] == [(2, 3), (3,), (3,), (3,), (3, 1)]
    assert arrays[0] is model[0].weight
    penalty = lambda m: sum(jnp.sum(p**2) / 2 for p in fx.params(m))
    grad = fx.gradient(penalty, model)[0]
    for got, want in zip(jax.tree.leaves(grad), arrays, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_loadmodel_keeps_the_objects() -> None:
    model, new = (fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3)) for _ in range(2))
    first = model[0]
    assert fx.loadmodel(model, jax.tree.map(lambda a: a + 1, new)) is model
    assert model[0] is first
    np.testing.assert_allclose(model[1].mean, 1.0)
    np.testing.assert_allclose(first.weight, new[0].weight + 1)


def test_loadmodel_gives_arrays_of_its_own() -> None:
    source, one, two = (fx.Dense(2, 3) for _ in range(3))
    for model in (one, two):
        fx.loadmodel(model, source)
        np.testing.assert_array_equal(model.weight, source.weight)
    towers = fx.Parallel(jnp.add, one, two)
    assert len(fx.trainables(towers)) == 4  # not tied because both started alike
    opt_state = fx.setup(fx.Descent(), towers)
    grads = fx.gradient(lambda m: jnp.sum(m.layers[0](jnp.ones((1, 2)))), towers)
    fx.update(opt_state, towers, grads[0])
    np.testing.assert_array_equal(two.weight, source.weight)
    assert not np.array_equal(one.weight, source.weight)


def test_loadmodel_returns_what_cannot_be_changed() -> None:
    old = (jnp.zeros(2), [jnp.zeros(1)])
    new = fx.loadmodel(old, (jnp.ones(2), [jnp.ones(1)]))
    assert (new[0].tolist(), old[0].tolist()) == ([1.0, 1.0], [0.0, 0.0])
    assert new[1] is old[1]  # as deep as containers allow
    assert old[1][0].tolist() == [1.0]
    assert fx.loadmodel(jnp.zeros(2), np.ones(2)).tolist() == [1.0, 1.0]


def test_loadmodel_keeps_dtypes_and_kinds() -> None:
    model = fx.f16(fx.Dense(2, 3))
    numbers = {"weight": np.ones((2, 3)), "bias": np.zeros(3, np.int64)}
    fx.loadmodel(model, fx.Node(**numbers))
    assert {type(a) for a in (model.weight, model.bias)} == {type(jnp.ones(1))}
    assert model.weight.dtype == model.bias.dtype == jnp.float16
    numbers["weight"][:] = 5  # is not the model's memory
    assert model.weight.tolist() == [[1.0] * 3] * 2
    mine = {"w": np.zeros(2), "key": jax.random.key(0)}
    fx.loadmodel(mine, {"w": jnp.ones(2), "key": jax.random.key(1)})
    assert type(mine["w"]) is np.ndarray
    assert mine["w"].tolist() == [1.0, 1.0]
    assert bool(mine["key"] == jax.random.key(1))
    inside = jax.jit(lambda w: fx.loadmodel(fx.Dense(2, 3, bias=False), fx.Node(weight=w)).weight)
    np.testing.assert_array_equal(inside(jnp.ones((2, 3))), 1.0)
    pair = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    fx.loadmodel(pair, {"a": pair["b"], "b": pair["a"]})
    assert (pair["a"].tolist(), pair["b"].tolist()) == ([1.0, 1.0], [0.0, 0.0])
    for wrong in (jnp.ones(2) * 1j, jax.random.split(jax.random.key(0))):
        with pytest.raises(ValueError, match=r"loadmodel expects f64\[2\] at model\['w'\], got"):
            fx.loadmodel(mine, {"w": wrong, "key": mine["key"]})


# --- building ------------------------------------------------------------------------------


def test_building_fifty_layers_compiles_nothing() -> None:
    with compiling() as seen:
        block = lambda: [fx.Dense(7, 7, fx.relu), fx.LayerNorm(7), fx.Dropout(0.1), fx.BatchNorm(7)]
        layers = [layer for _ in range(12) for layer in block()]
        model = fx.Chain(fx.Conv((3, 3), 1, 2), fx.Embedding(5, 7), *layers)
        fx.trainmode(model)
    assert len(model) == 50
    assert seen == []
    with compiling() as seen:
        jax.jit(lambda x: x * 13)(jnp.ones(5))
    assert seen, "the listener does not listen"
