"""What checking programs costs: the share of the first 10,000 steps, and of a single call.

    python benchmarks/checks.py [--rounds 5] [--only 2-16-2 20x64]

A check walks and traces the function once more (`docs/design/capture.md`, "Believed, then
checked"). In 10,000 steps there are five: at calls 2, 8, 64, 512 and 4,096; where a pass runs in
pieces, one for all calls that are due in a piece. Here the checks of some 600 steps are timed and
counted where they happen, each round with programs of its own; the last is counted in addition.
Steps are timed in the same run, between the checks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import ours
from works import WORKS, Work

import fluxax as fx
from fluxax._compile import _check

MUST, GOAL = 0.04, 0.01  # the share allowed, and what would be good
STEPS, COUNTED = 10_000, 600
WAYS = (ours.Trainstep, ours.Loop, ours.TrainLoader)


class Watch:
    """The times of all checks while it is on."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def __enter__(self) -> Watch:
        self.real: Any = _check.stale

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            found = self.real(*arguments)
            self.taken.append(time.perf_counter() - start)
            return found

        _check.stale = timed
        return self

    def __exit__(self, *_: Any) -> None:
        _check.stale = self.real


def round_of(way: Any, work: Work) -> tuple[list[float], float]:
    """The seconds of each check of a run, and of a step between them."""
    fx.clear_cache()
    net = way(work)
    with Watch() as watch:
        for _ in range(-(-COUNTED // work.steps)):
            net.run(work.steps)
    start = time.perf_counter()
    for _ in range(3):
        net.run(work.steps)
    return watch.taken, (time.perf_counter() - start) / (3 * work.steps)


def measure(way: Any, work: Work, rounds: int) -> bool:
    """Print a line; whether the share is allowed."""
    found = [round_of(way, work) for _ in range(rounds)]
    check = statistics.median(t for taken, _ in found for t in taken)
    step = statistics.median(s for _, s in found)
    checks = statistics.median(len(taken) for taken, _ in found) + 1
    share = checks * check / (STEPS * step + checks * check)
    verdict = "goal" if share <= GOAL else "must" if share <= MUST else "MISSED"
    times = f"{check * 1e3:8.2f} {step * 1e6:9.1f} {share:8.1%}"
    print(f"{way.name:22} {work.name:12} {times}  {verdict}", flush=True)
    return share <= MUST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(WORKS), default=list(WORKS))
    chosen = parser.parse_args()
    print(f"jax {jax.__version__}; medians of {chosen.rounds} rounds")
    print(f"{'':22} {'':12} {'check ms':>8} {'step µs':>9} {'share':>8}")
    good = [measure(way, WORKS[n], chosen.rounds) for n in chosen.only for way in WAYS]
    if not all(good):
        raise SystemExit(f"Checks take more than {MUST:.0%} of {STEPS:,} steps somewhere.")


if __name__ == "__main__":
    main()
