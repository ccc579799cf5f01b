"""save and load: what goes in comes out, in place: plain values, arrays, models."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fluxax as fx
from fluxax._checkpoint._values import decoded, encoded, same
from tests.keeping import equal, net, scrambled


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


# --- plain values ----------------------------------------------------------------------------

VALUES = [
    *(None, True, False, 0, -1, 2**200, 1.5, -0.0, float("inf"), float("nan"), 1e-320, 2 - 3j),
    *("", "naïve \u2028 \ud800", b"", b"\x00\xff", [], (), {}, set(), frozenset({1})),
    *([1, [2.0, (3,)]], (1, (2,)), {"a": 1, 2: "b", (1, 2): None, None: [()]}, {1, 2, 3}),
    *(np.float32(1.5), np.int8(-3), np.bool_(True), np.complex64(1j), np.datetime64("2020-01-02")),
    *(ml_dtypes.bfloat16(2.5), {"tuple": [1]}, {"array": "x"}, {"dict": {"list": 3}}, np.str_("a")),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{type(v).__name__}-{v!r}"[:30])
def test_plain_values_come_back_with_type_and_bits(value, path):
    fx.save(path, value=value)
    assert same(fx.load(path)["value"], value)
    assert type(fx.load(path, value=0)["value"]) is type(value)


@pytest.mark.parametrize(
    "text", [np.str_(""), np.bytes_(b""), np.str_("a\0b\0"), np.bytes_(b"a\0")]
)
def test_text_of_numpys_comes_back(text, path):
    fx.save(path, text=text)
    found = fx.load(path)["text"]
    assert type(found) is type(text)
    assert found == text
    assert len(found) == len(text)


def test_raw_bytes_in_an_array_come_back(path):
    array = np.array([b"abc", b"\0\1\2"], "V3")
    fx.save(path, array=array)
    found = fx.load(path)["array"]
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


def test_names_like_paths_are_kept_apart(path):
    """A thing, or a key, may be called as the path to another array is printed."""
    things = {"m": {"w": jnp.ones(2), "x']['y": jnp.full(2, 2.0), "x": {"y": jnp.full(2, 3.0)}}}
    things["m['w']"] = jnp.zeros(2)
    things["m['x']['y']"] = np.full(1, 4.0)
    fx.save(path, **things)
    found = fx.load(path)
    assert found["m"]["w"].tolist() == [1, 1]
    assert found["m"]["x']['y"].tolist() == [2, 2]
    assert found["m"]["x"]["y"].tolist() == [3, 3]
    assert found["m['w']"].tolist() == [0, 0]
    assert found["m['x']['y']"].tolist() == [4]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(PLAIN)
@settings(max_examples=60)
def test_any_plain_value_survives_json(value):
    assert same(decoded(json.loads(json.dumps(encoded(value), allow_nan=False))), value)


def test_plain_containers_are_filled_in_place(path):
    fx.save(path, losses=[0.5, 0.25], seen={1, 2}, config={"lr": 0.1, "deep": [1]}, epoch=7)
    losses, seen, config = [9], {5}, {"old": 1}
    out = fx.load(path, losses=losses, seen=seen, config=config, epoch=0)
    assert (losses, seen, config) == ([0.5, 0.25], {1, 2}, {"lr": 0.1, "deep": [1]})
    assert out["losses"] is losses
    assert out["seen"] is seen
    assert out["config"] is config
    assert out["epoch"] == 7


# --- arrays ----------------------------------------------------------------------------------

DTYPES = """bool int8 int16 int32 uint8 uint16 uint32 float16 float32 bfloat16 complex64 int4 uint4
int2 uint2 float8_e4m3fn float8_e5m2 float8_e4m3b11fnuz float8_e4m3fnuz float8_e5m2fnuz
float8_e3m4 float8_e4m3 float8_e8m0fnu float4_e2m1fn""".split()
NUMPY = "int64 float64 complex128 >f4 >i2 M8[s] m8[ns] S3 U4".split()


@pytest.mark.parametrize("dtype", [*DTYPES, *NUMPY])
def test_arrays_of_every_dtype(dtype, path):
    rng = np.random.default_rng(0)
    host = rng.integers(0, 2, (3, 5)).astype(dtype)
    things = {"host": host, "empty": host[:0], "scalar": host[0, 0:1].reshape(()), "t": host.T}
    if dtype in DTYPES:
        things["device"] = jax.device_put(host)
    fx.save(path, **things)
    for name, out in fx.load(path).items():
        assert type(out) is type(things[name])
        assert out.dtype == things[name].dtype
        assert out.shape == things[name].shape
        assert np.asarray(out).tobytes() == np.asarray(things[name]).tobytes()


def test_sixty_four_bits(path):
    with jax.enable_x64(True):
        model = fx.Dense(2, 3, init=lambda *s: jnp.ones(s, np.float64))
        fx.save(path, model=model, n=jnp.asarray([2**40]))
        assert fx.load(path)["n"][0] == 2**40
        assert fx.load(path, model=model)["model"].weight.dtype == np.float64
    out = fx.load(path)
    assert isinstance(out["n"], np.ndarray)  # JAX would make it narrower
    assert out["n"][0] == 2**40
    with pytest.raises(ValueError, match=r"n: i64\[1\], for which JAX needs jax_enable_x64"):
        fx.load(path, n=_wide_target())


def _wide_target():
    with jax.enable_x64(True):
        return jnp.asarray([1])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys(impl, path):
    keys = jax.random.split(jax.random.key(3, impl=impl), 2)
    fx.save(path, keys=keys)
    out = fx.load(path, keys=jax.random.split(jax.random.key(0, impl=impl), 2))["keys"]
    assert out.dtype == keys.dtype
    assert jax.random.uniform(out[0]) == jax.random.uniform(keys[0])
    with pytest.raises(ValueError, match=r"keys: random keys .*in the checkpoint, f32\[2\] here"):
        fx.load(path, keys=jnp.ones(2))


def test_weak_types_stay_weak(path):
    weak = jnp.full(3, 1.5)
    assert weak.weak_type
    fx.save(path, weak=weak, strong=jnp.asarray([1.5], np.float32))
    out = fx.load(path)
    assert out["weak"].weak_type
    assert not out["strong"].weak_type


def test_numpy_arrays_are_filled_where_they_lie(path):
    w, fixed = np.ones((2, 3), "float32"), np.ones(2)
    fixed.flags.writeable = False
    fx.save(path, w=w * 3, tree={"w": w, "fixed": fixed * 2}, t=jnp.ones(2))
    tree = {"w": w, "fixed": fixed}
    out = fx.load(path, w=w, tree=tree, t=np.zeros(2, "float32"))
    assert out["w"] is w
    assert tree["w"] is w
    assert tree["fixed"] is not fixed
    assert tree["fixed"].tolist() == [2, 2]
    assert isinstance(out["t"], np.ndarray)


# --- models ----------------------------------------------------------------------------------


def test_a_model_is_filled_in_place(path):
    model = scrambled(net())
    fx.save(path, model=model)
    other = net()
    layer = other.layers[0]
    assert fx.load(path, model=other)["model"] is other
    assert other.layers[0] is layer
    assert equal(model, other)


def test_without_a_model_its_arrays_come_as_a_tree(path):
    model = scrambled(net())
    fx.save(path, model=model)
    tree = fx.load(path)["model"]
    assert tree.layers[2].p == 0.4
    assert tree.layers[0].activation is None
    other = fx.loadmodel(net(), tree)
    assert equal(model, other)


def test_what_a_module_counts_and_its_mode_come_back(path):
    class Counting(fx.Module):
        def __init__(self):
            self.w, self.calls, self.log = jnp.ones(2), 0, []

        def __call__(self, x):
            return x

    model = fx.Chain(Counting(), fx.Dropout(0.5))
    model.layers[0].calls, model.layers[0].log = 5, [1, ("a", 2.5)]
    model.layers[0].late = "made while running"
    model.layers[1].p = 0.25
    fx.testmode(model.layers[1])
    fx.save(path, model=model)
    other = fx.Chain(Counting(), fx.Dropout(0.5))
    fx.load(path, model=other)
    counting, dropout = other.layers
    assert (counting.calls, counting.log, counting.late) == (
        5,
        [1, ("a", 2.5)],
        model.layers[0].late,
    )
    assert (dropout.p, dropout.active) == (0.25, False)


@dataclass
class Pair:
    a: object
    b: object = 3


@dataclass(frozen=True)
class Fixed:
    a: object


@pytest.mark.parametrize(
    "make",
    [
        lambda f: {"w": jnp.full(2, f), "deep": [jnp.full(1, f), (jnp.full(3, f), 2)]},
        lambda f: [jnp.full(2, f), {"x": {1: jnp.full(1, f)}}],
        lambda f: (jnp.full(2, f), [jnp.full(1, f)]),
        lambda f: Pair(jnp.full(2, f), [jnp.full(1, f)]),
        lambda f: Fixed(Pair(jnp.full(2, f))),
        lambda f: jnp.full(3, f),
    ],
    ids="dict list tuple dataclass frozen array".split(),
)
def test_any_tree(make, path):
    one = make(2.0)
    fx.save(path, tree=one)
    assert equal(fx.load(path, tree=make(3.0))["tree"], one)


def test_an_equinox_module(path):
    import equinox as eqx

    one = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    fx.save(path, model=one)
    out = fx.load(path, model=eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(1)))["model"]
    assert eqx.tree_equal(out, one)


def tied():
    model = fx.Chain(fx.Dense(3, 3), fx.Dense(3, 3))
    model.layers[1].weight = model.layers[0].weight
    return model


def test_ties_are_kept(path):
    model = fx.Chain(fx.Dense(4, 4), d := fx.Dense(4, 4), d)
    opt_state = fx.setup(fx.Adam(), model)
    fx.save(path, model=model, opt_state=opt_state)
    other = fx.Chain(fx.Dense(4, 4), d := fx.Dense(4, 4), d)
    state = fx.setup(fx.Adam(), other)
    out = fx.load(path, model=other, opt_state=state)
    assert other.layers[1] is other.layers[2]
    assert state.layers[1].weight is state.layers[2].weight
    assert out["opt_state"] is state
    free = fx.load(path)["model"]
    assert free.layers[1].weight is free.layers[2].weight
    model = tied()
    fx.save(path, model=model)
    other = tied()
    fx.load(path, model=other)
    assert other.layers[0].weight is other.layers[1].weight


def test_ties_must_be_the_same(path):
    untied = fx.Chain(fx.Dense(3, 3), fx.Dense(3, 3))
    fx.save(path, model=tied())
    with pytest.raises(
        ValueError, match=r"layers\[1\].weight: tied to model.layers\[0\].weight only in the"
    ):
        fx.load(path, model=untied)
    fx.save(path, model=untied)
    with pytest.raises(ValueError, match=r"layers\[1\].weight: tied to .* only here"):
        fx.load(path, model=tied())


# --- versions --------------------------------------------------------------------------------

GOLDEN = Path(__file__).parent / "golden" / "checkpoint_1.safetensors"


def test_a_file_of_format_1_can_be_read():
    opt_state = fx.setup(fx.Adam(), model := fx.Dense(2, 3, fx.tanh))
    out = fx.load(GOLDEN, model=model, opt_state=opt_state)
    assert model.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert opt_state.weight.rule == fx.Adam(0.25)
    assert opt_state.bias.frozen
    assert out["notes"] == ("one", 2, 3.5)


def test_a_newer_format_is_told_apart(path, monkeypatch):
    monkeypatch.setattr("fluxax._checkpoint._file.VERSION", 2)
    fx.save(path, x=1)
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"format 1, got format 2 in .*written by fluxax .*newer one"
    ):
        fx.load(path)


def test_functions_of_jax_in_a_model_go_by_name(path):
    model = fx.SkipConnection(fx.Dense(2, 2, jax.nn.relu), jnp.add)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.layers.activation is jax.nn.relu
        assert again.connection is jnp.add
        assert jax.tree.structure(again) == jax.tree.structure(model)
    nameless = fx.Dense(2, 2, jax.custom_jvp(jax.jit(lambda x: x)))
    assert copy.deepcopy(nameless).activation is nameless.activation
    fx.save(path, model=model)
    fx.load(path, model=again)
    with pytest.raises(ValueError, match=r"model\.connection: add in the checkpoint, maximum here"):
        fx.load(path, model=fx.SkipConnection(fx.Dense(2, 2, jax.nn.relu), jnp.maximum))
    with pytest.raises(ValueError, match=r"activation: relu in the checkpoint, relu6 here"):
        fx.load(path, model=fx.SkipConnection(fx.Dense(2, 2, jax.nn.relu6), jnp.add))
