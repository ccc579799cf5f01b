"""How long one training step takes, beside a hand-written `jax.jit` step and other libraries.

    python benchmarks/overhead.py                 all of it, some minutes
    python benchmarks/overhead.py --quick         few rounds, to see that it runs
    python benchmarks/overhead.py --only 2-16-2 engine

Everybody takes turns within one run; what counts are the ratios of medians. That all compute the
same is checked first: the gradient of the first batch against plain autodiff, the loss after some
steps against the hand-written step.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import engine
import jax
import numpy as np
from ours import OURS, Loop, TrainLoader, Trainstep
from plain import Plain
from rivals import RIVALS, THREADS, Equinox, FlaxNNX, PyTorch
from timing import SCATTER, Times, stopwatch, take_turns
from works import WORKS, Work

TOLERANCE = 1e-5  # relative, of gradients and of losses
_CHECKED = 10  # steps before losses are compared
_DEEP = 50  # layers from which on a quick run has only what is judged: compiling takes long
ENGINE = "engine"


class Ratio(NamedTuple):
    """A row of the table of ratios: what it must be, and what would be good."""

    work: str
    ours: Any
    other: Any
    must: float
    goal: float


RATIOS = (
    Ratio("2-16-2", Trainstep, Plain, 1.5, 1.1),
    Ratio("20x64", Trainstep, Plain, 1.3, 1.1),
    Ratio("100x64", Trainstep, Plain, 1.2, 1.1),
    Ratio("2-16-2", Loop, Plain, 2.0, 1.3),
    Ratio("20x64", Loop, Plain, 1.5, 1.3),
    Ratio("100x64", Loop, Plain, 1.3, 1.3),
    Ratio("2-16-2", Loop, PyTorch, 0.5, 0.33),
    Ratio("2-16-2", Loop, Equinox, 0.5, 0.25),
    Ratio("2-16-2", Loop, FlaxNNX, 0.2, 0.1),
    Ratio("2-16-2", TrainLoader, Plain, 0.35, 0.2),
)


def compared(work: Work, rounds: int, *, quick: bool) -> dict[str, Times]:
    """The times of everybody on one work, after a check that all compute the same."""
    others = (Trainstep, Loop) if quick and len(work.sizes) > _DEEP else (*OURS, *RIVALS)
    contenders = [make(work) for make in (Plain, *others)]
    try:
        check_gradients(work, contenders)
        check_losses(work, contenders)
        for contender in contenders:
            contender.run(work.steps)
        runs = [_timed(contender, work.steps) for contender in contenders]
        times = take_turns(runs, rounds, work.steps)
    finally:
        for contender in contenders:
            getattr(contender, "close", lambda: None)()
    return {c.name: t for c, t in zip(contenders, times, strict=True)}


def _timed(contender: Any, steps: int) -> Callable[[], float]:
    """One round; a contender in another process says itself how long it took."""
    if isinstance(contender, PyTorch):
        return lambda: (contender.run(steps), contender.seconds)[1]
    return lambda: stopwatch(lambda: contender.run(steps))


def check_gradients(work: Work, contenders: Sequence[Any]) -> None:
    """An error unless all gradients of the first batch are those of plain autodiff."""
    wanted = contenders[0].gradient()
    for contender in contenders[1:]:
        found = contender.gradient()
        if found is None:
            continue
        if len(found) == 1:  # end to end
            found = _cut(found[0], wanted)
        for a, b in zip(found, wanted, strict=True):
            error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
            if not error <= TOLERANCE:
                _different(contender, work, "gradient", error)


def _cut(flat: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    parts = np.split(flat, np.cumsum([a.size for a in like])[:-1])
    return [part.reshape(a.shape) for part, a in zip(parts, like, strict=True)]


def check_losses(work: Work, contenders: Sequence[Any]) -> None:
    """An error unless all losses after some steps are that of the hand-written step."""
    steps = min(_CHECKED, work.steps)
    losses = [contender.run(steps) for contender in contenders]
    for contender, loss in zip(contenders, losses, strict=True):
        error = abs(loss / losses[0] - 1)
        if not error <= TOLERANCE:
            _different(contender, work, f"loss after {steps} steps", error)


def _different(contender: Any, work: Work, what: str, error: float) -> None:
    raise SystemExit(
        f"{contender.name} does not compute what the others do: on {work.name} its {what} differs "
        f"by {error:.1e}, more than {TOLERANCE:.0e}."
    )


# --- printing -----------------------------------------------------------------------------


def print_machine(rounds: int) -> None:
    names = ("jax", "jaxlib", "torch", "equinox", "flax", "optax")
    versions = [f"{n} {v}" for n in names if (v := _version(n)) is not None]
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"{', '.join(versions)}; {jax.default_backend()}, PyTorch with {THREADS} threads")
    print(f"{rounds} rounds; a load of {os.getloadavg()[0]:.1f} before\n")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def print_times(times: dict[str, dict[str, Times]]) -> None:
    """The table of absolute medians, with the scatter of the rounds behind each."""
    print("µs per step: median of rounds (ninth decile / first decile)\n")
    names = list(dict.fromkeys(name for of_work in times.values() for name in of_work))
    print_row("", *times)
    print_row("---", *("---:" for _ in times))
    for name in names:
        found = [of_work.get(name) for of_work in times.values()]
        print_row(name, *(f"{t.median:.0f} ({t.scatter:.1f})" if t else "" for t in found))
    print()


def print_row(first: str, *cells: str) -> None:
    print(f"| {first:27s} | {' | '.join(f'{c:>14s}' for c in cells)} |")


def print_ratios(times: dict[str, dict[str, Times]]) -> None:
    print("ratios of medians\n")
    print("| work | net | ratio | must | goal | |")
    print("|---|---|---:|---:|---:|---|")
    for row in RATIOS:
        of_work = times.get(row.work, {})
        ours, other = of_work.get(row.ours.name), of_work.get(row.other.name)
        if ours is None or other is None:
            continue
        what = f"{row.ours.name} / {row.other.name}"
        ratio = ours.median / other.median
        limits = f"{row.must:g} | {row.goal:g}"
        print(f"| {what} | {row.work} | {ratio:.2f} | {limits} | {verdict(row, ours, other)} |")
    print()


def verdict(row: Ratio, ours: Times, other: Times) -> str:
    """What a ratio comes to: nothing is judged by rounds that scatter."""
    if not (ours.steady and other.steady):
        return f"scatter (more than {SCATTER:g}), not judged"
    ratio = ours.median / other.median
    return "goal" if ratio <= row.goal else "must" if ratio <= row.must else "MISSED"


def print_engine(rows: list[tuple[str, float, float, float]]) -> None:
    print(
        "µs per call of fx.gradient, of a bare jax.jit of the same gradient, and the difference\n"
    )
    print_row("", "fx.gradient", "jax.jit", "engine")
    print_row("---", *["---:"] * 3)
    for name, *numbers in rows:
        print_row(name, *(f"{v:.1f}" for v in numbers))
    print()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, help="turns of everybody (default 40, quick 7)")
    parser.add_argument(
        "--only", nargs="+", choices=[*WORKS, ENGINE], default=[*WORKS, ENGINE], help="of the works"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, fewer rivals")
    options = parser.parse_args(arguments)
    rounds = options.rounds or (7 if options.quick else 40)
    print_machine(rounds)
    times = {}
    for name in options.only:
        if name in WORKS:
            work = WORKS[name]
            if options.quick:
                work = dataclasses.replace(work, steps=max(5, work.steps // 2))
            print(f"... {name}", file=sys.stderr)
            times[name] = compared(work, rounds, quick=options.quick)
    if times:
        print_times(times)
        print_ratios(times)
    if ENGINE in options.only:
        print_engine(engine.costs(rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
