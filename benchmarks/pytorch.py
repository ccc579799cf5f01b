"""PyTorch's side of the benchmark, in a process of its own: answers lines from its input.

`run 20` trains for 20 steps and answers with seconds and last loss, `gradient` answers with the
gradient of the first batch. It imports no JAX.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import torch
from works import BETA, EPSILON, ETA, WORKS, Work


class Torch:
    """A net, its optimiser, its batches."""

    def __init__(self, work: Work):
        layers: list[Any] = []
        for w, b in work.weights():
            linear = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers[:-1])
        self.adam = torch.optim.Adam(
            self.model.parameters(), ETA, betas=BETA, eps=EPSILON, fused=True
        )
        self.error = (
            torch.nn.functional.cross_entropy if work.classes else torch.nn.functional.mse_loss
        )
        self.batches = [
            (torch.from_numpy(x.copy()), torch.from_numpy(y.copy()).to(_dtype(work)))
            for x, y in work.batches()
        ]

    def run(self, steps: int) -> float:
        """Train; the last loss."""
        model, adam, error = self.model, self.adam, self.error
        value: Any = None
        for x, y in self.batches[:steps]:
            adam.zero_grad()
            value = error(model(x), y)
            value.backward()
            adam.step()
        return value.item()

    def gradient(self) -> list[float]:
        """The gradient of the first batch, end to end, weights as (in, out)."""
        x, y = self.batches[0]
        parameters = list(self.model.parameters())
        grads = torch.autograd.grad(self.error(self.model(x), y), parameters)
        return torch.cat([g.T.reshape(-1) if g.ndim == 2 else g for g in grads]).tolist()


def _dtype(work: Work) -> Any:
    return torch.int64 if work.classes else torch.float32


def main() -> None:
    name, steps, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.set_num_interop_threads(1)
    mine = Torch(dataclasses.replace(WORKS[name], steps=int(steps)))
    for line in sys.stdin:
        if line.startswith("run"):
            start = time.perf_counter()
            loss = mine.run(int(line.split()[1]))
            print(time.perf_counter() - start, repr(loss), flush=True)
        else:
            print(*mine.gradient(), flush=True)


if __name__ == "__main__":
    main()
