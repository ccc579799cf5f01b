"""A full disk, a cut file, a flipped bit, Ctrl-C: the old checkpoint or the new, never half."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax._checkpoint._file import read
from tests.keeping import equal, scrambled
from tests.test_interrupts import CtrlC, interrupted


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def only(path):
    """Whether nothing else was left in the folder."""
    return [p.name for p in path.parent.iterdir()] == [path.name]


# --- writing ---------------------------------------------------------------------------------

REASONS = {
    "full disk": (errno.ENOSPC, "No space left on device"),
    "broken disk": (errno.EIO, "Input/output error"),
    "quota": (errno.EDQUOT, "Disk quota exceeded"),
}
CALLS = ["write", "fsync", "replace", "open"]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("call", CALLS)
def test_a_failed_write_leaves_what_was(call, reason, path, monkeypatch):
    fx.save(path, x=1, big=np.zeros(5000))
    number, text = REASONS[reason]
    real, calls = getattr(os, call), []

    def fail(*args, **kwargs):
        calls.append(args)
        if call == "write" and len(calls) < 3:
            return real(args[0], bytes(args[1][:7]))  # and little at a time before that
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=f"could not write the checkpoint: {text}") as error:
        fx.save(path, x=2, big=np.ones(5000))
    monkeypatch.undo()
    assert error.value.errno == number
    assert "What stood there is as it was" in str(error.value)
    assert fx.load(path)["x"] == 1
    assert only(path)


def test_a_system_that_takes_little_at_a_time(path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda f, b: real(f, bytes(b[:13])))
    fx.save(path, x=np.arange(500))
    assert (fx.load(path)["x"] == np.arange(500)).all()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(path):
    fx.save(path, x=1)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="save could not write the checkpoint"):
            fx.save(path, x=2)
    finally:
        path.parent.chmod(0o700)
    assert fx.load(path)["x"] == 1


def test_a_refused_folder(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"checkpoint: Permission denied.*another folder"):
        fx.save(path, x=2)


def test_the_folder_is_synced_after_the_rename(path, monkeypatch):
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(file):
        seen.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        fsync(file)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("rename"), replace(a, b)))
    fx.save(path, x=1)
    assert seen == ["file", "rename", "folder"]


def test_what_a_killed_save_left_is_removed_and_a_running_one_is_not(path):
    fcntl = pytest.importorskip("fcntl")
    dead, alive = (path.with_name(f".{path.name}.{n}.tmp") for n in ("dead", "alive"))
    dead.write_bytes(b"half")
    other = path.with_name(".other.safetensors.x.tmp")
    other.write_bytes(b"half")
    with alive.open("wb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        fx.save(path, x=1)
        assert alive.exists()
    assert not dead.exists()
    assert other.exists()


def test_permissions_of_the_file_stay(path):
    fx.save(path, x=1)
    path.chmod(0o640)
    fx.save(path, x=2)
    assert path.stat().st_mode & 0o777 == 0o640


def test_ctrl_c_at_any_line_of_save(path):
    model = {"w": jnp.ones(3), "b": [1, 2]}
    fx.save(path, x=0, model=model)
    with CtrlC(0, "/_checkpoint") as count:
        fx.save(path, x=0, model=model)
    lines = count.counts.total()
    assert lines > 100
    for n in range(1, lines):
        old = fx.load(path)["x"]
        assert interrupted(n, "/_checkpoint", lambda: fx.save(path, x=old + 1, model=model))
        assert fx.load(path)["x"] in (old, old + 1)
        assert only(path)


def test_ctrl_c_at_any_line_of_load(path):
    make = lambda: {"a": scrambled(fx.Dense(2, 2)), "log": [1]}
    one = make()
    state = fx.setup(fx.Adam(0.5), one["a"])
    fx.freeze(state.weight)
    fx.save(path, model=one["a"], log=[7, 8], state=state)

    def load(model, log, state):
        fx.load(path, model=model, log=log, state=state)

    def fresh():
        model = fx.Dense(2, 2)
        return model, [1], fx.setup(fx.Adam(), model)

    with CtrlC(0, "/_checkpoint") as count:
        load(*fresh())
    for n in range(1, count.counts.total(), 7):
        model, log, state = fresh()
        assert interrupted(n, "/_checkpoint", lambda: load(model, log, state))
        filled = [
            equal(model, one["a"]),
            log == [7, 8],
            state.weight.frozen,
            state.weight.rule.eta == 0.5,
        ]
        assert len(set(filled)) == 1, (n, filled)


def test_two_threads_save_to_one_place(path):
    def save(k):
        for i in range(20):
            fx.save(path, who=k, x=np.full(2000, 100 * k + i))

    threads = [threading.Thread(target=save, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            out = fx.load(path)
            assert len(set(out["x"].tolist())) == 1
            assert out["x"][0] // 100 == out["who"]
    assert only(path)


TWO = """
import sys, numpy as np, fluxax as fx
for i in range(40):
    fx.save(sys.argv[1], who=int(sys.argv[2]), x=np.full(3000, 100 * int(sys.argv[2]) + i))
"""


@pytest.mark.slow
def test_two_processes_save_to_one_place(path):
    run = lambda k: subprocess.Popen([sys.executable, "-c", TWO, str(path), str(k)])
    both, loads = [run(1), run(2)], 0
    while any(p.poll() is None for p in both):
        if path.exists():
            out = fx.load(path)
            assert set(out["x"].tolist()) <= {100 * out["who"] + i for i in range(40)}
            assert len(set(out["x"].tolist())) == 1
            loads += 1
    assert [p.wait() for p in both] == [0, 0]
    assert loads
    assert only(path)


# --- reading ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run.safetensors"
    fx.seed(0)
    model = fx.Dense(3, 4)
    fx.save(path, model=model, opt_state=fx.setup(fx.Adam(), model), n=np.arange(200), s="text")
    return path


def refused(path: Path, data: bytes) -> bool:
    """Whether a file is refused with a sentence of ours."""
    try:
        read(io.BytesIO(data), path)
    except ValueError as error:
        return str(error).startswith("load expects")
    return False


def test_every_truncation_is_refused(whole, path):
    data = whole.read_bytes()
    cuts = {*range(0, len(data), 1000), *range(0, 300), *range(len(data) - 300, len(data))}
    assert [n for n in sorted(cuts) if not refused(path, data[:n])] == []
    assert refused(path, data + b"\0")
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="it ends too early"):
        fx.load(path)


@pytest.mark.parametrize(
    "bits", [pytest.param(range(8), marks=pytest.mark.slow, id="all"), pytest.param([0], id="one")]
)
def test_a_flipped_bit_in_any_byte_is_refused(bits, whole, path):
    data = bytearray(whole.read_bytes())
    accepted = []
    for at in range(len(data)):
        for bit in bits:
            data[at] ^= 1 << (at + bit) % 8
            if not refused(path, bytes(data)):
                accepted.append((at, bit))
            data[at] ^= 1 << (at + bit) % 8
    assert accepted == []


def test_a_damaged_file_changes_nothing(whole, path):
    data = bytearray(whole.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    model = fx.Dense(3, 4)
    before = scrambled(fx.Dense(3, 4))
    fx.loadmodel(model, before)
    with pytest.raises(
        ValueError, match=r"load expects a whole checkpoint, got .*: the checksum of"
    ):
        fx.load(path, model=model)
    assert equal(model, before)


NO_CHECKPOINTS = {
    "empty": b"",
    "text": b"hello, this is not a checkpoint at all",
    "huge": b"\xff" * 100,
    "deep": (n := b"[" * 5000) and len(n).to_bytes(8, "little") + n,
    "list": (2).to_bytes(8, "little") + b"[]",
}


@pytest.mark.parametrize("case", NO_CHECKPOINTS)
def test_other_files_are_refused(case, path):
    path.write_bytes(NO_CHECKPOINTS[case])
    with pytest.raises(ValueError, match=r"damaged or no checkpoint; use an older one"):
        fx.load(path)
