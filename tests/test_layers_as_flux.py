"""What Flux has beside the ordinary: layers from arrays, by place, of several inputs; functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.test_layers import draw


def alike(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# --- from arrays --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [fx.Conv, fx.CrossCor, fx.ConvTranspose])
def test_convolutions_from_arrays(kind: Any) -> None:
    drawn = kind((3, 2), 4, 6, fx.relu, stride=2, groups=2)
    given = kind(drawn.weight, jnp.arange(6.0), fx.relu, stride=2, groups=2)
    assert given.weight is drawn.weight
    assert given.bias.tolist() == list(range(6))
    assert repr(given) == repr(drawn)
    drawn.bias = given.bias
    x = draw((2, 7, 8, 4))
    np.testing.assert_array_equal(given(x), drawn(x))
    assert kind(np.ones((3, 1, 1), int)).weight.dtype == jnp.float32
    assert kind(drawn.weight, False).bias is None
    named = kind(drawn.weight, bias=False, activation=fx.tanh)
    assert (named.bias, named.activation) == (None, fx.tanh)


def test_embedding_of_padding() -> None:
    table, x = fx.Embedding(4, 3, padding_idx=1, rng=0), np.array([[1, 0], [3, 1]])
    assert not np.asarray(table.weight[1]).any()
    table.weight = table.weight.at[1].set(9)  # by weight decay, say: nothing comes of it
    y = np.asarray(table(x))
    assert not y[[0, 1], [0, 1]].any()
    alike(y[[0, 1], [1, 0]], table.weight[jnp.array([0, 3])])
    alike(table(np.eye(4, dtype=bool)[x]), y)
    alike(table(np.array([True, True, False, True])), table.weight[0] + table.weight[3])
    assert not np.asarray(table(1)).any()
    grad = fx.gradient(lambda m: jnp.sum(m(x)), table)[0].weight
    assert np.asarray(grad)[:, 0].tolist() == [1, 0, 0, 1]
    given = fx.Embedding(np.ones((4, 3)), padding_idx=2)
    assert given.weight.sum() == 9
    assert repr(given) == "Embedding(4, 3, padding_idx=2)"
    assert fx.Embedding(given.weight).weight is given.weight
    assert repr(fx.Embedding(given.weight)) == "Embedding(4, 3)"


def test_embedding_of_padding_in_compiled_code() -> None:
    x = np.array([0, 1])
    f = lambda w: jnp.sum(fx.Embedding(w, padding_idx=1)(x) + fx.Embedding(4, 3, padding_idx=1)(x))
    with fx.strict():
        grad = fx.gradient(f, jnp.ones((4, 3)))[0]
    assert grad[:, 0].tolist() == [1, 0, 0, 0]


def test_bags_and_scales_from_arrays() -> None:
    table = jnp.asarray(draw((4, 3)))
    bag, x = fx.EmbeddingBag(table, jnp.max), np.array([[0, 3], [1, 1]])
    assert bag.weight is table
    alike(bag(x), np.asarray(table)[x].max(1))
    assert fx.EmbeddingBag(table).reduction is jnp.mean
    scale = fx.Scale(jnp.array([2.0, 3.0]), jnp.array([1.0, -9.0]), fx.relu)
    assert scale(np.ones(2, "f")).tolist() == [3, 0]
    assert fx.Scale(np.ones((2, 3)), bias=False, activation=fx.tanh).bias is None
    assert repr(fx.Scale(np.ones((2, 3)))) == "Scale(2, 3)"
    assert fx.Scale(np.int64(2)).scale.shape == (2,)  # a size


# --- containers ---------------------------------------------------------------------------


def test_a_chain_of_several_inputs() -> None:
    both = fx.Chain(fx.Parallel(jnp.add, jnp.negative, jnp.abs), lambda y: 10 * y)
    assert float(both(1.0, -5.0)) == 40
    assert fx.Chain()(1, 2) == (1, 2)
    layer = fx.Chain(fx.Bilinear((2, 3), 4), fx.relu)
    a, b = draw((5, 2)), draw((5, 3), 2)
    np.testing.assert_array_equal(layer(a, b), layer((a, b)))
    loss = lambda m, a, b: jnp.sum(m(a, b))
    assert fx.gradient(loss, layer, a, b)[0].layers[0].weight.shape == (2, 3, 4)
    assert fx.outputsize(layer, (5, 2), (5, 3)) == (5, 4)


def test_containers_by_place_and_name() -> None:
    a, b, c = fx.Dense(2, 3), fx.Dense(2, 3), fx.Dense(2, 3)
    for kind in (fx.Parallel, fx.PairwiseFusion):
        named = kind(jnp.add, a=a, b=b)
        assert named["b"] is named[1] is named.layers.b is b
        part = kind(jnp.add, a, b, c)[1:]
        assert isinstance(part, kind)
        assert (part.connection, list(part)) == (jnp.add, [b, c])
        named["a"] = c
        assert named[0] is c
        assert len(named) == 2
    assert fx.Maxout(a, b)[1] is b
    x = draw((4, 2))
    alike(fx.Parallel(jnp.add, a, b, c)[:2](x), a(x) + b(x))


def test_one_layer_for_several_inputs() -> None:
    layer = fx.Parallel(lambda *ys: jnp.stack(ys), fx.Dense(2, 3))
    xs = [draw((4, 2), seed) for seed in range(3)]
    alike(layer(*xs), np.stack([layer[0](x) for x in xs]))
    alike(layer(tuple(xs)), layer(*xs))
    assert layer(xs[0]).shape == (1, 4, 3)
    with pytest.raises(ValueError, match=r"at model\.layers\[0\]\.layers\[0\]\."):
        fx.Chain(layer)(xs[0], draw((4, 3)))


# --- recurrence ---------------------------------------------------------------------------

PAIRS = [(fx.RNN, fx.RNNCell), (fx.LSTM, fx.LSTMCell), (fx.GRU, fx.GRUCell)]
PAIRS.append((fx.GRUv3, fx.GRUv3Cell))


@pytest.mark.parametrize("kind, cell", PAIRS, ids=[kind.__name__ for kind, _ in PAIRS])
def test_recurrence_of_our_cells(kind: Any, cell: Any) -> None:
    x = draw((2, 5, 3))
    known, any_cell = kind(3, 4, rng=0, return_state=True), fx.Recurrence(cell(3, 4, rng=0))
    np.testing.assert_array_equal(any_cell(x), known(x)[0])
    start = fx.initialstates(any_cell)
    jax.tree.map(np.testing.assert_array_equal, start, fx.initialstates(known))
    assert {s.shape for s in jax.tree.leaves(start)} == {(4,)}
    np.testing.assert_array_equal(any_cell(x, start), any_cell(x))
    ours, theirs = fx.Recurrence(any_cell.cell, return_state=True)(x), known(x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    # A foreign cell that does what ours does.
    foreign = fx.Recurrence(lambda x, s: any_cell.cell(x, s), return_state=True)
    jax.tree.map(alike, foreign(x), theirs)
    jax.tree.map(alike, foreign(x, known(x)[1]), known(x, known(x)[1]))


class Leaky(fx.Module):
    """A cell of the user's, with a state of its own kind."""

    def __init__(self) -> None:
        self.weight = fx.ones32(3, 3)

    def __call__(self, x: Any, state: Any) -> Any:
        state = {"sum": 0.5 * state["sum"] + x @ self.weight}
        return state["sum"], state

    def initialstates(self) -> Any:
        return {"sum": jnp.zeros(3)}


def test_recurrence_of_a_cell_of_ones_own() -> None:
    layer, x = fx.Recurrence(Leaky()), draw((2, 5, 3))
    total, ys = np.zeros((2, 3)), []
    for t in range(5):
        total = 0.5 * total + x[:, t].sum(-1, keepdims=True)
        ys.append(total)
    alike(layer(x), np.stack(ys, 1))
    assert fx.initialstates(layer)["sum"].shape == (3,)
    grad = fx.gradient(lambda m: jnp.sum(m(x)), layer)[0].cell.weight
    assert grad.shape == (3, 3)
    assert layer(x[:, :1]).shape == (2, 1, 3)


# --- functions ----------------------------------------------------------------------------


def test_masks_with_more_batch_axes() -> None:
    """As with one: of several axes in front, none is taken for the heads."""
    q = jnp.asarray(draw((2, 2, 3, 4)))
    seen = jnp.asarray(draw((2, 2, 3, 3)) > 0)
    y, scores = fx.dot_product_attention(q, mask=seen, nheads=2)
    wanted = fx.dot_product_attention(q.reshape(4, 3, 4), mask=seen.reshape(4, 3, 3), nheads=2)
    alike(y.reshape(4, 3, 4), wanted[0])
    alike(scores.reshape(4, 2, 3, 3), wanted[1])


def test_normalise() -> None:
    x = 3 + 2 * draw((6, 4, 5))
    for axis in (0, 1, (1, 2), -1):
        wanted = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)
        alike(fx.normalise(x, axis), wanted)
    np.testing.assert_array_equal(fx.normalise(x), fx.normalise(x, axis=0))
    alike(fx.normalise(x, -1), fx.LayerNorm(5, affine=False)(x))
    assert fx.normalise(jnp.asarray(x, "float16")).dtype == jnp.float16


def test_dropout_as_a_function() -> None:
    x = np.ones((40, 50), np.float32)
    y = np.asarray(fx.dropout(x, 0.25, rng=0))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.05)
    np.testing.assert_array_equal(y, fx.dropout(x, 0.25, rng=0))
    assert not np.array_equal(fx.dropout(x, 0.5), fx.dropout(x, 0.5))  # from the seed's stream
    np.testing.assert_array_equal(fx.dropout(x, 0.5, active=False), x)
    np.testing.assert_array_equal(fx.dropout(x, 0), x)
    assert not fx.dropout(x, 1).any()
    by_row = np.asarray(fx.dropout(x, 0.5, axis=0))
    assert (by_row == by_row[:, :1]).all()
    assert len(np.unique(by_row)) == 2
    masks = []
    for x in (draw((8, 8)), draw((8, 8), 2)):  # compiled: other input, another choice
        f = lambda w, x=x: jnp.sum(w * fx.dropout(x, 0.5))
        masks.append(np.asarray(fx.gradient(f, jnp.ones((8, 8)))[0]) == 0)
    f = jax.jit(lambda x: fx.dropout(x, 0.5))
    masks = [np.asarray(f(draw((8, 8), seed))) == 0 for seed in (1, 2, 1)]
    assert (masks[0] != masks[1]).any()
    np.testing.assert_array_equal(masks[0], masks[2])


def test_random_functions_take_a_number_of_jax() -> None:
    for f in (
        lambda rng: fx.dropout(jnp.ones(9), 0.5, rng=rng),
        lambda rng: fx.rrelu(-1.0, rng=rng),
    ):
        np.testing.assert_array_equal(f(jnp.int32(3)), f(jax.random.key(3)))


def test_dropout_of_complex_numbers_in_jit_depends_on_all_of_them() -> None:
    f = jax.jit(lambda x: fx.dropout(x, 0.5) != 0)
    x = jnp.ones(64) + 0j
    assert (f(x) != f(x + 1j)).any()
    assert (f(x) != f(x + 1)).any()


def test_logsumexp() -> None:
    x = draw((3, 4))
    alike(fx.logsumexp(x), np.log(np.exp(x).sum()))
    alike(fx.logsumexp(x, axis=1), np.log(np.exp(x).sum(1)))
    assert fx.logsumexp(x, axis=(0, 1), keepdims=True).shape == (1, 1)
    assert float(fx.logsumexp(jnp.full(2, 1e4))) == pytest.approx(1e4 + np.log(2))
    assert float(fx.logsumexp(jnp.array([-np.inf, -np.inf]))) == -np.inf
    half = fx.logsumexp(jnp.zeros(20_000, "bfloat16"))
    assert half.dtype == jnp.bfloat16
    assert float(half) == pytest.approx(np.log(20_000), rel=4e-3)


def test_outputsize_with_a_batch_added() -> None:
    net = fx.Chain(fx.Conv((3, 3), 3, 8), fx.flatten)
    assert fx.outputsize(net, (32, 32, 3), padbatch=True) == (1, 7200)
    assert fx.outputsize(net, (5, 32, 32, 3), padbatch=False) == (5, 7200)
    layers = (fx.Dense(5, 4), fx.relu)
    assert fx.outputsize(layers, (5,), padbatch=True) == (1, 4)
    two = fx.Parallel(jnp.add, fx.Dense(5, 4), fx.Dense(7, 4))
    assert fx.outputsize(two, (5,), (7,), padbatch=True) == (1, 4)


# --- Flux's word for an axis --------------------------------------------------------------


def test_dims_is_another_word_for_axis() -> None:
    a, b = (fx.Dropout(0.5, active=True, rng=0, **{word: 0}) for word in ("axis", "dims"))
    np.testing.assert_array_equal(a(np.ones((9, 9), "f")), b(np.ones((9, 9), "f")))
    assert repr(a) == repr(b) == "Dropout(0.5, axis=(0,), active=True)"
    a, b = (fx.WeightNorm(fx.Dense(2, 3), **{word: 1}) for word in ("axis", "dims"))
    assert a.g.shape == b.g.shape == (2, 1)
    for make in (lambda **w: fx.Dropout(0.5, **w), lambda **w: fx.WeightNorm(fx.Dense(2, 3), **w)):
        with pytest.raises(
            TypeError, match="expects `axis` or, as Flux calls it, `dims`, got both"
        ):
            make(axis=0, dims=0)
