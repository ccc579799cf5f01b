"""Layers and activations where numbers run out: far out, nothing to see, zeros, complex input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.test_layers import LAYERS, draw, given

dtypes = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
CASTS = {"float16": fx.f16, "bfloat16": fx.bf16}


def finite(tree: Any) -> bool:
    return all(np.isfinite(np.asarray(a, "f4")).all() for a in jax.tree.leaves(tree))


# --- attention ----------------------------------------------------------------------------


@dtypes
def test_attention_far_out(dtype: str) -> None:
    """93² times 64 features is more than float16 holds, by itself and over √64."""
    x = jnp.asarray(np.where(draw((2, 5, 64)) > 0, 93, -93), dtype)
    y, scores = fx.dot_product_attention(x)
    assert y.dtype == scores.dtype == dtype
    single = fx.dot_product_attention(x.astype("float32"))
    np.testing.assert_allclose(np.float32(scores), single[1], atol=1e-2)
    np.testing.assert_allclose(np.float32(y), single[0], atol=1)
    mha = CASTS[dtype](fx.MultiHeadAttention(64, nheads=1, init=fx.identity_init))
    assert finite(fx.withgradient(lambda m, x: jnp.mean(m(x)), mha, x))


def test_a_bias_of_minus_infinity_is_a_mask() -> None:
    mha, x = fx.MultiHeadAttention(4, nheads=2), draw((2, 3, 4))
    mask = np.tril(np.ones((3, 3), bool))
    mask[1] = False  # a row that sees nothing
    bias = jnp.where(mask, 0.0, -jnp.inf)
    loss = lambda m, x, bias, mask: jnp.sum(m(x, bias=bias, mask=mask) ** 2)
    value, (dm, dx, dbias, _) = fx.withgradient(loss, mha, x, bias, None)
    assert finite((value, dm, dx, dbias))
    assert not np.asarray(dbias)[~mask].any()
    masked, other = fx.withgradient(loss, mha, x, None, mask)
    jax.tree.map(np.testing.assert_array_equal, (value, dm, dx), (masked, *other[:2]))
    both = mha(x, bias=bias, mask=mask[::-1], return_scores=True)[1]
    np.testing.assert_array_equal(
        np.asarray(both) > 0, np.broadcast_to(mask & mask[::-1], (2, 2, 3, 3))
    )


def test_attention_as_a_function() -> None:
    q, k, v = draw((2, 3, 4)), draw((2, 5, 4), 2), draw((2, 5, 6), 3)
    y, scores = fx.dot_product_attention(q, k, v, nheads=2)
    logits = np.einsum("nqhd,nkhd->nhqk", q.reshape(2, 3, 2, 2), k.reshape(2, 5, 2, 2)) / math.sqrt(
        2
    )
    np.testing.assert_allclose(scores, fx.softmax(logits), rtol=1e-5)
    mixed = np.einsum("nhqk,nkhd->nqhd", scores, v.reshape(2, 5, 2, 3)).reshape(2, 3, 6)
    np.testing.assert_allclose(y, mixed, rtol=1e-5, atol=1e-6)
    one = fx.dot_product_attention(q[0], k[0], v[0], nheads=2)  # without a batch
    np.testing.assert_allclose(one[0], y[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one[1], scores[0], rtol=1e-5)
    assert not fx.dot_product_attention(q, k, v, fdrop=lambda s: 0 * s)[0].any()
    mask = np.ones((2, 3, 5), bool)
    mask[..., 1:] = False
    np.testing.assert_allclose(fx.dot_product_attention(q, k, v, mask=mask)[0][:, 0], v[:, 0])
    mha = fx.MultiHeadAttention(4, nheads=2, init=fx.identity_init)
    np.testing.assert_allclose(mha(q), fx.dot_product_attention(q, nheads=2)[0], rtol=1e-6)


# --- pools --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pool",
    [fx.MeanPool((7, 7)), fx.MeanPool((7, 7), stride=3), fx.AdaptiveMeanPool((1, 1))],
    ids=repr,
)
@dtypes
def test_means_of_large_numbers(pool: Any, dtype: str) -> None:
    x = jnp.full((2, 7, 7, 3), 2000, dtype)
    assert np.asarray(pool(x), "f4").ravel().tolist() == [2000] * 6
    assert np.asarray(fx.GlobalMeanPool()(x), "f4").ravel().tolist() == [2000] * 6


@pytest.mark.parametrize("window, stride, pad, n", [(2, 2, 2, 5), (1, 1, 1, 3), (2, 3, (0, 4), 5)])
def test_a_window_of_padding_only_is_refused(window: int, stride: int, pad: Any, n: int) -> None:
    layer = fx.MaxPool((window,), stride=stride, pad=pad)
    sentence = "expects less padding than that: a window would see nothing of f32"
    for x in (draw((2, n, 3)), np.ones((2, n, 3), int)):
        with pytest.raises(ValueError, match=sentence.replace("f32", "")):
            layer(x)
    with pytest.raises(ValueError, match=sentence):
        fx.MeanPool((window,), stride=stride, pad=pad, count_include_pad=False)(draw((2, n, 3)))
    assert not np.asarray(fx.MeanPool((2,), pad=2)(np.ones((1, 2, 1), "f")))[0, 0].any()  # zeros


def mean_by_hand(x: Any, k: int, s: int, low: int, high: int, counted: bool, ceil: bool) -> Any:
    """PyTorch's rule, written out."""
    n = x.shape[1]
    steps = (n + low + high - k) / s
    out = (math.ceil(steps) if ceil else math.floor(steps)) + 1
    out -= ceil and (out - 1) * s >= n + low
    means = []
    for i in range(out):
        start, end = i * s - low, min(i * s - low + k, n + high)
        seen = x[:, max(0, start) : min(end, n)]
        means.append(seen.sum(1) / (end - start if counted else seen.shape[1]))
    return np.stack(means, 1)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("k, s, pad", [(3, 2, 1), (2, 3, 0), (4, 3, (2, 1)), (10, 4, 3)])
def test_what_a_mean_counts(k: int, s: int, pad: Any, counted: bool, ceil: bool) -> None:
    low, high = pad if isinstance(pad, tuple) else (pad, pad)
    for n in range(8, 14):
        x = draw((2, n, 3))
        layer = fx.MeanPool((k,), stride=s, pad=pad, count_include_pad=counted, ceil_mode=ceil)
        wanted = mean_by_hand(x, k, s, low, high, counted, ceil)
        np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-6)
        assert layer(x).dtype == jnp.float32
        largest = fx.MaxPool((k,), stride=s, pad=pad, ceil_mode=ceil)(x)
        assert largest.shape == wanted.shape
        assert finite(largest)
    square = fx.MeanPool((k, 3), stride=(s, 2), pad=(low, high, 1, 1), count_include_pad=counted)
    twice = fx.MeanPool((k, 1), stride=(s, 1), pad=(low, high, 0, 0), count_include_pad=counted)
    once = fx.MeanPool((1, 3), stride=(1, 2), pad=(0, 0, 1, 1), count_include_pad=counted)
    x = draw((2, 12, 7, 3))
    np.testing.assert_allclose(square(x), once(twice(x)), rtol=1e-5, atol=1e-6)


# --- lengths of zero ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weight_norm_of_zeros(dtype: str) -> None:
    weight = np.array([[1.0, 0.0], [2.0, 0.0]])
    layer = fx.WeightNorm(fx.Dense(jnp.asarray(weight, dtype)))
    x = jnp.ones((3, 2), dtype)
    value, grads = fx.withgradient(lambda m: jnp.sum(m(x), dtype="float32"), layer)
    assert float(value) == pytest.approx(9, rel=1e-2)
    assert finite(grads)


@dtypes
def test_weight_norm_of_small_and_large_weights(dtype: str) -> None:
    for scale in (1e-4, 1e3):
        layer = CASTS[dtype](fx.WeightNorm(fx.Dense(jnp.asarray(draw((4, 3)) * scale))))
        x = jnp.ones((1, 4), dtype)
        np.testing.assert_allclose(np.float32(layer(x)), np.float32(layer.layer(x)), rtol=3e-2)


# --- norms in half precision --------------------------------------------------------------

NORMS = {
    "BatchNorm": fx.BatchNorm,
    "InstanceNorm": lambda n: fx.InstanceNorm(n, affine=True, track_stats=True),
    "InstanceNorm bare": fx.InstanceNorm,
    "GroupNorm": lambda n: fx.GroupNorm(n, 2),
}


@pytest.mark.parametrize("name", NORMS)
@dtypes
def test_norms_stay_in_single_precision(name: str, dtype: str) -> None:
    single = fx.Chain(fx.Dense(4, 4), NORMS[name](4), fx.LayerNorm(4))
    half = CASTS[dtype](CASTS["bfloat16"](single))
    assert {a.dtype for a in jax.tree.leaves(half[1])} <= {np.dtype("float32")}
    assert {a.dtype for a in jax.tree.leaves((half[0], half[2]))} == {jnp.dtype(dtype)}
    x = jnp.asarray(2 + draw((6, 5, 4)), dtype)
    for mode in (fx.testmode, fx.trainmode):
        layer, other = mode(half[1]), mode(single[1])
        y = half[1](x)
        assert y.dtype == dtype
        np.testing.assert_allclose(np.float32(y), single[1](x.astype("float32")), atol=4e-2)
        del layer, other
    for name, wide in vars(single[1]).items():
        if isinstance(wide, jax.Array):  # running statistics too
            np.testing.assert_allclose(getattr(half[1], name), wide, rtol=1e-6)
    state = fx.setup(fx.Adam(), half)
    fx.train(lambda m, x: jnp.mean(m(x).astype("float32") ** 2), half, [(x,)] * 2, state)
    assert {a.dtype for a in jax.tree.leaves(half[1])} <= {np.dtype("float32")}
    assert fx.f32(half)[0].weight.dtype == jnp.float32


def test_instance_norm_of_no_image_keeps_its_statistics() -> None:
    layer = fx.InstanceNorm(3, track_stats=True, active=True)
    assert layer(jnp.zeros((0, 4, 3))).shape == (0, 4, 3)
    assert layer.mean.tolist() == [0, 0, 0]
    assert layer.var.tolist() == [1, 1, 1]


# --- complex input ------------------------------------------------------------------------

Z = np.array([1.5 - 0.5j, -1 + 2j, 0.3 + 0.1j, -0.2 - 3j], "complex64")
sigma = lambda z: 1 / (1 + np.exp(-z))
COMPLEX: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "sigmoid": sigma,
    "tanh": np.tanh,
    "softsign": lambda z: z / (1 + np.abs(z)),
    "tanhshrink": lambda z: z - np.tanh(z),
    "swish": lambda z: z * sigma(z),
    "lisht": lambda z: z * np.tanh(z),
    "sigmoid_fast": sigma,
    "tanh_fast": np.tanh,
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(),
    "glu": lambda z: z[:2] * sigma(z[2:]),
}


@pytest.mark.parametrize("name", fx._activations.__all__)
def test_complex_input_of_activations(name: str) -> None:
    """Right, or refused by name."""
    f = getattr(fx, name)
    if name in COMPLEX:
        np.testing.assert_allclose(f(Z), COMPLEX[name](Z.astype("complex128")), rtol=1e-5)
    elif name == "logsoftmax":  # up to whole turns
        np.testing.assert_allclose(np.exp(f(Z)), COMPLEX["softmax"](Z), rtol=1e-5)
    else:
        for z in (Z, 1j, Z.tolist()):
            with pytest.raises(TypeError, match=f"^{f.__name__} expects real numbers, got "):
                f(z)


REFUSED = [
    *("MaxPool", "MaxPool wide", "AdaptiveMaxPool", "GlobalMaxPool", "Maxout"),
    *("BatchNorm", "BatchNorm bare", "LayerNorm", "LayerNorm bare", "InstanceNorm", "GroupNorm"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_complex_input_of_layers(name: str) -> None:
    row = LAYERS[name]
    with pytest.raises(ValueError, match="expects real"):
        row.make()(given(row).astype("complex64"))


LINEAR = {
    "Dense": lambda: fx.Dense(2, 3, bias=False),
    "Scale": lambda: fx.Scale(2, bias=False),
    "Conv": lambda: fx.Conv((3,), 2, 3, pad=1, bias=False),
    "Conv strided": lambda: fx.Conv((3,), 2, 4, stride=2, groups=2, bias=False),
    "Conv of a place": lambda: fx.Conv((1,), 2, 3, bias=False),
    "ConvTranspose": lambda: fx.ConvTranspose((3,), 2, 3, stride=2, bias=False),
    "WeightNorm": lambda: fx.WeightNorm(fx.Dense(2, 3, bias=False)),
    "RNN": lambda: fx.RNN(2, 3, fx.identity, bias=False),
    "Recurrence": lambda: fx.Recurrence(fx.RNNCell(2, 3, fx.identity, bias=False)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_complex_input_of_linear_layers(name: str) -> None:
    """`f(a + i b) = f(a) + i f(b)`; complex weights may meet real input."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 5, 2)).astype("f4")
    f: Any = LINEAR[name]()
    wanted = np.asarray(f(a)) + 1j * np.asarray(f(b))
    np.testing.assert_allclose(f(a + 1j * b), wanted, rtol=1e-5, atol=1e-6)
    grad = jax.grad(lambda x: jnp.sum(jnp.abs(f(x)) ** 2))(jnp.asarray(a + 1j * b))
    assert np.isfinite(np.asarray(grad)).all()
    turned = jax.tree.map(lambda w: w * (1 + 0j), f)  # weights that are complex
    np.testing.assert_allclose(turned(a), f(a), rtol=1e-5, atol=1e-6)


def test_complex_beside_half_precision_stays_complex() -> None:
    half = jnp.array([[1.0, 2.0]], "float16")
    assert fx.Scale(jnp.array([1j, 2j]), False)(half).tolist() == [[1j, 4j]]
    both = fx.Bilinear(jnp.ones((2, 2, 1), "float16"), False)
    assert both(half, jnp.array([[1j, 1j]])).tolist() == [[6j]]
    cell = fx.RNNCell(2, 1, fx.identity, init=fx.ones32)
    y, h = cell(half, jnp.array([1j]))
    assert y.tolist() == h.tolist() == [[3 + 1j]]


@pytest.mark.parametrize("kind", [fx.RNN, fx.LSTM, fx.GRU, fx.GRUv3])
def test_recurrent_layers_of_complex_numbers(kind: Any) -> None:
    layer = kind(2, 3, rng=0)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 4, 5)).astype("f4"))
    z = (z[0] + 1j * z[1]).reshape(4, 5, 2) / 2
    loss = lambda m, x: jnp.sum(jnp.abs(m(x)) ** 2)
    states, y = None, []
    for now in jnp.moveaxis(z, 1, 0):
        out, states = layer.cell(now, states)
        y.append(out)
    np.testing.assert_allclose(layer(z), jnp.stack(y, 1), rtol=1e-5)
    with fx.kernels.choose("plain"):
        wanted = jax.grad(loss, (0, 1))(layer, z)
    for one, other in zip(*map(jax.tree.leaves, (jax.grad(loss, (0, 1))(layer, z), wanted))):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_weight_norm_of_complex_weights_begins_with_them() -> None:
    dense = fx.Dense(jnp.array([[1j, 2], [3, 4j]]), False)
    norm = fx.WeightNorm(fx.Dense(dense.weight, False))
    np.testing.assert_allclose(norm.g, [[10**0.5, 20**0.5]], rtol=1e-6)
    np.testing.assert_allclose(norm(jnp.eye(2)), dense.weight, rtol=1e-6)


DISTANCES = {"mae", "mse", "huber_loss"}


@pytest.mark.parametrize("name", sorted({*fx.losses.__all__} - {"mean", "label_smoothing"}))
def test_complex_input_of_losses(name: str) -> None:
    loss, z = getattr(fx, name), np.tile(Z, (3, 1))
    if name in DISTANCES:
        assert float(loss(z, z + 3 + 4j)) == pytest.approx({"mae": 5, "mse": 25}.get(name, 4.5))
        return
    with pytest.raises(TypeError, match=f"^{name} expects real numbers as `y_hat`, got c64"):
        loss(z, np.zeros(3, int) if name == "ctc_loss" else z)


def test_an_embedding_of_a_number_that_counts_is_one_program() -> None:
    fx.clear_cache()
    layer = fx.Embedding(50, 4)
    f = fx.compiled(lambda t: layer(jnp.full(3, t)))
    for t in range(9):
        assert f(t)[0].tolist() == layer.weight[t].tolist()
    (record,) = fx.explain()
    assert record.traces <= 3
