"""How long importing fluxax takes beyond importing jax.

    python benchmarks/imports.py [--rounds 15]

Three sorts of fresh processes take turns: one imports nothing, one jax, one jax and then fluxax.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

MUST, GOAL = 0.15, 0.05  # seconds

_PROGRAMS = {
    "nothing": "",
    "jax": "import jax",
    "jax, then fluxax": "import jax\n"
    "import time\n"
    "start = time.perf_counter()\n"
    "import fluxax\n"
    "print(time.perf_counter() - start)",
}


def measured(rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of whole processes by sort, and seconds of the line `import fluxax` itself."""
    whole: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    line: list[float] = []
    for r in range(rounds + 1):
        names = list(_PROGRAMS)[r % 3 :] + list(_PROGRAMS)[: r % 3]
        for name in names:
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAMS[name]], check=True, capture_output=True, text=True
            )
            seconds = time.perf_counter() - start
            if r:  # the first round fills the caches of the disk and of compiled files
                whole[name].append(seconds)
                line += [float(v) for v in done.stdout.split()]
    return whole, line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    whole, line = measured(parser.parse_args().rounds)
    print("seconds: median (least, most)\n")
    for name, seconds in whole.items():
        print(f"a process that imports {name:18s} {_shown(seconds)}")
    print(f"the line `import fluxax` in it             {_shown(line)}")
    beyond = [b - a for a, b in zip(whole["jax"], whole["jax, then fluxax"], strict=True)]
    print(f"fluxax beyond jax, whole processes         {_shown(beyond)}")
    cost = max(statistics.median(line), statistics.median(beyond))
    verdict = "goal" if cost <= GOAL else "must" if cost <= MUST else "MISSED"
    print(f"\nthe larger of the two: {cost:.3f} s (must {MUST}, goal {GOAL}): {verdict}")


def _shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):6.3f} ({min(seconds):.3f}, {max(seconds):.3f})"


if __name__ == "__main__":
    main()
