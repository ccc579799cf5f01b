"""The work that is timed: shapes, starting weights and data, in NumPy, the same for everybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Adam's numbers, for everybody. The second decay is not 0.999, for which 1 - βᵗ in float32, as
#: Optax and the hand-written step compute it, is off by 6e-5 in the first steps: everybody would
#: train, but no two losses would agree to 1e-5. Of this number float32 holds every bit.
ETA, BETA, EPSILON = 1e-3, (0.9, 1 - 2**-10), 1e-8

Weights = list[tuple[np.ndarray, np.ndarray]]
Batches = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Work:
    """A fully connected net with relu between its layers, and batches to train it on.

    Args:
        sizes: features before, between and after the layers.
        batch: observations in a batch.
        steps: training steps in a round; so many batches there are.
        classes: whether the targets are labels (cross entropy of the scores) or numbers (mean
            squared error).
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    steps: int
    classes: bool

    def weights(self) -> Weights:
        """Starting weights, He's: their signal neither fades nor grows over a hundred layers."""
        rng = np.random.default_rng(1)
        shapes = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        return [
            ((rng.standard_normal((m, n)) * np.sqrt(2 / m)).astype(np.float32), zeros(n))
            for m, n in shapes
        ]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All observations and targets of a round; noise, so that the loss does not go to 0."""
        rng = np.random.default_rng(2)
        n = self.batch * self.steps
        x = rng.standard_normal((n, self.sizes[0])).astype(np.float32)
        if self.classes:
            return x, rng.integers(0, self.sizes[-1], n).astype(np.int32)
        return x, rng.standard_normal((n, self.sizes[-1])).astype(np.float32)

    def batches(self) -> Batches:
        """The same, batch by batch."""
        x, y = self.arrays()
        cuts = range(0, len(x), self.batch)
        return [(x[i : i + self.batch], y[i : i + self.batch]) for i in cuts]


def zeros(n: int) -> np.ndarray:
    """A bias to start with."""
    return np.zeros(n, np.float32)


WORKS = {
    work.name: work
    for work in (
        Work("2-16-2", (2, 16, 2), 32, 200, True),
        Work("20x64", (64,) * 21, 64, 24, False),
        Work("100x64", (64,) * 101, 64, 8, False),
        Work("784-256-10", (784, 256, 10), 64, 24, True),
    )
}
