"""Initialisers: distribution, fans, randomness, refusals; and nothing is compiled."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

#: Every initialiser, with the keywords it cannot do without.
TABLE: list[tuple[str, dict[str, Any]]] = [
    ("glorot_uniform", {}),
    ("glorot_normal", {}),
    ("kaiming_uniform", {}),
    ("kaiming_normal", {}),
    ("lecun_normal", {}),
    ("truncated_normal", {}),
    ("orthogonal", {}),
    ("sparse_init", {"sparsity": 0.3}),
    ("identity_init", {}),
    ("zeros32", {}),
    ("ones32", {}),
    ("rand32", {}),
    ("randn32", {}),
]
RANDOM = [(n, o) for n, o in TABLE if n not in ("identity_init", "zeros32", "ones32")]
every = pytest.mark.parametrize("name, options", TABLE, ids=[n for n, _ in TABLE])
random = pytest.mark.parametrize("name, options", RANDOM, ids=[n for n, _ in RANDOM])


def bound(name: str, options: dict[str, Any]) -> Callable[..., Any]:
    return lambda *shape, **more: getattr(fx, name)(*shape, **options, **more)


# --- laws of all --------------------------------------------------------------------------


@every
@pytest.mark.parametrize("x64", [False, True])
def test_shape_and_dtype(name: str, options: dict[str, Any], x64: bool) -> None:
    init = bound(name, options)
    shapes = [(3, 4), (4, 3), (0, 3), (np.int64(2), 2)]
    if name != "sparse_init":
        shapes += [(3, 3, 2, 5), (2, 1, 1)]
    if name not in ("sparse_init", "orthogonal"):
        shapes += [(7,)]
    with jax.enable_x64(x64):
        for shape in shapes:
            array = init(*shape)
            assert isinstance(array, jax.Array)
            assert array.shape == shape
            assert array.dtype == jnp.float32
            assert np.isfinite(array).all()


@every
def test_compiles_nothing(name: str, options: dict[str, Any]) -> None:
    events: list[str] = []
    listen = lambda event, *_, **__: events.append(event)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        bound(name, options)(13, 17, rng=0)  # sizes that no other test has
        if name != "sparse_init":
            bound(name, options)(3, 3, 13, 17)
        assert [event for event in events if "compile" in event] == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@random
def test_seed_and_rng(name: str, options: dict[str, Any]) -> None:
    init = bound(name, options)
    same = lambda a, b: bool((np.asarray(a) == np.asarray(b)).all())
    fx.seed(5)
    first, second = init(4, 3), init(4, 3)
    fx.seed(5)
    assert same(first, init(4, 3))
    assert not same(first, second)
    for rng in (3, jax.random.key(3), jax.random.PRNGKey(3)):
        assert same(init(4, 3, rng=rng), init(4, 3, rng=rng))
    generator = np.random.default_rng(3)
    assert same(init(4, 3, rng=3), init(4, 3, rng=generator))
    assert not same(init(4, 3, rng=3), init(4, 3, rng=generator))  # it went on


@every
def test_keywords_only_give_an_initialiser(name: str, options: dict[str, Any]) -> None:
    bound_init = getattr(fx, name)(**options, rng=3)
    array = np.asarray(bound(name, options)(4, 3, rng=3))
    np.testing.assert_array_equal(bound_init(4, 3), array)
    np.testing.assert_array_equal(bound_init(4, 3, rng=None), array)  # as a layer calls it
    np.testing.assert_array_equal(
        bound_init(4, 3, rng=4), bound(name, options)(4, 3, rng=4)
    )  # the later one wins
    np.testing.assert_array_equal(bound_init(rng=3)(4, 3), array)
    for again in (copy.deepcopy(bound_init), pickle.loads(pickle.dumps(bound_init))):
        assert again == bound_init
        np.testing.assert_array_equal(again(4, 3), array)
    assert repr(bound_init).startswith(f"{name}(")


def test_initialisers_print_as_they_are_written() -> None:
    assert repr(fx.glorot_uniform(gain=2)) == "glorot_uniform(gain=2)"
    assert repr(fx.sparse_init(sparsity=0.1)(std=1)) == "sparse_init(sparsity=0.1, std=1)"


@every
def test_refusals(name: str, options: dict[str, Any]) -> None:
    init = bound(name, options)
    with pytest.raises(TypeError, match="expects") as error:
        init((2, 3))
    assert str(error.value) == (
        f"{name} expects sizes as separate integers, got a tuple of 2. Write `{name}(*shape)`."
    )
    with pytest.raises(TypeError, match=rf"^{name} expects sizes as separate .* got 2\.5\.$"):
        init(2.5, 3)
    with pytest.raises(ValueError, match=rf"^{name} expects sizes of at least 0, got -1\.$"):
        init(2, -1)


# --- each one -----------------------------------------------------------------------------

SHAPE = (3, 3, 40, 60)  # fans 360 and 540
IN, OUT = 360, 540

SPREAD = [
    (fx.glorot_uniform, math.sqrt(2 / (IN + OUT))),
    (fx.glorot_uniform(gain=3), 3 * math.sqrt(2 / (IN + OUT))),
    (fx.glorot_normal, math.sqrt(2 / (IN + OUT))),
    (fx.glorot_normal(gain=3), 3 * math.sqrt(2 / (IN + OUT))),
    (fx.kaiming_uniform, math.sqrt(2 / IN)),
    (fx.kaiming_uniform(gain=1), math.sqrt(1 / IN)),
    (fx.kaiming_normal, math.sqrt(2 / IN)),
    (fx.kaiming_normal(gain=1), math.sqrt(1 / IN)),
    (fx.lecun_normal, math.sqrt(1 / IN)),
    (fx.randn32, 1.0),
    (fx.truncated_normal(mean=0, std=2, lo=-100, hi=100), 2.0),
]


@pytest.mark.parametrize("init, std", SPREAD, ids=lambda v: getattr(v, "__name__", repr(v)))
def test_standard_deviation(init: Callable[..., jax.Array], std: float) -> None:
    w = np.asarray(init(*SHAPE, rng=1), float)
    assert w.std() == pytest.approx(std, rel=0.02)
    assert abs(w.mean()) < 0.02 * std


@pytest.mark.parametrize(
    "init, limit",
    [
        (fx.glorot_uniform, math.sqrt(6 / (IN + OUT))),
        (fx.glorot_uniform(gain=3), 3 * math.sqrt(6 / (IN + OUT))),
        (fx.kaiming_uniform, math.sqrt(6 / IN)),
    ],
    ids=["glorot", "glorot gain 3", "kaiming"],
)
def test_uniform_fills_its_limits(init: Callable[..., jax.Array], limit: float) -> None:
    w = np.asarray(init(*SHAPE, rng=1))
    assert 0.999 * limit < w.max() <= limit * (1 + 1e-6)
    assert -0.999 * limit > w.min() >= -limit * (1 + 1e-6)


def test_nfan() -> None:
    assert fx.nfan() == (1, 1)
    assert fx.nfan(4) == (1, 4)
    assert fx.nfan(2, 3) == (2, 3)
    assert fx.nfan(3, 5, 2, 7) == (30, 105)
    assert fx.nfan((2, 3)) == (2, 3)


def normal_cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


@pytest.mark.parametrize("lo, hi", [(-2, 2), (-0.5, 1), (1.5, 1.9), (-9, -1), (1, 30)])
def test_truncated_normal_has_the_right_quantiles(lo: float, hi: float) -> None:
    w = np.sort(np.asarray(fx.truncated_normal(40_000, rng=0, lo=lo, hi=hi), float))
    assert lo <= w[0]
    assert w[-1] <= hi
    below, inside = normal_cdf(lo), normal_cdf(hi) - normal_cdf(lo)
    for share in (0.1, 0.5, 0.9):
        quantile = w[int(share * len(w))]
        assert (normal_cdf(quantile) - below) / inside == pytest.approx(share, abs=0.01)


def test_truncated_normal_far_in_a_tail() -> None:
    """Where `1 - Φ` is below the machine epsilon: an exponential of rate 9 begins at 9."""
    with pytest.warns(UserWarning, match="more than two standard deviations outside"):
        w = np.asarray(fx.truncated_normal(20_000, rng=0, lo=9.0, hi=20.0))
    assert w.min() >= 9
    assert w.mean() == pytest.approx(9 + 0.1085, abs=0.003)


def test_truncated_normal_refusals() -> None:
    with pytest.raises(ValueError, match=r"^truncated_normal expects `std` above 0, got 0\.$"):
        fx.truncated_normal(2, std=0)
    with pytest.raises(ValueError, match=r"^truncated_normal expects `hi` above `lo`, got 1 and 1"):
        fx.truncated_normal(2, lo=1, hi=1)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (3, 3, 2, 7), (2, 2, 1, 9)], ids=str)
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_orthogonal(shape: tuple[int, ...], gain: float) -> None:
    w = np.asarray(fx.orthogonal(*shape, gain=gain, rng=0), float).reshape(-1, shape[-1])
    product = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-5)


def test_orthogonal_favours_no_sign() -> None:
    """The routine under `qr` has a habit; corrected for, diagonals are as often above 0."""
    first = [float(fx.orthogonal(3, 3, rng=i)[0, 0]) for i in range(200)]
    assert 70 < sum(v > 0 for v in first) < 130


def test_orthogonal_refuses_a_vector() -> None:
    with pytest.raises(ValueError, match=r"^orthogonal expects at least two sizes, got 1\.$"):
        fx.orthogonal(4)


@pytest.mark.parametrize(
    "sparsity, zeros", [(0.3, 3), (0.25, 3), (-1, 0), (0, 0), (1, 10), (2, 10)]
)
def test_sparse_init(sparsity: float, zeros: int) -> None:
    w = np.asarray(fx.sparse_init(10, 400, sparsity=sparsity, rng=0))
    assert ((w == 0).sum(0) == zeros).all()
    if 0 < zeros < 10:
        assert (w == 0).any(1).all()  # at random places
    if zeros < 10:
        assert w[w != 0].std() == pytest.approx(0.01, rel=0.05)
        wide = np.asarray(fx.sparse_init(10, 400, sparsity=sparsity, std=1, rng=0))
        np.testing.assert_allclose(wide, 100 * w, rtol=1e-5)


def test_sparse_init_refusals() -> None:
    with pytest.raises(ValueError, match=r"^sparse_init expects two sizes, got 3\.$"):
        fx.sparse_init(2, 2, 2, sparsity=0.1)
    with pytest.raises(TypeError, match="sparsity"):
        fx.sparse_init(2, 2)


def test_identity_init() -> None:
    np.testing.assert_array_equal(fx.identity_init(3), np.zeros(3))
    np.testing.assert_array_equal(fx.identity_init(3, 4), np.eye(3, 4))
    np.testing.assert_array_equal(fx.identity_init(4, 3, gain=2), 2 * np.eye(4, 3))
    x = np.arange(4.0)
    np.testing.assert_array_equal(x @ fx.identity_init(4, 4, shift=1), np.roll(x, 1))
    np.testing.assert_array_equal(fx.identity_init(4, 4, shift=(1, 1)), np.eye(4))


@pytest.mark.parametrize("window", [(3, 3), (1, 5), (3,)], ids=str)
def test_identity_init_of_a_kernel(window: tuple[int, ...]) -> None:
    """A convolution with it gives its input back."""
    letters = "HWD"[: len(window)]
    x = np.random.default_rng(0).normal(size=(2, *[6] * len(window), 3)).astype("f4")
    y = jax.lax.conv_general_dilated(
        x,
        fx.identity_init(*window, 3, 3),
        [1] * len(window),
        "SAME",
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )
    np.testing.assert_allclose(y, x, rtol=1e-6)
    assert float(jnp.sum(fx.identity_init(*window, 3, 5))) == 3


def test_constants_and_ranges() -> None:
    assert (np.asarray(fx.zeros32(3, 2)) == 0).all()
    assert (np.asarray(fx.ones32(3, 2)) == 1).all()
    w = np.asarray(fx.rand32(10_000, rng=0))
    assert 0 <= w.min() < 0.01
    assert 0.99 < w.max() < 1
