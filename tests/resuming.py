"""A run that has everything in it that a resume could lose, in steps that can be taken one by one.

    python tests/resuming.py folder step...

goes on from the checkpoint of each step to the end, in one process, and prints a line for each: the
step, and a fingerprint of the end.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import fluxax as fx

STEPS = 60  # eight epochs of seven and a half


def schedule(step):
    return 0.02 / (1 + 0.1 * step)


def loss(m, x, y):
    return fx.logitcrossentropy(m(x + 0.01 * fx.randn32(*x.shape)), y)


class Run:
    """Model, state, loader, and where in the schedule of the run we are."""

    def __init__(self, seed: int = 0):
        fx.seed(seed)
        enc = fx.Chain(fx.Dense(4, 6, fx.tanh), fx.BatchNorm(6), fx.Dropout(0.3))
        self.model = fx.Chain(enc=enc, mid=fx.Dense(6, 6), again=fx.Dense(6, 6), out=fx.Dense(6, 3))
        self.model.layers.again.weight = self.model.layers.mid.weight  # tied
        rule = fx.OptimiserChain(fx.AccumGrad(2), fx.Adam(schedule))
        self.opt_state = fx.setup(rule, self.model)
        rng = np.random.default_rng(1)
        data = rng.normal(size=(28, 4)).astype("float32"), rng.integers(0, 3, 28)
        self.loader = fx.DataLoader(data, batchsize=4, shuffle=True)
        self.batches: Any = iter(self.loader)
        self.losses: list[float] = []
        self.noise = np.random.default_rng(2)

    def step(self) -> None:
        """One step; what changes in mid-run changes at fixed steps."""
        n = len(self.losses)
        enc = self.opt_state.layers.enc
        if n == 20:
            fx.freeze(enc)
        if n == 33:
            fx.thaw(enc)
            fx.adjust(self.opt_state.layers.out, beta=(0.8, 0.99))
        if n == 45:
            fx.testmode(self.model.layers.enc.layers[2])
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        x = batch[0] + 0.01 * self.noise.normal(size=batch[0].shape).astype("float32")
        x = x + 0.01 * np.asarray(fx.randn32(*x.shape))
        if n % 13 == 5:  # by hand, once in a while
            value, grads = fx.withgradient(lambda m: loss(m, x, batch[1]), self.model)
            fx.update(self.opt_state, self.model, grads[0])
        else:
            value = fx.trainstep(loss, self.model, (x, batch[1]), self.opt_state)
        self.losses.append(float(value))

    def things(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "opt_state": self.opt_state,
            "loader": self.loader,
            "losses": self.losses,
            "noise": self.noise,
        }

    def save(self, path: Path) -> None:
        fx.save(path, **self.things())

    def load(self, path: Path) -> None:
        fx.load(path, **self.things())
        self.batches = iter(self.loader)

    def finish(self) -> str:
        """Go on to the end; a fingerprint of everything there."""
        while len(self.losses) < STEPS:
            self.step()
        return self.fingerprint()

    def fingerprint(self) -> str:
        states = [leaf.state for leaf in fx.optimisers._state.leaves_of("", self.opt_state)]
        numbers = jax.tree.leaves((fx.state(self.model), states))
        digest = hashlib.sha256(np.asarray(self.losses).tobytes())
        for number in numbers:
            digest.update(np.asarray(number).tobytes())
        drawn = np.asarray(fx.rand32(3)).tobytes(), self.noise.bytes(8)
        digest.update(repr((drawn, self.loader.state_dict())).encode())
        return digest.hexdigest()


def main() -> None:
    folder = Path(sys.argv[1])
    for step in map(int, sys.argv[2:]):
        run = Run(seed=100 + step)  # nothing may come from the seed
        run.load(folder / str(step))
        print(step, run.finish(), flush=True)


if __name__ == "__main__":
    main()
