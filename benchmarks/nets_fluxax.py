"""fluxax's side of `nets.py`, in a process of its own."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from nets_work import BETA, EPSILON, ETA, HEADS, LAYERS, NETS, TIME, VOCABULARY, WIDE, serve

import fluxax as fx


def lenet() -> Any:
    return fx.Chain(
        fx.Conv((5, 5), 1, 6, fx.relu),
        fx.MaxPool((2, 2)),
        fx.Conv((5, 5), 6, 16, fx.relu),
        fx.MaxPool((2, 2)),
        fx.flatten,
        fx.Dense(256, 120, fx.relu),
        fx.Dense(120, 84, fx.relu),
        fx.Dense(84, 10),
    )


def vgg() -> Any:
    return fx.Chain(
        fx.Conv((3, 3), 3, 32, fx.relu, pad=1),
        fx.Conv((3, 3), 32, 32, fx.relu, pad=1),
        fx.MaxPool((2, 2)),
        fx.Conv((3, 3), 32, 64, fx.relu, pad=1),
        fx.Conv((3, 3), 64, 64, fx.relu, pad=1),
        fx.MaxPool((2, 2)),
        fx.flatten,
        fx.Dense(4096, 128, fx.relu),
        fx.Dense(128, 10),
    )


class Block(fx.Module):
    """Two convolutions and a way around them."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        self.way = fx.Chain(
            fx.Conv((3, 3), n_in, n_out, stride=stride, pad=1, bias=False),
            fx.BatchNorm(n_out, fx.relu),
            fx.Conv((3, 3), n_out, n_out, pad=1, bias=False),
            fx.BatchNorm(n_out),
        )
        self.around = fx.identity
        if stride > 1 or n_in != n_out:
            self.around = fx.Chain(
                fx.Conv((1, 1), n_in, n_out, stride=stride, bias=False), fx.BatchNorm(n_out)
            )

    def __call__(self, x: Any) -> Any:
        return fx.relu(self.way(x) + self.around(x))


def resnet() -> Any:
    return fx.Chain(
        fx.Conv((3, 3), 3, 16, pad=1, bias=False),
        fx.BatchNorm(16, fx.relu),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        fx.GlobalMeanPool(),
        fx.flatten,
        fx.Dense(64, 10),
    )


def lstm() -> Any:
    return fx.Chain(fx.LSTM(256, 256), lambda y: y[:, -1], fx.Dense(256, 10))


class Transformer(fx.Module):
    """One layer of the GPT."""

    def __init__(self) -> None:
        self.norm1 = fx.LayerNorm(WIDE)
        self.attention = fx.MultiHeadAttention(WIDE, nheads=HEADS)
        self.norm2 = fx.LayerNorm(WIDE)
        self.mlp = fx.Chain(fx.Dense(WIDE, 4 * WIDE, fx.gelu), fx.Dense(4 * WIDE, WIDE))

    def __call__(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x), mask="causal")
        return x + self.mlp(self.norm2(x))


class GPT(fx.Module):
    """A small language model."""

    def __init__(self) -> None:
        self.tokens = fx.Embedding(VOCABULARY, WIDE)
        self.places = fx.Embedding(TIME, WIDE)
        self.layers = fx.Chain(*(Transformer() for _ in range(LAYERS)))
        self.norm = fx.LayerNorm(WIDE)
        self.out = fx.Dense(WIDE, VOCABULARY, bias=False)

    def __call__(self, x: Any) -> Any:
        y = self.tokens(x) + self.places(jnp.arange(x.shape[1]))
        return self.out(self.norm(self.layers(y)))


def mlp() -> Any:
    return fx.Chain(fx.Dense(784, 256, fx.relu), fx.Dense(256, 10))


MODELS = {"lenet": lenet, "vgg": vgg, "resnet": resnet, "lstm": lstm, "gpt": GPT, "mlp": mlp}


def loss(model: Any, x: Any, y: Any) -> Any:
    """The mean cross entropy of labels."""
    return fx.logitcrossentropy(model(x), y)


class Ours:
    """A model, its state, its batches."""

    def __init__(self, name: str, convert: Any = fx.f32):
        fx.seed(1)
        self.model = convert(MODELS[name]())
        self.opt_state = fx.setup(fx.Adam(ETA, BETA, EPSILON), self.model)
        self.batches = [tuple(map(jnp.asarray, convert(b))) for b in NETS[name].batches()]

    def run(self, steps: int) -> float:
        """Train; the last loss."""
        value: Any = None
        for k in range(steps):
            value = fx.trainstep(loss, self.model, self.batches[k % 4], self.opt_state)
        jax.block_until_ready(list(fx.trainables(self.model)))
        return float(value)

    def gradient(self) -> list[np.ndarray]:
        """The weights, then the gradient of the first batch."""
        grad = fx.gradient(lambda m: loss(m, *self.batches[0]), self.model)[0]
        weights = list(fx.trainables(self.model))
        return [np.asarray(a) for a in [*weights, *jax.tree.leaves(grad)]]

    def against_plain(self) -> float:
        """How far the gradient is from that of plain autodiff, the farthest array's."""
        batch = self.batches[0]
        own = fx.gradient(lambda m: loss(m, *batch), self.model)[0]
        with fx.kernels.choose("plain"):
            plain = fx.gradient(lambda m: loss(m, *batch), self.model)[0]
        pairs = zip(jax.tree.leaves(own), jax.tree.leaves(plain), strict=True)
        return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)


if __name__ == "__main__":
    double = sys.argv[2] == "double"
    jax.config.update("jax_enable_x64", double)
    serve(lambda: Ours(sys.argv[1], fx.f64 if double else fx.f32))
