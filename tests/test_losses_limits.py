"""Losses where numbers run out: huge scores, probabilities of 0 and 1, half precision."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

DTYPES = ["float16", "bfloat16", "float32"]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["logitcrossentropy", "logitbinarycrossentropy"])
def test_extreme_scores(name: str, dtype: str) -> None:
    loss = getattr(fx.losses, name)
    x = jnp.array(list(product([-1e4, 0.0, 1e4], repeat=3)), dtype)
    for y in np.eye(3):
        target = np.broadcast_to(y, x.shape)
        values, pull = jax.vjp(lambda a: loss(a, target, agg=fx.identity), x)
        (grad,) = pull(jnp.ones_like(values))
        assert np.isfinite(np.asarray(values, "f4")).all()
        assert np.isfinite(np.asarray(grad, "f4")).all()
        p = softmax(np.asarray(x, "f8")) if name == "logitcrossentropy" else None
        p = 1 / (1 + np.exp(-np.clip(np.asarray(x, "f8"), -500, 500))) if p is None else p
        np.testing.assert_allclose(np.asarray(grad, "f8"), p - target, atol=4e-3)


def test_the_small_side_keeps_its_digits() -> None:
    x, y = np.array([-20.0, 20.0], "f4"), np.array([0.0, 1.0])
    values = fx.logitbinarycrossentropy(x, y, agg=fx.identity)
    np.testing.assert_allclose(values, np.exp(-20.0), rtol=1e-5)
    grad = jax.grad(lambda a: fx.logitbinarycrossentropy(a, y, agg=jnp.sum))(x)
    np.testing.assert_allclose(grad, [np.exp(-20.0), -np.exp(-20.0)], rtol=1e-5)
    assert float(jax.grad(fx.logitbinarycrossentropy)(0.0, 0.0)) == 0.5


@pytest.mark.parametrize("masked", [np.array([0, 1]), np.eye(3)[:2]], ids=["labels", "one-hot"])
def test_excluded_classes(masked: np.ndarray) -> None:
    """A score of minus infinity where the target is 0 counts nothing, in the gradient neither."""
    x = jnp.array([[1.0, 0.5, -jnp.inf], [1.0, 0.5, -jnp.inf]])
    value, grad = jax.value_and_grad(fx.logitcrossentropy)(x, masked)
    np.testing.assert_allclose(value, fx.logitcrossentropy(x[:, :2], np.array([0, 1])), rtol=1e-6)
    assert np.isfinite(grad).all()
    assert (grad[:, 2] == 0).all()


INFINITE = [  # name, scores, target: as sure as can be, and right
    ("logitbinarycrossentropy", [np.inf, -np.inf], [1, 0]),
    ("logitcrossentropy", [[np.inf, 0, 1], [-np.inf, 0, -np.inf], [np.inf, -np.inf, 1]], [0, 1, 0]),
    ("logitcrossentropy", [[np.inf, 0], [-np.inf, 0]], [[1, 0], [0, 1]]),
    ("binarycrossentropy", [1, 0], [1, 0]),
    ("binary_focal_loss", [1, 0], [1, 0]),
    ("crossentropy", [[1, 0], [0, 1]], [0, 1]),
    ("focal_loss", [[1, 0], [0, 1]], [0, 1]),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, y_hat, y", INFINITE, ids=str)
def test_infinitely_sure_and_right(name: str, y_hat: Any, y: Any, dtype: str) -> None:
    loss, x, y = getattr(fx, name), jnp.asarray(y_hat, dtype), jnp.asarray(y)
    values, pull = jax.vjp(lambda x: loss(x, y, agg=fx.identity), x)
    np.testing.assert_allclose(np.float32(values), 0, atol=2 * float(jnp.finfo(dtype).eps))
    assert np.isfinite(np.float32(pull(jnp.ones_like(values))[0])).all()


def test_infinitely_sure_and_wrong() -> None:
    assert float(fx.logitbinarycrossentropy(jnp.array([np.inf]), jnp.array([0]))) == np.inf
    assert float(fx.logitbinarycrossentropy(jnp.array([-np.inf]), jnp.array([1.0]))) == np.inf
    for y in (jnp.array([1]), jnp.array([[0.0, 1.0]])):
        assert float(fx.logitcrossentropy(jnp.array([[np.inf, 0.0]]), y)) == np.inf
    assert np.isnan(fx.logitcrossentropy(jnp.array([[np.nan, 0.0]]), jnp.array([1])))
    both = fx.logitcrossentropy(jnp.array([[np.inf, np.inf, 0.0]]), jnp.array([1]))
    assert float(both) == pytest.approx(math.log(2))  # shared out
    slope = jax.grad(fx.logitbinarycrossentropy, 1)(2.0, 0.0)  # of a soft target
    assert float(slope) == pytest.approx(-2)


SATURATED = [
    ("crossentropy", {}),
    ("kldivergence", {}),
    ("focal_loss", {}),
    ("focal_loss", {"gamma": 0}),
    ("focal_loss", {"gamma": 0.5}),
    ("binarycrossentropy", {}),
    ("binary_focal_loss", {}),
    ("binary_focal_loss", {"gamma": 0}),
    ("binary_focal_loss", {"gamma": 1.5}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, options", SATURATED, ids=str)
def test_probabilities_of_zero_and_one(name: str, options: dict[str, Any], dtype: str) -> None:
    loss = getattr(fx.losses, name)
    y_hat = jnp.array([[0, 1, 0], [1, 0, 0]], dtype)
    for y in ([[0, 1, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 1]], [[0.5, 0.5, 0], [0.5, 0, 0.5]]):
        f = lambda a, y=y: loss(a, np.array(y), agg=jnp.sum, **options)
        value, grad = jax.value_and_grad(f)(y_hat)
        assert math.isfinite(value)
        assert np.isfinite(np.asarray(grad, "f4")).all()


#: Name, predictions, targets: as far out as the loss itself stays within float16.
FAR = [
    ("mae", [-1e4, 1e4, 0, 1e4], [1e4, -1e4, 0, 1e4]),
    ("mse", [-100, 100, 0, 1e4], [100, 0, 0, 1e4]),
    ("huber_loss", [-1e4, 1e4, 0, 1e4], [1e4, -1e4, 0, 1e4]),
    ("msle", [0, 1e4, 0, 1e4], [1e4, 0, 0, 1e4]),
    ("poisson_loss", [0, 1e4, 1, 1e-4], [0, 1, 0, 1]),
    ("hinge_loss", [-1e4, 1e4, 0, 1e4], [1, -1, 1, 1]),
    ("squared_hinge_loss", [-100, 100, 0, 1e4], [1, -1, 1, 1]),
    ("siamese_contrastive_loss", [0, 100, 1e4, 0], [0, 0, 1, 1]),
    ("dice_coeff_loss", [0, 0, 1, 1], [0, 1, 0, 1]),
    ("dice_coeff_loss", [0, 0, 0, 0], [0, 0, 0, 0]),
    ("tversky_loss", [0, 0, 1, 1], [0, 1, 0, 1]),
    ("tversky_loss", [1, 1, 1, 1], [0, 0, 0, 0]),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, y_hat, y", FAR, ids=[f"{i} {row[0]}" for i, row in enumerate(FAR)])
def test_far_out(name: str, y_hat: list[float], y: list[float], dtype: str) -> None:
    """Finite, with a finite derivative, and the value of the formula in double precision."""
    loss = getattr(fx.losses, name)
    y_hat, y = jnp.array(y_hat, dtype), jnp.array(y, dtype)
    options = {"eps": 0.01} if name == "msle" else {}
    value, grad = jax.value_and_grad(lambda a: loss(a, y, **options))(y_hat)
    assert value.dtype == grad.dtype == y_hat.dtype
    assert np.isfinite(np.asarray(grad, "f4")).all()
    with jax.enable_x64(True):
        wide = [np.asarray(v, "f8") for v in (y_hat, y)]
        exact = float(loss(*wide, **options))
    assert float(value) == pytest.approx(exact, rel=4 * float(jnp.finfo(dtype).eps), abs=1e-6)


def test_confident_and_wrong_still_learns() -> None:
    for loss in (fx.binarycrossentropy, fx.binary_focal_loss):
        grad = jax.grad(lambda p: loss(p, jnp.array([1.0, 0.0])))(jnp.array([0.0, 1.0]))
        assert grad[0] < -1e3
        assert grad[1] > 1e3


@pytest.mark.parametrize("name", ["crossentropy", "kldivergence", "focal_loss"])
def test_zero_targets_count_exactly_nothing(name: str) -> None:
    loss = getattr(fx.losses, name)
    p = jnp.array([0.0, 1.0])
    f = lambda p, y: loss(p, y, eps=0.0)
    value, (gp, gy) = jax.value_and_grad(f, (0, 1))(p, jnp.array([0.0, 1.0]))
    assert float(value) == 0
    assert np.isfinite(gp).all()
    assert np.isfinite(gy).all()
    if name != "focal_loss":
        assert float(f(p, jnp.array([1.0, 0.0]))) == math.inf


def test_default_eps_is_added() -> None:
    eps = float(np.finfo(np.float32).eps)
    assert float(fx.crossentropy(jnp.array([0.0, 1.0]), 0)) == pytest.approx(-math.log(eps))
    half = fx.crossentropy(jnp.array([0.0, 1.0], "float16"), 0)
    assert float(half) == pytest.approx(-math.log(2.0**-10), rel=1e-3)
    assert float(fx.binarycrossentropy(0.0, 1, eps=0.5)) == pytest.approx(math.log(2))


def test_sums_do_not_overflow_in_half_precision() -> None:
    mask = jnp.ones(100_000, "float16")
    assert float(fx.dice_coeff_loss(mask, mask)) == 0
    assert float(fx.tversky_loss(mask, mask)) == 0
    assert float(fx.mse(300 * mask, 0)) == math.inf  # 90000 is no float16
    assert float(fx.mae(300 * mask, 0)) == 300


def test_poisson_of_nothing() -> None:
    assert float(fx.poisson_loss(jnp.zeros(2), jnp.zeros(2))) == 0
    assert np.isfinite(jax.grad(fx.poisson_loss)(jnp.zeros(2), jnp.zeros(2))).all()
