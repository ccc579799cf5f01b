"""Numbers that objectives read: inputs where they meet arrays, constants where Python computes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import agree, quietly, record

import fluxax as fx

W = jnp.array([1.0, 2.0])
ROWS = jnp.arange(6.0).reshape(3, 2)


@pytest.fixture(autouse=True)
def empty() -> None:
    fx.clear_cache()


def against_arithmetic(
    make: Callable[[Any], Any], numbers: list[Any], want: Callable[[Any], float]
) -> None:
    """`make(n)` has the value `want(n)` for every number, in turn."""
    for n in numbers:
        val = quietly(lambda: fx.withgradient(make(n), W)).val
        np.testing.assert_allclose(float(val), want(n), rtol=1e-5, err_msg=repr(n))


# --- promoted -------------------------------------------------------------------------------


def test_an_annealed_coefficient_and_a_step_index_are_traced_thrice_at_most() -> None:
    xs = jnp.arange(2000.0).reshape(1000, 2)
    for i in range(1000):
        lam = 0.999**i
        val, grads = fx.withgradient(lambda w: jnp.sum(xs[i] * w) + lam * jnp.sum(w**2), W)
        if i % 97 == 0:
            np.testing.assert_allclose(float(val), 2 * i + 2 * (2 * i + 1) + lam * 5, rtol=1e-5)
            np.testing.assert_allclose(
                grads[0], np.array([2 * i, 2 * i + 1]) + 2 * lam * np.array([1, 2]), rtol=1e-5
            )
    assert record().traces <= 3
    assert record().compiled


PROMOTED: dict[str, tuple[Any, list[Any], Any]] = {
    "times": (lambda c: lambda w: jnp.sum(c * w), [2.0, 3.0, 5.0, 7.0], lambda c: 3 * c),
    "int times": (lambda c: lambda w: jnp.sum(c * w), [2, 3, 5, -7], lambda c: 3 * c),
    "plus": (lambda c: lambda w: jnp.sum(w + c), [2.0, 3.0, 5.0, 1e-3], lambda c: 3 + 2 * c),
    "index": (lambda i: lambda w: jnp.sum(ROWS[i] * w), [0, 1, 2, 1], lambda i: 6 * i + 2),
    "index from the end": (
        lambda i: lambda w: jnp.sum(ROWS[i] * w),
        [-1, -2, 0, -3],
        lambda i: 6 * (i % 3) + 2,
    ),
    "maximum": (
        lambda c: lambda w: jnp.sum(jnp.maximum(w, c)),
        [0.5, 1.5, 2.5, 9.0],
        lambda c: max(1, c) + max(2, c),
    ),
    "where": (
        lambda c: lambda w: jnp.sum(jnp.where(w > c, w, 0)),
        [0.5, 1.5, 2.5, 0.0],
        lambda c: sum(v for v in (1, 2) if v > c),
    ),
    "at": (lambda i: lambda w: jnp.sum(w.at[i].set(0.0)), [0, 1, 0, 1], lambda i: 3 - (1, 2)[i]),
    "divided": (lambda c: lambda w: jnp.sum(w / c), [2.0, 3.0, 5.0, 7.0], lambda c: 3 / c),
    "nan": (
        lambda c: lambda w: jnp.sum(w * c),
        [1.0, math.nan, math.inf, -math.inf, 2.0],
        lambda c: 3 * c,
    ),
    "NumPy scalar": (
        lambda c: lambda w: jnp.sum(w * c),
        [np.float32(c) for c in (2, 3, 5, 7)],
        lambda c: 3 * c,
    ),
}


@pytest.mark.parametrize("name", PROMOTED)
def test_promoted_where_it_meets_an_array(name: str) -> None:
    against_arithmetic(*PROMOTED[name])
    assert record().compiled
    assert record().traces <= 2, record().reasons


def test_a_number_that_stays_does_not_become_an_input() -> None:
    for _ in range(5):
        c = 2.0
        fx.gradient(lambda w: jnp.sum(c * w), W)
    assert record().traces == 1
    assert record().constants == {"c": 2.0}


# --- not promoted ---------------------------------------------------------------------------

CONSTANT: dict[str, tuple[Any, list[Any], Any]] = {
    "two indices": (
        lambda i: lambda w: ROWS[i, i - 1] * w[0],
        [0, 1, 2, 1],
        lambda i: float(ROWS[i, i - 1]),
    ),
    "square": (
        lambda i: lambda w: jnp.sum(w) * (i**2 * 1.0),
        [1, 2, 3, 50_000],
        lambda i: 3.0 * i**2,
    ),
    "Adam's correction": (
        lambda t: lambda w: jnp.sum(w) / (1 - 0.999**t),
        [1, 2, 3, 10],
        lambda t: 3 / (1 - 0.999**t),
    ),
    "small differences": (
        lambda c: lambda w: jnp.sum(w) * (1e8 + c - 1e8),
        [1.0, 2.0, 3.0, 4.0],
        lambda c: 3 * c,
    ),
    "large ints": (
        lambda i: lambda w: jnp.sum(w) * (i * 1000 % 7),
        [1, 2, 3_000_001, 2_500_000],
        lambda i: 3 * (i * 1000 % 7),
    ),
    "beyond 32 bits": (
        lambda i: lambda w: jnp.sum(w) * (i % 10),
        [1, 2, 2**31 + 3, 2**40 + 5],
        lambda i: 3 * (i % 10),
    ),
    "NumPy int": (
        lambda i: lambda w: jnp.sum(w) * (i**2 % 1000),
        [np.int64(i) for i in (1, 2, 3, 50_001)],
        lambda i: 3 * (i**2 % 1000),
    ),
    "range": (lambda n: lambda w: sum(jnp.sum(w) for _ in range(n)), [1, 2, 3, 4], lambda n: 3 * n),
    "shape": (lambda n: lambda w: jnp.sum(jnp.ones((n, 2)) * w), [1, 2, 3, 4], lambda n: 3 * n),
    "slice": (lambda n: lambda w: jnp.sum(w[:n]), [1, 2, 1, 2], lambda n: (1, 3)[n - 1]),
    "branch": (
        lambda c: lambda w: jnp.sum(w * 2 if c > 2.5 else w),
        [2.0, 3.0, 1.0, 4.0],
        lambda c: 6 if c > 2.5 else 3,
    ),
    "truth": (
        lambda c: lambda w: jnp.sum(w * 2 if c else w),
        [2.0, 0.0, 1.0, -0.0],
        lambda c: 6 if c else 3,
    ),
    "math": (
        lambda c: lambda w: jnp.sum(w * math.sqrt(c)),
        [2.0, 3.0, 1.0, 4.0],
        lambda c: 3 * math.sqrt(c),
    ),
    "text": (
        lambda c: lambda w: jnp.sum(w * len(f"{c}")),
        [1.0, 1.25, 1.5, 100.0],
        lambda c: 3 * len(f"{c}"),
    ),
    "str": (
        lambda c: lambda w: jnp.sum(w * len(str(c))),
        [1.0, 1.25, 1.5, 100.0],
        lambda c: 3 * len(f"{c}"),
    ),
    "key": (
        lambda i: lambda w: jnp.sum(w * {1: 2.0, 2: 3.0}[i]),
        [1, 2, 1, 2],
        lambda i: 3 * (i + 1),
    ),
    "list index": (
        lambda i: lambda w: jnp.sum(w * [2.0, 3.0][i]),
        [0, 1, 0, 1],
        lambda i: 3 * (i + 2),
    ),
    "isinstance": (
        lambda c: lambda w: jnp.sum(w * (c if isinstance(c, float) else 0)),
        [2.0, 3.0, 5.0, 7],
        lambda c: 3 * c if isinstance(c, float) else 0,
    ),
    "type": (
        lambda c: lambda w: jnp.sum(w * (c if type(c) is float else 0)),
        [2.0, 3.0, 5.0, 7.0],
        lambda c: 3 * c,
    ),
    "hasattr": (
        lambda c: lambda w: jnp.sum(w * (0 if hasattr(c, "shape") else c)),
        [2.0, 3.0, 5.0, 7.0],
        lambda c: 3 * c,
    ),
    "isscalar": (
        lambda c: lambda w: jnp.sum(w * (c if np.isscalar(c) else 0)),
        [2.0, 3.0, 5.0, 7.0],
        lambda c: 3 * c,
    ),
    "attribute": (
        lambda c: lambda w: jnp.sum(w * (c if c.is_integer() else 1)),
        [2.0, 3.5, 5.0, 7.5],
        lambda c: 3 * (c if c.is_integer() else 1),
    ),
    "class pattern": (
        lambda c: lambda w: jnp.sum(w * _matched(c)),
        [2.0, 3.0, 5.0, 7.0],
        lambda c: 3 * c,
    ),
    "swallowed": (
        lambda c: lambda w: jnp.sum(w * _or_zero(c)),
        [2.0, 3.0, 5.0, 7.0],
        lambda c: 3 * c,
    ),
    "power": (
        lambda k: lambda w: jnp.sum((-w) ** k),
        [2, 3, 4, 5],
        lambda k: (-1) ** k + (-2) ** k,
    ),
    "seed": (
        lambda k: lambda w: w[0] * jax.random.uniform(jax.random.key(k)),
        [1, 2, 3, 4],
        lambda k: float(jax.random.uniform(jax.random.key(k))),
    ),
    "loop": (
        lambda n: lambda w: jax.lax.fori_loop(0, n, lambda i, s: s + jnp.sum(w), 0.0),
        [1, 2, 3, 4],
        lambda n: 3 * n,
    ),
    "signed zero": (
        lambda c: lambda w: jnp.sum(w) * math.copysign(1, c),
        [0.0, -0.0, 0.0, -0.0],
        lambda c: 3 * math.copysign(1, c),
    ),
    "int or float": (
        lambda c: lambda w: jnp.sum(w * (7 // 2 if c is None else 7 * c // 2)),
        [1, 1.5, 1, 2],
        lambda c: 3 * (7 * c // 2),
    ),
}


def _matched(c: Any) -> Any:
    match c:
        case float():
            return c
    return 0


def _or_zero(c: Any) -> Any:
    try:
        return float(c)
    except Exception:
        return 0.0


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_where_python_computes(name: str) -> None:
    against_arithmetic(*CONSTANT[name])
    assert record().compiled, record().reasons


def test_an_int_that_jax_refuses_is_refused() -> None:
    for i in (1, 2, 3):
        fx.withgradient(lambda w: jnp.sum(w) * i**2, W)
    i = 50_000
    with pytest.raises(OverflowError):
        quietly(lambda: fx.withgradient(lambda w: jnp.sum(w) * i**2, W))


def test_zero_division_is_pythons() -> None:
    for k in (1, 2, 3):
        val, _ = fx.withgradient(lambda w: jnp.sum(w) * (1 / k), W)
        np.testing.assert_allclose(float(val), 3 / k, rtol=1e-6)
    k = 0
    with pytest.raises(ZeroDivisionError):
        quietly(lambda: fx.withgradient(lambda w: jnp.sum(w) * (1 / k), W))


def test_one_number_that_must_stay_keeps_no_other_constant() -> None:
    for i in range(40):
        n, lam = 1 + i % 2, 0.9**i
        val, _ = fx.withgradient(lambda w: sum(jnp.sum(w) for _ in range(n)) + lam * w[0], W)
        np.testing.assert_allclose(float(val), 3 * n + lam, rtol=1e-5)
    assert record().traces <= 6, record().reasons


def test_true_one_and_one_point_nought_differ() -> None:
    for c, name in (
        (1, "int"),
        (True, "bool"),
        (1.0, "float"),
        (np.float32(1), "float32"),
        (True, "bool"),
    ):
        val = fx.withgradient(lambda w: jnp.sum(w) * len(type(c).__name__), W).val
        assert float(val) == 3 * len(name), name
    assert record().traces <= 5


def test_the_value_keeps_a_returned_number() -> None:
    for c in (2.0, 3.0, 5.0):
        val = fx.withgradient(lambda w: (jnp.sum(c * w), c), W).val
        assert type(val[1]) is float
        assert val[1] == c


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "numbers",
    [
        [2, 3, 5],
        [2.5, 3.5, 5.5],
        [np.float32(2), np.float32(3), np.float32(4)],
        [2, 3, 200],
        [2, 3, 300],
    ],
)
def test_dtypes_are_those_of_plain_jax(dtype: str, numbers: list[Any]) -> None:
    data = jnp.array([1, 2], dtype)
    for c in numbers:
        f = lambda w: (jnp.sum(w), data * c)
        with fx.eager():
            want = quietly(lambda: _outcome(f))
        got = quietly(lambda: _outcome(f))
        assert type(got) is type(want), (got, want)
        if not isinstance(want, Exception):
            agree(got[1], want[1])


def _outcome(f: Any) -> Any:
    try:
        return fx.withgradient(f, W).val
    except Exception as error:
        return error


def test_a_large_numpy_int_is_not_cut_silently() -> None:
    for c in (np.int64(2), np.int64(3), np.int64(2**40)):
        f = lambda w: jnp.sum(w * c)
        with fx.eager():
            want = quietly(lambda: fx.withgradient(f, W)).val
        got = quietly(lambda: fx.withgradient(f, W)).val
        np.testing.assert_allclose(float(got), float(want), rtol=1e-5)


def test_programs_for_many_values_are_bounded_and_say_so() -> None:
    def run() -> None:
        for n in range(1, 12):
            fx.withgradient(lambda w: jnp.sum(jnp.ones((n, 2)) * w), W)

    with pytest.warns(UserWarning, match="compiled 9 times") as seen:
        run()
    assert len(seen) == 1
    assert "before the lambda" in str(seen[0].message)


@pytest.mark.parametrize("make", [jnp.array, np.array], ids=["jax", "numpy"])
@pytest.mark.parametrize("way", ["compiled", "eager", "jit", "grad"])
def test_one_array_as_two_arguments_has_two_derivatives(way: str, make: Any) -> None:
    x = make([1.0, 3.0], "float32")
    loss = lambda a, b: jnp.sum(a * b**2)
    if way == "grad":
        total = jax.grad(lambda v: fx.withgradient(loss, v, v).val)(x)
        np.testing.assert_allclose(total, [3.0, 27.0])
        return
    with fx.eager() if way == "eager" else contextlib.nullcontext():
        run = lambda v: fx.gradient(loss, v, v)
        grads = (jax.jit(run) if way == "jit" else run)(x)
    np.testing.assert_allclose(grads, [[1.0, 9.0], [2.0, 18.0]])
