"""What of ours is drawn inside an objective: new at every call, compiled, and the same again."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _random
from fluxax._checkpoint import _save
from tests.drawing_alone import Noise, Run, X

ROOT = Path(__file__).resolve().parents[1]
W = jnp.ones(3)


@pytest.fixture(autouse=True)
def fresh() -> None:
    fx.clear_cache()


def calls() -> int:
    """How many calls have drawn since the seed."""
    return _random.position()["calls"]


def traces() -> int:
    assert all(record.compiled for record in fx.explain()), fx.explain()
    return sum(record.traces for record in fx.explain())


def drawn(make: Callable[[], Any], n: int = 3) -> np.ndarray:
    """What `make` gives inside an objective, at `n` calls after the same seed."""
    fx.seed(1)
    values = [fx.withgradient(lambda w: (jnp.sum(w), make()), W).val[1] for _ in range(n)]
    return np.stack([np.asarray(v) for v in values])


def all_differ(rows: Any) -> bool:
    rows = [np.asarray(row).tobytes() for row in rows]
    return len(set(rows)) == len(rows)


# --- what is drawn ------------------------------------------------------------------------

#: What may be made in an objective, and the numbers that it has of its own.
MADE: dict[str, Callable[[], Any]] = {
    "randn32": lambda: fx.randn32(4),
    "rand32": lambda: fx.rand32(4),
    "glorot_uniform": lambda: fx.glorot_uniform(3, 4),
    "glorot_normal": lambda: fx.glorot_normal(3, 4),
    "kaiming_uniform": lambda: fx.kaiming_uniform(3, 4),
    "kaiming_normal": lambda: fx.kaiming_normal(3, 4),
    "lecun_normal": lambda: fx.lecun_normal(3, 4),
    "truncated_normal": lambda: fx.truncated_normal(3, 4, mean=1),
    "orthogonal": lambda: fx.orthogonal(3, 4),
    "sparse_init": lambda: fx.sparse_init(9, 4, sparsity=0.5),
    "an initialiser": lambda: fx.glorot_uniform(gain=2)(3, 4),
    "Dense": lambda: fx.Dense(3, 4).weight,
    "Dense with init": lambda: fx.Dense(3, 4, init=fx.lecun_normal).weight,
    "Bilinear": lambda: fx.Bilinear((2, 3), 4).weight,
    "Embedding": lambda: fx.Embedding(5, 4).weight,
    "Conv": lambda: fx.Conv((3, 3), 1, 4).weight,
    "ConvTranspose": lambda: fx.ConvTranspose((3, 3), 1, 4).weight,
    "LSTM": lambda: fx.LSTM(3, 4)(jnp.ones((1, 5, 3))),
    "GRU": lambda: fx.GRU(3, 4)(jnp.ones((1, 5, 3))),
    "RNN": lambda: fx.RNN(3, 4)(jnp.ones((1, 5, 3))),
    "MultiHeadAttention": lambda: fx.MultiHeadAttention(8)(jnp.ones((1, 5, 8))),
    "Maxout": lambda: fx.Maxout(lambda: fx.Dense(3, 4), 3)(W),
    "Chain": lambda: fx.Chain(fx.Dense(3, 4, fx.tanh), fx.Dense(4, 4))(W),
    "Dropout": lambda: fx.Dropout(0.5)(jnp.ones(64)),
    "AlphaDropout": lambda: fx.AlphaDropout(0.5)(jnp.ones(64)),
    "a stream": lambda: fx.Dropout(0.5).stream,
    "own layer": lambda: Noise()(W),
}
made = pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))


@made
def test_it_is_new_at_every_call_by_one_program(make) -> None:
    values = drawn(make)
    assert all_differ(values)
    assert np.isfinite(values.astype(float)).all()
    assert traces() == 1
    assert calls() == 3


@made
def test_uncompiled_it_is_the_same(make) -> None:
    compiled = drawn(make)
    with fx.eager():
        eager = drawn(make)
    assert eager.dtype == compiled.dtype
    np.testing.assert_allclose(eager, compiled, rtol=1e-5, atol=1e-6)


@made
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
        for name in ("randn32", "truncated_normal", "orthogonal", "Dense", "sparse_init"):
            assert fx.compiled(MADE[name])().dtype == np.float32, name


# --- distributions ------------------------------------------------------------------------

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
    many = fx.compiled(lambda: jnp.stack([fx.orthogonal(2, 2) for _ in range(100)]))()
    assert 25 < int((np.asarray(many)[:, 0, 0] > 0).sum()) < 75


def test_sparse() -> None:
    w = np.asarray(fx.compiled(lambda: fx.sparse_init(10, 400, sparsity=0.25))())
    assert set((w == 0).sum(0)) == {3}
    assert np.abs((w == 0).mean(1) - 0.3).max() < 0.15


def test_calls_do_not_depend_on_each_other() -> None:
    f = fx.compiled(lambda: jnp.concatenate([fx.randn32(200), fx.randn32(200)]))
    values = np.stack([f() for _ in range(30)])
    pairs = np.corrcoef(values.reshape(60, 200))[np.triu_indices(60, 1)]
    assert np.abs(pairs).max() < 6 / math.sqrt(200)


# --- ways in ------------------------------------------------------------------------------


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
        with context():
            f = outer(inner)
            values.append([np.asarray(fx.withgradient(f, W).val) for _ in range(3)])
        assert calls() == 3  # those of the outer one
    assert traces() == 1
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


# --- training -----------------------------------------------------------------------------


class VAE(fx.Module):
    def __init__(self):
        self.encoder = fx.Dense(3, 8, fx.tanh)
        self.mean, self.logvar = fx.Dense(8, 2), fx.Dense(8, 2)
        self.decoder = fx.Chain(fx.Dense(2, 8, fx.tanh), fx.Dense(8, 3))

    def __call__(self, x):
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + jnp.exp(logvar / 2) * fx.randn32(*mean.shape)
        return self.decoder(z), mean, logvar, z


def elbo(m, x):
    y, mean, logvar, z = m(x)
    kl = -0.5 * jnp.mean(1 + logvar - mean**2 - jnp.exp(logvar))
    return fx.mse(y, x) + 0.1 * kl, z


def vae() -> tuple[Any, Any]:
    fx.seed(6)
    model = VAE()
    return model, fx.setup(fx.Adam(0.01), model)


def test_a_vae_draws_another_sample_at_each_call() -> None:
    model, _ = vae()
    samples = [fx.withgradient(elbo, model, X[:8]).val[1] for _ in range(20)]
    assert all_differ(samples)
    assert traces() == 1
    normal = np.asarray(
        [
            (z - model.mean(h)) / jnp.exp(model.logvar(h) / 2)
            for z in samples
            for h in [hidden(model)]
        ]
    )
    assert abs(normal.mean()) < 0.2
    assert abs(normal.std() - 1) < 0.15


def hidden(model: Any) -> Any:
    return model.encoder(X[:8])


def test_its_gradient_is_that_of_plain_jax_with_that_sample() -> None:
    model, _ = vae()
    x = X[:8]
    (value, z), grads = fx.withgradient(elbo, model, x)
    mean, logvar = model.mean(hidden(model)), model.logvar(hidden(model))
    noise = (z - mean) / jnp.exp(logvar / 2)

    def plain(m):
        h = m.encoder(x)
        mean, logvar = m.mean(h), m.logvar(h)
        y = m.decoder(mean + jnp.exp(logvar / 2) * noise)
        kl = -0.5 * jnp.mean(1 + logvar - mean**2 - jnp.exp(logvar))
        return jnp.mean((y - x) ** 2) + 0.1 * kl

    want, by = jax.value_and_grad(plain)(model)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(grads[0].mean.weight, by.mean.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads[0].encoder.bias, by.encoder.bias, rtol=1e-4, atol=1e-6)


def test_in_pieces_it_is_what_single_steps_are() -> None:
    X2 = np.random.default_rng(1).normal(size=(1300, 3)).astype("float32")
    model, opt_state = vae()
    losses, samples = fx.train(
        elbo, model, fx.DataLoader((X2,), batchsize=1), opt_state, has_aux=True
    )  # more than one piece
    assert calls() == 1300
    assert traces() == 1
    single, state = vae()
    steps = [fx.trainstep(elbo, single, (X2[i : i + 1],), state) for i in range(1300)]
    assert calls() == 1300
    np.testing.assert_array_equal(losses, [value for value, _ in steps])
    np.testing.assert_array_equal(samples, np.stack([z for _, z in steps]))
    assert all(map(np.array_equal, jax.tree.leaves(model), jax.tree.leaves(single)))
    with fx.eager():
        other, state = vae()
        some = [fx.trainstep(elbo, other, (X2[i : i + 1],), state)[0] for i in range(5)]
    np.testing.assert_allclose(some, losses[:5], rtol=1e-5)


def spoiled(m, x):
    """Not finite where the batch says so; the noise comes out."""
    noise = fx.randn32(2)
    return jnp.mean(m["w"] * x) + jnp.sum(noise), noise


@pytest.mark.parametrize("eager", [False, True])
def test_a_step_that_is_held_back_has_had_its_number(eager: bool) -> None:
    model = {"w": jnp.ones(3)}
    opt_state = fx.setup(fx.Descent(0.1), model)
    with fx.eager() if eager else warnings.catch_warnings():
        value, first = fx.trainstep(spoiled, model, (W * np.nan,), opt_state)
        assert math.isnan(value)
        assert calls() == 1
        _, second = fx.trainstep(spoiled, model, (W,), opt_state)
        assert calls() == 2
        assert not np.array_equal(first, second)


@pytest.mark.parametrize("bad", [0, 3, 9, 17])
@pytest.mark.parametrize("pieces", [False, True])
def test_training_that_stops_stands_after_the_bad_item(bad: int, pieces: bool) -> None:
    """Whatever was dispatched behind it: what is drawn next is what single steps would draw."""
    data = np.ones((20, 3), np.float32)
    data[bad] = np.nan
    model = {"w": jnp.ones(3)}
    opt_state = fx.setup(fx.Descent(0.1), model)
    fx.seed(8)
    batches = fx.DataLoader(data, batchsize=1) if pieces else [row[None] for row in data]
    with pytest.raises(fx.NonFiniteLoss) as stopped:
        fx.train(spoiled, model, batches, opt_state)
    assert stopped.value.index == bad
    assert calls() == bad + 1


def test_the_replay_of_a_bad_step_draws_what_the_step_drew() -> None:
    """Only the noise makes it bad, in one of some hundred steps."""

    def loss(m, x):
        return jnp.mean(layer(m["w"] * x + fx.randn32(3)[0]))

    layer = fx.Chain(lambda v: jnp.sqrt(2.7 + v))
    model = {"w": jnp.zeros(3)}
    opt_state = fx.setup(fx.Descent(0.0), model)
    fx.seed(0)
    with pytest.raises(fx.NonFiniteLoss) as stopped:
        fx.train(loss, model, [W[None]] * 5000, opt_state)
    assert stopped.value.index > 10
    assert "the first to give numbers that are not finite" in str(stopped.value)


# --- errors -------------------------------------------------------------------------------

JITTED: dict[str, Callable[..., Any]] = {
    "jit": lambda f: jax.jit(f)(W),
    "vmap": lambda f: jax.vmap(f)(jnp.ones((2, 3)))[0],
    "scan": lambda f: jax.lax.scan(lambda c, _: (f(c), None), W, jnp.ones(2))[0],
    "cond": lambda f: jax.lax.cond(True, f, lambda x: x, W),
    "checkpoint": lambda f: jax.checkpoint(f)(W),
    "vmap of ours": lambda f: jax.vmap(lambda v: fx.gradient(lambda u: jnp.sum(f(u) ** 2), v)[0])(
        jnp.ones((2, 3))
    )[0],
    "vmap of hessian": lambda f: jax.vmap(lambda v: fx.hessian(lambda u: jnp.sum(f(u) ** 2), v)[0])(
        jnp.ones((2, 3))
    )[0],
}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("inside", JITTED.values(), ids=list(JITTED))
def test_inside_jit_and_the_like_it_is_an_error_that_names_the_line(inside, eager: bool) -> None:
    def draws(x):
        return x + fx.randn32(3)

    line = f"{__file__}:{draws.__code__.co_firstlineno + 1}"
    with (
        fx.eager() if eager else warnings.catch_warnings(),
        pytest.raises(ValueError, match="expects its random numbers to be drawn outside") as found,
    ):
        fx.gradient(lambda w: jnp.sum(w * inside(draws)), W)
    assert line in str(found.value)
    assert calls() == 0


def test_around_an_objective_they_are_too() -> None:
    """Or else the user's program would have one draw in it for good."""
    f = lambda w: jnp.sum(w * fx.randn32(3))
    for around in (jax.jit, jax.vmap):
        with pytest.raises(ValueError, match="drawn outside of jax.jit"):
            around(lambda w: fx.gradient(f, w)[0])(jnp.ones((3, 3)))
    fx.seed(1)
    want = fx.withgradient(f, W).val
    fx.seed(1)
    np.testing.assert_allclose(jax.grad(lambda w: fx.withgradient(f, w).val)(W).sum(), want)


def test_in_training_and_in_a_layer() -> None:
    class Scanned(fx.Module):
        def __call__(self, x):
            return jax.lax.scan(lambda c, v: (c + Noise()(v), None), x[0], x)[0]

    model = fx.Chain(fx.Dense(3, 3), Scanned())
    opt_state = fx.setup(fx.Descent(0.1), model)
    with pytest.raises(ValueError, match=r"drawn outside of jax.jit.*drawing_alone.py:\d+"):
        fx.train(lambda m, x: jnp.sum(m(x)), model, [X[:4]], opt_state)
    assert calls() == 0


@pytest.mark.parametrize("eager", [False, True])
def test_a_call_that_raised_did_not_take_place(eager: bool) -> None:
    def f(w):
        noise = fx.randn32(3)
        if fail:
            raise KeyError("no")
        return jnp.sum(w * noise)

    fail = False
    fx.seed(1)
    with fx.eager() if eager else warnings.catch_warnings():
        want = [fx.withgradient(f, W).val for _ in range(2)]
        fx.seed(1)
        got = [fx.withgradient(f, W).val]
        fail = True
        with pytest.raises(KeyError):
            fx.withgradient(f, W)
        assert calls() == 1
        fail = False
        got.append(fx.withgradient(f, W).val)
    assert got == want


def test_a_step_whose_arrays_have_other_shapes_takes_one_number() -> None:
    model = fx.Dense(3, 3)
    f = lambda m: jnp.sum(m(W) * fx.randn32(3))
    for width in (3, 4, 3):
        model.weight, model.bias = jnp.ones((3, 3)), jnp.ones(3)
        if width == 4:
            model.weight = jnp.ones((3, 1))
        fx.gradient(f, model)
    assert calls() == 3


# --- what needs a value -------------------------------------------------------------------

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


# --- keeping ------------------------------------------------------------------------------


def test_a_run_resumed_in_another_process_is_bit_for_bit_the_same(tmp_path) -> None:
    run = Run(seed=1)
    run.epoch()
    fx.save(tmp_path / "run", **run.things())
    run.epoch()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.drawing_alone", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True, cwd=ROOT)
    assert done.stdout.strip() == run.end()


def test_files_of_before_still_load(tmp_path, monkeypatch) -> None:
    run = Run(seed=1)
    run.epoch()
    assert calls() == 7
    before = _random.position
    without = lambda: {k: v for k, v in before().items() if k != "calls"}
    monkeypatch.setattr(_save._random, "position", without)
    fx.save(tmp_path / "old", **run.things())
    monkeypatch.undo()
    fx.load(tmp_path / "old", **run.things())
    assert calls() == 0
    run.epoch()


def test_unseeded_processes_draw_different_numbers() -> None:
    script = "import fluxax as fx; print(fx.compiled(lambda: fx.randn32(3))())"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] != runs[1]


def test_calls_beyond_32_bits() -> None:
    fx.seed(0)
    f = fx.compiled(lambda: fx.randn32(3))
    first = np.asarray(f())
    _random._calls.made = 2**32 - 1
    model, opt_state = {"w": jnp.ones(3)}, None
    opt_state = fx.setup(fx.Descent(0.1), model)
    loader = fx.DataLoader(np.ones((4, 3), np.float32), batchsize=1)
    _, noise = fx.train(spoiled, model, loader, opt_state, has_aux=True)
    assert calls() == 2**32 + 3
    assert all_differ(noise)
    _random._calls.made = 2**32
    assert not np.array_equal(f(), first)
    _random._calls.made = 2**32 + 1
    np.testing.assert_array_equal(fx.trainstep(spoiled, model, (W[None],), opt_state)[1], noise[2])


# --- threads ------------------------------------------------------------------------------


def test_threads_never_share_a_number() -> None:
    found: dict[int, list[Any]] = {k: [] for k in range(4)}
    go = threading.Barrier(4)

    def work(k: int) -> None:
        f = fx.compiled(lambda: fx.randn32(4))
        go.wait()
        for i in range(150):
            if i % 10 == k:
                with fx.eager():
                    found[k].append(f())
            else:
                found[k].append(f())

    threads = [threading.Thread(target=work, args=(k,)) for k in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls() == 600
    values = np.concatenate([np.stack(v) for v in found.values()])
    assert all_differ(values)
    fx.seed(0)
    f = fx.compiled(lambda: fx.randn32(4))
    want = np.stack([f() for _ in range(600)])
    np.testing.assert_allclose(np.sort(values[:, 0]), np.sort(want[:, 0]), rtol=1e-5)


def test_a_thread_that_an_objective_starts_is_outside_of_it() -> None:
    def f(w):
        worker = threading.Thread(target=lambda: found.append(fx.randn32(3)))
        worker.start()
        worker.join()
        return jnp.sum(w)

    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fx.withgradient(f, W)
    assert len(found) == 1
    assert calls() == 0
