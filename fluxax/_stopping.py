"""When to stop, and how often to act: predicates and a throttle, with state of their own."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fluxax._errors import no_array, short


def patience(predicate: Callable[..., Any], wait: int) -> Callable[..., bool]:
    """A function that is true once a predicate was true `wait` times in a row.

    Args:
        predicate: called with whatever the function is called with.
        wait: how many times, at least 1.

    Example:
        >>> import fluxax as fx
        >>> trigger = fx.patience(lambda loss: loss > 1, 3)
        >>> [trigger(loss) for loss in (2, 2, 0, 2, 2, 2, 2)]
        [False, False, False, False, False, True, True]
    """
    _check("patience", predicate, wait, "a wait")
    count = 0

    def trigger(*args: Any, **kwargs: Any) -> bool:
        nonlocal count
        count = count + 1 if predicate(*args, **kwargs) else 0
        return count >= wait

    return trigger


def _check(who: str, f: Any, n: Any, what: str) -> None:
    if not callable(f):
        raise TypeError(f"{who} expects a function first, got {short(f)}.")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"{who} expects {what} as an integer of at least 1, got {short(n)}.")


def _minus(best: float, score: float) -> float:
    if no_array(score) or np.shape(score) != ():
        raise TypeError(f"A score expects to be one number, got {short(score)}.")
    return best - score


def _check_distance(who: str, distance: Any, min_dist: Any) -> None:
    if not callable(distance):
        raise TypeError(f"{who} expects a function as distance, got {short(distance)}.")
    if no_array(min_dist) or np.shape(min_dist) != ():
        raise TypeError(f"{who} expects a number as min_dist, got {short(min_dist)}.")


def early_stopping(
    f: Callable[..., Any],
    delay: int,
    *,
    distance: Callable[[Any, Any], Any] = _minus,
    init_score: Any = math.inf,
    min_dist: float = 0,
) -> Callable[..., bool]:
    """A function that is true once a score has not improved `delay` times in a row.

    A score improves on the best so far if `distance(best, score)` is at least `min_dist`.

    Args:
        f: gives the score; called with whatever the function is called with.
        delay: how many times, at least 1.
        distance: how much better a score is than the best; by default smaller is better. For a
            score that should grow: `distance=lambda best, score: score - best, init_score=-inf`.
        init_score: the best before the first call. (Flux 0.13 had 0, which no positive loss beats.)
        min_dist: what counts as better.

    Example:
        >>> import fluxax as fx
        >>> stop = fx.early_stopping(lambda loss: loss, 2)
        >>> [stop(loss) for loss in (5, 3, 4, 2, 3, 4)]
        [False, False, False, False, False, True]
    """
    _check("early_stopping", f, delay, "a delay")
    _check_distance("early_stopping", distance, min_dist)
    best = init_score

    def no_better(*args: Any, **kwargs: Any) -> bool:
        nonlocal best
        score = f(*args, **kwargs)
        gain = distance(best, score)
        if gain >= 0:  # a score that is not a number is no better, and is not kept
            best = score
        return not gain >= min_dist

    return patience(no_better, delay)


def plateau(
    f: Callable[..., Any],
    width: int,
    *,
    distance: Callable[[Any, Any], Any] = _minus,
    init_score: Any = math.inf,
    min_dist: float = 1e-6,
) -> Callable[..., bool]:
    """A function that is true once a score has hardly changed `width` times in a row.

    Args:
        f: gives the score; called with whatever the function is called with.
        width: how many times, at least 1.
        distance: how far a score is from the one before.
        init_score: the one before the first.
        min_dist: changes below this are none.

    Example:
        >>> import fluxax as fx
        >>> flat = fx.plateau(lambda loss: loss, 2, min_dist=0.1)
        >>> [flat(loss) for loss in (5, 3, 3.05, 3.0, 3.02)]
        [False, False, False, True, True]
    """
    _check("plateau", f, width, "a width")
    _check_distance("plateau", distance, min_dist)
    last = init_score

    def no_change(*args: Any, **kwargs: Any) -> bool:
        nonlocal last
        score = f(*args, **kwargs)
        change, last = abs(distance(last, score)), score
        return bool(change < min_dist)

    return patience(no_change, width)


def throttle(
    f: Callable[..., Any], timeout: float, *, leading: bool = True, trailing: bool = False
) -> Callable[..., Any]:
    """A function that does what `f` does, but at most once every `timeout` seconds.

    Calls in between give the last result.

    Args:
        f: any function, such as one that evaluates and prints.
        timeout: seconds.
        leading: run the first call at once.
        trailing: run the last of the calls that were left out when the time is over (in a thread
            of its own).

    Example:
        >>> import fluxax as fx
        >>> report = fx.throttle(lambda step: f"step {step}", 60)
        >>> [report(step) for step in range(3)]
        ['step 0', 'step 0', 'step 0']
    """
    if not callable(f):
        raise TypeError(f"throttle expects a function first, got {short(f)}.")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise ValueError(f"throttle expects a timeout of at least 0 seconds, got {short(timeout)}.")
    return functools.wraps(f)(_Throttled(f, timeout, leading, trailing))


class _Throttled:
    """What `throttle` returns."""

    def __init__(self, f: Callable[..., Any], timeout: float, leading: bool, trailing: bool):
        self.f, self.timeout, self.leading, self.trailing = f, timeout, leading, trailing
        self.result: Any = None
        self.until = -math.inf  # calls before this are left out
        self.waiting: tuple[Any, Any] | None = None  # the arguments of the last one
        self.lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            now = time.monotonic()
            opens = now >= self.until
            if opens:
                self.until = now + self.timeout
            if opens and self.leading:
                self.result = self.f(*args, **kwargs)
            elif self.trailing:
                if self.waiting is None:
                    self._later(self.until - now)
                self.waiting = args, kwargs
            return self.result

    def _later(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._run_waiting)
        timer.daemon = True
        timer.start()

    def _run_waiting(self) -> None:
        with self.lock:
            if self.waiting is not None:
                (args, kwargs), self.waiting = self.waiting, None
                self.until = time.monotonic() + self.timeout
                self.result = self.f(*args, **kwargs)
