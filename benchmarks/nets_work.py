"""The nets that are timed: their batches, and how their processes answer."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Adam's numbers; as in `works.py`.
ETA, BETA, EPSILON = 1e-3, (0.9, 1 - 2**-10), 1e-8

BATCHES = 4  # different ones, taken in turn


@dataclass(frozen=True)
class Net:
    """What a net is trained on.

    Args:
        shape: of a batch of input.
        classes: how many labels there are.
        tokens: whether the input are indices, each with the label that comes after it.
        steps: training steps in a round.
    """

    shape: tuple[int, ...]
    classes: int
    tokens: bool = False
    steps: int = 4

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Noise, so that there is always something left to learn."""
        rng = np.random.default_rng(3)
        made = []
        for _ in range(BATCHES):
            if self.tokens:
                x = rng.integers(0, self.classes, self.shape).astype(np.int32)
            else:
                x = rng.standard_normal(self.shape).astype(np.float32)
            size = self.shape if self.tokens else self.shape[:1]
            made.append((x, rng.integers(0, self.classes, size).astype(np.int32)))
        return made


WIDE, HEADS, LAYERS, VOCABULARY, TIME = 128, 4, 4, 256, 64  # of the GPT

NETS = {
    "lenet": Net((128, 28, 28, 1), 10, steps=16),
    "vgg": Net((64, 32, 32, 3), 10),
    "resnet": Net((32, 32, 32, 3), 10, steps=8),
    "lstm": Net((32, 64, 256), 10, steps=8),
    "gpt": Net((32, TIME), VOCABULARY, tokens=True),
    "mlp": Net((64, 784), 10, steps=100),
}


def serve(make: Any) -> None:
    """Answer lines: `run 20` with seconds and last loss, `gradient path`, `memory`, …"""
    started = time.perf_counter()
    mine = make()
    first = time.perf_counter()
    mine.run(1)
    seconds = time.perf_counter() - first
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "run":
            start = time.perf_counter()
            loss = mine.run(int(rest[0]))
            print(time.perf_counter() - start, float(loss), flush=True)
        elif word == "first":
            print(seconds, first - started, flush=True)
        elif word == "gradient":
            np.savez(rest[0], *mine.gradient())
            print(0.0, flush=True)
        elif word == "plain":
            print(mine.against_plain(), flush=True)
        elif word == "compare":
            print(mine.compare(*rest), flush=True)
        elif word == "memory":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(peak / 1024, flush=True)
