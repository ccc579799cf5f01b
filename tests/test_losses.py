"""Every loss against NumPy in float64, and the laws that all of them keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

EPS = float(np.finfo(np.float64).eps)
RNG = np.random.default_rng(7)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ylog(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return y * np.log(np.where(y == 0, 1, p))


class Case(NamedTuple):
    name: str
    y_hat: np.ndarray
    y: np.ndarray
    values: Callable[..., np.ndarray]  # one per observation, before `agg`
    options: dict[str, Any]
    least: np.ndarray | None = None  # the prediction at which the loss is smallest
    floor: float = 0.0  # the loss there

    @property
    def loss(self) -> Callable[..., jax.Array]:
        return getattr(fx.losses, self.name)


REAL, REAL_Y = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
POSITIVE, COUNTS = RNG.uniform(0.2, 3, (5, 3)), RNG.integers(1, 4, (5, 3)).astype(float)
PROB, SOFT = softmax(RNG.normal(size=(5, 3))), softmax(RNG.normal(size=(5, 3)))
ONE_HOT = np.eye(3)[[0, 2, 1, 1, 2]]
CHANCE, BITS = RNG.uniform(0.05, 0.95, (5, 3)), RNG.integers(0, 2, (5, 3)).astype(float)
SIGNS = 2 * BITS - 1


def huber(a, y, delta=1.0):
    d = np.abs(a - y)
    return np.where(d < delta, d**2 / 2, delta * (d - delta / 2))


def binary_focal(p, y, gamma=2):
    right = np.where(y == 1, p, 1 - p)
    return -((1 - right) ** gamma) * np.log(right)


CASES = [
    Case("mae", REAL, REAL_Y, lambda a, y: np.abs(a - y), {}, REAL_Y),
    Case("mse", REAL, REAL_Y, lambda a, y: (a - y) ** 2, {}, REAL_Y),
    Case("msle", POSITIVE, COUNTS, lambda a, y: np.log(a / y) ** 2, {}, COUNTS),
    Case(
        "msle",
        POSITIVE,
        COUNTS,
        lambda a, y, eps: np.log((a + eps) / (y + eps)) ** 2,
        {"eps": 0.5},
        COUNTS,
    ),
    Case("huber_loss", 2 * REAL, REAL_Y, huber, {}, REAL_Y),
    Case("huber_loss", 2 * REAL, REAL_Y, huber, {"delta": 0.5}, REAL_Y),
    Case("poisson_loss", POSITIVE, COUNTS, lambda a, y: a - y * np.log(a), {}, COUNTS, -math.inf),
    Case("crossentropy", PROB, ONE_HOT, lambda p, y: -ylog(y, p).sum(-1), {}, ONE_HOT),
    Case("crossentropy", PROB, SOFT, lambda p, y: -ylog(y, p).sum(-1), {}, SOFT, -math.inf),
    Case("crossentropy", PROB, SOFT, lambda p, y, eps: -ylog(y, p + eps).sum(-1), {"eps": 0.1}),
    Case("logitcrossentropy", 3 * REAL, ONE_HOT, lambda x, y: -ylog(y, softmax(x)).sum(-1), {}),
    Case("logitcrossentropy", 3 * REAL, SOFT, lambda x, y: -ylog(y, softmax(x)).sum(-1), {}),
    Case("kldivergence", PROB, SOFT, lambda p, y: (y * np.log(y / p)).sum(-1), {}, SOFT),
    Case("kldivergence", PROB, ONE_HOT, lambda p, y: -ylog(y, p).sum(-1), {}, ONE_HOT),
    Case("focal_loss", PROB, SOFT, lambda p, y: -(y * (1 - p) ** 2 * np.log(p)).sum(-1), {}),
    Case(
        "focal_loss", PROB, ONE_HOT, lambda p, y, gamma: -ylog(y, p).sum(-1), {"gamma": 0}, ONE_HOT
    ),
    Case(
        "focal_loss",
        PROB,
        ONE_HOT,
        lambda p, y, gamma: -((1 - p) ** gamma * ylog(y, p)).sum(-1),
        {"gamma": 0.5},
        ONE_HOT,
    ),
    Case(
        "binarycrossentropy",
        CHANCE,
        BITS,
        lambda p, y: -ylog(y, p) - ylog(1 - y, 1 - p),
        {},
        BITS,
    ),
    Case(
        "binarycrossentropy",
        CHANCE,
        BITS,
        lambda p, y, eps: -ylog(y, p + eps) - ylog(1 - y, 1 - p + eps),
        {"eps": 0.1},
    ),
    Case("logitbinarycrossentropy", 3 * REAL, CHANCE, lambda x, y: np.logaddexp(0, x) - x * y, {}),
    Case("binary_focal_loss", CHANCE, BITS, binary_focal, {}, BITS),
    Case("binary_focal_loss", CHANCE, BITS, binary_focal, {"gamma": 0}, BITS),
    Case("binary_focal_loss", CHANCE, BITS, binary_focal, {"gamma": 1.5}, BITS),
    Case("hinge_loss", REAL, SIGNS, lambda a, y: np.maximum(0, 1 - a * y), {}, SIGNS),
    Case("squared_hinge_loss", REAL, SIGNS, lambda a, y: np.maximum(0, 1 - a * y) ** 2, {}, SIGNS),
    Case(
        "siamese_contrastive_loss",
        POSITIVE,
        BITS,
        lambda d, y, margin=1: (1 - y) * d**2 + y * np.maximum(0, margin - d) ** 2,
        {},
        BITS,
    ),
    Case(
        "siamese_contrastive_loss",
        POSITIVE,
        BITS,
        lambda d, y, margin: (1 - y) * d**2 + y * np.maximum(0, margin - d) ** 2,
        {"margin": 2.0},
        2 * BITS,
    ),
]
WHOLE = [
    Case(
        "dice_coeff_loss",
        CHANCE,
        BITS,
        lambda p, y, smooth=1: (
            1 - (2 * (p * y).sum() + smooth) / ((p**2).sum() + (y**2).sum() + smooth)
        ),
        {},
        BITS,
    ),
    Case(
        "dice_coeff_loss",
        CHANCE,
        BITS,
        lambda p, y, smooth: (
            1 - (2 * (p * y).sum() + smooth) / ((p**2).sum() + (y**2).sum() + smooth)
        ),
        {"smooth": 0.1},
        BITS,
    ),
    Case(
        "tversky_loss",
        CHANCE,
        BITS,
        lambda p, y, beta=0.7: (
            1
            - ((p * y).sum() + 1)
            / ((p * y + beta * (1 - y) * p + (1 - beta) * y * (1 - p)).sum() + 1)
        ),
        {},
        BITS,
    ),
]


def case_id(case: Case) -> str:
    return "-".join([case.name, *(f"{k}={v}" for k, v in case.options.items())])


every = pytest.mark.parametrize("case", CASES + WHOLE, ids=case_id)
aggregated = pytest.mark.parametrize("case", CASES, ids=case_id)


def oracle(case: Case) -> np.ndarray:
    return case.values(case.y_hat, case.y, **case.options)


# --- values -------------------------------------------------------------------------------


@aggregated
def test_values_are_the_formula(case: Case) -> None:
    with jax.enable_x64(True):
        values = case.loss(case.y_hat, case.y, agg=fx.identity, **case.options)
        np.testing.assert_allclose(values, oracle(case), rtol=1e-12, atol=1e-13)
    single = case.loss(case.y_hat.astype("f4"), case.y, agg=fx.identity, **case.options)
    np.testing.assert_allclose(single, oracle(case), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", WHOLE, ids=case_id)
def test_overlap_is_the_formula(case: Case) -> None:
    with jax.enable_x64(True):
        value = case.loss(case.y_hat, case.y, **case.options)
        np.testing.assert_allclose(value, oracle(case), rtol=1e-12)


@aggregated
def test_agg(case: Case) -> None:
    def value(**agg: Any) -> Any:
        return case.loss(case.y_hat.astype("f4"), case.y, **agg, **case.options)

    expected = oracle(case)
    assert value(agg=fx.identity).shape == expected.shape
    np.testing.assert_allclose(value(), expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(value(agg=fx.losses.mean), value(), rtol=0)
    np.testing.assert_allclose(value(agg=jnp.sum), expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(value(agg=sum), expected.sum(), rtol=1e-5)  # Python's own
    np.testing.assert_allclose(value(agg=lambda v: v.max()), expected.max(), rtol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES + WHOLE if c.least is not None], ids=case_id)
def test_minimum(case: Case) -> None:
    """The loss is smallest where the table says, and 0 there unless the table says so."""
    with jax.enable_x64(True):
        best = float(case.loss(case.least, case.y, **case.options))
        if math.isfinite(case.floor):
            assert best == pytest.approx(case.floor, abs=1e-12)
        for share in (0.01, 0.3):
            near = (1 - share) * case.least + share * case.y_hat
            assert best <= float(case.loss(near, case.y, **case.options)) + 1e-12


# A target of 0 or 1 has no neighbour on one of its sides, so only soft ones are varied.
DERIVED = [(case, 0) for case in CASES + WHOLE]
DERIVED += [(case, 1) for case in CASES if case.y is SOFT or case.y is REAL_Y]


@pytest.mark.parametrize(
    "case, argument", DERIVED, ids=[f"{case_id(c)}-{['y_hat', 'y'][i]}" for c, i in DERIVED]
)
def test_gradient_is_the_central_difference(case: Case, argument: int) -> None:
    with jax.enable_x64(True):
        point = [jnp.asarray(case.y_hat), jnp.asarray(case.y)]
        f = lambda *a: case.loss(*a, **case.options)
        got = np.asarray(jax.grad(f, argument)(*point))
        f, h, wanted = jax.jit(f), 1e-6, np.zeros(got.shape)
        for i in np.ndindex(got.shape):
            up, down = [np.array(p) for p in point], [np.array(p) for p in point]
            up[argument][i] += h
            down[argument][i] -= h
            wanted[i] = (f(*up) - f(*down)) / (2 * h)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-8)


# --- dtypes and kinds of input ------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_is_the_predictions(case: Case, dtype: str) -> None:
    with jax.enable_x64(True):
        y_hat = jnp.asarray(case.y_hat, dtype)
        f = lambda a: case.loss(a, case.y, **case.options)  # y is float64
        value, grad = jax.value_and_grad(f)(y_hat)
        assert value.dtype == grad.dtype == y_hat.dtype
        # The formula at the rounded numbers, with the eps of that dtype.
        exact = f(jnp.asarray(y_hat, "float64"))
        eps = float(jnp.finfo(dtype).eps)
        assert float(value) == pytest.approx(float(exact), rel=12 * eps, abs=12 * eps)


@every
def test_kinds_of_target(case: Case) -> None:
    y_hat = case.y_hat.astype("f4")
    value = float(case.loss(y_hat, case.y.astype("f4"), **case.options))
    assert float(case.loss(jnp.asarray(y_hat), case.y, **case.options)) == value
    assert float(jax.jit(lambda a, y: case.loss(a, y, **case.options))(y_hat, case.y)) == (
        pytest.approx(value, rel=1e-6)
    )
    if (case.y == case.y.astype(int)).all():
        assert float(case.loss(y_hat, case.y.astype("i8"), **case.options)) == value
    if set(np.unique(case.y)) <= {0, 1}:
        assert float(case.loss(y_hat, case.y.astype(bool), **case.options)) == value


@every
def test_integer_predictions_become_float32(case: Case) -> None:
    y_hat = np.ones(case.y_hat.shape, int)
    got = case.loss(y_hat, case.y, **case.options)
    assert got.dtype == jnp.float32
    assert float(got) == float(case.loss(y_hat.astype("f4"), case.y, **case.options))


@every
def test_scalar_target_stands_for_an_array(case: Case) -> None:
    target = 0.75 if case.y is not SIGNS else 1.0
    whole = case.loss(case.y_hat, np.full(case.y.shape, target), **case.options)
    assert float(case.loss(case.y_hat, target, **case.options)) == float(whole)


def test_scalars() -> None:
    assert float(fx.mse(1, 3)) == 4
    assert float(fx.binarycrossentropy(0.5, 1)) == pytest.approx(math.log(2), rel=1e-6)


def test_complex() -> None:
    a, b = np.array([1 + 1j, 2 - 3j], "c8"), np.array([1j, 2 + 1j], "c8")
    assert fx.mse(a, b).dtype == fx.mae(a, b).dtype == jnp.float32
    assert float(fx.mse(a, b)) == pytest.approx(8.5)
    assert float(fx.mae(a, b)) == pytest.approx(2.5)
    assert float(fx.mse(np.ones(2, "f4"), b)) == pytest.approx((2 + 2) / 2)


# --- refusals -----------------------------------------------------------------------------


@every
def test_shapes_must_be_equal(case: Case) -> None:
    with pytest.raises(ValueError, match="expects") as error:
        case.loss(jnp.ones(3), jnp.ones((3, 1)), **case.options)
    assert str(error.value) == (
        f"{case.name} expects `y_hat` and `y` of one shape, got f32[3] and f32[3,1]."
    )
    for a, y in [((3,), (1,)), ((2, 3), (3,)), ((2, 3), (1, 3)), ((3, 1), (3,)), ((), (1,))]:
        with pytest.raises(ValueError, match=rf"^{case.name} expects "):
            case.loss(jnp.ones(a), jnp.ones(y), **case.options)


SENTENCES = [
    (
        lambda: fx.crossentropy(jnp.ones((4, 3)), jnp.ones(5, int)),
        "crossentropy expects `y_hat` and `y` of one shape, got f32[4,3] and i32[5]. "
        "Class labels are integers of shape [4].",
    ),
    (
        lambda: fx.logitcrossentropy(jnp.ones((4, 3)), jnp.ones(4)),
        "logitcrossentropy expects `y_hat` and `y` of one shape, got f32[4,3] and f32[4]. "
        "Class labels are integers of shape [4].",
    ),
    (
        lambda: fx.focal_loss(jnp.ones((4, 3)), jnp.ones((4, 3)), axis=2),
        "focal_loss expects a class axis of `y_hat`, got 2 for f32[4,3].",
    ),
    (
        lambda: fx.kldivergence(1.0, 1.0),
        "kldivergence expects a class axis of `y_hat`, got -1 for f32[].",
    ),
    (
        lambda: fx.siamese_contrastive_loss(jnp.ones(2), jnp.ones(2), margin=-0.5),
        "siamese_contrastive_loss expects a finite `margin` of at least 0, got -0.5.",
    ),
    (
        lambda: fx.label_smoothing(jnp.ones((2, 2)), 1.0),
        "label_smoothing expects `alpha` between 0 and 1, got 1.0.",
    ),
    (
        lambda: fx.label_smoothing(jnp.ones((2, 2)), 0.0),
        "label_smoothing expects `alpha` between 0 and 1, got 0.0.",
    ),
    (
        lambda: fx.label_smoothing(jnp.ones(2), 0.1, axis=1),
        "label_smoothing expects a class axis of `y`, got 1 for f32[2].",
    ),
    (
        lambda: fx.ctc_loss(jnp.ones((5, 4)), jnp.ones(2)),
        "ctc_loss expects scores (T, K) and integer labels (L,), or (N, T, K) and (N, L), "
        "got f32[5,4] and f32[2].",
    ),
]


@pytest.mark.parametrize("call, sentence", SENTENCES, ids=[s.split()[0] for _, s in SENTENCES])
def test_sentences(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="expects") as error:
        call()
    assert str(error.value) == sentence
