"""Moves and conversions: new trees, ties and state trees included. One CPU is all there is here."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _devices
from tests.keeping import arrays, equal, net


def tied():
    shared = fx.Dense(3, 3)
    return fx.Chain(shared, fx.BatchNorm(3), shared)


def stepped(rule=None):
    model = tied()
    opt_state = fx.setup(rule or fx.Adam(), model)
    fx.update(opt_state, model, fx.fmap(lambda a: a * 0 + 1, model))
    fx.freeze(opt_state.layers[1])
    return model, opt_state


TREES = {
    "model": tied,
    "list": lambda: [jnp.ones(2), {"a": jnp.ones(1), "n": 3}],
    "array": lambda: jnp.ones(3),
    "batch": lambda: (np.ones((2, 3), "float32"), np.arange(2, dtype="int32")),
    "key": lambda: {"key": jax.random.key(0)},
}


@pytest.mark.parametrize(
    "move", [fx.cpu, fx.device("cpu:0"), fx.device()], ids=["cpu", "named", "default"]
)
@pytest.mark.parametrize("name", TREES)
def test_moving_any_tree(name, move):
    tree = TREES[name]()
    moved = move(tree)
    assert type(moved) is type(tree)
    assert moved is not tree or name == "array"
    if name != "key":
        assert equal(moved, tree)
    if name == "model":
        assert moved.layers[0] is moved.layers[2]


def test_cpu_copies_nothing_that_is_there():
    model = net()
    assert fx.cpu(model).layers[0].weight is model.layers[0].weight
    batch = np.ones(3)
    assert fx.cpu([batch])[0] is batch


def test_device_puts_arrays_firmly_and_takes_its_arguments_in_either_order():
    here = jax.devices()[0]
    for moved in (fx.device("cpu", net()), fx.device(net(), "cpu:0"), fx.device(here)(net())):
        assert moved.layers[0].weight.committed
        assert moved.layers[0].weight.device == here
    sharding = jax.sharding.SingleDeviceSharding(here)
    assert fx.device(sharding, jnp.ones(2)).sharding == sharding
    assert fx.device(fx.device("cpu")) == fx.device("cpu:0")
    assert repr(fx.device("cpu:0")) == "device('cpu:0')"
    words = np.array(["a"])
    assert fx.device("cpu")([words])[0] is words


def test_loadmodel_leaves_a_model_where_it_is():
    free, firm = fx.Dense(2, 3), fx.device("cpu", fx.Dense(2, 3))
    assert not fx.loadmodel(free, firm).weight.committed
    assert fx.loadmodel(firm, fx.Dense(2, 3)).weight.committed
    half = fx.device("cpu", fx.bf16(fx.Dense(2, 3)))
    assert fx.loadmodel(half, firm).weight.committed


def test_what_is_no_device_is_refused():
    with pytest.raises(
        ValueError, match=r"device expects a device that JAX has \(cpu:0\), got 'cpu:7'"
    ):
        fx.device("cpu:7")
    with pytest.raises(ValueError, match="got 'abacus'"):
        fx.device("abacus")
    with pytest.raises(
        TypeError, match='device expects a name such as "cpu:0" or a JAX device, got 3'
    ):
        fx.device(3)


def test_without_a_gpu_one_warning_and_the_tree_itself(monkeypatch):
    if any(d.platform == "gpu" for d in jax.devices()):
        pytest.skip("there is a GPU")
    monkeypatch.setattr(_devices, "_warned", [])
    model = net()
    with pytest.warns(UserWarning, match="gpu found no GPU that JAX can use"):
        assert fx.gpu(model) is model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fx.gpu(model) is model


def same_step(model, opt_state, other, state):
    """Whether both take the same step."""
    grad = fx.fmap(lambda a: a * 0 + 0.5, model)
    fx.update(opt_state, model, grad)
    fx.update(state, other, fx.fmap(lambda a: a * 0 + 0.5, other))
    return equal(model, other)


def test_state_trees_move_with_ties_marks_and_steps():
    model, opt_state = stepped()
    other, state = fx.device("cpu")((model, opt_state))
    assert state.layers[0].weight is state.layers[2].weight
    assert state.layers[1].frozen_mark
    assert state.layers[0].weight.steps == 1
    assert state == opt_state
    assert same_step(model, opt_state, other, state)
    assert opt_state.layers[0].weight.store is not state.layers[0].weight.store


DTYPES = {fx.f16: np.float16, fx.bf16: jnp.bfloat16, fx.f32: np.float32}


@pytest.mark.parametrize("convert", DTYPES)
def test_conversions_keep_ties_integers_and_structure(convert):
    tree = {"m": tied(), "n": jnp.arange(3), "b": jnp.ones(2, bool), "c": jnp.ones(1, "complex64")}
    tree["key"] = jax.random.key(0)
    new = convert(tree)
    assert new["m"].layers[0] is new["m"].layers[2]
    dense, norm, _ = new["m"].layers
    assert {a.dtype for a in jax.tree.leaves(dense)} == {np.dtype(DTYPES[convert])}
    assert {a.dtype for a in jax.tree.leaves(norm)} == {np.dtype("float32")}  # as Flux keeps them
    assert (new["n"].dtype, new["b"].dtype, new["c"].dtype) == ("int32", "bool", "complex64")
    assert (new["m"].layers[0].weight is tree["m"].layers[0].weight) == (convert is fx.f32)


def test_sixty_four_bits():
    with pytest.raises(ValueError, match="f64 expects JAX's x64 mode, got it turned off"):
        fx.f64(net())
    with jax.enable_x64(True):
        assert fx.f64(net()).layers[0].weight.dtype == np.float64
        assert fx.f64(jnp.ones(1, "complex64")).dtype == np.complex128


@pytest.mark.parametrize("rule", [fx.Adam(), fx.Momentum(), fx.RMSProp()], ids=str)
def test_state_trees_are_converted_as_setup_would_make_them(rule):
    model, opt_state = stepped(rule)
    half = fx.f16(model)
    state = fx.f16(opt_state)
    fresh = fx.setup(rule, half)
    assert state.layers[0].weight is state.layers[2].weight
    assert (state.layers[1].frozen_mark, state.layers[1].scale.frozen) == (True, True)
    leaf, new = state.layers[0].weight, fresh.layers[0].weight
    assert leaf.steps == 1
    assert (leaf.dtype, leaf.where) == (np.float16, opt_state.layers[0].weight.where)
    for mine, theirs, old in zip(
        *(jax.tree.leaves(one.state) for one in (leaf, new, opt_state.layers[0].weight)),
        strict=True,
    ):
        assert mine.dtype == theirs.dtype
        assert np.allclose(mine, old, rtol=1e-2)
    fx.update(state, half, fx.fmap(lambda a: a * 0 + 0.5, half))
    assert half.layers[0].weight.dtype == np.float16


def test_models_and_states_together():
    model, opt_state = stepped()
    both = fx.bf16({"model": model, "opt_state": opt_state})
    fx.update(both["opt_state"], both["model"], fx.fmap(lambda a: a * 0 + 1, both["model"]))
    assert both["model"].layers[0].weight.dtype == jnp.bfloat16


LOSSES = {fx.f16: lambda m, x: jnp.mean(m(x) ** 2), fx.bf16: lambda m, x: jnp.sum(m(x) ** 2)}


@pytest.mark.parametrize("convert", LOSSES)
def test_converted_models_train(convert):
    model = convert(net())
    opt_state = fx.setup(fx.Momentum(0.1), model)
    x = jnp.ones((4, 4), DTYPES[convert])
    fx.train(LOSSES[convert], model, [(x,)] * 2, opt_state)
    norms = (fx.BatchNorm, fx.GroupNorm, fx.InstanceNorm)
    half = [part for part in model if not isinstance(part, norms)]
    assert {a.dtype for a in fx.trainables(half)} == {np.dtype(DTYPES[convert])}


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))], ids=["copy", "pickle"]
)
def test_deepcopy_and_pickle_of_all_there_is(again):
    model, opt_state = stepped()
    loader = fx.DataLoader(np.arange(10), batchsize=3, shuffle=True)
    next(iter(loader))
    m, s, d = again((model, opt_state, loader))
    assert m.layers[0] is m.layers[2]
    assert s.layers[0].weight is s.layers[2].weight
    assert s.layers[1].frozen_mark
    assert s == opt_state
    assert d.state_dict() == loader.state_dict()
    assert same_step(model, opt_state, m, s)


# --- state and destructure ---------------------------------------------------------------------


def test_state_is_plain_and_goes_back():
    model = net()
    saved = fx.state(model)
    assert (saved.layers[2].p, saved.layers[0].activation) == (0.4, None)
    other = fx.loadmodel(net(), saved)
    assert equal(model, other)
    assert fx.state({"w": jnp.ones(1), "name": "a", "f": print})["f"] is None


def test_destructure_and_back():
    model = fx.Chain(shared := fx.Dense(2, 2), fx.BatchNorm(2), shared)
    flat, rebuild = fx.destructure(model)
    assert flat.shape == (2 * 2 + 2 + 4,)
    assert len(rebuild) == 10
    new = rebuild(flat * 2)
    assert new.layers[0] is new.layers[2]
    assert (new.layers[0].weight == model.layers[0].weight * 2).all()
    assert new.layers[1].mean is model.layers[1].mean
    for wrong in (flat[:-1], flat[None], 3.0):
        with pytest.raises(ValueError, match="rebuild expects a vector of length 10, got"):
            rebuild(wrong)


def test_destructure_promotes_and_restores_dtypes():
    tree = {"a": jnp.ones(2, np.float16), "b": jnp.ones(2), "c": jnp.ones(1, np.complex64)}
    flat, rebuild = fx.destructure(tree)
    assert flat.dtype == np.complex64
    assert [a.dtype for a in jax.tree.leaves(rebuild(flat))] == [a.dtype for a in tree.values()]
    empty, nothing = fx.destructure({"n": jnp.arange(3)})
    assert empty.shape == (0,)
    assert (nothing(empty)["n"] == jnp.arange(3)).all()


def test_destructured_gradients_are_those_of_the_model():
    model = fx.Chain(fx.Dense(2, 3, fx.tanh), fx.Dense(3, 1))
    x = jnp.ones((4, 2))
    flat, rebuild = fx.destructure(model)
    by_vector = fx.gradient(lambda v: jnp.sum(rebuild(v)(x) ** 2), flat)[0]
    by_model = fx.gradient(lambda m: jnp.sum(m(x) ** 2), model)[0]
    assert np.allclose(by_vector, np.concatenate([a.ravel() for a in arrays(by_model)]), rtol=1e-5)
    assert fx.explain()[-2].compiled
    both = fx.gradient(lambda m: jnp.sum(fx.destructure(m)[0] ** 2), model)[0]
    assert np.allclose(both.layers[1].weight, 2 * model.layers[1].weight)


# --- start-up ----------------------------------------------------------------------------------

FIRST_STEP = """
import jax, fluxax as fx
print(jax.config.jax_compilation_cache_dir)
"""


def test_compiled_programs_are_kept_in_a_folder(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "deep" / "b"):
        fx.compilation_cache(folder)
        jax.jit(lambda x: x * 3.25 + len(folder.name))(jnp.ones(3))
        fx.compilation_cache(None)
        assert [p.name for p in folder.iterdir() if "lambda" in p.name]
    before = sum(1 for _ in folder.iterdir())
    jax.jit(lambda x: x * 3.5)(jnp.ones(3))
    assert sum(1 for _ in folder.iterdir()) == before
    with pytest.raises(TypeError, match="compilation_cache expects a folder or None, got 3"):
        fx.compilation_cache(3)


@pytest.mark.slow
def test_the_folder_can_be_named_from_outside(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUXAX_CACHE", str(tmp_path / "c"))
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "c")
