"""Where a loader stands, saved and restored at any point; and the threads that read ahead."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import Squares, flat, lists

import fluxax as fx

Pair = namedtuple("Pair", "x y")


# Position


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("received", range(21))
def test_the_position_is_restored_at_every_point_of_an_epoch(received, shuffle, workers):
    make = lambda: fx.DataLoader(np.arange(99), 5, shuffle=shuffle, workers=workers)
    loader = make()
    flat(loader)  # the second epoch is the one that is interrupted
    epoch = iter(loader)
    for _ in range(received):
        next(epoch)
    state = json.loads(json.dumps(loader.state_dict()))
    rest, following = lists(epoch), lists(loader)
    assert len(rest) == 20 - received
    fx.seed(1234)
    other = make()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert lists(other) == rest
    assert lists(other) == following
    loader.load_state_dict(state)  # and back in the same loader
    assert lists(loader) == rest
    assert lists(loader) == following


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_the_position_between_epochs_is_the_start_of_the_next(epochs):
    loader = fx.DataLoader(np.arange(100), 5, shuffle=True)
    for _ in range(epochs):
        flat(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (epochs, 0)
    other = fx.DataLoader(np.arange(100), 5, shuffle=True)
    other.load_state_dict(state)
    assert [flat(loader), flat(loader)] == [flat(other), flat(other)]
    assert other.state_dict()["epoch"] == epochs + 2


def test_the_position_counts_what_was_received_not_what_was_read_ahead():
    data = Squares(40)
    loader = fx.DataLoader(data, 2, workers=2, prefetch=3)
    epoch = iter(loader)
    assert loader.state_dict()["position"] == 0
    for k in range(1, 5):
        next(epoch)
        assert loader.state_dict()["position"] == 2 * k
        assert len(data.read) <= 2 * (k + 2 * 3)
    epoch.close()
    assert loader.state_dict()["position"] == 8


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans())
def test_positions_chain(steps, partial):
    """Saved and restored again and again, a new loader each time: nothing is lost or doubled."""
    make = lambda: fx.DataLoader(np.arange(31), 4, shuffle=True, partial=partial)
    loader = make()
    state = loader.state_dict()
    straight = flat(b for _ in range(9) for b in loader)
    seen = []
    for n in steps:
        loader = make()
        loader.load_state_dict(state)
        epoch = iter(loader)
        while n:
            batch = next(epoch, None)
            if batch is None:
                epoch = iter(loader)
                continue
            seen += batch.tolist()
            n -= 1
        state = loader.state_dict()
    assert seen == straight[: len(seen)]


def test_a_look_at_the_first_batch_and_a_break_leave_an_exact_position():
    loader = fx.DataLoader(np.arange(20), 5, shuffle=True)
    next(iter(loader))
    outer = iter(loader)
    next(outer)
    next(outer)
    next(iter(loader))  # another look, in the middle
    want = next(outer).tolist()
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (1, 15)
    rest = lists(outer)
    list(outer)  # finished twice
    loader.load_state_dict(state)
    assert lists(loader) == rest
    state["position"] = 10
    loader.load_state_dict(state)
    assert next(iter(loader)).tolist() == want


def test_a_finished_loop_does_not_move_a_running_one():
    loader = fx.DataLoader(np.arange(20), 5, rng=0)
    place = lambda: (loader.state_dict()["epoch"], loader.state_dict()["position"])
    first, second = iter(loader), iter(loader)
    for _ in range(4):
        next(first)
    next(second)
    assert list(first) == []
    assert place() == (1, 5)
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 10})
    assert list(first) == []
    assert place() == (0, 10)


def test_a_position_taken_after_a_new_seed_is_of_that_seed():
    loader = fx.DataLoader(np.arange(20), 5, shuffle=True)
    fx.seed(5)
    state = loader.state_dict()
    want = flat(loader)
    loader.load_state_dict(state)
    assert flat(loader) == want


def test_another_batchsize_goes_on_at_the_same_observation():
    loader = fx.DataLoader(np.arange(20), 4, shuffle=True)
    epoch = iter(loader)
    next(epoch)
    other = fx.DataLoader(np.arange(20), 8, shuffle=True)
    other.load_state_dict(loader.state_dict())
    assert flat(other) == flat(epoch)
    whole = fx.DataLoader(np.arange(20), 6, partial=False, shuffle=True)
    whole.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 4})
    assert [len(batch) for batch in whole] == [6, 6]


def test_copies_go_on_from_the_same_place():
    loader = fx.DataLoader(np.arange(20), 4, shuffle=True)
    flat(loader)
    for clone in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        first, second = flat(clone), flat(clone)
        assert first != second
    assert [flat(loader), flat(loader)] == [first, second]


# Threads


def test_an_abandoned_loop_ends_its_threads():
    before = set(threading.enumerate())
    epoch = iter(fx.DataLoader(Squares(1000), 2, workers=3))
    next(epoch)
    mine = set(threading.enumerate()) - before
    assert 1 <= len(mine) <= 3
    del epoch
    gc.collect()
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


class Gated(Squares):
    """Observation 1 waits for the gate; `seen` is set when observation 2 is read."""

    def __init__(self, n):
        super().__init__(n)
        self.gate, self.seen = threading.Event(), threading.Event()

    def __getitem__(self, i):
        if i == 1:
            self.gate.wait()
        if i == 2:
            self.seen.set()
        return super().__getitem__(i)


def test_an_abandoned_loop_reads_nothing_more():
    data = Gated(20)
    epoch = iter(fx.DataLoader(data, 1, workers=1, prefetch=5))
    next(epoch)
    del epoch
    gc.collect()
    data.gate.set()
    for thread in data.threads:
        thread.join(10)
    assert data.read in ([0], [0, 1])


def test_workers_read_on_while_a_batch_is_used():
    data = Gated(20)
    data.gate.set()
    epoch = iter(fx.DataLoader(data, 1, workers=1, prefetch=2))
    next(epoch)
    assert data.seen.wait(60)  # at once, unless nobody reads
    assert len(list(epoch)) == 19


def test_a_closed_loop_and_a_finished_one_end_their_threads():
    before = set(threading.enumerate())
    loader = fx.DataLoader(Squares(10), 2, workers=3)
    epoch = iter(loader)
    next(epoch)
    epoch.close()
    assert list(epoch) == []
    finished = iter(loader)
    list(finished)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def test_a_late_batch_is_an_error_and_is_not_lost():
    gate = threading.Event()

    class Slow(Squares):
        def __getitem__(self, i):
            if i == 1:
                gate.wait()
            return super().__getitem__(i)

    first = lambda rows: rows[0][0]
    epoch = iter(fx.DataLoader(Slow(3), 1, workers=1, timeout=0.05, collate=first))
    assert _patiently(epoch) == 0
    with pytest.raises(TimeoutError, match=r"a batch within timeout=0.05 s, got none for batch 1"):
        next(epoch)
    gate.set()
    assert [_patiently(epoch), _patiently(epoch)] == [1, 2]


def _patiently(epoch):
    """The next batch, however slow the machine is."""
    while True:
        try:
            return next(epoch)
        except TimeoutError:
            continue


def test_a_timeout_of_the_data_itself_is_the_datas_error():
    data = Squares(2, broken=[0], error=TimeoutError)
    epoch = iter(fx.DataLoader(data, 1, workers=1, timeout=60))
    with pytest.raises(TimeoutError) as caught:
        next(epoch)
    assert "while reading observation 0" in "".join([str(caught.value), *_notes(caught.value)])
    assert next(epoch)[0].tolist() == [1]


def _notes(error):
    return getattr(error, "__notes__", [])


# What the training loop uses


def test_a_pass_can_be_read_elsewhere():
    loader = fx.DataLoader(np.arange(10), 4, shuffle=True, rng=0)
    want = lists(fx.DataLoader(np.arange(10), 4, shuffle=True, rng=0))
    assert loader.arrays() is loader.data
    epoch = iter(loader)
    assert len(epoch.plan) == 3
    assert [epoch.plan.where(k).tolist() for k in range(3)] == want
    assert epoch.fetch(2).tolist() == want[2]
    assert loader.state_dict()["position"] == 0
    epoch.mark(2)
    assert loader.state_dict()["position"] == 8
    epoch.mark(1)
    assert loader.state_dict()["position"] == 4
    epoch.mark(3)
    assert loader.state_dict()["position"] == 10
    epoch.finish()
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)
    assert fx.DataLoader([1.0]).arrays() is None
    assert fx.DataLoader(np.arange(3), collate=len).arrays() is None
    assert not fx.DataLoader(np.arange(3), collate=len).owns_batches
    assert not fx.DataLoader([np.zeros(2)], -1).owns_batches


def test_whole_epochs_over_jax_arrays_compile_once_per_shape():
    loader = fx.DataLoader((jnp.zeros((50, 3)), jnp.arange(50)), 8, shuffle=True)
    list(loader)
    with _counted() as compiled:
        list(loader)
    assert compiled == []


class _counted:
    """The names of the programs that are compiled inside."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self.names

    def __exit__(self, *_):
        self._off = True

    def _listen(self, event, duration, **_):
        if "backend_compile" in event and not getattr(self, "_off", False):
            self.names.append(event)
