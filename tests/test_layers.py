"""Every layer, law by law: shapes, derivatives, modes, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


class Row(NamedTuple):
    """A layer, an input's shape, the output's, and the integers it takes instead of floats."""

    make: Callable[[], Any]
    given: tuple[int, ...]
    comes: tuple[int, ...]
    below: int = 0  # indices below this many; 0: floating input


def add(*xs: Any) -> Any:
    return sum(xs[1:], xs[0])


def leaky(x: Any, state: Any) -> Any:
    state = x if state is None else x + 0.5 * state
    return state, state


def first(x: Any) -> Any:
    return x


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
    "Bilinear": Row(
        lambda: fx.Chain(fx.SkipConnection(fx.Dense(4, 3), fx.Bilinear((3, 4), 2, fx.tanh))),
        (5, 4),
        (5, 2),
    ),
    "Bilinear alone": Row(lambda: fx.Bilinear(4, 3, bias=False), (2, 5, 4), (2, 5, 3)),
    "EmbeddingBag": Row(lambda: fx.EmbeddingBag(7, 3), (2, 5), (2, 3), below=7),
    "EmbeddingBag max": Row(lambda: fx.EmbeddingBag(7, 3, jnp.max), (2, 2, 5), (2, 2, 3), below=7),
    "Upsample": Row(lambda: fx.Upsample(scale=(2, 3)), (2, 3, 2, 3), (2, 6, 6, 3)),
    "Upsample to a size": Row(lambda: fx.Upsample(size=(5,)), (2, 3, 3), (2, 5, 3)),
    "Upsample bilinear": Row(lambda: fx.Upsample("bilinear", scale=2), (2, 3, 2, 3), (2, 6, 4, 3)),
    "Upsample trilinear": Row(
        lambda: fx.Upsample("trilinear", size=(3, 1, 4)), (1, 2, 3, 1, 2), (1, 3, 1, 4, 2)
    ),
    "WeightNorm": Row(lambda: fx.WeightNorm(fx.Dense(4, 3, fx.tanh)), (5, 4), (5, 3)),
    "WeightNorm dims": Row(
        lambda: fx.WeightNorm(fx.Conv((3,), 2, 4), axis=(0, 2)), (2, 5, 2), (2, 3, 4)
    ),
    "Embedding padded": Row(lambda: fx.Embedding(7, 3, padding_idx=2), (2, 5), (2, 5, 3), below=7),
    "Recurrence": Row(lambda: fx.Recurrence(fx.GRUCell(3, 4)), (2, 5, 3), (2, 5, 4)),
    "Recurrence foreign": Row(
        lambda: fx.Chain(fx.Dense(3, 4), fx.Recurrence(leaky)), (2, 5, 3), (2, 5, 4)
    ),
    "Parallel of one": Row(lambda: fx.Parallel(first, fx.Dense(4, 3)), (5, 4), (5, 3)),
    "MaxPool ceil": Row(
        lambda: fx.MaxPool((2, 3), stride=2, ceil_mode=True), (2, 5, 6, 3), (2, 3, 3, 3)
    ),
    "MeanPool inside": Row(
        lambda: fx.MeanPool((3, 2), stride=2, pad=1, count_include_pad=False, ceil_mode=True),
        (2, 4, 5, 3),
        (2, 3, 3, 3),
    ),
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


@pytest.mark.parametrize("name", sorted({*LAYERS} - {"Dense vector", "BatchNorm bare"}))
def test_an_empty_batch_stays_empty(name: str) -> None:
    row = LAYERS[name]
    assert jax.eval_shape(row.make(), given(row)[:0]).shape == (0, *row.comes[1:])


@pytest.mark.filterwarnings("ignore:.*wrote its state")  # a plain jax.grad, on purpose
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
