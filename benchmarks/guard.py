"""What the guard against numbers that are not finite costs: trainstep with and without it.

    python benchmarks/guard.py [--rounds 20]

The other contenders are the very same fused program: one traced with the guard's answer as a
constant, so that XLA leaves the sums over the gradients and the choice between old and new values
out; and one that looks at a single number of each gradient. That one shows what it costs to have
all gradients before anything is written, whoever looks at them: without a guard XLA updates a
layer while its gradient is still in the cache.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import ours
from timing import stopwatch, take_turns
from works import Work

import fluxax as fx
from fluxax import _step

MOST, SLOW = 0.02, 5_000.0  # the share allowed, where a step takes more than so many µs
WORKS = (
    Work("2-16-2, 4 arrays", (2, 16, 2), 32, 400, True),
    Work("20x64, 40 arrays", (64,) * 21, 64, 60, False),
    Work("784-1024x2-10, 128", (784, 1024, 1024, 10), 128, 6, True),
    Work("784-1024x2-10, 512", (784, 1024, 1024, 10), 512, 3, True),
)


def waits(values: list[Any]) -> Any:
    """Whether the first number of each array is finite."""
    return sum(jnp.ravel(v)[0] * 0 for v in values) == 0


class Traced:
    """A context in which steps are traced with another look at the gradients, `None` for none."""

    def __init__(self, look: Any):
        self.look = look

    def __enter__(self) -> None:
        self.before: Any = _step._finite, _step.Fused.run
        fused: Any = _step.Fused
        run, look = fused.run, self.look
        _step._finite = look or (lambda values: jnp.bool_(True))

        def always(self: Any, *arguments: Any) -> Any:
            return run(self, *arguments[:5], jnp.bool_(True))

        if look is None:
            fused.run = always

    def __exit__(self, *_: Any) -> None:
        _step._finite, _step.Fused.run = self.before


# each on a line of its own: other objectives, other programs
def with_guard(error: Any) -> Any:
    return lambda m, x, y: error(m(x), y)


def that_waits(error: Any) -> Any:
    return lambda m, x, y: error(m(x), y)


def without_guard(error: Any) -> Any:
    return lambda m, x, y: error(m(x), y)


def contender(work: Work, loss: Any) -> ours.Trainstep:
    """Training of a net of its own, compiled."""
    net = ours.Trainstep(work)
    net.loss = loss(net.error)
    net.run(3)
    return net


def held_back(work: Work, loss: Any) -> bool:
    """Whether a step that goes bad leaves the model as it was."""
    net = contender(work, loss)
    before = net.model.layers[0].weight
    x, y = net.batches[0]
    fx.trainstep(net.loss, net.model, (x * jnp.nan, y), net.opt_state)
    return bool(jnp.array_equal(before, net.model.layers[0].weight))


def measure(work: Work, rounds: int) -> bool:
    """Print a line; whether the guard costs no more than it may."""
    nets = [contender(work, with_guard)]
    with Traced(waits):
        nets.append(contender(work, that_waits))
    with Traced(None):
        nets.append(contender(work, without_guard))
    assert held_back(work, with_guard)
    assert not held_back(work, without_guard), "the other contender has the guard too"
    runs = [lambda net=net: stopwatch(lambda: net.run(work.steps)) for net in nets]
    armed, waiting, without = take_turns(runs, rounds, work.steps)
    shares = [t.median / without.median - 1 for t in (armed, waiting)]
    judged = without.median > SLOW
    verdict = "" if not judged else "good" if shares[0] <= MOST else "MISSED"
    print(
        f"{work.name:20} {armed.median:9.0f} {without.median:9.0f} {shares[0]:+8.1%} "
        f"{shares[1]:+8.1%}   {armed.scatter:.1f} {without.scatter:.1f}  {verdict}",
        flush=True,
    )
    return not judged or shares[0] <= MOST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print(f"jax {jax.__version__}; µs per step, median of {rounds} rounds; then the scatter")
    print(f"{'':20} {'guarded':>9} {'without':>9} {'cost':>8} {'to wait':>8}")
    good = [measure(work, rounds) for work in WORKS]
    if not all(good):
        raise SystemExit(f"The guard costs more than {MOST:.0%} of a step over {SLOW:.0f} µs.")


if __name__ == "__main__":
    main()
