"""Reading while another thread trains: a state after a whole number of steps."""

from __future__ import annotations

import copy
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _between
from tests.test_interrupts import CtrlC, interrupted

X = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)


class Counter(fx.Module):
    """Both parameters go down by 1 a step, and so many steps were taken."""

    def __init__(self):
        self.a, self.b = jnp.zeros(5000), jnp.zeros(3)


def steps_of(model):
    """How many steps a model took; they differ if it is half of one."""
    taken = {float(-x) for array in (model.a, model.b) for x in np.asarray(array)}
    assert len(taken) == 1, taken
    return taken.pop()


def setting():
    model = Counter()
    return model, fx.setup(fx.OptimiserChain(fx.Descent(1.0), fx.EMA(0.5)), model)


def by_trainstep(model, opt_state):
    fx.trainstep(lambda m: jnp.sum(m.a) + jnp.sum(m.b), model, (), opt_state)


def by_update(model, opt_state):
    grads = fx.gradient(lambda m: jnp.sum(m.a) + jnp.sum(m.b), model)
    fx.update(opt_state, model, grads[0])


def by_train(model, opt_state):
    data = fx.DataLoader(np.zeros((40, 1), np.float32), batchsize=1)
    fx.train(lambda m, x: jnp.sum(m.a) + jnp.sum(m.b) + jnp.sum(x), model, data, opt_state)


STEPS = {"trainstep": by_trainstep, "update": by_update, "train": by_train}


def read_save(model, opt_state, path):
    fx.save(path, model=model, opt_state=opt_state)
    other, state = setting()
    fx.load(path, model=other, opt_state=state)
    n = steps_of(other)
    assert int(state.a.steps) == int(state.b.steps) == n
    average = float(np.asarray(fx.ema(state, other).b)[0])
    assert average == pytest.approx(float(average_after(int(n))))


def average_after(n):
    """What `EMA(0.5)` holds of parameters that began at 0 and go down by 1."""
    average = 0.0
    for k in range(1, n + 1):
        average = 0.5 * average - 0.5 * k
    return average


def read_print(model, opt_state, path):
    text = repr(opt_state)
    assert len({part.split(")")[0].split(",")[0] for part in text.split("steps=")[1:]}) <= 1, text
    str(model)


def read_state(model, opt_state, path):
    steps_of(fx.state(model))


def read_leaf(model, opt_state, path):
    state, copied = opt_state.a.state, copy.deepcopy(opt_state)
    pickled = pickle.dumps(opt_state.b)
    for array in [*jax.tree.leaves(state), *jax.tree.leaves(copied.a.state)]:
        assert np.isfinite(np.asarray(array)).all()
    assert pickle.loads(pickled).steps <= opt_state.b.steps
    assert opt_state.a == opt_state.a


READS = {"save": read_save, "print": read_print, "state": read_state, "leaf": read_leaf}


def train_beside(step, read, rounds=12):
    """Train in this thread until another has read so often; what that raised."""
    model, opt_state = setting()
    errors, over = [], threading.Event()

    def reader():
        try:
            for _ in range(rounds):
                read(model, opt_state)
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=reader)
    step(model, opt_state)
    thread.start()
    n = 0
    while not over.is_set():
        step(model, opt_state)
        n += 1
    thread.join()
    if errors:
        raise errors[0]
    return n


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("step", STEPS)
def test_reading_while_another_thread_trains(step, read, tmp_path, capfd):
    path = tmp_path / "run.safetensors"
    train_beside(STEPS[step], lambda *things: READS[read](*things, path))
    assert capfd.readouterr().err == ""
    assert not _between.readers


def test_readers_do_not_keep_a_step_waiting():
    """Several threads that read without a pause let steps come through."""
    model, opt_state = setting()
    over = threading.Event()

    def reader():
        while not over.is_set():
            repr(opt_state)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            by_trainstep(model, opt_state)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert steps_of(model) == 20


def test_a_step_waits_for_who_reads():
    model, opt_state = setting()
    by_trainstep(model, opt_state)
    inside, go = threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert go.wait(60)
        return steps_of(model)

    found = []
    reader = threading.Thread(target=lambda: found.append(_between.read_between(slow)))
    reader.start()
    assert inside.wait(60)
    trainer = threading.Thread(target=by_trainstep, args=(model, opt_state))
    trainer.start()
    while not _between._waiting:
        assert trainer.is_alive()
    go.set()
    reader.join()
    trainer.join()
    assert found == [1]
    assert steps_of(model) == 2


@pytest.mark.parametrize("way", STEPS)
def test_after_ctrl_c_nobody_is_taken_for_being_in_a_step(way):
    """At any line of what says so; whoever reads then would wait for a minute."""
    model, opt_state = setting()
    step = lambda: STEPS[way](model, opt_state)
    step()
    with CtrlC(0, "/_between.py") as lines:
        step()
    for n in range(1, lines.counts.total() + 1):
        interrupted(n, "/_between.py", step)
        assert not _between._step_under_way(0), n


def test_what_a_step_prints_itself_does_not_wait():
    """An objective, what it starts and waits for, and a callback."""
    model, opt_state = setting()
    seen = []

    def objective(m):
        seen.append(repr(opt_state))
        thread = threading.Thread(target=lambda: seen.append(repr(opt_state)))
        thread.start()
        thread.join()
        jax.debug.callback(lambda v: seen.append(repr(opt_state)), jnp.sum(m.b))
        return jnp.sum(m.a) + jnp.sum(m.b)

    with fx.eager():
        fx.trainstep(objective, model, (), opt_state)
    jax.effects_barrier()
    assert len(seen) == 3


@pytest.mark.parametrize("resting", [True, False])
def test_a_step_that_takes_nothing_over_may_be_read(resting):
    inside, go, over = threading.Event(), threading.Event(), threading.Event()

    def work():
        inside.set()
        go.wait(60)
        over.set()

    @_between.stepping
    def step():
        return _between.at_rest(work) if resting else work()

    trainer = threading.Thread(target=step)
    trainer.start()
    assert inside.wait(60)
    found = []
    reader = threading.Thread(target=lambda: found.append(_between.read_between(over.is_set)))
    reader.start()
    if not resting:
        reader.join(0.05)
        assert not found
        go.set()
    reader.join(60)
    go.set()
    trainer.join()
    assert found == [not resting]


@pytest.mark.parametrize("thread", [-1, threading.get_ident()], ids=["gone", "this one"])
def test_what_a_ctrl_c_left_in_the_lists_keeps_nobody_waiting(thread):
    model, opt_state = setting()
    by_trainstep(model, opt_state)
    left = _between.Visit()
    left.thread = thread
    _between.readers.append(left)
    by_trainstep(model, opt_state)
    assert not _between.readers
    _between._waiting.append(left)
    repr(opt_state)
    assert not _between._waiting
    assert steps_of(model) == 2


class Interrupted(list):
    """Python looks at signals as soon as something was appended."""

    def append(self, code):
        super().append(code)
        raise KeyboardInterrupt


def test_a_ctrl_c_as_a_function_says_that_it_runs_leaves_nothing_said(monkeypatch):
    """As on Python 3.11; else whoever reads would wait for a step that is over."""
    monkeypatch.setattr(_between, "_SAY", True)
    said = Interrupted()
    monkeypatch.setattr(_between._mine, "said", said, raising=False)
    with pytest.raises(KeyboardInterrupt):
        _between._seen(lambda: None)()
    assert said == []
