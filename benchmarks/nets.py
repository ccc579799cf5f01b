"""Whole nets: one training step of fluxax beside one of PyTorch.

    python benchmarks/nets.py                    all of them, some minutes
    python benchmarks/nets.py --only lenet gpt --rounds 5

Each side runs in a process of its own with two threads, they take turns, and what counts is the
ratio of medians. Before that the gradients are compared: with plain autodiff, and in double
precision with PyTorch's, where no relu falls on the other side of 0 for rounding.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nets_work import NETS
from timing import Times, take_turns

THREADS = 2
TOLERANCE = 1e-5  # relative, of our gradients against plain autodiff's
FAR = 1e-10  # and in double precision against PyTorch's
MUST, GOAL = 1.3, 1.0
_PAUSE = 0.05  # seconds in which threads stop spinning


class Side:
    """A process that trains a net."""

    def __init__(self, script: str, net: str, precision: str = "single"):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), net, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(names, str(THREADS))},
        )
        self.first = self.ask("first")[0]  # seconds of the first step; alone on the machine

    def ask(self, question: str) -> list[float]:
        """Numbers in answer to a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(question, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args} ended without an answer to {question}.")
        return [float(v) for v in answer.split()]

    def run(self, steps: int) -> float:
        """Seconds of some steps."""
        seconds = self.ask(f"run {steps}")[0]
        time.sleep(_PAUSE)
        return seconds

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Result(NamedTuple):
    """What was found about a net: ours, then PyTorch's."""

    times: list[Times]
    first: list[float]
    memory: list[float]
    plain: float
    far: float


def compared(net: str, rounds: int) -> Result:
    """Both sides on one net, after a look at their gradients."""
    far = _far(net)
    sides = [Side("nets_fluxax.py", net), Side("nets_pytorch.py", net)]
    try:
        plain = sides[0].ask("plain")[0]  # early, while the loss is far from 0
        steps = NETS[net].steps
        times = take_turns([lambda s=s: s.run(steps) for s in sides], rounds, steps)
        memory = [side.ask("memory")[0] for side in sides]
        return Result(times, [s.first for s in sides], memory, plain, far)
    finally:
        for side in sides:
            side.close()


def _far(net: str) -> float:
    """How far our gradient is from PyTorch's in double precision."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "gradient.npz")
        ours = Side("nets_fluxax.py", net, "double")
        ours.ask(f"gradient {path}")
        ours.close()
        theirs = Side("nets_pytorch.py", net, "double")
        far = theirs.ask(f"compare {path}")[0]
        theirs.close()
        return far


def print_row(net: str, found: Result) -> None:
    ours, theirs = found.times
    ratio = ours.median / theirs.median
    steady = ours.steady and theirs.steady
    verdict = "goal" if ratio <= GOAL else "must" if ratio <= MUST else "MISSED"
    right = found.plain <= TOLERANCE and found.far <= FAR
    cells: Sequence[Any] = (
        net,
        f"{ours.median / 1e3:.2f} ({ours.scatter:.1f})",
        f"{theirs.median / 1e3:.2f} ({theirs.scatter:.1f})",
        f"{ratio:.2f}",
        (verdict if steady else "scatter, not judged") if right else "WRONG GRADIENT",
        f"{found.first[0]:.1f}",
        f"{found.memory[0]:.0f} / {found.memory[1]:.0f}",
        f"{found.plain:.0e}, {found.far:.0e}",
    )
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="turns of both (default 20)")
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS), help="of the nets")
    options = parser.parse_args(arguments)
    print(f"{options.rounds} rounds; a load of {os.getloadavg()[0]:.1f} before\n")
    heads = ("net", "fluxax ms", "PyTorch ms", "ratio", "", "first step s", "peak MB", "gradient")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    for net in options.only:
        print_row(net, compared(net, options.rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
