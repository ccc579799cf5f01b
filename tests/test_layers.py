"""Every layer, law by law: shapes, derivatives, modes, copies, PyTorch's numbers, messages."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _module

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("layers.json").read_text("utf-8"))


class Row(NamedTuple):
    """A layer, an input's shape, the output's, and the integers it takes instead of floats."""

    make: Callable[[], Any]
    given: tuple[int, ...]
    comes: tuple[int, ...]
    below: int = 0  # indices below this many; 0: floating input


def add(*xs: Any) -> Any:
    return sum(xs[1:], xs[0])


def second(xs: Any) -> Any:
    return xs[1]


LAYERS = {
    "Chain": Row(lambda: fx.Chain(fx.Dense(4, 3, fx.tanh), fx.Dense(3, 2)), (5, 4), (5, 2)),
    "Chain named": Row(lambda: fx.Chain(enc=fx.Dense(4, 3), act=fx.tanh), (5, 4), (5, 3)),
    "Dense": Row(lambda: fx.Dense(4, 3, fx.tanh), (5, 4), (5, 3)),
    "Dense more axes": Row(lambda: fx.Dense(4, 3), (2, 5, 4), (2, 5, 3)),
    "Dense vector": Row(lambda: fx.Dense(4, 3), (4,), (3,)),
    "Dense none": Row(lambda: fx.Dense(4, 3), (0, 4), (0, 3)),
    "Dense without bias": Row(lambda: fx.Dense(4, 3, bias=False), (5, 4), (5, 3)),
    "Scale": Row(lambda: fx.Scale(3, 4, fx.tanh), (5, 3, 4), (5, 3, 4)),
    "Embedding": Row(lambda: fx.Embedding(7, 3), (2, 5), (2, 5, 3), below=7),
    "Conv": Row(lambda: fx.Conv((3, 3), 2, 4, fx.tanh, pad=1), (2, 6, 5, 2), (2, 6, 5, 4)),
    "Conv 1": Row(lambda: fx.Conv((3,), 2, 4, stride=2, bias=False), (2, 9, 2), (2, 4, 4)),
    "Conv 3": Row(lambda: fx.Conv((2, 1, 2), 2, 4), (1, 3, 4, 5, 2), (1, 2, 4, 4, 4)),
    "Conv groups": Row(
        lambda: fx.Conv((3, 3), 4, 6, groups=2, dilation=2, pad=2), (2, 6, 5, 4), (2, 6, 5, 6)
    ),
    "Conv same": Row(lambda: fx.Conv((4, 2), 1, 2, pad="same"), (2, 6, 5, 1), (2, 6, 5, 2)),
    "Conv flipped": Row(lambda: fx.Conv((2, 3), 1, 2, flipkernel=True), (1, 4, 5, 1), (1, 3, 3, 2)),
    "ConvTranspose": Row(
        lambda: fx.ConvTranspose((3, 2), 4, 2, stride=2, groups=2, outpad=1, pad=1),
        (2, 3, 4, 4),
        (2, 6, 7, 2),
    ),
    "ConvTranspose same": Row(
        lambda: fx.ConvTranspose((2, 5), 1, 2, stride=3, pad="same"), (2, 3, 4, 1), (2, 9, 12, 2)
    ),
    "DepthwiseConv": Row(lambda: fx.DepthwiseConv((3,), 2, 4), (2, 5, 2), (2, 3, 4)),
    "CrossCor": Row(lambda: fx.CrossCor((3,), 2, 4), (2, 5, 2), (2, 3, 4)),
    "AdaptiveMaxPool": Row(lambda: fx.AdaptiveMaxPool((2, 3)), (2, 5, 7, 3), (2, 2, 3, 3)),
    "AdaptiveMeanPool": Row(lambda: fx.AdaptiveMeanPool((3,)), (2, 7, 3), (2, 3, 3)),
    "PixelShuffle": Row(lambda: fx.PixelShuffle(2), (2, 3, 4, 12), (2, 6, 8, 3)),
    "GroupNorm": Row(lambda: fx.GroupNorm(6, 3, fx.tanh), (2, 3, 4, 6), (2, 3, 4, 6)),
    "InstanceNorm": Row(
        lambda: fx.InstanceNorm(3, affine=True, track_stats=True), (2, 3, 4, 3), (2, 3, 4, 3)
    ),
    "AlphaDropout": Row(lambda: fx.AlphaDropout(0.3), (5, 4), (5, 4)),
    "RNN": Row(lambda: fx.RNN(3, 4), (2, 5, 3), (2, 5, 4)),
    "LSTM": Row(lambda: fx.LSTM(3, 4), (2, 5, 3), (2, 5, 4)),
    "GRU": Row(lambda: fx.GRU(3, 4, bias=False), (2, 5, 3), (2, 5, 4)),
    "GRUv3": Row(lambda: fx.GRUv3(3, 4), (2, 5, 3), (2, 5, 4)),
    "MultiHeadAttention": Row(
        lambda: fx.MultiHeadAttention((3, (4, 6), 5), nheads=2, dropout_prob=0.25),
        (2, 5, 3),
        (2, 5, 5),
    ),
    "PairwiseFusion": Row(
        lambda: fx.Chain(fx.PairwiseFusion(add, fx.Dense(4, 4), fx.Dense(4, 4)), second),
        (5, 4),
        (5, 4),
    ),
    "MaxPool": Row(lambda: fx.MaxPool((2, 2)), (2, 5, 6, 3), (2, 2, 3, 3)),
    "MaxPool apart": Row(lambda: fx.MaxPool((3, 2), stride=1, pad=1), (2, 5, 6, 3), (2, 5, 7, 3)),
    "MaxPool wide": Row(lambda: fx.MaxPool((9,), pad=4, stride=2), (2, 12, 3), (2, 6, 3)),
    "MeanPool": Row(lambda: fx.MeanPool((2, 2)), (2, 5, 6, 3), (2, 2, 3, 3)),
    "MeanPool 3": Row(lambda: fx.MeanPool((2, 1, 2)), (1, 4, 3, 2, 2), (1, 2, 3, 1, 2)),
    "GlobalMaxPool": Row(fx.GlobalMaxPool, (2, 5, 6, 3), (2, 1, 1, 3)),
    "GlobalMeanPool": Row(fx.GlobalMeanPool, (2, 5, 3), (2, 1, 3)),
    "flatten": Row(lambda: fx.Chain(fx.flatten), (2, 5, 6, 3), (2, 90)),
    "BatchNorm": Row(lambda: fx.BatchNorm(3, fx.tanh), (4, 2, 2, 3), (4, 2, 2, 3)),
    "BatchNorm bare": Row(lambda: fx.BatchNorm(3, affine=False, track_stats=False), (4, 3), (4, 3)),
    "LayerNorm": Row(lambda: fx.LayerNorm(3, 4, fx.tanh), (5, 3, 4), (5, 3, 4)),
    "LayerNorm bare": Row(lambda: fx.LayerNorm((4,), affine=False), (5, 3, 4), (5, 3, 4)),
    "Dropout": Row(lambda: fx.Dropout(0.5), (5, 4), (5, 4)),
    "SkipConnection": Row(
        lambda: fx.Chain(fx.Scale(4), fx.SkipConnection(fx.Dense(4, 4), add)), (5, 4), (5, 4)
    ),
    "Parallel": Row(lambda: fx.Parallel(add, a=fx.Dense(4, 3), b=fx.Dense(4, 3)), (5, 4), (5, 3)),
    "Maxout": Row(lambda: fx.Maxout(lambda: fx.Dense(4, 3), 3), (5, 4), (5, 3)),
}
rows = pytest.mark.parametrize("row", LAYERS.values(), ids=list(LAYERS))


def draw(shape: tuple[int, ...], seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def given(row: Row) -> Any:
    if row.below:
        return np.random.default_rng(1).integers(0, row.below, row.given)
    return draw(row.given)


def floats(tree: Any) -> list[Any]:
    return [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]


def with_floats(tree: Any, new: list[Any]) -> Any:
    """The tree with other floating arrays."""
    rest = iter(new)
    return jax.tree.map(lambda a: next(rest) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def listen(seen: list[str]) -> None:
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))


def alike(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# --- the laws -----------------------------------------------------------------------------


@rows
def test_shape_and_type(row: Row) -> None:
    y = row.make()(given(row))
    assert isinstance(y, jax.Array)
    assert y.shape == row.comes
    assert y.dtype == jnp.float32


@rows
def test_double_input_comes_out_in_the_type_of_the_weights(row: Row) -> None:
    layer, x = row.make(), given(row)
    with jax.enable_x64(True):
        x = x if row.below else x.astype(np.float64)
        weights = floats(layer)
        assert jax.eval_shape(layer, x).dtype == (jnp.float32 if weights else jnp.float64)
        doubled = with_floats(layer, [w.astype(jnp.float64) for w in weights])
        assert jax.eval_shape(doubled, x).dtype == jnp.float64


@rows
def test_half_precision_stays_half(row: Row) -> None:
    layer = with_floats(m := row.make(), [w.astype(jnp.bfloat16) for w in floats(m)])
    for x in [given(row)] if row.below else [jnp.asarray(given(row), jnp.bfloat16)]:
        assert jax.eval_shape(layer, x).dtype == jnp.bfloat16


@rows
@pytest.mark.parametrize("mode", [False, True], ids=["test", "train"])
def test_gradient_is_the_slope(row: Row, mode: bool) -> None:
    """Central differences in double precision along a random direction of weights and input."""
    with jax.enable_x64(True):
        layer = row.make()
        _ = fx.trainmode(layer) if mode else fx.testmode(layer)
        x = given(row)
        point = [np.asarray(w, np.float64) for w in floats(layer)]
        point += [] if row.below else [x.astype(np.float64)]
        step = [draw(p.shape, 10 + i).astype(np.float64) for i, p in enumerate(point)]
        weigh = draw(row.comes, 5)

        def loss(values: Any, layer: Any) -> Any:
            values = list(values)
            source = x if row.below else values.pop()
            return jnp.sum(with_floats(layer, values)(source) * weigh)

        grads = jax.jit(jax.grad(loss))(point, layer)
        slope = sum(float(jnp.vdot(g, s)) for g, s in zip(grads, step, strict=True))
        e, value = 1e-6, jax.jit(loss)
        ahead = value([p + e * s for p, s in zip(point, step, strict=True)], layer)
        back = value([p - e * s for p, s in zip(point, step, strict=True)], layer)
        np.testing.assert_allclose(slope, (ahead - back) / (2 * e), rtol=1e-5, atol=1e-7)


@rows
def test_pickle_and_deepcopy(row: Row) -> None:
    layer, x = row.make(), given(row)
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert jax.tree.structure(twin) == jax.tree.structure(layer)
        np.testing.assert_array_equal(twin(x), layer(x))


@rows
def test_jit_and_vmap_change_nothing(row: Row) -> None:
    layer, x = row.make(), given(row)
    y = layer(x)
    alike(jax.jit(lambda m, x: m(x))(layer, x), y)
    alike(jax.vmap(layer)(np.stack([x, x]))[1], y)


@rows
def test_the_same_seed_makes_the_same_layer(row: Row) -> None:
    made = []
    for _ in range(2):
        fx.seed(3)
        made.append(jax.tree.leaves(row.make()))
    assert all(np.array_equal(a, b) for a, b in zip(*made, strict=True))


@rows
def test_printing_reads_like_the_constructor(row: Row) -> None:
    layer = row.make()
    assert repr(layer).startswith(type(layer).__name__ + "(")


# --- PyTorch ------------------------------------------------------------------------------


def array(entry: dict[str, Any], dtype: Any = np.float32) -> Any:
    values = np.asarray(entry["values"]).reshape(entry["shape"])
    return values.astype(dtype) if values.dtype.kind == "f" else values


NAMES = [f"{i} {case['layer']} {case['mode']}" for i, case in enumerate(GOLDEN["cases"])]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=NAMES)
def test_numbers_of_pytorch(case: dict[str, Any]) -> None:
    layer = eval(case["layer"], dict(vars(fx)))
    names = list(case["weights"])
    weights = [jnp.asarray(array(case["weights"][k])) for k in names]
    _ = fx.trainmode(layer) if case["mode"] == "train" else fx.testmode(layer)

    def loss(weights: Any, x: Any) -> Any:
        for name, w in zip(names, weights, strict=True):
            *outer, attribute = name.split(".")
            owner = layer
            for part in outer:
                owner = getattr(owner, part)
            object.__setattr__(owner, attribute, w)
        y = layer(x, mask="causal") if case["mode"] == "causal" else layer(x)
        return jnp.sum(y * array(case["c"])), y

    both = jax.value_and_grad(loss, (0, 1), has_aux=True)
    (_, y), (dweights, dx) = both(weights, jnp.asarray(array(case["x"])))

    def close(ours: Any, golden: Any) -> None:
        golden = array(golden, np.float64)
        np.testing.assert_allclose(ours, golden, rtol=1e-5, atol=1e-5 * abs(golden).max())

    close(y, case["y"])
    close(dx, case["dx"])
    for name, dw in zip(names, dweights, strict=True):
        close(dw, case["dweights"][name])
    for name, value in case["state"].items():
        close(getattr(layer, name), value)


# --- one by one ---------------------------------------------------------------------------


def test_chain_is_a_sequence() -> None:
    a, b, c = fx.Dense(2, 3), fx.tanh, fx.Dense(3, 1)
    chain = fx.Chain(a, b, c)
    assert (chain[0], chain[-1], len(chain), list(chain)) == (a, c, 3, [a, b, c])
    part = chain[:2]
    assert isinstance(part, fx.Chain)
    assert part[0] is a
    assert len(part) == 2
    named = fx.Chain(enc=a, act=b, dec=c)
    assert named.layers.dec is named["dec"] is named.layers[2] is c
    assert named[1:].layers.dec is c
    chain[1] = fx.relu
    assert chain.layers[1] is fx.relu
    assert len(fx.Chain([a, b])) == 2
    assert bool(empty := fx.Chain())
    assert empty(named) is named  # the identity
    x = draw((4, 2))
    np.testing.assert_array_equal(chain(x), c(fx.relu(a(x))))
    assert [y.shape for y in fx.activations(chain, x)] == [(4, 3), (4, 3), (4, 1)]


def test_dense_from_arrays() -> None:
    w, b = jnp.asarray(draw((4, 3))), jnp.asarray(draw((3,)))
    layer = fx.Dense(w, b, fx.relu)
    assert layer.weight is w
    assert layer.bias is b
    assert layer.activation is fx.relu
    assert fx.Dense(w, False).bias is None
    assert fx.Dense(w).bias.tolist() == [0, 0, 0]
    assert fx.Dense(4, 3, bias=b).bias is b
    assert fx.Dense(np.ones((2, 2), int), np.ones(2)).weight.dtype == jnp.float32


def test_initialisers_and_rng() -> None:
    assert fx.Dense(4, 3, init=fx.zeros32).weight.tolist() == np.zeros((4, 3)).tolist()
    one, two = fx.Dense(4, 3, rng=0), fx.Dense(4, 3, rng=0)
    np.testing.assert_array_equal(one.weight, two.weight)
    plain = fx.Dense(4, 3, init=lambda *shape: np.ones(shape))  # without rng=
    assert plain.weight.tolist() == np.ones((4, 3)).tolist()


def test_dense_takes_one_hot_input() -> None:
    layer = fx.Dense(3, 2)
    alike(layer(np.eye(3, dtype=bool)), layer(np.eye(3)))


def test_flipped_kernel_is_the_convolution_of_mathematics() -> None:
    layer = fx.Conv((3,), 1, 1, flipkernel=True, bias=False)
    x = draw((1, 8, 1))
    alike(layer(x)[0, :, 0], np.convolve(x[0, :, 0], layer.weight[:, 0, 0], "valid"))


def test_ways_to_write_pad() -> None:
    for pad in (1, (1, 1), (1, 1, 1, 1), ((1, 1), (1, 1)), "same", [1, 1]):
        assert fx.Conv((3, 3), 1, 1, pad=pad).pad == ((1, 1), (1, 1))
    assert fx.Conv((3, 3), 1, 1, pad=(1, 2, 3, 4)).pad == ((1, 2), (3, 4))
    assert fx.Conv((4,), 1, 1, pad="same", dilation=3).pad == ((4, 5),)


def test_embedding() -> None:
    table = fx.Embedding(5, 3)
    alike(table(np.array([[4, 0]])), table.weight[jnp.array([[4, 0]])])
    alike(table(np.eye(5, dtype=bool)), table.weight)
    assert table(2).shape == (3,)
    assert table(np.zeros(2, np.uint8)).shape == (2, 3)
    for wrong in (5, -1):
        with pytest.raises(ValueError, match=f"from 0 to 4, got {wrong}"):
            table(wrong)
        assert np.isnan(jax.jit(table)(np.array([wrong]))).all()


def test_batchnorm_by_hand() -> None:
    layer, x = fx.BatchNorm(3), 2 + 3 * draw((4, 5, 3))
    before = layer(x)
    alike(before, x / np.sqrt(1 + 1e-5))
    with fx.trainmode(layer):
        y = layer(x)
    flat = x.reshape(-1, 3)
    alike(y.reshape(-1, 3), (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5))
    alike(layer.mean, 0.1 * flat.mean(0))
    alike(layer.var, 0.9 + 0.1 * flat.var(0, ddof=1))
    assert layer.trainable == ("scale", "bias")
    bare = fx.BatchNorm(3, track_stats=False)
    alike(bare(x), y)


def test_batchnorm_below_a_frozen_node_holds_still(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = fx.BatchNorm(3), 2 + 3 * draw((4, 3))
    monkeypatch.setattr(_module.run, "frozen", frozenset([id(layer)]))
    monkeypatch.setattr(_module.run, "training", True)
    alike(layer(x), x / np.sqrt(1 + 1e-5))
    assert layer.mean.tolist() == [0, 0, 0]
    with fx.trainmode(layer):  # set by hand, that wins
        layer(x)
    assert layer.mean.tolist() != [0, 0, 0]


def test_automatic_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = fx.Dropout(0.5), np.ones((50, 50), np.float32)
    np.testing.assert_array_equal(layer(x), x)
    monkeypatch.setattr(_module.run, "training", True)
    assert set(np.unique(layer(x))) == {0, 2}
    with fx.testmode(layer):
        np.testing.assert_array_equal(layer(x), x)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.9, 1.0])
def test_dropout_keeps_the_mean(p: float) -> None:
    layer = fx.Dropout(p, active=True, rng=0)
    y = np.asarray(layer(np.ones((200, 200), np.float32)))
    assert (y == 0).mean() == pytest.approx(p, abs=0.01)
    np.testing.assert_allclose(y[y != 0], 1 / max(1 - p, 1e-9), rtol=1e-6)


def test_dropout_stream() -> None:
    x = np.ones((20, 20), np.float32)
    layer = fx.Dropout(0.5, active=True, rng=4)
    assert layer.stream.dtype == jnp.uint32
    assert layer.stream.shape == (2,)
    first, second = layer(x), layer(x)
    assert not np.array_equal(first, second)
    again = fx.Dropout(0.5, active=True, rng=4)
    np.testing.assert_array_equal(again(x), first)
    np.testing.assert_array_equal(again(x), second)


def test_dropout_dims() -> None:
    layer = fx.Dropout(0.5, dims=(0, -1), active=True)
    y = np.asarray(layer(np.ones((6, 5, 5, 7), np.float32)))
    assert (y == y[:, :1, :1]).all()
    assert len(np.unique(y)) == 2
    assert len(np.unique(y[:, 0, 0])) == 2


def test_parallel_inputs() -> None:
    seen = []
    layer = fx.Parallel(lambda *ys: seen.append(ys) or ys, lambda x: x + 1, lambda x: x * 2)
    assert layer(3) == (4, 6)
    assert layer(3, 4) == layer((3, 4)) == (4, 8)
    assert len(seen) == 3
    with pytest.raises(ValueError, match="one input or 2 inputs, got 3"):
        layer(1, 2, 3)


def test_skip_connection_gives_the_output_first() -> None:
    assert fx.SkipConnection(lambda x: 10 * x, lambda y, x: (y, x))(3) == (30, 3)


def test_maxout_and_its_ties() -> None:
    same = fx.Maxout(lambda x: 2 * x, lambda x: 2 * x)
    assert jax.grad(same)(3.0) == 2.0
    assert np.isnan(fx.Maxout(lambda x: x * np.nan, lambda x: x)(jnp.ones(1))[0])
    assert np.isnan(fx.Maxout(lambda x: x, lambda x: x * np.nan)(jnp.ones(1))[0])


def test_recurrent_layers_run_their_cells() -> None:
    x = draw((2, 5, 3))
    for layer in (fx.RNN(3, 4), fx.LSTM(3, 4), fx.GRU(3, 4), fx.GRUv3(3, 4)):
        state, ys = None, []
        for t in range(5):
            y, state = layer.cell(x[:, t], state)
            ys.append(y)
        alike(layer(x), np.stack(ys, 1))
        alike(layer(x[:, 3:], jax.tree.map(jnp.zeros_like, state)), layer(x[:, 3:]))
        _, half = layer.cell(x[:, 0])
        alike(layer(x[:, 1:], half), layer(x)[:, 1:])


def test_gru_v3_by_hand() -> None:
    cell, x, h = fx.GRUv3Cell(3, 4, rng=0), draw((2, 3)), draw((2, 4), 2)
    cell.bias = jnp.asarray(draw((12,), 3))
    wr, wz, wn = np.split(np.asarray(cell.Wi), 3, 1)
    ur, uz, un = np.split(np.asarray(cell.Wh), 3, 1)
    br, bz, bn = np.split(np.asarray(cell.bias), 3)
    sigma = lambda v: 1 / (1 + np.exp(-v))
    r, z = sigma(x @ wr + h @ ur + br), sigma(x @ wz + h @ uz + bz)
    n = np.tanh(x @ wn + (r * h) @ un + bn)
    alike(cell(x, h)[0], (1 - z) * n + z * h)


def test_lstm_starts_by_remembering() -> None:
    assert fx.LSTMCell(2, 3).bias.tolist() == [0] * 3 + [1] * 3 + [0] * 6
    sizes = [sum(a.size for a in floats(f(3, 5))) for f in (fx.RNN, fx.LSTM, fx.GRU, fx.GRUv3)]
    assert sizes == [45, 180, 135, 135]


def test_attention_masks_and_scores() -> None:
    mha = fx.MultiHeadAttention(4, nheads=2)
    q, k = draw((2, 3, 4)), draw((2, 5, 4), 2)
    y, scores = mha(q, k, return_scores=True)
    assert y.shape == (2, 3, 4)
    assert scores.shape == (2, 2, 3, 5)
    alike(scores.sum(-1), 1)
    mask = np.random.default_rng(0).random((2, 3, 5)) < 0.5
    mask[..., 0] = True
    for given in (mask, mask[:, None]):
        masked = mha(q, k, mask=given, return_scores=True)[1]
        assert ((np.asarray(masked) > 0) == mask[:, None]).all()
    shift = np.where(mask, 0, -1e9).astype(np.float32)[:, None]
    alike(mha(q, k, bias=shift), mha(q, k, mask=mask))
    causal = np.tril(np.ones((3, 3), bool))
    alike(mha(q, mask="causal"), mha(q, mask=causal))


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    layer = fx.AlphaDropout(0.3, active=True, rng=0)
    x = fx.selu(np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32))
    y = np.asarray(layer(x))
    assert abs(y.mean() - x.mean()) < 0.01
    assert abs(y.std() - x.std()) < 0.01
    assert not np.asarray(fx.AlphaDropout(1, active=True)(x)).any()


def test_max_pool_lets_nan_through() -> None:
    for at in range(4):
        x = np.ones((1, 4, 1), np.float32)
        x[0, at] = np.nan
        assert np.isnan(fx.MaxPool((4,))(x)).all()
        assert np.isnan(fx.GlobalMaxPool()(x)).all()


def test_making_a_model_compiles_nothing() -> None:
    events: list[str] = []
    listen(events)  # JAX tells its listeners of everything that it compiles
    for row in LAYERS.values():
        row.make()
    made = [event for event in events if "compile" in event]
    jax.jit(lambda x: x + 1)(draw((3,)))
    jax.monitoring.clear_event_listeners()
    assert not made
    assert [event for event in events if "compile" in event], "the listener does not listen"


def test_tied_layers_stay_one_object_through_pickle() -> None:
    layer = fx.Dense(2, 2)
    twin = pickle.loads(pickle.dumps(fx.Chain(layer, layer)))
    assert twin[0] is twin[1]


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


MESSAGES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "features": (
        lambda: fx.Dense(10, 5)(ones(4, 3)),
        ValueError,
        "Dense(10, 5) expects input of shape (…, 10), got f32[4,3].",
    ),
    "flatten": (
        lambda: fx.Chain(fx.relu, fx.Dense(784, 5))(ones(4, 28, 28, 1)),
        ValueError,
        "Dense(784, 5) expects input of shape (…, 784), got f32[4,28,28,1] at model.layers[1]. "
        "Put fx.flatten in front of it.",
    ),
    "nested": (
        lambda: fx.Chain(fx.relu, fx.Chain(fx.Dense(9, 5)))(ones(4, 3)),
        ValueError,
        "Dense(9, 5) expects input of shape (…, 9), got f32[4,3] at model.layers[1].layers[0].",
    ),
    "skip": (
        lambda: fx.SkipConnection(fx.Dense(9, 9), jnp.add)(ones(4, 3)),
        ValueError,
        "Dense(9, 9) expects input of shape (…, 9), got f32[4,3] at model.layers.",
    ),
    "integers": (
        lambda: fx.Dense(3, 5)(np.ones((4, 3), int)),
        ValueError,
        "Dense(3, 5) expects floating input, got",
    ),
    "tuple": (
        lambda: fx.Dense(3, 5)((ones(2, 3), ones(2))),
        ValueError,
        "Dense(3, 5) expects an array, got a tuple of 2. Pass its parts: an array each.",
    ),
    "sizes": (lambda: fx.Dense(0, 5), ValueError, "Dense expects in to be at least 1, got 0."),
    "one size": (
        lambda: fx.Dense(5),
        TypeError,
        "Dense expects two sizes, Dense(in, out), got only 5.",
    ),
    "float size": (
        lambda: fx.Dense(5, 2.0),
        TypeError,
        "Dense expects out to be an integer, got 2.0.",
    ),
    "activation": (
        lambda: fx.Dense(2, 3, "relu"),
        TypeError,
        "Dense expects a function as activation, got 'relu'. Write fx.relu.",
    ),
    "bias": (
        lambda: fx.Dense(2, 3, bias=ones(2)),
        ValueError,
        "Dense(2, 3) expects a bias of shape (3,), got f32[2].",
    ),
    "init": (
        lambda: fx.Dense(2, 3, init=lambda *shape: ones(3, 2)),
        ValueError,
        "Dense expects init to return an array of shape (2, 3), got f32[3,2].",
    ),
    "no batch": (
        lambda: fx.Conv((3, 3), 3, 4)(ones(8, 8, 3)),
        ValueError,
        "Conv((3, 3), 3, 4) expects input of shape (N, H, W, 3), got f32[8,8,3]. "
        "Add a batch axis, x[None].",
    ),
    "no channel": (
        lambda: fx.Conv((3, 3), 1, 4)(ones(5, 8, 8)),
        ValueError,
        "Conv((3, 3), 1, 4) expects input of shape (N, H, W, 1), got f32[5,8,8]. "
        "Add a channel axis, x[..., None].",
    ),
    "channels first": (
        lambda: fx.Conv((3, 3), 3, 4)(ones(5, 3, 8, 8)),
        ValueError,
        "Conv((3, 3), 3, 4) expects input of shape (N, H, W, 3), got f32[5,3,8,8]. "
        "Channels come last: jnp.moveaxis(x, 1, -1).",
    ),
    "too small": (
        lambda: fx.Conv((3, 3), 3, 4, dilation=2)(ones(5, 4, 8, 3)),
        ValueError,
        "expects at least 5 by 5 places with padding, got f32[5,4,8,3].",
    ),
    "kernel": (
        lambda: fx.Conv(3, 1, 4),
        TypeError,
        "Conv expects kernel as a tuple, got 3. Write (3, 3) for images.",
    ),
    "groups": (
        lambda: fx.Conv((3, 3), 3, 4, groups=2),
        ValueError,
        "Conv expects groups to divide in=3, got groups=2.",
    ),
    "dilation": (
        lambda: fx.Conv((3, 3), 3, 4, dilation=0),
        ValueError,
        "Conv expects dilation to be at least 1, got 0.",
    ),
    "stride": (
        lambda: fx.Conv((3, 3), 3, 4, stride=(1, 2, 3)),
        ValueError,
        "Conv expects stride as a number or 2 numbers, got a tuple of 3.",
    ),
    "pad": (
        lambda: fx.Conv((3, 3), 3, 4, pad="valid"),
        ValueError,
        "Conv expects pad as a number, 2 or 4 numbers or \"same\", got 'valid'.",
    ),
    "negative pad": (
        lambda: fx.MaxPool((3, 3), pad=-1),
        ValueError,
        "MaxPool expects pad to be at least 0, got -1.",
    ),
    "pool": (
        lambda: fx.MaxPool((3, 3))(ones(2, 2, 5, 3)),
        ValueError,
        "MaxPool((3, 3)) expects at least 3 by 3 places with padding, got f32[2,2,5,3].",
    ),
    "p": (lambda: fx.Dropout(1.5), ValueError, "Dropout expects p from 0 to 1, got 1.5."),
    "nan p": (lambda: fx.Dropout(np.nan), ValueError, "Dropout expects p from 0 to 1, got nan."),
    "dims": (
        lambda: fx.Dropout(0.5, dims=3)(ones(2, 2)),
        ValueError,
        "Dropout(0.5, dims=(3,)) expects input with an axis 3, got f32[2,2].",
    ),
    "active": (
        lambda: fx.Dropout(0.5, active="auto"),
        ValueError,
        "Dropout expects active to be True, False or None, got 'auto'.",
    ),
    "one value": (
        lambda: fx.BatchNorm(3, active=True)(ones(1, 3)),
        ValueError,
        "BatchNorm(3, active=True) expects more than one value per channel in train mode, "
        "got f32[1,3].",
    ),
    "norm": (
        lambda: fx.LayerNorm(3, 4)(ones(3, 5)),
        ValueError,
        "LayerNorm(3, 4) expects input of shape (…, 3, 4), got f32[3,5].",
    ),
    "scale": (
        lambda: fx.Scale(3)(ones(3, 5)),
        ValueError,
        "Scale(3) expects input of shape (…, 3), got f32[3,5].",
    ),
    "no size": (lambda: fx.Scale(), ValueError, "Scale expects at least one size, got none."),
    "floats": (
        lambda: fx.Embedding(3, 5)(ones(2)),
        ValueError,
        "Embedding(3, 5) expects integers, got f32[2]. Convert them with x.astype(int).",
    ),
    "layers": (
        lambda: fx.Chain(layers=fx.relu),
        ValueError,
        "Chain expects another name for a layer, got `layers`, its attribute.",
    ),
    "list name": (
        lambda: fx.Chain(count=fx.relu),
        ValueError,
        "Chain expects names that a list does not have, got `count`.",
    ),
    "mixed": (
        lambda: fx.Chain(fx.relu, a=fx.relu),
        ValueError,
        "Chain expects its layers by position or by name, got 1 by position and 1 by name.",
    ),
    "no layer": (
        lambda: fx.Chain(fx.relu, 3),
        TypeError,
        "Chain expects layers or functions, got 3 at 1.",
    ),
    "class": (lambda: fx.Chain(fx.Dense), TypeError, "got the class Dense at 0. Call it"),
    "no time": (
        lambda: fx.LSTM(3, 5)(ones(4, 3)),
        ValueError,
        "LSTM(3, 5) expects input of shape (N, T, 3), got f32[4,3]. Add a batch axis, x[None].",
    ),
    "heads": (
        lambda: fx.MultiHeadAttention(10, nheads=3),
        ValueError,
        "MultiHeadAttention expects nheads to divide 10, got nheads=3.",
    ),
    "mask": (
        lambda: fx.MultiHeadAttention(4, nheads=1)(ones(2, 3, 4), mask=np.ones((2, 2), bool)),
        ValueError,
        "MultiHeadAttention(4, nheads=1) expects a mask that fits the scores (2, 1, 3, 3), "
        "got bool[2,2].",
    ),
    "mask word": (
        lambda: fx.MultiHeadAttention(4, nheads=1)(ones(2, 3, 4), mask="none"),
        ValueError,
        "MultiHeadAttention expects mask \"causal\" or an array, got 'none'.",
    ),
    "group norm": (
        lambda: fx.GroupNorm(4, 3),
        ValueError,
        "GroupNorm expects groups to divide ch=4, got groups=3.",
    ),
    "adaptive": (
        lambda: fx.AdaptiveMaxPool((7, 7))(ones(1, 7, 6, 1)),
        ValueError,
        "AdaptiveMaxPool((7, 7)) expects at least 7 by 7 places, got f32[1,7,6,1].",
    ),
    "shuffle": (
        lambda: fx.PixelShuffle(2)(ones(1, 2, 2, 6)),
        ValueError,
        "PixelShuffle(2) expects an image (N, …, C) with channels that r to the power of its "
        "axes of space divides, got f32[1,2,2,6].",
    ),
    "maxout": (
        lambda: fx.Maxout(fx.Dense(2, 3), fx.Dense(2, 4))(ones(1, 2)),
        ValueError,
        "Maxout expects outputs of one shape, got f32[1,3] and f32[1,4] from its layers.",
    ),
}


@pytest.mark.parametrize("make, kind, words", MESSAGES.values(), ids=list(MESSAGES))
def test_messages(make: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    assert str(caught.value).endswith((".", ")")), "a sentence"


def test_an_error_keeps_its_place_through_pickle() -> None:
    with pytest.raises(ValueError, match="layers") as caught:
        fx.Chain(fx.Dense(2, 3))(ones(1, 1))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
