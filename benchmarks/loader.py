"""Samples per second of the loader, beside PyTorch's and Grain's.

    python benchmarks/loader.py            # everything: about two minutes
    python benchmarks/loader.py --quick    # two rounds, to see that it runs

Each contender sits in a process of its own, which makes the data, warms up, and then runs one
round whenever it is asked: a whole shuffled epoch, so that nobody reads ahead between rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from timing import SCATTER, Times, take_turns

import fluxax as fx

BATCH = 128
ROWS, FEATURES = 60_000, 784  # 188 MB of float32
CONTENDERS = ["fluxax", "fluxax, 2", "PyTorch", "PyTorch, 2", "Grain"]


@dataclass(frozen=True)
class Work:
    """Something to load, how many samples one round takes, and which ratios are judged.

    Args:
        judged: fluxax's contender and its rivals, and how many times as fast it must be.
    """

    name: str
    samples: dict[str, int]
    judged: tuple[str, dict[str, float]]


WORKS = [
    Work(
        "arrays in memory",
        {"fluxax": 60_000, "PyTorch": 15_000, "PyTorch, 2": 15_000, "Grain": 15_000},
        ("fluxax", {"PyTorch": 5.0, "PyTorch, 2": 5.0, "Grain": 5.0}),
    ),
    Work(
        "memmap",
        {"fluxax": 60_000, "PyTorch": 15_000, "PyTorch, 2": 15_000, "Grain": 15_000},
        ("fluxax", {"PyTorch": 5.0, "PyTorch, 2": 5.0, "Grain": 5.0}),
    ),
    Work(
        "items of 0.2 ms",
        {
            "fluxax": 1_280,
            "fluxax, 2": 2_560,
            "PyTorch": 1_280,
            "PyTorch, 2": 2_560,
            "Grain": 1_280,
        },
        ("fluxax, 2", {"PyTorch, 2": 1.0}),
    ),
]


class Rows:
    """Arrays read sample by sample, as PyTorch and Grain do."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.x[i], self.y[i]


class Items(Rows):
    """Samples that keep Python busy for 0.2 ms each."""

    def __init__(self, n: int, turns: int):
        self.n, self.turns = n, turns

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        busy(self.turns)
        return np.zeros(FEATURES, np.float32), i


def busy(turns: int) -> None:
    for _ in range(turns):
        pass


def turns_of(seconds: float) -> int:
    """How many turns of an empty loop take so long."""
    best = min(_seconds(lambda: busy(100_000)) for _ in range(20))
    return int(100_000 * seconds / best)


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def arrays(work: str, folder: str, n: int) -> tuple[Any, np.ndarray]:
    """The first `n` rows, in memory or on disk, and their labels."""
    y = np.arange(n) % 10
    stored = np.memmap(os.path.join(folder, "x"), np.float32, "r", shape=(ROWS, FEATURES))[:n]
    return stored if work == "memmap" else np.array(stored), y


# --- contenders: each gives a loader; iterating it once is a round -----------------------------


def ours(work: str, folder: str, n: int, turns: int, workers: int) -> Iterable[Any]:
    data = Items(n, turns) if work.startswith("items") else arrays(work, folder, n)
    return fx.DataLoader(data, BATCH, shuffle=True, workers=workers, processes=workers > 0)


def pytorch(work: str, folder: str, n: int, turns: int, workers: int) -> Iterable[Any]:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data: Any = Items(n, turns)
    if work == "arrays in memory":
        x, y = arrays(work, folder, n)
        data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    elif work == "memmap":
        data = Rows(*arrays(work, folder, n))
    many = {"num_workers": workers, "persistent_workers": True} if workers else {}
    return DataLoader(data, BATCH, shuffle=True, **many)


def grain(work: str, folder: str, n: int, turns: int, workers: int) -> Iterable[Any]:
    import grain

    data: Any = Items(n, turns) if work.startswith("items") else Rows(*arrays(work, folder, n))
    return grain.MapDataset.source(data).shuffle(seed=0).batch(BATCH).to_iter_dataset()


MAKERS = {"fluxax": ours, "PyTorch": pytorch, "Grain": grain}


def serve(contender: str, work: str, folder: str, turns: int) -> None:
    """Warm up, say so, and run a round for every line that comes in."""
    who, _, workers = contender.partition(", ")
    n = next(w for w in WORKS if w.name == work).samples[contender]
    loader = MAKERS[who](work, folder, n, turns, int(workers or 0))
    run = lambda: sum(len(y) for _, y in loader)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        count = run()
        print((time.perf_counter() - start) / count, flush=True)


class Served:
    """A contender in a process of its own; `None` where its library is not installed."""

    def __init__(self, contender: str, work: Work, folder: str, turns: int):
        command = [sys.executable, __file__, "--serve", contender, work.name, folder, str(turns)]
        self.name, pipe = contender, subprocess.PIPE
        self.process: Any = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self.works = self.process.stdout.readline() == "ready\n"

    def round(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def measure(work: Work, folder: str, turns: int, rounds: int) -> dict[str, Times]:
    served = [Served(c, work, folder, turns) for c in CONTENDERS if c in work.samples]
    try:
        runs = [s for s in served if s.works]
        times = take_turns([s.round for s in runs], rounds, 1)
        return {s.name: t for s, t in zip(runs, times, strict=True)}
    finally:
        for s in served:
            s.close()


def report(work: Work, times: dict[str, Times]) -> None:
    print(f"\n### {work.name}\n\n| loader | samples per second | scatter |\n|---|---:|---:|")
    for name, t in times.items():
        print(f"| {name} | {1e6 / t.median:,.0f} | {t.scatter:.1f} |")
    mine, rivals = work.judged
    print("\n| ratio | | must | |\n|---|---:|---:|---|")
    for rival, must in rivals.items():
        if rival in times:
            ratio = times[rival].median / times[mine].median
            steady = max(times[rival].scatter, times[mine].scatter) <= SCATTER
            word = ("must" if ratio >= must else "MISSED") if steady else "not judged"
            print(f"| {mine} / {rival} | {ratio:.2f} | {must:g} | {word} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--only", help="one work, by the start of its name")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        contender, work, folder, turns = options.serve
        return serve(contender, work, folder, int(turns))
    with tempfile.TemporaryDirectory() as folder:
        x = np.random.default_rng(0).random((ROWS, FEATURES), dtype=np.float32)
        x.tofile(os.path.join(folder, "x"))
        turns = turns_of(200e-6)
        for work in WORKS:
            if work.name.startswith(options.only or ""):
                report(work, measure(work, folder, turns, 2 if options.quick else 8))


if __name__ == "__main__":
    main()
