"""A character model: an LSTM that learns to write like Python's standard library.

    python examples/characters.py            about a minute; the text begins to look like code
    python examples/characters.py --smoke    seconds, to see that it runs

The sources of the standard library lie on every machine that has Python, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fluxax as fx

MODULES = "argparse.py ast.py bisect.py calendar.py csv.py datetime.py heapq.py random.py".split()
LETTERS = "\n" + "".join(map(chr, range(32, 127)))  # what is not among these is left out


def text() -> str:
    """Some modules of the standard library, those that are there."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = [(folder / name).read_text("utf-8") for name in MODULES if (folder / name).exists()]
    return "".join(c for c in "\n".join(found) if c in LETTERS)


def pieces(codes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of the text `(N, T)`, and for each place the letter that follows."""
    n = (len(codes) - 1) // length
    cut = lambda start: codes[start : start + n * length].reshape(n, length)
    return cut(0), cut(1)


class Writer(fx.Module):
    """Letters `(N, T)` in, scores of the next letter `(N, T, letters)` out."""

    def __init__(self, width: int, layers: int = 2):
        self.embed = fx.Embedding(len(LETTERS), width)
        self.lstms = [fx.LSTM(width, width) for _ in range(layers)]
        self.out = fx.Dense(width, len(LETTERS))

    def __call__(self, codes: Any) -> Any:
        h = self.embed(codes)  # (N, T, width)
        for lstm in self.lstms:
            h = h + lstm(h)
        return self.out(h)


def continued(model: Writer, start: str, length: int, warmth: float = 0.7) -> str:
    """A text and what the model makes of it, letter by letter."""
    rng, window = np.random.default_rng(0), 64
    codes = [LETTERS.index(c) for c in start]
    for _ in range(length):
        recent = np.array([([0] * window + codes)[-window:]], np.int32)
        scores = fx.compiled(lambda: model(recent)[0, -1])()
        chances = np.asarray(jax.nn.softmax(scores / warmth), np.float64)
        codes.append(int(rng.choice(len(LETTERS), p=chances / chances.sum())))
    return "".join(LETTERS[i] for i in codes)


def main(words: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--smoke", action="store_true", help="little text, a small net")
    args = parser.parse_args(words)
    fx.seed(0)
    source = text()[:6000] if args.smoke else text()
    epochs, width = (2, 24) if args.smoke else (args.epochs, args.width)
    codes = np.array([LETTERS.index(c) for c in source], np.int32)
    data = fx.DataLoader(pieces(codes, 64), batchsize=32, shuffle=True, partial=False)
    model = Writer(width)
    print(model)
    print(f"{len(source)} letters of the standard library, {len(data)} batches")
    opt_state = fx.setup(fx.OptimiserChain(fx.ClipNorm(1.0), fx.Adam(5e-3)), model)
    history = []
    for epoch in range(epochs):
        if epoch == epochs * 3 // 4:
            fx.adjust(opt_state, 1e-3)
        losses = fx.train(lambda m, x, y: fx.logitcrossentropy(m(x), y), model, data, opt_state)
        history.append(float(losses.mean()))
        bits = history[-1] / float(jnp.log(2.0))
        print(f"epoch {epoch + 1}: {bits:.2f} bits per letter", flush=True)
    print(continued(model, "def ", 20 if args.smoke else 400))
    return history


if __name__ == "__main__":
    main()
