"""Killing a run while it trains and saves: is there always a whole checkpoint to go on from?

    python benchmarks/kills.py [--kills 500] [--rounds 1000]

A process trains and saves after every step, the newest few kept. It is killed (SIGKILL) at a random
moment, every other time of its start, in which it loads and compiles and fills the compilation
cache. The newest checkpoint is loaded in the next process, which goes on, and so on. When the run
is through, its end must have the same bits as that of a run that nobody killed; then it starts
again. After each kill every checkpoint in the folder must load. Then save and load are repeated in
one process: memory and open files must stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import fluxax as fx

STEPS = 400
_STARTS, _READY = "starts", "ready"


class Run:
    """A small run with something of everything in it."""

    def __init__(self, seed: int):
        fx.seed(seed)
        self.model = fx.Chain(fx.Dense(8, 32, fx.relu), fx.BatchNorm(32), fx.Dropout(0.2))
        self.model.layers.append(fx.Dense(32, 2))
        self.opt_state = fx.setup(fx.Adam(0.01), self.model)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(60, 8)).astype("float32")
        self.loader = fx.DataLoader((x, x[:, :2]), batchsize=10, shuffle=True)
        self.step, self.going = 0, False

    def things(self) -> dict[str, Any]:
        return {"model": self.model, "opt_state": self.opt_state, "loader": self.loader}

    def fingerprint(self) -> str:
        states = [leaf.state for layer in self.opt_state.layers for leaf in _leaves(layer)]
        arrays = jax.tree.leaves((fx.state(self.model), states))
        digest = hashlib.sha256(repr(self.loader.state_dict()).encode())
        for array in arrays:
            digest.update(np.asarray(array).tobytes())
        return digest.hexdigest()

    def train(self, kept: fx.Checkpoints | None) -> None:
        while self.step < STEPS:
            for x, y in self.loader:
                fx.trainstep(lambda m, x, y: fx.mse(m(x), y), self.model, (x, y), self.opt_state)
                self.step += 1
                if kept is not None:
                    kept.save(self.step, **self.things())
                    if not self.going:
                        print(_READY, flush=True)
                        self.going = True
                if self.step == STEPS:
                    break


def _leaves(node: Any) -> list[Any]:
    return [v for v in vars(node).values() if hasattr(v, "rule")]


def work(folder: str) -> None:
    """Go on from the newest checkpoint, if there is one, to the end; print its fingerprint."""
    print(_STARTS, flush=True)
    kept = fx.Checkpoints(folder, keep=3)
    run = Run(seed=0 if not kept.steps() else int(time.time()))
    if kept.steps():
        run.step = kept.load(**run.things())["step"]
    run.train(kept)
    print(run.fingerprint(), flush=True)


def spawn(folder: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--work", folder]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check(folder: str) -> int:
    """Load every checkpoint there is; how many there are."""
    kept = fx.Checkpoints(folder)
    for step in kept.steps():
        run = Run(seed=1)
        assert kept.load(step, **run.things())["step"] == step
    return len(kept.steps())


def kill(
    folder: str, chance: random.Random, most: float, *, early: bool
) -> tuple[str | None, bool]:
    """Kill a process; its end if it was through before, and whether it had saved something.

    Args:
        folder: its checkpoints.
        chance: the moment.
        most: the latest moment, in seconds after it began, or after its first save.
        early: whether the moment may be before its first save.
    """
    process = spawn(folder)
    assert process.stdout is not None
    process.stdout.readline()
    if not early:
        first = process.stdout.readline().strip()
        if first != _READY:  # nothing was left to do, or it could not go on
            assert process.wait() == 0
            return first, True
    try:
        process.wait(chance.uniform(0, most))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    lines = process.stdout.read().split()
    process.stdout.close()
    assert process.returncode in (0, -signal.SIGKILL)
    return None if process.returncode else lines[-1], not early or _READY in lines


def kills(n: int, most: float, seed: int = 0) -> dict[str, int]:
    """Kill `n` times; counts of kills, files left half, checkpoints that loaded, whole runs."""
    whole = Run(seed=0)
    whole.train(None)
    expected, chance = whole.fingerprint(), random.Random(seed)
    found = {"kills": 0, "early": 0, "half": 0, "loaded": 0, "runs": 0}
    with tempfile.TemporaryDirectory() as programs:
        os.environ["FLUXAX_CACHE"] = programs
        while found["kills"] < n or not found["runs"]:
            with tempfile.TemporaryDirectory() as folder:
                end = None
                while end is None:
                    early = found["kills"] % 2 == 0
                    late = most if found["kills"] < n else 600
                    end, saved = kill(folder, chance, late, early=early)
                    found["kills"] += end is None
                    found["early"] += not saved
                    found["half"] += len(list(Path(folder).glob(".*.tmp")))
                    found["loaded"] += check(folder)
            assert end == expected, f"after {found['kills']} kills the end is another"
            found["runs"] += 1
    return found


def rounds(n: int) -> None:
    """Save and load again and again in one process: memory and open files."""
    run, statm = Run(seed=0), Path("/proc/self/statm")
    resident = lambda: int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = lambda: len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryDirectory() as folder:
        path, seen = Path(folder) / "run.safetensors", []
        start = time.perf_counter()
        for i in range(n + 1):
            fx.save(path, **run.things())
            fx.load(path, **run.things())
            if i in (n // 10, n):
                seen.append((resident(), files()))
        each = (time.perf_counter() - start) / (n + 1) * 1e3
    (memory, open_files), (memory_then, open_then) = seen
    print(
        f"{n} rounds of save and load, {each:.1f} ms each: memory {memory:.1f} MB after a tenth, "
        f"{memory_then:.1f} MB at the end; open files {open_files} and {open_then}"
    )
    assert memory_then < memory * 1.05
    assert open_files == open_then


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=0.8, help="the latest moment of a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--work", metavar="FOLDER")
    given = parser.parse_args()
    if given.work:
        return work(given.work)
    found = kills(given.kills, given.seconds, given.seed)
    print(
        f"{found['kills']} kills, {found['early']} of them before anything was saved and "
        f"{found['half']} in the middle of a file; all "
        f"{found['loaded']} checkpoints found after them loaded; {found['runs']} runs came to "
        "their end, each bit-equal with the run that nobody killed"
    )
    if given.rounds:
        rounds(given.rounds)


if __name__ == "__main__":
    main()
