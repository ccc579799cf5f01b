"""early_stopping, plateau, patience and throttle, against Flux's examples and rows of scores."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

import fluxax as fx
from fluxax import _stopping

same = lambda score: score


def fires(trigger: Callable[[Any], bool], scores: Any) -> list[int]:
    """At which calls a trigger is true, from 1."""
    return [i for i, score in enumerate(scores, 1) if trigger(score)]


def test_patience_counts_in_a_row() -> None:
    trigger = fx.patience(lambda x, y=0: x > y, 3)
    assert fires(trigger, [1, 1, 0, 1, 1, 1, 1, 0, 1]) == [6, 7]
    assert [trigger(3, y=2) for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize(
    "scores, options, expected",
    [
        ([5, 3, 4, 2, 3, 4, 5], {}, [6, 7]),
        ([5, 5, 5, 5], {}, []),  # an equal score is as good
        ([5, 4.95, 4.9, 4.85], {"min_dist": 0.1}, [3, 4]),  # too little to count as better
        ([3, 4, 5], {"init_score": 0}, [2, 3]),  # Flux 0.13's default
        ([1, 2, 1, 0, 3, 2, 1], {"distance": lambda b, s: s - b, "init_score": -math.inf}, [4, 7]),
        ([2, math.nan, math.nan, 1], {}, [3]),  # not a number is no better
    ],
)
def test_early_stopping(scores: list[float], options: dict[str, Any], expected: list[int]) -> None:
    assert fires(fx.early_stopping(same, 2, **options), scores) == expected


@pytest.mark.parametrize(
    "scores, width, options, expected",
    [
        ([-9, 8, -7, 6], 3, {"init_score": 10, "min_dist": 18}, [4]),  # the example of Flux
        ([5, 3, 3, 3, 3], 2, {}, [4, 5]),
        ([5, 4, 3, 2, 1], 2, {}, []),
        ([5, 4, 4.5, 4, 4.5], 2, {"min_dist": 1}, [4, 5]),
        ([0, 0], 1, {"init_score": 0}, [1, 2]),
    ],
)
def test_plateau(scores: Any, width: int, options: dict[str, Any], expected: list[int]) -> None:
    assert fires(fx.plateau(same, width, **options), scores) == expected


def test_scores_are_those_of_f() -> None:
    losses = iter([3.0, 2.0, 2.5, 2.6])
    stop = fx.early_stopping(lambda step: next(losses) + 0 * step, 2)
    assert fires(stop, range(4)) == [4]


# --- throttle, by a clock of ours -----------------------------------------------------------


class Clock:
    """Time that passes when it is told to, and timers that go by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        due = [run for at, run in self.timers if at <= self.now]
        self.timers = [(at, run) for at, run in self.timers if at > self.now]
        for run in due:
            run()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    class Timer:
        def __init__(self, seconds: float, run: Callable[[], None]):
            self.at, self.run, self.daemon = clock.now + seconds, run, False

        def start(self) -> None:
            assert self.daemon
            clock.timers.append((self.at, self.run))

    monkeypatch.setattr(_stopping.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(threading, "Timer", Timer)
    return clock


#: Calls at 0, 1, 2 and 11 seconds with a period of 10: what ran until 15 seconds.
RUNS = {(True, False): [0, 11], (True, True): [0, 2, 11], (False, True): [2], (False, False): []}


@pytest.mark.parametrize("leading, trailing", RUNS)
def test_throttle(clock: Clock, leading: bool, trailing: bool) -> None:
    ran: list[int] = []
    f = fx.throttle(lambda n: ran.append(n) or n, 10, leading=leading, trailing=trailing)
    results = []
    for n in (0, 1, 2, 11):
        clock.pass_(n - clock.now)
        results.append(f(n))
    clock.pass_(4)
    if (leading, trailing) == (True, True):  # 2 ran at 10, so 11 waits until 20
        assert ran == [0, 2]
        clock.pass_(10)
    assert ran == RUNS[leading, trailing]
    if (leading, trailing) == (True, False):
        assert results == [0, 0, 0, 11]


def test_throttle_looks_like_the_function(clock: Clock) -> None:
    def report(step: int, *, loud: bool = False) -> str:
        """Say where we are."""
        return f"{step}{'!' * loud}"

    slow = fx.throttle(report, 5)
    assert (slow.__name__, slow.__doc__) == ("report", "Say where we are.")
    assert slow(1, loud=True) == "1!"
    assert [slow(2) for _ in itertools.repeat(None, 3)] == ["1!"] * 3
