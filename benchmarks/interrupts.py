"""Ctrl-C at random moments: is what is left always a whole number of steps, as if nothing had been?

    python benchmarks/interrupts.py [--interrupts 500] [--seed 0]

Each trial makes a model, a state and a loader, starts one of the kinds of run below, and sends this
process SIGINT at a random moment of it; in every other trial nothing is compiled yet. Whatever is
there then must have the bits that an undisturbed run has after some whole number of steps, and
must come to the same end when it goes on. Anything raised but KeyboardInterrupt counts as a raw
error.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import fluxax as fx

STEPS, ROWS = 12, 8


def loss(m: Any, x: Any, y: Any) -> Any:
    """What is trained."""
    return fx.mse(m(x), y)


class Run:
    """A small run with something of everything in it.

    Where a gradient is taken in one call and used in another, layers keep no state of their own:
    what is between the two calls is no whole step.
    """

    def __init__(self, kind: str, folder: Path):
        fx.seed(0)
        self.model = fx.Chain(fx.Dense(3, 8, fx.relu, rng=0), fx.Dense(8, 2, rng=1))
        if KINDS[kind] is not by_gradients:
            self.model.layers[1:1] = [fx.BatchNorm(8), fx.Dropout(0.2, rng=2)]
        self.opt_state = fx.setup(fx.Adam(0.01), self.model)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(STEPS * ROWS, 3)).astype("f")
        self.loader = fx.DataLoader((x, x[:, :2]), batchsize=ROWS)
        self.batches = list(fx.DataLoader((x, x[:, :2]), batchsize=ROWS))
        self.file = folder / "run.safetensors"

    def seen(self) -> Any:
        """All that training changes, as bytes."""
        leaves = [v for layer in self.opt_state.layers for v in vars(layer).values()]
        states = [leaf.state for leaf in leaves if isinstance(leaf, fx.Leaf)]
        arrays = jax.tree.leaves((fx.state(self.model), states))
        return tuple(np.asarray(a).tobytes() for a in arrays)


def by_steps(run: Run, done: int) -> None:
    for batch in run.batches[done:]:
        fx.trainstep(loss, run.model, batch, run.opt_state)


def by_gradients(run: Run, done: int) -> None:
    for x, y in run.batches[done:]:
        _, grads = fx.withgradient(lambda m: loss(m, x, y), run.model)
        fx.update(run.opt_state, run.model, grads[0])


def by_train(run: Run, done: int) -> None:
    fx.train(loss, run.model, run.batches[done:], run.opt_state)


def by_pieces(run: Run, done: int) -> None:
    del done  # the loader knows
    fx.train(loss, run.model, run.loader, run.opt_state)


def by_saving(run: Run, done: int) -> None:
    for batch in run.batches[done:]:
        fx.trainstep(loss, run.model, batch, run.opt_state)
        fx.save(run.file, model=run.model, opt_state=run.opt_state)


def by_looking(run: Run, done: int) -> None:
    for batch in run.batches[done:]:
        fx.trainstep(loss, run.model, batch, run.opt_state)
        fx.compiled(lambda x: run.model(x))(batch[0])
        fx.evaluate(loss, run.model, [batch])


KINDS: dict[str, Callable[[Run, int], None]] = {
    "trainstep": by_steps,
    "withgradient and update": by_gradients,
    "train over batches": by_train,
    "train over a loader": by_pieces,
    "trainstep and save": by_saving,
    "trainstep, compiled, evaluate": by_looking,
}


class Counted:
    """What came of the trials."""

    def __init__(self) -> None:
        self.found = Counter[str]()
        self.errors: list[str] = []

    def add(self, kind: str, cold: bool, name: str) -> None:
        self.found[name] += 1
        self.found[f"{name}, compiling" if cold else f"{name}, running"] += 1
        if name not in ("interrupted", "too late"):
            self.errors.append(f"{kind}: {name}")


def whole_steps(kind: str, folder: Path) -> list[Any]:
    """What an undisturbed run is after each number of steps."""
    run = Run(kind, folder)
    seen = [run.seen()]
    for batch in run.batches:
        if KINDS[kind] is by_gradients:
            by_gradients_of_one(run, batch)
        else:
            fx.trainstep(loss, run.model, batch, run.opt_state)
        seen.append(run.seen())
    return seen


def by_gradients_of_one(run: Run, batch: Any) -> None:
    x, y = batch
    _, grads = fx.withgradient(lambda m: loss(m, x, y), run.model)
    fx.update(run.opt_state, run.model, grads[0])


def ctrl_c_after(seconds: float) -> threading.Timer:
    """SIGINT for this process, so long after the timer is started."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    return timer


def forget() -> None:
    fx.clear_cache()
    jax.clear_caches()
    gc.collect()


def trial(kind: str, cold: bool, after: float, whole: list[Any], folder: Path) -> str:
    """One interrupt at a moment; what came of it."""
    run = Run(kind, folder)
    if cold:
        forget()
    hit, timer = False, ctrl_c_after(after)
    try:
        try:
            timer.start()
            KINDS[kind](run, 0)
        finally:
            timer.cancel()
        timer.join()  # it may be sending just now
    except KeyboardInterrupt:
        hit = True
    except Exception as error:  # anything else is what this looks for
        return f"raw {type(error).__name__}"
    try:
        now = run.seen()
        if now not in whole:
            return "a step was half done"
        done = whole.index(now)
        if kind == "trainstep and save" and run.file.exists():
            found = Run(kind, folder)
            fx.load(run.file, model=found.model, opt_state=found.opt_state)
            if found.seen() not in whole[max(0, done - 1) : done + 1]:
                return "a file was of another step"
        if hit and done < STEPS:
            KINDS[kind](run, done)
    except Exception as error:
        return f"raw {type(error).__name__} afterwards"
    if run.seen() != whole[-1]:
        return "the end was another"
    return "interrupted" if hit else "too late"


def duration(kind: str, cold: bool, folder: Path) -> float:
    """How long an undisturbed run takes, in seconds."""
    run = Run(kind, folder)
    if cold:
        forget()
    start = time.perf_counter()
    KINDS[kind](run, 0)
    return time.perf_counter() - start


def trials(n: int, seed: int) -> Counted:
    """Interrupt until `n` have hit, each kind in turn, cold and warm in turn."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chance, counted = random.Random(seed), Counted()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = {kind: whole_steps(kind, folder) for kind in KINDS}
        takes = {(kind, cold): duration(kind, cold, folder) for kind in KINDS for cold in (1, 0)}
        i = 0
        while counted.found["interrupted"] < n and i < 3 * n + 12:
            kind, cold = list(KINDS)[i // 2 % len(KINDS)], i % 2 == 0
            (folder / "run.safetensors").unlink(missing_ok=True)
            moment = chance.uniform(0, takes[kind, cold] * 0.95)
            counted.add(kind, cold, trial(kind, cold, moment, whole[kind], folder))
            i += 1
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interrupts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    counted = trials(given.interrupts, given.seed)
    found = counted.found
    print(
        f"{found['interrupted']} interrupts, {found['interrupted, compiling']} of them in runs "
        f"that compiled; {found['too late']} came too late. {found['a step was half done']} steps "
        f"half done, {found['the end was another']} other ends, "
        f"{found['a file was of another step']} files of other steps, "
        f"{sum(n for name, n in found.items() if name.startswith('raw') and ',' not in name)} raw "
        "errors"
    )
    for error in counted.errors:
        print(error)
    if counted.errors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
