"""Whether memory grows: 100,000 training steps with a new lambda each, and 100,000 by `train`.

    python benchmarks/memory.py [--steps 100000]

Each step closes over a batch, the step's index and an annealed coefficient, both of which change
every time. Then an objective whose constant can't become an input is run with many values, each a
program of its own: what is kept of them must be bounded too. Last `train`: over a generator of as
many batches, and over a DataLoader, epoch by epoch. Open files are counted there too.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import fluxax as fx

GROWTH = 0.05  # of resident memory, at most
TRACES = 3  # of the objective, at most
_FROM = 1_000  # the step from which growth counts
_PROGRAMS = 100  # values of the constant, at the end


def resident() -> float:
    """Resident memory in MB: now, or the most so far where the system does not say."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def batches(n: int) -> list[Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 32, 2)).astype(np.float32)
    y = rng.integers(0, 2, (n, 32)).astype(np.int32)
    return [(jnp.asarray(a), jnp.asarray(b)) for a, b in zip(x, y, strict=True)]


def train(model: Any, opt_state: Any, steps: int) -> float:
    """The loop; the resident memory at step 1,000."""
    data, before = batches(16), 0.0
    for i in range(steps):
        x, y = data[i % len(data)]
        lam = 0.01 * (1 - i / steps)
        _, grads = fx.withgradient(
            lambda m: (
                fx.logitcrossentropy(m(x), y)
                + lam * jnp.sum(m.layers[0].weight ** 2)
                + jnp.sum(m.layers[1].weight) * 1e-9 * i
            ),
            model,
        )
        fx.update(opt_state, model, grads[0])
        if i in (_FROM, *(k * steps // 5 for k in range(1, 5))):
            print(f"step {i:7d}: {resident():7.1f} MB, {_records()}")
        if i == _FROM:
            before = resident()
    return before


def many_programs(model: Any) -> None:
    """An objective with one program per value of a constant."""
    x = jnp.ones((1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are many is what is wanted here
        for k in range(_PROGRAMS):
            fx.gradient(lambda m: jnp.sum(m(x)) * len(range(k)), model)


class Watch:
    """Memory and open files at step 1,000 and at the end."""

    def __init__(self, name: str):
        self.name, self.step = name, 0
        self.before = (0.0, 0)

    def tick(self, steps: int = 1) -> None:
        """So many steps more."""
        early = self.step <= _FROM
        self.step += steps
        if early:
            self.before = resident(), open_files()

    def good(self) -> bool:
        """Print what was seen; whether nothing has grown."""
        memory, files = resident(), open_files()
        growth = memory / self.before[0] - 1
        print(
            f"{self.name}, {self.step} steps: {memory:.1f} MB, {growth:+.1%} since step {_FROM}; "
            f"open files {self.before[1]} and {files}"
        )
        return growth <= GROWTH and files <= self.before[1]


def open_files() -> int:
    """How many files this process has open; 0 where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def by_train(steps: int) -> bool:
    """`train` for as many steps, over a generator and over a DataLoader."""
    data = batches(16)
    loss = lambda m, x, y: fx.logitcrossentropy(m(x), y)
    model = fx.Chain(fx.Dense(2, 16, fx.relu), fx.Dense(16, 2))
    opt_state, watch = fx.setup(fx.Adam(1e-3), model), Watch("train over a generator")

    def source() -> Iterator[Any]:
        for i in range(steps):
            watch.tick()
            yield data[i % len(data)]

    fx.train(loss, model, source(), opt_state)
    good, watch = watch.good(), Watch("train over a DataLoader")
    x = np.random.default_rng(1).standard_normal((32 * 200, 2)).astype(np.float32)
    loader = fx.DataLoader((x, (x[:, 0] > 0).astype(np.int32)), batchsize=32, shuffle=True)
    for _ in range(steps // 200):
        fx.train(loss, model, loader, opt_state)
        watch.tick(200)
    return watch.good() and good


def _records() -> str:
    records = fx.explain()
    return f"{len(records)} records, {sum(r.traces for r in records)} traces"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    steps = max(parser.parse_args().steps, 5 * _FROM)
    model = fx.Chain(fx.Dense(2, 16, fx.relu), fx.Dense(16, 2))
    before = train(model, fx.setup(fx.Adam(1e-3), model), steps)
    after = resident()
    growth, record = after / before - 1, fx.explain()[0]
    print(f"step {steps:7d}: {after:7.1f} MB, {_records()}\n")
    good = growth <= GROWTH and record.traces <= TRACES and len(fx.explain()) == 1
    print(f"growth since step {_FROM}: {growth:+.1%} (at most {GROWTH:.0%})")
    print(f"traces: {record.traces} (at most {TRACES}), compiled: {record.compiled}")
    print()
    for _ in range(3):  # what the allocator keeps of the first round serves the next
        many_programs(model)
        print(f"after {_PROGRAMS} programs more: {resident():.1f} MB, {_records()}")
        fx.clear_cache()
        print(f"after clear_cache: {resident():.1f} MB, {_records()}")
    print()
    good = by_train(steps) and good
    return 0 if good and record.compiled else 1


if __name__ == "__main__":
    sys.exit(main())
