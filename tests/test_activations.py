"""Every activation against NumPy in float64, and the laws that all of them keep."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


def sigma(x):
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


def soft(x):
    return np.logaddexp(0, x)


def exponential(x, alpha):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def by_tanh(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ERF = np.vectorize(math.erf, otypes=[float])

#: Name, options, formula. The defaults are NNlib's.
TABLE: list[tuple[str, dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = [
    ("identity", {}, lambda x: x),
    ("relu", {}, lambda x: np.maximum(0, x)),
    ("leakyrelu", {}, lambda x: np.maximum(0.01 * x, x)),
    ("leakyrelu", {"a": 0.3}, lambda x: np.maximum(0.3 * x, x)),
    ("relu6", {}, lambda x: np.clip(x, 0, 6)),
    ("trelu", {}, lambda x: np.where(x > 1, x, 0)),
    ("trelu", {"theta": 0.3}, lambda x: np.where(x > 0.3, x, 0)),
    ("hardtanh", {}, lambda x: np.clip(x, -1, 1)),
    ("hardsigmoid", {}, lambda x: np.clip((x + 3) / 6, 0, 1)),
    ("hardswish", {}, lambda x: x * np.clip((x + 3) / 6, 0, 1)),
    ("softshrink", {}, lambda x: np.minimum(np.maximum(0, x - 0.5), x + 0.5)),
    ("softshrink", {"lam": 2}, lambda x: np.minimum(np.maximum(0, x - 2), x + 2)),
    ("elu", {}, lambda x: exponential(x, 1)),
    ("elu", {"alpha": 2}, lambda x: exponential(x, 2)),
    ("celu", {}, lambda x: exponential(x, 1)),
    ("celu", {"alpha": 2}, lambda x: 2 * exponential(x / 2, 1)),
    ("selu", {}, lambda x: 1.0507009873554805 * exponential(x, 1.6732632423543772)),
    ("softplus", {}, soft),
    ("logcosh", {}, lambda x: x + soft(-2 * x) - math.log(2)),
    ("sigmoid", {}, sigma),
    ("logsigmoid", {}, lambda x: -soft(-x)),
    ("tanh", {}, np.tanh),
    ("softsign", {}, lambda x: x / (1 + np.abs(x))),
    ("tanhshrink", {}, lambda x: x - np.tanh(x)),
    ("swish", {}, lambda x: x * sigma(x)),
    ("lisht", {}, lambda x: x * np.tanh(x)),
    ("mish", {}, lambda x: x * np.tanh(soft(x))),
    ("gelu", {}, by_tanh),
    ("gelu_tanh", {}, by_tanh),
    ("gelu_erf", {}, lambda x: x / 2 * (1 + ERF(x / math.sqrt(2)))),
    ("gelu_sigmoid", {}, by_tanh),
]
#: Where `f` has a corner; the derivative there is the one from the left or the right.
CORNERS = {
    "relu": [0.0],
    "leakyrelu": [0.0],
    "relu6": [0.0, 6.0],
    "trelu": [0.3, 1.0],
    "hardtanh": [-1.0, 1.0],
    "hardsigmoid": [-3.0, 3.0],
    "hardswish": [-3.0, 3.0],
    "softshrink": [-2.0, -0.5, 0.5, 2.0],
    "elu": [0.0],
    "selu": [0.0],
}
POINTS = np.concatenate([np.linspace(-8, 8, 81) + 0.013, [-100, -30, 30, 100]])
every = pytest.mark.parametrize(
    "name, options, formula", TABLE, ids=[f"{n}-{o}" if o else n for n, o, _ in TABLE]
)


def calling(name: str, options: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda x: getattr(fx, name)(x, **options)


@every
def test_is_the_formula(name, options, formula) -> None:
    f = calling(name, options)
    x = np.concatenate([POINTS, CORNERS.get(name, []), [0.0]])
    with jax.enable_x64(True):
        np.testing.assert_allclose(f(jnp.asarray(x)), formula(x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(f(x.astype("f4")), formula(x), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(f(0.7), formula(np.float64(0.7)), rtol=1e-6)  # a number


@every
def test_gradient_is_the_central_difference(name, options, formula) -> None:
    with jax.enable_x64(True):
        grad = jax.vmap(jax.grad(calling(name, options)))(jnp.asarray(POINTS))
    h = 1e-6
    wanted = (formula(POINTS + h) - formula(POINTS - h)) / (2 * h)
    np.testing.assert_allclose(grad, wanted, rtol=1e-6, atol=1e-8)


@every
def test_gradient_at_corners_is_one_of_the_sides(name, options, formula) -> None:
    """Not the half-way of `jnp.maximum`, and never NaN."""
    x, h = np.array(CORNERS.get(name, [0.0])), 1e-7
    with jax.enable_x64(True):
        grad = jax.vmap(jax.grad(calling(name, options)))(jnp.asarray(x))
    grad = np.asarray(grad)
    left, right = (formula(x) - formula(x - h)) / h, (formula(x + h) - formula(x)) / h
    nearest = np.minimum(np.abs(grad - left), np.abs(grad - right))
    np.testing.assert_allclose(nearest, 0, atol=1e-6)


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_extremes(name, options, formula, dtype) -> None:
    """Finite with a finite derivative, in the same dtype, as far out as the dtype goes."""
    x = jnp.array([-1e4, -300, -100, -20, -3, -1, 0, 1, 3, 6, 20, 100, 300, 1e4], dtype)
    f = calling(name, options)
    values, grad = f(x), jax.vmap(jax.grad(f))(x)
    assert values.dtype == grad.dtype == x.dtype
    wide = np.asarray(x, "f8")
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(values, "f8"), formula(wide), rtol=8 * eps, atol=8 * eps)
    assert np.isfinite(np.asarray(grad, "f4")).all()
    assert np.isfinite(np.asarray(jax.vmap(jax.grad(f))(-x), "f4")).all()


@every
def test_nan_passes(name, options, formula) -> None:
    assert math.isnan(calling(name, options)(jnp.nan))


@every
def test_travels(name, options, formula) -> None:
    f = getattr(fx, name)
    assert copy.deepcopy(f) is f
    assert pickle.loads(pickle.dumps(f)) is f
    assert f.__name__ == {"gelu": "gelu_tanh"}.get(name, name)  # as `print(model)` shows it


@every
def test_integers(name, options, formula) -> None:
    x = np.arange(-3, 4)
    got = calling(name, options)(jnp.asarray(x))
    np.testing.assert_allclose(got, formula(x.astype(float)), rtol=1e-5, atol=1e-6)


@every
@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool"])
def test_short_integers_do_not_overflow(name, options, formula, dtype) -> None:
    x = np.array([0, 1, 3, 126, 127, *{"int8": [-128, -5], "uint8": [200, 255]}.get(dtype, [])])
    x = x.astype(dtype)
    got = np.asarray(calling(name, options)(jnp.asarray(x)), "f8")
    np.testing.assert_allclose(got, formula(x.astype(float)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "logsoftmax", "logsumexp", "glu"])
def test_short_integers_do_not_overflow_along_an_axis(name: str) -> None:
    x, f = np.array([-128, -5, 100, 127], "int8"), getattr(fx, name)
    np.testing.assert_array_equal(f(x), f(x.astype("f4")))


def test_gelu_is_nothing_as_far_left_as_numbers_go() -> None:
    x = jnp.array([-3e38, -1e20, -50.0])
    np.testing.assert_allclose(fx.gelu(x), 0, atol=1e-30)
    np.testing.assert_allclose(jax.vmap(jax.grad(fx.gelu))(x), 0, atol=1e-30)


NNLIB = (
    "celu elu gelu gelu_tanh gelu_erf gelu_sigmoid hardsigmoid sigmoid sigmoid_fast hardswish "
    "hardtanh leakyrelu lisht logcosh logsigmoid mish relu relu6 rrelu selu softplus softshrink "
    "softsign swish tanhshrink tanh tanh_fast trelu glu softmax logsoftmax"
)


def test_all_of_nnlib_is_there() -> None:
    assert all(callable(getattr(fx, name, None)) for name in NNLIB.split())
    tested = {name for name, _, _ in TABLE}
    assert set(NNLIB.split()) - tested == {
        *("sigmoid_fast", "tanh_fast"),  # other names for what is tested
        *("rrelu", "glu", "softmax", "logsoftmax"),  # below
    }


def test_relu_keeps_integers() -> None:
    assert fx.relu(jnp.arange(3)).dtype == jnp.int32


# --- along an axis ------------------------------------------------------------------------

X = np.random.default_rng(3).normal(size=(4, 5, 6))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(axis: int) -> None:
    e = np.exp(X)
    wanted = e / e.sum(axis, keepdims=True)
    np.testing.assert_allclose(fx.softmax(X, axis=axis), wanted, rtol=1e-5)
    np.testing.assert_allclose(fx.logsoftmax(X, axis=axis), np.log(wanted), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(fx.softmax(X, axis=axis), axis), 1, rtol=1e-6)


def test_softmax_is_over_the_last_axis() -> None:
    np.testing.assert_array_equal(fx.softmax(X), fx.softmax(X, axis=-1))
    np.testing.assert_array_equal(fx.logsoftmax(X), fx.logsoftmax(X, axis=-1))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_softmax_at_extremes(dtype: str) -> None:
    x = jnp.array([[1e4, -1e4, 0], [0, 0, 0], [-jnp.inf, 1, 1]], dtype)
    assert np.asarray(fx.softmax(x), "f4").tolist()[0] == [1, 0, 0]
    assert fx.softmax(x).dtype == fx.logsoftmax(x).dtype == x.dtype
    grad = jax.grad(lambda a: jnp.sum(fx.logsoftmax(a)[:, 1]))(x)
    assert np.isfinite(np.asarray(grad, "f4")).all()


def test_glu() -> None:
    a, b = X[:, :, :3], X[:, :, 3:]
    np.testing.assert_allclose(fx.glu(X), a * sigma(b), rtol=1e-5)
    np.testing.assert_allclose(fx.glu(X, axis=0), X[:2] * sigma(X[2:]), rtol=1e-5)


# --- random slopes ------------------------------------------------------------------------


@pytest.mark.slow
def test_rrelu_draws_slopes_within_bounds() -> None:
    x = jnp.full(10_000, -24.0)
    slopes = np.asarray(fx.rrelu(x)) / -24
    assert slopes.min() >= 1 / 8
    assert slopes.max() <= 1 / 3
    assert slopes.mean() == pytest.approx((1 / 8 + 1 / 3) / 2, abs=0.003)
    assert (np.asarray(fx.rrelu(x, 0.5, 0.75)) <= -12).all()
    np.testing.assert_array_equal(fx.rrelu(-x), -x)
    assert fx.rrelu(x.astype("bfloat16")).dtype == jnp.bfloat16


@pytest.mark.slow
def test_rrelu_is_random_in_compiled_code_too() -> None:
    f = jax.jit(fx.rrelu)
    x = jnp.full(100, -1.0)
    one, two = f(x), f(x.at[0].set(-2.0))
    assert len(np.unique(one)) > 90
    assert (np.asarray(one)[1:] != np.asarray(two)[1:]).any()
    grad = jax.grad(lambda a: jnp.sum(fx.rrelu(a)))(x)
    np.testing.assert_allclose(grad, -one, rtol=1e-6)


@pytest.mark.parametrize("rng", [3, jax.random.key(3)], ids=["int", "key"])
def test_rrelu_takes_rng(rng: Any) -> None:
    x = jnp.full(100, -1.0)
    np.testing.assert_array_equal(fx.rrelu(x, rng=rng), fx.rrelu(x, rng=rng))
    assert (np.asarray(fx.rrelu(x, rng=rng)) != np.asarray(fx.rrelu(x, rng=4))).any()
    generator = np.random.default_rng(0)
    assert (np.asarray(fx.rrelu(x, rng=generator)) != np.asarray(fx.rrelu(x, rng=generator))).any()
