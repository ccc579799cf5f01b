"""What one layer promises and others do not."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _module


def draw(shape: tuple[int, ...], seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def floats(tree: Any) -> list[Any]:
    return [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]


def alike(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


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


def test_an_index_of_more_than_32_bits_is_no_row() -> None:
    table, bag, index = fx.Embedding(5, 3), fx.EmbeddingBag(5, 3), 2**32 + 1
    for x64 in (False, True):
        with jax.enable_x64(x64):
            for wrong in (index, np.int64(index), np.array([index])):
                with pytest.raises(ValueError, match=f"from 0 to 4, got {index}"):
                    table(wrong)
            with pytest.raises(ValueError, match="from 0 to 4, got"):
                bag([np.array([0]), np.array([index])])
    with jax.enable_x64(True):
        assert np.isnan(jax.jit(table)(jnp.array([index]))).all()


def test_bags() -> None:
    bag = fx.EmbeddingBag(5, 3)
    w = np.asarray(bag.weight)
    ragged = [[1], [2, 3, 3], [0, 4]]
    wanted = np.stack([w[b].mean(0) for b in ragged])
    alike(bag(ragged), wanted)
    alike(bag([np.array(b) for b in ragged]), wanted)
    alike(jax.jit(bag)(np.concatenate(ragged), np.array([0, 1, 4])), wanted)
    alike(bag(np.array([2, 3, 3])), wanted[1])
    alike(bag([2, 3, 3]), wanted[1])
    alike(bag(np.eye(5, dtype=bool)[[2, 3, 3]]), wanted[1])
    for reduction in (jnp.sum, jnp.max, jnp.min):
        bag.reduction = reduction
        alike(bag(ragged), np.stack([reduction(w[b], axis=0) for b in ragged]))
        assert bag([[1], [], [2]]).tolist()[1] == [0, 0, 0]
    bag.reduction = jnp.prod
    alike(bag(np.array([1, 2])), w[1] * w[2])


def test_bilinear_from_arrays_and_pairs() -> None:
    w, x, y = draw((2, 3, 4)), draw((5, 2)), draw((5, 3), 2)
    layer = fx.Bilinear(w, False, fx.tanh)
    wanted = np.tanh(np.einsum("ni,ijk,nj->nk", x, w, y))
    alike(layer(x, y), wanted)
    alike(layer((x, y)), wanted)
    alike(layer(x[:, None], y[:, None])[:, 0], wanted)
    same = fx.Bilinear(2, 4)
    alike(same(x), same(x, x))


def test_upsample_keeps_corners_and_constants() -> None:
    x = draw((2, 3, 4, 2))
    y = fx.Upsample("bilinear", size=(7, 9))(x)
    alike(y[:, ::6, ::8], x[:, ::2, ::3])
    alike(y[:, ::3, 0], x[:, :, 0])
    alike(fx.Upsample("bilinear", scale=2)(np.ones((1, 3, 2, 1))), 1)
    alike(fx.Upsample("bilinear", size=(1, 1))(x), x[:, :1, :1])
    alike(fx.Upsample(2)(x), x.repeat(2, 1).repeat(2, 2))
    assert fx.Upsample((2, 1), "nearest")(np.ones((1, 2, 2, 1), int)).dtype == jnp.int32


def test_weight_norm_changes_nothing_at_first() -> None:
    dense = fx.Dense(4, 3, fx.tanh)
    layer, x = fx.WeightNorm(dense), draw((2, 4))
    alike(layer(x), dense(x))
    dense.weight = 3 * dense.weight  # only its direction counts
    alike(layer(x), fx.Dense(dense.weight / 3, dense.bias, fx.tanh)(x))
    layer.g = 2 * layer.g
    alike(layer(x), fx.Dense(dense.weight * 2 / 3, dense.bias, fx.tanh)(x))
    assert fx.WeightNorm(fx.Conv((3, 2), 4, 5)).g.shape == (1, 1, 1, 5)
    assert fx.WeightNorm(dense, "bias", dims=-1).g.shape == (1,)


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


def test_recurrent_layers_give_their_state() -> None:
    x = draw((2, 5, 3))
    for kind in (fx.RNN, fx.LSTM, fx.GRU, fx.GRUv3):
        layer = kind(3, 4, return_state=True)
        whole, last = layer(x)
        first, half = layer(x[:, :2])
        second, end = layer(x[:, 2:], half)
        alike(jnp.concatenate([first, second], 1), whole)
        jax.tree.map(alike, end, last)
        one = jax.tree.map(lambda s: s[0], half)  # one state for all observations
        alike(layer(x[:1, 2:], one)[0], second[:1])
    assert fx.LSTM(3, 4, init=fx.zeros32, init_recurrent=fx.orthogonal).cell.Wi.sum() == 0


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
    padding = fx.make_padding_mask([2, 0], 5)
    y, scores = mha(q, k, mask=padding, return_scores=True)
    assert not np.asarray(scores)[0, :, :, 2:].any()
    assert not np.asarray(scores)[1].any()  # nothing to see: zeros, not NaN
    alike(y[0], mha(q, k[:, :2])[0])
    grad = jax.grad(lambda q: mha(q, k, mask=padding).sum())(q)
    assert np.isfinite(grad).all()
    causal = np.tril(np.ones((3, 3), bool))
    alike(mha(q, mask="causal"), mha(q, mask=causal))


def test_attention_to_empty_sequences() -> None:
    mha = fx.MultiHeadAttention((4, 8, 6), nheads=2)
    for n, n_q, n_k in ((0, 3, 3), (2, 0, 3), (2, 3, 0)):
        run = lambda m, q, k: m(q, k, return_scores=True)
        y, scores = jax.eval_shape(run, mha, np.ones((n, n_q, 4), "f"), np.ones((n, n_k, 4), "f"))
        assert (y.shape, scores.shape) == ((n, n_q, 6), (n, 2, n_q, n_k))
    assert not np.asarray(mha(draw((2, 3, 4)), draw((2, 0, 4)))).any()  # nothing to see: zeros


def test_a_transposed_convolution_prints_what_makes_it() -> None:
    layer = fx.ConvTranspose((1,), 2, 4, stride=3, pad="same")  # pads below zero
    assert repr(layer) == "ConvTranspose((1,), 2, 4, stride=3, pad='same')"
    assert repr(fx.ConvTranspose((4,), 2, 4, pad="same")) == "ConvTranspose((4,), 2, 4, pad=(1, 2))"


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


def test_tied_layers_stay_one_object_through_pickle() -> None:
    layer = fx.Dense(2, 2)
    twin = pickle.loads(pickle.dumps(fx.Chain(layer, layer)))
    assert twin[0] is twin[1]
