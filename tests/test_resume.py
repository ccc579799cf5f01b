"""N steps are k steps, save, another process, load, and N - k steps: bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.keeping import equal
from tests.resuming import STEPS, Run

ROOT = Path(__file__).resolve().parents[1]

ENV = {**os.environ, "PYTHONPATH": str(ROOT)}

#: Epochs of seven steps, freezing at 20, thawing at 33, a mode set at 45: at the edges and beside.
ELSEWHERE = [0, 1, 6, 7, 8, 14, 19, 20, 21, 27, 32, 33, 34, 35, 45, 46, 59, 60]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The run with a checkpoint before every step, and what its end looked like."""
    folder = tmp_path_factory.mktemp("run")
    fx.clear_cache()
    fx.compilation_cache(tmp_path_factory.mktemp("programs"))  # for the other process
    run = Run()
    for k in range(STEPS + 1):
        run.save(folder / str(k))
        if k < STEPS:
            run.step()
    end = run.finish()
    programs = jax.config.values["jax_compilation_cache_dir"]
    fx.compilation_cache(None)
    return folder, end, programs


@pytest.mark.slow
def test_from_every_step_in_this_process(saved):
    folder, end, _ = saved
    ends = {}
    for k in range(STEPS + 1):
        run = Run(seed=200 + k)
        run.load(folder / str(k))
        ends[k] = run.finish()
    assert [k for k in ends if ends[k] != end] == []
    assert len(ends) == 61


@pytest.mark.slow
def test_from_many_steps_in_another_process(saved):
    folder, end, programs = saved
    done = subprocess.run(
        [sys.executable, "-m", "tests.resuming", str(folder), *map(str, ELSEWHERE)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**ENV, "FLUXAX_CACHE": programs},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = dict(line.split() for line in done.stdout.splitlines())
    assert [k for k in ends if ends[k] != end] == []
    assert len(ends) == len(ELSEWHERE)


def test_the_run_has_all_in_it_that_could_be_lost(saved):
    """Without one of the things, the end is another: the tests above can fail."""
    folder, end, _ = saved
    for left_out in ("model", "opt_state", "loader", "noise"):
        run = Run(seed=3)
        things = run.things()
        del things[left_out]
        fx.load(folder / "54", **things)
        run.batches = iter(run.loader)
        assert run.finish() != end, left_out


@pytest.mark.slow
def test_a_few_kills():
    """A short run of the harness; `python benchmarks/kills.py` kills 500 times."""
    command = [sys.executable, "benchmarks/kills.py", "--kills", "3", "--rounds", "50"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENV, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 kills, ")
    assert "50 rounds of save and load" in done.stdout


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)).astype("float32"), rng.normal(size=(20, 2)).astype("float32")


def mse(m, x, y):
    return fx.mse(m(x), y)


def start(seed):
    fx.seed(seed)
    model = fx.Chain(fx.Dense(3, 4), fx.BatchNorm(4), fx.Dropout(0.2), fx.Dense(4, 2))
    loader = fx.DataLoader(data(), batchsize=6, shuffle=True)
    return model, fx.setup(fx.Adam(0.05), model), loader


def test_train_in_pieces(tmp_path):
    model, opt_state, loader = start(1)
    losses = [fx.train(mse, model, loader, opt_state) for _ in range(2)]
    fx.save(tmp_path / "a", model=model, opt_state=opt_state, loader=loader)
    losses += [fx.train(mse, model, loader, opt_state) for _ in range(2)]

    again, state, other = start(9)
    fx.load(tmp_path / "a", model=again, opt_state=state, loader=other)
    for expected in losses[2:]:
        assert fx.train(mse, again, other, state).tolist() == expected.tolist()
    assert equal(model, again)


def test_saved_by_a_generator_while_train_runs(tmp_path):
    """train takes its batches from a loop of the user's, which saves in mid-epoch."""
    model, opt_state, loader = start(1)

    def batches():
        for k, batch in enumerate(loader):
            if k == 2:
                fx.save(tmp_path / "a", model=model, opt_state=opt_state, loader=loader)
            yield batch

    losses = fx.train(mse, model, batches(), opt_state)
    again, state, other = start(9)
    fx.load(tmp_path / "a", model=again, opt_state=state, loader=other)
    # the batch that was received but not trained on yet is the caller's
    assert other.state_dict()["position"] == 18
    assert len(losses) == 4
    rest = fx.train(mse, again, other, state)
    assert len(rest) == 1


def test_pickle_and_deepcopy_go_on_alike():
    import copy
    import pickle

    model, opt_state, loader = start(1)
    fx.train(mse, model, loader, opt_state)
    fx.freeze(opt_state.layers[3])
    copies = [
        copy.deepcopy((model, opt_state, loader)),
        pickle.loads(pickle.dumps((model, opt_state, loader))),
    ]
    losses = fx.train(mse, model, loader, opt_state).tolist()
    for m, s, d in copies:
        assert s.layers[3].frozen_mark
        assert fx.train(mse, m, d, s).tolist() == losses
        assert equal(m, model)


def test_a_step_with_nothing_to_lose_is_the_same_program(tmp_path):
    """Loading into a model that has run already asks for no other program."""
    model, opt_state, loader = start(1)
    fx.train(mse, model, loader, opt_state)
    fx.save(tmp_path / "a", model=model, opt_state=opt_state)
    fx.clear_cache()
    fx.train(mse, model, loader, opt_state)
    traces = sum(r.traces for r in fx.explain())
    fx.load(tmp_path / "a", model=model, opt_state=opt_state)
    fx.train(mse, model, loader, opt_state)
    assert sum(r.traces for r in fx.explain()) == traces
    assert not jnp.isnan(model.layers[0].weight).any()
    assert jax.tree.leaves(model)
