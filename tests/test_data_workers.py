"""Worker processes: the same batches, errors that say where, and nothing left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from loading import Careless, Fragile, Noisy, Process, Squares, lists, noisy_sum

import fluxax as fx

HERE = Path(__file__).parent


def children():
    """The processes that this one started and that still run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(stat.parent.name))
    return found


def gone(pids):
    """Whether processes have ended, given a while to do so."""
    for _ in range(500):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def nothing_left():
    before = children()
    yield
    gc.collect()
    assert children() <= before


# The same batches, however they are made


@pytest.mark.slow
@pytest.mark.parametrize("collate", [None, noisy_sum])
def test_workers_and_processes_change_nothing(collate, nothing_left):
    make = lambda **options: fx.DataLoader(
        Noisy(23), 3, shuffle=True, rng=1, collate=collate, **options
    )
    plain = make()
    want = [lists(plain), lists(plain)]
    assert want[0] != want[1]
    for workers in (1, 2, 4):
        threads = make(workers=workers)
        assert [lists(threads), lists(threads)] == want
    for workers in (0, 1, 2, 4):
        processes = make(workers=workers, processes=True)
        assert [lists(processes), lists(processes)] == want


def test_processes(nothing_left):
    """Everything that needs one pool of workers, since each takes a while to start."""
    options = {"workers": 2, "processes": True}
    data = Process(8)
    loader = fx.DataLoader(data, 2, collate=False, **options)
    first = {pid for rows in loader for pid, _ in rows}
    second = {pid for rows in loader for pid, _ in rows}
    assert os.getpid() not in first
    assert second <= first == children() & first
    assert {platform for rows in loader for _, platform in rows} == {"cpu"}

    data.n = 10  # a data set that has changed is sent again
    assert len(lists(loader)) == 5
    loader.data = (np.arange(9), Squares(9))
    loader.collate = None
    pairs = list(zip(loader, loader, strict=True))  # two loops at once
    assert [x.tolist() for (x, _), _ in pairs] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert lists(a for a, _ in pairs) == lists(b for _, b in pairs)
    batch = pairs[0][0][1][1]["square"]
    assert batch.flags.writeable
    assert type(batch) is np.ndarray

    loader.data = Careless(6)  # global generators: the same for each epoch's batch, by any worker
    loader.shuffle = False
    one, two = [fx.DataLoader(loader.data, 2, rng=0, **options) for _ in range(2)]
    two.workers = 1
    assert lists(one) == (want := lists(two))
    state = two.state_dict()
    assert lists(one) == lists(two) != want
    one.load_state_dict(state)
    epoch = iter(one)
    next(epoch)
    state = one.state_dict()
    rest = lists(epoch)
    one.load_state_dict(state)
    assert lists(one) == rest

    one.close()
    assert lists(one) is not None  # it starts again
    copied = children()
    del loader, one, two, epoch, pairs
    gc.collect()
    assert gone(copied)


class Hidden(Noisy):
    __reduce__ = None


SENT = [
    (lambda: fx.DataLoader([1], collate=lambda rows: rows, workers=1, processes=True), "lambda"),
    (lambda: fx.DataLoader(Hidden(3), workers=1, processes=True), "TypeError"),
]


@pytest.mark.parametrize("make, reason", SENT)
def test_what_cannot_be_sent_is_refused_before_anything_starts(make, reason, nothing_left):
    loader = make()
    with pytest.raises(TypeError, match="collate that can be pickled") as caught:
        iter(loader)
    assert reason in str(caught.value)
    assert loader.state_dict()["epoch"] == 0


def test_arrays_stay_in_threads(nothing_left):
    loader = fx.DataLoader(np.arange(6), 2, workers=2, processes=True)
    before = children()
    assert lists(loader) == [[0, 1], [2, 3], [4, 5]]
    assert children() == before
    assert repr(loader) == "3-element DataLoader(i64[6], batchsize=2, workers=2, processes=True)"


def test_memory_maps_travel_by_name(tmp_path):
    from fluxax.data import _pickling

    stored = np.memmap(tmp_path / "x", dtype="int32", mode="w+", offset=128, shape=(5000, 3))
    stored[:] = np.arange(15000).reshape(5000, 3)
    stored.flush()
    for view in (stored, stored[3:7], stored[::2, 1:].T, stored[5], stored.reshape(-1)[::-1]):
        body = _pickling.dumps({"x": view})
        assert len(body) < 1000
        got = _pickling.pickle.loads(body)["x"]
        assert (got.dtype, got.shape) == (view.dtype, view.shape)
        np.testing.assert_array_equal(got, view)
    for kept in (stored[stored > 14000], np.arange(9), np.memmap(tmp_path / "x", mode="c")):
        got = _pickling.pickle.loads(_pickling.dumps(kept))
        np.testing.assert_array_equal(got, kept)


# What goes wrong


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_the_users_with_the_observation_and_the_workers_traceback(
    workers, nothing_left
):
    loader = fx.DataLoader(Fragile(8, 3, "raise"), 2, workers=workers, processes=True)
    epoch = iter(loader)
    assert next(epoch).tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"^no such file \(while reading observation 3\)$"
    ) as caught:
        next(epoch)
    assert 'raise ValueError("no such file")' in str(caught.value.__cause__)
    assert [b.tolist() for b in epoch] == [[4, 5], [6, 7]]
    loader.data.what = "odd"
    with pytest.raises(RuntimeError, match=r"^Local: no such file \(while reading observation 3\)"):
        list(loader)
    loader.close()


DEATHS = [
    ("die", "ended with exit code 3"),
    ("kill", "was killed by SIGKILL"),
    ("exit", "ended with exit code 4"),
]


@pytest.mark.slow
@pytest.mark.parametrize("what, how", DEATHS)
def test_a_worker_that_dies(what, how, nothing_left, tmp_path):
    data = Fragile(8, 3, what, once=str(tmp_path / "happened"))
    epoch = iter(fx.DataLoader(data, 2, workers=2, processes=True))
    assert next(epoch).tolist() == [0, 1]
    before = children()
    with pytest.raises(RuntimeError) as caught:
        next(epoch)
    assert str(caught.value) == (
        f"DataLoader expects worker processes that live, got one that {how} while it read "
        "observation 3. Read that without workers to see why; a kill may mean too little memory."
    )
    assert gone(before)
    assert [b.tolist() for b in epoch] == [[4, 5], [6, 7]]  # by new ones


@pytest.mark.slow
def test_a_worker_that_hangs(nothing_left, tmp_path):
    data = Fragile(8, 3, "hang", once=str(tmp_path / "happened"))
    epoch = iter(fx.DataLoader(data, 2, workers=2, processes=True, timeout=1.0))
    assert next(epoch).tolist() == [0, 1]
    before = children()
    with pytest.raises(TimeoutError) as caught:
        next(epoch)
    assert str(caught.value) == (
        "DataLoader expects a batch within timeout=1.0 s, got none for batch 1 of this pass, which "
        "waits for observation 3. Raise `timeout`, or see what the data set waits for."
    )
    assert gone(before)
    assert [b.tolist() for b in epoch] == [[2, 3], [4, 5], [6, 7]]  # it is asked for again


def test_a_thread_that_hangs_is_named_too():
    data = Fragile(8, 3, "hang")
    data.happen = (gate := threading.Event()).wait
    epoch = iter(fx.DataLoader(data, 2, workers=2, timeout=0.2))
    next(epoch)
    with pytest.raises(TimeoutError, match=r"batch 1 of this pass, which waits for observation 3"):
        next(epoch)
    gate.set()


# Scripts of their own

SCRIPT = """
import os, signal, sys, time
import numpy as np
import fluxax as fx
from loading import Fragile

class Mine:
    def __len__(self): return 6
    def __getitem__(self, i): return float(i)

def loop(data, **options):
    for batch in fx.DataLoader(data, 2, workers=2, processes=True, **options):
        print(batch.tolist(), flush=True)
"""


def run(tmp_path, text, **options):
    """Run a script; gives what it printed, its errors, and the processes it left behind."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=environment, timeout=100
    )
    return done, left(str(path))


def left(mark):
    """Processes of a script that still run."""
    for _ in range(250):
        found = set()
        for line in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark.encode() in line.read_bytes():
                    found.add(int(line.parent.name))
            except OSError:
                continue
        if not found:
            return found
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_a_script_without_a_guard_gets_a_sentence(tmp_path):
    done, _ = run(tmp_path, "loop(Mine())")
    assert "[0.0, 1.0]" not in done.stdout
    assert done.stderr.rstrip().endswith(
        "DataLoader expects a script that worker processes can import, got one that trains when it "
        'is imported. Put what it does under `if __name__ == "__main__":`, or the data set into a '
        "module of its own."
    )
    done, _ = run(tmp_path, 'if __name__ == "__main__": loop(Mine())')
    assert done.stdout.splitlines() == ["[0.0, 1.0]", "[2.0, 3.0]", "[4.0, 5.0]"]
    assert done.stderr == ""
    done, _ = run(tmp_path, 'loop(Fragile(4, 9, ""))')  # of a module: no guard is needed
    assert done.stdout.splitlines() == ["[0, 1]", "[2, 3]"]
