"""How long `update` alone takes: Adam over 4, 40 and 400 arrays.

    python benchmarks/update.py [--rounds 40] [--only 400]

Beside it Optax's `update` and `apply_updates` in one `jax.jit` that owns its state, and PyTorch's
`Adam(fused=True)`, in a process of its own, where they are installed. The parameters are those of
2-16-2, 20x64 and 200x64 nets, in nested lists and dicts; the gradient is there already. That all
compute the same is checked first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

import numpy as np

ETA, BETA, EPSILON = 1e-3, (0.9, 1 - 2**-10), 1e-8
SIZES = {4: (2, 16, 2), 40: (64,) * 21, 400: (64,) * 201}
STEPS = {4: 200, 40: 50, 400: 10}
LIMITS = {("Optax", 400): 1.3, ("PyTorch", 4): 1.0, ("PyTorch", 40): 1.0}
THREADS = 2
_PAUSE = 0.05  # seconds in which PyTorch's threads stop spinning
_CHECKED = 3  # steps before results are compared


def arrays(n: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Weights and biases, layer by layer."""
    rng = np.random.default_rng(seed)
    pairs = zip(SIZES[n][:-1], SIZES[n][1:], strict=True)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    return [{"weight": draw(a, b), "bias": draw(b)} for a, b in pairs]


class Ours:
    name = "fluxax"

    def __init__(self, n: int):
        import jax

        import fluxax as fx

        self.update, self.wait = fx.update, jax.block_until_ready
        self.model, self.grad = (jax.tree.map(jax.numpy.asarray, arrays(n, s)) for s in (0, 1))
        self.state = fx.setup(fx.Adam(ETA, BETA, EPSILON), self.model)

    def run(self, steps: int) -> float:
        """Seconds for some steps."""
        start = time.perf_counter()
        for _ in range(steps):
            self.update(self.state, self.model, self.grad)
        self.wait(self.model)
        return time.perf_counter() - start

    def total(self) -> float:
        return float(sum(np.sum(np.abs(a)) for layer in self.model for a in layer.values()))


class Optax(Ours):
    name = "Optax"

    def __init__(self, n: int):
        import jax
        import optax

        self.wait = jax.block_until_ready
        self.model, self.grad = (jax.tree.map(jax.numpy.asarray, arrays(n, s)) for s in (0, 1))
        tx = optax.adam(ETA, *BETA, eps=EPSILON)
        self.state = tx.init(self.model)

        @partial(jax.jit, donate_argnums=1)
        def step(grad: Any, state: Any, model: Any) -> Any:
            updates, state = tx.update(grad, state, model)
            return optax.apply_updates(model, updates), state

        self.step = step

    def run(self, steps: int) -> float:
        step, grad, state, model = self.step, self.grad, self.state, self.model
        start = time.perf_counter()
        for _ in range(steps):
            model, state = step(grad, state, model)
        self.wait(model)
        taken = time.perf_counter() - start
        self.state, self.model = state, model
        return taken


class PyTorch:
    """In a process of its own, whose threads get a pause after each turn."""

    name = "PyTorch"

    def __init__(self, n: int):
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--torch", str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def _ask(self, steps: int) -> list[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(steps, file=self.process.stdin, flush=True)
        return [float(v) for v in self.process.stdout.readline().split()]

    def run(self, steps: int) -> float:
        seconds, _ = self._ask(steps)
        time.sleep(_PAUSE)
        return seconds

    def total(self) -> float:
        return self._ask(0)[1]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve_torch(n: int) -> None:
    """Answer each number of steps with their seconds and a sum over the parameters."""
    import torch

    torch.set_num_threads(THREADS)
    flat = [a for layer in arrays(n, 0) for a in layer.values()]
    grads = [a for layer in arrays(n, 1) for a in layer.values()]
    parameters = [torch.nn.Parameter(torch.from_numpy(a)) for a in flat]
    for p, g in zip(parameters, grads, strict=True):
        p.grad = torch.from_numpy(g)
    adam = torch.optim.Adam(parameters, ETA, betas=BETA, eps=EPSILON, fused=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            adam.step()
        seconds = time.perf_counter() - start
        print(seconds, sum(float(p.detach().abs().sum()) for p in parameters), flush=True)


def compared(n: int, rounds: int) -> dict[str, Any]:
    """The times of everybody for n arrays, after a check that all compute the same."""
    from rivals import installed
    from timing import take_turns

    needs = {Optax: ("optax",), PyTorch: ("torch",)}
    there = [c for c in (Optax, PyTorch) if installed(argparse.Namespace(needs=needs[c]))]
    contenders: list[Any] = [make(n) for make in (Ours, *there)]
    try:
        for contender in contenders:
            contender.run(_CHECKED)
        totals = [contender.total() for contender in contenders]
        if max(abs(t / totals[0] - 1) for t in totals) > 1e-5:
            raise SystemExit(f"Not all compute the same for {n} arrays: {totals}.")
        steps = STEPS[n]
        times = take_turns([partial(c.run, steps) for c in contenders], rounds, steps)
    finally:
        for contender in contenders:
            getattr(contender, "close", lambda: None)()
    return {c.name: t for c, t in zip(contenders, times, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="turns of everybody")
    parser.add_argument("--only", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--torch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch:
        serve_torch(options.torch)
        return
    print("µs per update: median of rounds (ninth decile / first decile), and fluxax's ratio\n")
    print("| arrays | who | µs | ratio | must |\n|---:|---|---:|---:|---:|")
    for n in options.only:
        times = compared(n, options.rounds)
        ours = times[Ours.name]
        for name, t in times.items():
            ratio = "" if t is ours else f"{ours.median / t.median:.2f}"
            must = LIMITS.get((name, n), "")
            print(f"| {n} | {name} | {t.median:.0f} ({t.scatter:.1f}) | {ratio} | {must} |")


if __name__ == "__main__":
    main()
