"""Saving, printing and reading the state from other threads while one trains.

    python benchmarks/beside.py [--seconds 60]

One thread trains, by single steps, by `update` and by `train` in turn; others save, print and read
all the time. Every gradient is 1 and the rule is `Descent(1)`, so all numbers of a model must be
the same, and say after how many steps it was read. Counted are steps, reads, errors, models that
are half of a step, and lines that anybody wrote to stderr.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fluxax as fx


class Counter(fx.Module):
    """Parameters of many sizes that all count steps, downwards."""

    def __init__(self) -> None:
        self.parts = [jnp.zeros(n) for n in (1, 3, 64, 5000, 200_000)]


class Run:
    """A model, its state, and what was counted."""

    def __init__(self) -> None:
        self.model = Counter()
        self.opt_state = fx.setup(fx.OptimiserChain(fx.Descent(1.0), fx.EMA(0.5)), self.model)
        self.counts: collections.Counter[str] = collections.Counter()
        self.folder = tempfile.mkdtemp()
        self.over = False

    def check(self, parts: Any, steps: Any) -> None:
        """Count a model whose numbers differ, or whose state is after another step."""
        found = {float(x) for part in parts for x in np.unique(np.asarray(part))}
        found |= {-float(n) for n in steps}
        self.counts["half"] += len(found) > 1

    def save(self) -> None:
        path = os.path.join(self.folder, "run.safetensors")
        fx.save(path, model=self.model, opt_state=self.opt_state)
        read = fx.load(path)
        self.check(read["model"].parts, [leaf.steps for leaf in read["opt_state"].parts])

    def show(self) -> None:
        text = repr(self.opt_state)
        self.check([], {part.split(")")[0] for part in text.split("steps=")[1:]})
        str(self.model)

    def state(self) -> None:
        self.check(fx.state(self.model).parts, [])
        for leaf in self.opt_state.parts:
            jax.block_until_ready(leaf.state)

    def reads(self, what: str) -> None:
        while not self.over:
            try:
                getattr(self, what)()
            except Exception as error:
                self.counts["errors"] += 1
                print(f"{what}: {type(error).__name__}: {error}", file=sys.stderr)
            self.counts[what] += 1

    def train(self, seconds: float) -> None:
        loss = lambda m, *_: sum(jnp.sum(part) for part in m.parts)
        data = fx.DataLoader(np.zeros((300, 1), np.float32))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(200):
                fx.trainstep(loss, self.model, (), self.opt_state)
            for _ in range(200):
                fx.update(self.opt_state, self.model, fx.gradient(loss, self.model)[0])
            fx.train(loss, self.model, data, self.opt_state)
            self.counts["steps"] += 700


def work(seconds: float) -> None:
    run = Run()
    readers = [threading.Thread(target=run.reads, args=(w,)) for w in ("save", "show", "state")]
    for thread in readers:
        thread.start()
    try:
        run.train(seconds)
    finally:
        run.over = True
        for thread in readers:
            thread.join()
    run.check(run.model.parts, [run.counts["steps"]])
    c = run.counts
    beside = f"{c['save']} saves, {c['show']} prints, {c['state']} reads"
    print(f"{c['steps']} steps; beside them {beside}: {c['half']} half, {c['errors']} errors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--work", action="store_true")
    given = parser.parse_args()
    if given.work:
        return work(given.seconds)
    command = [sys.executable, __file__, "--work", "--seconds", str(given.seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    print(f"{done.stdout.strip()}, {len(done.stderr.splitlines())} lines on stderr")
    print(done.stderr[-2000:], end="", file=sys.stderr)


if __name__ == "__main__":
    main()
