"""ctc_loss against the sum over every path, one by one."""

from __future__ import annotations

import math
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ctc_by_hand(y_hat: np.ndarray, y: tuple[int, ...]) -> float:
    """The sum over every path, one by one."""
    p, blank, total = softmax(y_hat), y_hat.shape[1] - 1, 0.0
    for path in product(range(blank + 1), repeat=len(y_hat)):
        merged = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
        if tuple(c for c in merged if c != blank) == y:
            total += math.prod(p[t, c] for t, c in enumerate(path))
    return -math.log(total) if total else math.inf


CTC = np.random.default_rng(7).normal(size=(5, 4))
# Among them: nothing, repeats that need a blank between, all of the time, and too long for it.
LABELS = [(), (0,), (2,), (0, 1), (1, 1), (2, 0, 1), (0, 0, 0), (0, 1, 2, 0, 1), (1, 1, 1, 1)]


def test_ctc_is_the_sum_over_paths() -> None:
    """A batch, in which shorter sequences are filled up with blanks."""
    y = np.array([(*labels, 3, 3, 3, 3, 3)[:5] for labels in LABELS])
    wanted = [ctc_by_hand(CTC, labels) for labels in LABELS]
    assert wanted[-1] == math.inf
    with jax.enable_x64(True):
        values = fx.ctc_loss(np.stack([CTC] * len(y)), y, agg=fx.identity)
        np.testing.assert_allclose(values, wanted, rtol=1e-10)
        mean = fx.ctc_loss(np.stack([CTC] * 3), y[:3])
        np.testing.assert_allclose(mean, np.mean(wanted[:3]), rtol=1e-10)


@pytest.mark.parametrize("y", [(), (0,), (1, 1), (0, 1, 2, 0, 1)], ids=str)
def test_ctc_of_one_sequence(y: tuple[int, ...]) -> None:
    value = fx.ctc_loss(CTC.astype("f4"), np.array(y, int))
    assert value.shape == ()
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, ctc_by_hand(CTC, y), rtol=1e-5)


def test_ctc_with_lengths() -> None:
    """As each sequence by itself, whatever stands behind its end."""
    times, labels = [5, 3, 4, 0, 0], [(0, 1), (2,), (), (), (1,)]
    y = np.array([(*row, *(-7, 9)[: 2 - len(row)]) for row in labels])
    y_hat = np.stack([CTC] * 5)
    lengths = {"input_lengths": times, "target_lengths": np.array([len(row) for row in labels])}
    wanted = [ctc_by_hand(CTC[:n], row) for n, row in zip(times, labels, strict=True)]
    values = fx.ctc_loss(y_hat, y, agg=fx.identity, **lengths)
    np.testing.assert_allclose(values, wanted, rtol=1e-5)
    finite = lambda a: fx.ctc_loss(a, y, agg=lambda v: jnp.sum(jnp.where(v < 1e9, v, 0)), **lengths)
    grad = np.asarray(jax.grad(finite)(y_hat.astype("f4")))
    assert np.isfinite(grad).all()
    assert all(not g[n:].any() for g, n in zip(grad, times, strict=True))
    one = fx.ctc_loss(CTC, np.array([2, 0]), input_lengths=3, target_lengths=np.int32(1))
    assert float(one) == pytest.approx(wanted[1], rel=1e-5)
    for wrong in ({"input_lengths": [6] * 5}, {"target_lengths": [3] * 5}):
        assert np.isnan(fx.ctc_loss(y_hat, np.zeros((5, 2), int), agg=fx.identity, **wrong)).all()
    assert math.isnan(fx.ctc_loss(CTC, np.array([0]), input_lengths=-1))


def test_ctc_behind_the_lengths_may_stand_anything() -> None:
    lengths = {"input_lengths": np.array([3]), "target_lengths": np.array([1])}
    y_hat = jnp.asarray(CTC[None])
    f = lambda a, label: fx.ctc_loss(a, np.array([[2, label]]), **lengths)
    for nothing in (jnp.nan, jnp.inf, -jnp.inf):
        value, grad = jax.value_and_grad(f)(y_hat.at[:, 3:].set(nothing), 99)
        wanted = jax.value_and_grad(f)(y_hat, 0)
        np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
        np.testing.assert_allclose(grad, wanted[1], rtol=1e-6)


def test_ctc_takes_lengths_and_labels_of_any_integers() -> None:
    long, y = np.zeros((1, 300, 4), "f4"), np.array([[1]])
    short = np.array([200], "uint8")
    value = fx.ctc_loss(long, y, input_lengths=short)
    assert float(value) == float(fx.ctc_loss(long, y, input_lengths=np.array([200])))
    for x64 in (False, True):
        with jax.enable_x64(x64):
            assert math.isnan(fx.ctc_loss(CTC, np.array([2**32 + 1])))


def test_ctc_gradient() -> None:
    """Against central differences; where there is no path, nothing rather than NaN."""
    y = np.array([[1, 1, 3], [2, 0, 1], [0, 3, 3], [1, 1, 1]])
    y_hat, h = np.stack([CTC[:4]] * 4), 1e-6
    with jax.enable_x64(True):
        values = jax.jit(lambda a: fx.ctc_loss(a, y, agg=fx.identity))
        grad = jax.jit(jax.grad(lambda a: jnp.sum(values(a)[:3])))(y_hat)
        wanted = np.zeros_like(y_hat)
        for t, c in np.ndindex(4, 4):
            step = np.zeros_like(y_hat)
            step[:, t, c] = h
            wanted[:, t, c] = (values(y_hat + step) - values(y_hat - step)) / (2 * h)
        impossible = jax.jit(jax.grad(lambda a: values(a)[3]))(y_hat)
    np.testing.assert_allclose(grad[:3], wanted[:3], rtol=1e-5, atol=1e-9)
    assert (np.asarray(impossible) == 0).all()


@pytest.mark.parametrize("y", [[4], [-1], [3, 0], [0, 3, 0]], ids=str)
def test_ctc_label_out_of_range_is_nan(y: list[int]) -> None:
    assert math.isnan(jax.jit(fx.ctc_loss)(CTC, np.array(y)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_ctc_extremes(dtype: str) -> None:
    y_hat = jnp.where(jax.random.normal(jax.random.key(0), (20, 4)) > 0, 1e4, -1e4).astype(dtype)
    value, grad = jax.jit(jax.value_and_grad(fx.ctc_loss))(y_hat, np.array([0, 1]))
    assert value.dtype == grad.dtype == y_hat.dtype
    assert not math.isnan(value)
    assert np.isfinite(np.asarray(grad, "f4")).all()
