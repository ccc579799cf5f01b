"""What the implicit style costs: its loop beside the explicit one, on the same nets and batches.

    python benchmarks/implicit.py            all works
    python benchmarks/implicit.py 2-16-2     one

The limit is 1.5 times the explicit loop. That both train alike is checked first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ours import Loop
from timing import stopwatch, take_turns
from works import BETA, EPSILON, ETA, WORKS

import fluxax as fx

MUST = 1.5
_ROUNDS = 30


class Implicit(Loop):
    """gradient and update by Params."""

    name = "implicit"

    def __init__(self, work: Any):
        super().__init__(work)
        self.ps = fx.params(self.model)
        self.opt = fx.Adam(ETA, BETA, EPSILON)

    def run(self, steps: int) -> float:
        value: Any = None
        error, model, ps, opt = self.error, self.model, self.ps, self.opt
        for x, y in self.batches[:steps]:
            value, gs = fx.withgradient(lambda: error(model(x), y), ps)
            fx.update(opt, ps, gs)
        return self.wait(value)


def main(names: Sequence[str]) -> None:
    print("| work | explicit µs | implicit µs | ratio | must |")
    print("|---|---:|---:|---:|---:|")
    for work in (WORKS[name] for name in names or WORKS):
        loops = Loop(work), Implicit(work)
        losses = [loop.run(work.steps) for loop in loops]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
        runs = [lambda loop=loop: stopwatch(lambda: loop.run(work.steps)) for loop in loops]
        explicit, implicit = take_turns(runs, _ROUNDS, work.steps)
        ratio = f"{implicit.median / explicit.median:.2f}"
        print(f"| {work.name} | {explicit.median:.1f} | {implicit.median:.1f} | {ratio} | {MUST} |")


if __name__ == "__main__":
    main(sys.argv[1:])
