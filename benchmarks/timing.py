"""Taking turns: rounds in which everybody runs once, in an order that rotates."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Rounds that differ by more than this factor (ninth decile to first) are not judged.
SCATTER = 2.0


@dataclass(frozen=True)
class Times:
    """The times of one contender, in µs per step, one for each round."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def scatter(self) -> float:
        """The ninth decile over the first."""
        deciles = statistics.quantiles(self.rounds, n=10, method="inclusive")
        return deciles[-1] / deciles[0]

    @property
    def steady(self) -> bool:
        return self.scatter <= SCATTER


def stopwatch(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(runs: Sequence[Callable[[], float]], rounds: int, steps: int) -> list[Times]:
    """Every contender once in each round, another one first each time.

    Args:
        runs: each runs `steps` steps and gives the seconds that took.
        rounds: how often.
        steps: steps in one run.
    """
    gc.collect()
    gc.freeze()  # what was there before is no part of anybody's step
    taken: list[list[float]] = [[] for _ in runs]
    for r in range(rounds):
        for i in range(len(runs)):
            k = (r + i) % len(runs)
            taken[k].append(runs[k]() / steps * 1e6)
    gc.unfreeze()
    return [Times(t) for t in taken]
