"""What of ours is drawn inside an objective: new at every call, compiled, and the same again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.drawing import MADE, W, all_differ, calls, drawn, traces


@pytest.fixture(autouse=True)
def fresh() -> None:
    fx.clear_cache()


# --- what is drawn ---------------------------------------------------------------------------

made = pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))


@made
def test_it_is_new_at_every_call_by_one_program(make) -> None:
    compiled = drawn(make)
    assert all_differ(compiled)
    assert np.isfinite(compiled.astype(float)).all()
    assert traces() == 1
    assert calls() == 3
    with fx.eager():  # and the same uncompiled
        eager = drawn(make, 2)
    assert eager.dtype == compiled.dtype
    np.testing.assert_allclose(eager, compiled[:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [MADE[name] for name in ("randn32", "Dense", "Dropout")])
def test_the_seed_fixes_it(make) -> None:
    first = drawn(make)
    fx.clear_cache()  # a trace more or less is not to be seen
    np.testing.assert_array_equal(first, drawn(make))
    with fx.eager():
        make()
    fx.seed(2)
    other = fx.withgradient(lambda w: (jnp.sum(w), make()), W).val[1]
    assert not np.array_equal(first[0], other)


def test_two_draws_of_one_call_differ() -> None:
    assert all_differ(drawn(lambda: jnp.stack([fx.randn32(4), fx.randn32(4)]), 2).reshape(4, 4))


def test_with_rng_it_is_the_same_everywhere() -> None:
    for rng in (4, np.int64(4)):
        want = np.asarray(fx.randn32(3, rng=rng))
        np.testing.assert_array_equal(drawn(lambda: fx.randn32(3, rng=rng)), [want] * 3)
    want = np.asarray(fx.Dense(3, 2, rng=7).weight)
    np.testing.assert_array_equal(drawn(lambda: fx.Dense(3, 2, rng=7).weight), [want] * 3)
    assert calls() == 0


def test_outside_nothing_has_changed() -> None:
    """NumPy draws there, whatever was drawn inside."""
    fx.seed(0)
    want = [np.asarray(fx.randn32(3)) for _ in range(2)]
    fx.seed(0)
    got = [np.asarray(fx.randn32(3))]
    fx.compiled(lambda: fx.randn32(3))()
    got.append(np.asarray(fx.randn32(3)))
    np.testing.assert_array_equal(want, got)


@pytest.mark.parametrize("x64", [False, True])
def test_it_is_float32(x64: bool) -> None:
    with jax.enable_x64(x64):
        for name in ("randn32", "truncated_normal", "orthogonal", "sparse_init"):
            assert fx.compiled(MADE[name])().dtype == np.float32, name


# --- distributions ---------------------------------------------------------------------------

#: Initialiser, keywords, mean, standard deviation, largest absolute value, for (100, 400).
DISTRIBUTIONS: list[tuple[Any, dict[str, Any], float, float, float]] = [
    (fx.randn32, {}, 0, 1, 6),
    (fx.rand32, {}, 0.5, 1 / math.sqrt(12), 1),
    (fx.glorot_uniform, {}, 0, math.sqrt(2 / 500), math.sqrt(6 / 500)),
    (fx.glorot_normal, {"gain": 2.0}, 0, 2 * math.sqrt(2 / 500), 0.8),
    (fx.kaiming_uniform, {}, 0, math.sqrt(2 / 100), math.sqrt(6 / 100)),
    (fx.kaiming_normal, {}, 0, math.sqrt(2 / 100), 0.9),
    (fx.lecun_normal, {}, 0, 0.1, 2),
    (fx.truncated_normal, {}, 0, 0.8796, 2),
    (fx.truncated_normal, {"mean": 1.0, "lo": 0.0, "hi": math.inf}, 1.2876, 0.7935, 7),
    (fx.truncated_normal, {"lo": 3.0, "hi": math.inf, "mean": 1.0}, 3.3732, 0.3399, 7),
]


@pytest.mark.parametrize("init, options, mean, std, most", DISTRIBUTIONS)
def test_distribution(init, options, mean, std, most) -> None:
    fx.seed(3)
    values = np.asarray(fx.compiled(lambda: init(100, 400, **options))(), np.float64)
    n = values.size
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(n)
    assert abs(values.std() - std) < 5 * std / math.sqrt(n)
    assert np.abs(values).max() <= most * (1 + 1e-6)
    assert np.isfinite(values).all()
    assert len(np.unique(values)) > 0.95 * n or init in (fx.rand32,)
    rows = np.corrcoef(values)[0, 1:]  # of one call
    assert np.abs(rows).max() < 5 / math.sqrt(400)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 3, 4)])
def test_orthogonal(shape) -> None:
    w = np.asarray(fx.compiled(lambda: fx.orthogonal(*shape, gain=2))(), np.float64)
    w = w.reshape(-1, shape[-1])
    w = w if w.shape[0] >= w.shape[1] else w.T
    np.testing.assert_allclose(w.T @ w, 4 * np.eye(w.shape[1]), atol=1e-5)


def test_orthogonal_has_no_favourite_sign() -> None:
    f = fx.compiled(lambda: fx.orthogonal(2, 2))
    assert 25 < sum(float(f()[0, 0]) > 0 for _ in range(100)) < 75


def test_sparse() -> None:
    w = np.asarray(fx.compiled(lambda: fx.sparse_init(10, 400, sparsity=0.25))())
    assert set((w == 0).sum(0)) == {3}
    assert np.abs((w == 0).mean(1) - 0.3).max() < 0.15


def test_calls_do_not_depend_on_each_other() -> None:
    f = fx.compiled(lambda: jnp.concatenate([fx.randn32(200), fx.randn32(200)]))
    values = np.stack([f() for _ in range(30)])
    pairs = np.corrcoef(values.reshape(60, 200))[np.triu_indices(60, 1)]
    assert np.abs(pairs).max() < 6 / math.sqrt(200)


# --- ways in ---------------------------------------------------------------------------------


def noisy(m, x):
    return jnp.mean((m["w"] * x + fx.randn32(3)) ** 2)


def each_way() -> dict[str, Callable[[], Any]]:
    """Every front, as a function whose result differs whenever the noise does."""
    model = {"w": jnp.ones(3)}
    held = {"w": jnp.ones(3)}
    still = fx.setup(fx.Descent(0.0), model)
    ps = fx.params(held)
    opt = fx.Descent(0.0)
    data = [(W,)]
    return {
        "gradient": lambda: fx.gradient(noisy, model, W)[0]["w"],
        "withgradient": lambda: fx.withgradient(noisy, model, W).val,
        "compiled": lambda: fx.compiled(noisy)(model, W),
        "trainstep": lambda: fx.trainstep(noisy, model, (W,), still),
        "train": lambda: fx.train(noisy, model, data, still),
        "evaluate": lambda: fx.evaluate(noisy, model, data),
        "implicit": lambda: fx.gradient(lambda: noisy(held, W), ps)[held["w"]],
        "implicit train": lambda: fx.train(lambda x: noisy(held, x), ps, data, opt),
        "jacobian": lambda: fx.jacobian(lambda w: noisy({"w": w}, W), W)[0],
        "hessian": lambda: fx.hessian(lambda w: jnp.sum((w * fx.randn32(3)) ** 2), W),
        "pullback": lambda: fx.pullback(lambda w: noisy({"w": w}, W), W)[0],
    }


WAYS = list(each_way())


@pytest.mark.parametrize("way", WAYS)
def test_every_front_draws_anew(way: str) -> None:
    fx.seed(5)
    call = each_way()[way]
    values = [np.asarray(call()) for _ in range(4)]
    assert all_differ(values)
    assert calls() == 4
    fx.seed(5)
    call = each_way()[way]
    with fx.eager():
        np.testing.assert_allclose([np.asarray(call()) for _ in range(4)], values, rtol=1e-5)
    assert calls() == 4


def test_explain_says_so() -> None:
    fx.compiled(lambda: fx.randn32(3) * W)()
    fx.compiled(lambda: fx.ones32(3) * W)()
    noisy, still = fx.explain()
    assert noisy.inputs[-1] == "random numbers"
    assert "random numbers" not in still.inputs


def test_what_draws_nothing_takes_no_number() -> None:
    model = {"w": jnp.ones(3)}
    opt_state = fx.setup(fx.Descent(0.1), model)
    fx.trainstep(lambda m, x: jnp.sum(m["w"] * x), model, (W,), opt_state)
    fx.gradient(lambda w: jnp.sum(w * fx.zeros32(3)), W)
    fx.compiled(lambda: fx.Dense(2, 2, rng=0)(jnp.ones(2)))()
    assert calls() == 0
    (site,) = [s for s in fx._compile._program._sites.values() if s.purpose.name == "step"]
    (entry,) = site.table.values()
    assert entry.program.draws == 0


def test_a_function_that_runs_uncompiled_draws_the_same() -> None:
    def f(w):
        noise = fx.randn32(3)
        if look and float(noise[0]) > 100:
            return jnp.sum(w)
        return jnp.sum(w * noise)

    look = False
    fx.seed(2)
    want = [fx.withgradient(f, W).val for _ in range(3)]
    look = True
    fx.seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = [fx.withgradient(f, W).val for _ in range(3)]
    assert not fx.explain()[-1].compiled
    np.testing.assert_allclose(got, want, rtol=1e-6)


def outer(inner: Callable[..., Any]) -> Callable[..., Any]:
    """An objective with draws before, inside and after another one of ours."""

    def f(w):
        before = fx.randn32(3)
        middle = inner(w)
        return jnp.sum(w * before * middle * fx.randn32(3))

    return f


INNER: dict[str, Callable[..., Any]] = {
    "gradient": lambda w: fx.gradient(lambda v: jnp.sum(v * w * fx.randn32(3)), w)[0],
    "compiled": lambda w: fx.compiled(lambda: fx.randn32(3) + fx.rand32(3))(),
    "jax.grad": lambda w: jax.grad(lambda v: jnp.sum(v**2 * fx.randn32(3)))(w),
    "jax.jvp": lambda w: jax.jvp(lambda v: v * fx.randn32(3), (w,), (w,))[1],
    "pullback": lambda w: fx.pullback(lambda v: v * fx.randn32(3), w)[0],
    "hessian": lambda w: fx.hessian(lambda v: jnp.sum((v * fx.randn32(3)) ** 2), w).sum(0),
}


@pytest.mark.parametrize("inner", INNER.values(), ids=list(INNER))
def test_one_inside_another_draws_for_it(inner) -> None:
    values = []
    for context in (warnings.catch_warnings, fx.eager):
        fx.seed(4)
        with context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            f = outer(inner)
            values.append([np.asarray(fx.withgradient(f, W).val) for _ in range(3)])
        assert calls() == 3  # those of the outer one
    # what JAX maps over has a tracer in its text, and JAX looks at that
    assert inner is INNER["hessian"] or traces() == 1
    assert all_differ(values[0])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


def test_a_program_inside_an_uncompiled_function_draws_for_it() -> None:
    def f(w):
        first = fx.randn32(3)
        seen.append(1)  # uncompiled
        return jnp.sum(w * first * fx.compiled(lambda: fx.randn32(3))() * fx.randn32(3))

    seen: list[int] = []
    values = []
    for context in (warnings.catch_warnings, fx.eager):
        fx.seed(4)
        with context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.append([float(fx.compiled(f)(W)) for _ in range(3)])
        assert calls() == 3
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
    assert all_differ(values[0])


# --- what needs a value ----------------------------------------------------------------------

HOST: dict[str, Callable[[], Any]] = {
    "shuffleobs": lambda: fx.shuffleobs(jnp.arange(50.0)),
    "splitobs": lambda: fx.splitobs(jnp.arange(50.0), shuffle=True)[0],
    "obsrng": lambda: fx.obsrng().normal(size=3),
    "DataLoader": lambda: next(iter(fx.DataLoader(np.arange(50.0), 8, shuffle=True))),
    "seed": lambda: (fx.seed(int(fx.rand32(1, rng=None)[0] * 1e6)), fx.randn32(3))[1],
}


@pytest.mark.parametrize("make", HOST.values(), ids=list(HOST))
def test_what_numpy_has_to_draw_runs_uncompiled_and_is_new_as_well(make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = drawn(make)
        assert all_differ(values)
        with fx.eager():
            np.testing.assert_array_equal(drawn(make), values)


def test_a_seed_inside_an_objective_is_set_at_every_call() -> None:
    def f(w):
        fx.seed(9)
        return jnp.sum(w * fx.randn32(3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = [float(fx.withgradient(f, W).val) for _ in range(3)]
    fx.seed(9)
    values.append(float(fx.compiled(lambda w: jnp.sum(w * fx.randn32(3)))(W)))
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
