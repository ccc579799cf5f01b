"""Worker processes: the same batches, errors that say where, and nothing left behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from loading import Careless, Fragile, Noisy, Odd, Process, Squares, lists, noisy_sum

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
    yield before
    gc.collect()
    assert children() <= before


@pytest.fixture(scope="module")
def two():
    """A loader with two worker processes, shared by the tests: each takes a while to start."""
    loader = fx.DataLoader(Noisy(8), 2, workers=2, processes=True)
    yield loader
    loader.close()


# The same batches, however they are made


@pytest.mark.slow
def test_workers_and_processes_change_nothing(nothing_left):
    """In any number, threads or processes, and from every position."""
    make = lambda **options: fx.DataLoader(Noisy(23), 3, shuffle=True, rng=1, **options)
    plain = make()
    want = [lists(plain), lists(plain)]
    plain.collate = noisy_sum
    summed = lists(plain)
    assert want[0] != want[1]
    for processes in (False, True):
        for workers in (0, 1, 2, 4):
            loader = make(workers=workers, processes=processes)
            assert [lists(loader), lists(loader)] == want
            loader.collate = noisy_sum
            assert lists(loader) == summed
            loader.close()


def test_the_position_with_processes(two):
    make = lambda **options: fx.DataLoader(Noisy(39), 2, shuffle=True, rng=1, **options)
    plain = make()
    list(plain)
    epoch = iter(plain)
    states = [plain.state_dict() for _ in range(20) if next(epoch) is not None]
    states.append(plain.state_dict())
    assert (len(states), len(list(epoch))) == (21, 0)
    two.data, two.shuffle = plain.data, True
    for state in states[::4]:
        two.load_state_dict(state)
        plain.load_state_dict(state)
        assert lists(two) == lists(plain)
        assert lists(two) == lists(plain)
    two.shuffle = False


def test_processes_stay_and_get_a_data_set_again_when_it_has_changed(two):
    two.data, two.collate = Process(8), False
    first = {pid for rows in two for pid, _ in rows}
    second = {pid for rows in two for pid, _ in rows}
    assert os.getpid() not in first
    assert second <= children()
    assert {platform for rows in two for _, platform in rows} == {"cpu"}
    two.data.n = 10
    assert len(lists(two)) == 5
    two.data, two.collate = (np.arange(9), Squares(9)), None
    pairs = list(zip(two, two, strict=True))  # two loops at once
    assert [x.tolist() for (x, _), _ in pairs] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    assert lists(a for a, _ in pairs) == lists(b for _, b in pairs)
    batch = pairs[0][0][1][1]["square"]
    assert batch.flags.writeable
    assert type(batch) is np.ndarray
    assert {pid for pid in first if pid in children()} == first


def test_global_generators_are_seeded_for_each_batch(two):
    two.data = Careless(12)
    state = two.state_dict()
    want = lists(two)
    assert lists(two) != want
    two.load_state_dict(state)
    assert lists(two) == want


def test_empty_arrays_and_other_things_travel(two):
    two.data, two.collate = Odd(), False
    (rows,) = lists(two)
    assert rows == [([], "a", None, [[0, 3], [1, 4], [2, 5]]), ([], "b", None, [])]
    two.collate = None


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


def test_an_error_is_the_users_with_the_observation_and_the_workers_traceback(two):
    two.data = Fragile(8, 3, "raise")
    epoch = iter(two)
    assert next(epoch).tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"^no such file \(while reading observation 3\)$"
    ) as caught:
        next(epoch)
    assert 'raise ValueError("no such file")' in str(caught.value.__cause__)
    assert [b.tolist() for b in epoch] == [[4, 5], [6, 7]]
    two.data.what = "odd"
    with pytest.raises(RuntimeError, match=r"^Local: no such file \(while reading observation 3\)"):
        list(two)


def test_a_data_set_that_workers_cannot_import(two, monkeypatch):
    module = types.ModuleType("nowhere")
    module.Data = type("Data", (Noisy,), {"__module__": "nowhere"})
    monkeypatch.setitem(sys.modules, "nowhere", module)
    two.data = module.Data(4)
    with pytest.raises(TypeError) as caught:
        list(two)
    assert str(caught.value) == (
        "DataLoader expects a data set that worker processes can import, got ModuleNotFoundError: "
        "No module named 'nowhere'. Put its classes and functions into a module and import it, or "
        "use threads: processes=False."
    )
    two.data = [3, 4]
    assert lists(two) == [[3, 4]]


def test_a_worker_that_does_not_start(monkeypatch, nothing_left):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError) as caught:
        list(fx.DataLoader([3, 4], 2, workers=1, processes=True))
    assert str(caught.value) == (
        "DataLoader expects worker processes that start, got one that ended with exit code 1 "
        "before it could read observations 0, 1. What it printed says why."
    )


DEATHS = [
    ("die", "ended with exit code 3"),
    ("kill", "was killed by SIGKILL"),
]


@pytest.mark.slow
@pytest.mark.parametrize("what, how", DEATHS)
def test_a_worker_that_dies(what, how, nothing_left, tmp_path):
    data = Fragile(8, 3, what, once=str(tmp_path / "happened"))
    epoch = iter(fx.DataLoader(data, 2, workers=1, processes=True))
    assert next(epoch).tolist() == [0, 1]
    with pytest.raises(RuntimeError) as caught:
        next(epoch)
    assert str(caught.value) == (
        f"DataLoader expects worker processes that live, got one that {how} while it read "
        "observation 3. Read that without workers to see why; a kill may mean too little memory."
    )
    assert children() <= nothing_left
    assert [b.tolist() for b in epoch] == [[4, 5], [6, 7]]  # by new ones


@pytest.mark.slow
def test_a_worker_that_hangs(nothing_left, tmp_path):
    data = Fragile(8, 3, "hang", once=str(tmp_path / "happened"))
    epoch = iter(fx.DataLoader(data, 2, workers=1, processes=True, timeout=1.0))
    assert next(epoch).tolist() == [0, 1]
    with pytest.raises(TimeoutError) as caught:
        next(epoch)
    assert str(caught.value) == (
        "DataLoader expects a batch within timeout=1.0 s, got none for batch 1 of this pass, which "
        "waits for observation 3. Raise `timeout`, or see what the data set waits for."
    )
    assert children() <= nothing_left
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
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell said
import fluxax as fx
from loading import Fragile

class Mine:
    def __len__(self): return 6
    def __getitem__(self, i): return float(i)

def loop(data, **options):
    for batch in fx.DataLoader(data, 2, workers=1, processes=True, **options):
        print(batch.tolist(), flush=True)
"""


def script(tmp_path, text):
    """Start a script; its workers are known by an environment variable that holds its path."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + text)
    paths = os.pathsep.join(filter(None, sys.path))
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "WHOSE": str(tmp_path)},
    )


def family(tmp_path):
    """The processes of a script that run, itself included."""
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"WHOSE={tmp_path}\0".encode() in environment.read_bytes():
                found.add(int(environment.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_script_without_a_guard_gets_a_sentence(tmp_path):
    out, err = script(tmp_path, "loop(Mine())").communicate()
    assert out == ""
    assert err.rstrip().endswith(
        "DataLoader expects a script that worker processes can import, got one that trains when it "
        'is imported. Put what it does under `if __name__ == "__main__":`, or the data set into a '
        "module of its own."
    )
    out, err = script(tmp_path, 'if __name__ == "__main__": loop(Mine())').communicate()
    assert (out.splitlines(), err) == (["[0.0, 1.0]", "[2.0, 3.0]", "[4.0, 5.0]"], "")
    out, err = script(tmp_path, 'loop(Fragile(4, 9, ""))').communicate()
    assert (out.splitlines(), err) == (["[0, 1]", "[2, 3]"], "")  # of a module: no guard needed


ENDS = [("Ctrl-C", signal.SIGINT, 130), ("killed", signal.SIGKILL, -9)]


@pytest.mark.slow
@pytest.mark.parametrize("name, how, code", ENDS, ids=[name for name, *_ in ENDS])
def test_nothing_outlives_a_script_whose_worker_hangs(name, how, code, tmp_path):
    process = script(tmp_path, 'loop(Fragile(4, 2, "hang"))')
    assert process.stdout.readline() == "[0, 1]\n"
    workers = family(tmp_path) - {process.pid}
    assert len(workers) == 1
    process.send_signal(how)
    _, err = process.communicate()
    assert process.returncode in (code, -how)
    assert err.rstrip().endswith("KeyboardInterrupt" if how == signal.SIGINT else "")
    assert err.count("Traceback") == (how == signal.SIGINT)
    assert gone(workers)
