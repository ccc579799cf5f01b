"""Noise in a loss: pieces, steps that are held back, resumed runs, threads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _random
from fluxax._checkpoint import _save
from tests.drawing import W, all_differ, calls, traces
from tests.drawing_alone import Run, X

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fresh() -> None:
    fx.clear_cache()


# --- training --------------------------------------------------------------------------------


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


# --- keeping ---------------------------------------------------------------------------------


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


# --- threads ---------------------------------------------------------------------------------


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
