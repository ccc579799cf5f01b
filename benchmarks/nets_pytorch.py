"""PyTorch's side of `nets.py`, in a process of its own; it imports no JAX.

Convolution nets are timed with the channels first and last, and the faster one takes part.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nets_work import BETA, EPSILON, ETA, HEADS, LAYERS, NETS, TIME, VOCABULARY, WIDE, serve
from torch import nn
from torch.nn import functional as F

THREADS = 2
FLATTENED = {256: (4, 4, 16), 4096: (8, 8, 64)}  # inputs of a Linear that were an image
_TRIED = 6  # steps of each memory layout, the better half of which counts


def lenet() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, 10),
    )


def vgg() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4096, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, 10),
    )


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.around: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            conv = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.around = nn.Sequential(conv, nn.BatchNorm2d(n_out))

    def forward(self, x: Any) -> Any:
        return F.relu(self.way(x) + self.around(x), inplace=True)


def resnet() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class LSTM(nn.Module):
    """Over 64 steps; the last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(256, 256, batch_first=True)
        self.out = nn.Linear(256, 10)
        nn.init.zeros_(self.lstm.bias_hh_l0)

    def forward(self, x: Any) -> Any:
        return self.out(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    """One layer of the GPT; queries, keys and values in one product."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDE)
        self.qkv = nn.Linear(WIDE, 3 * WIDE, bias=False)
        self.out = nn.Linear(WIDE, WIDE, bias=False)
        self.norm2 = nn.LayerNorm(WIDE)
        self.mlp = nn.Sequential(
            nn.Linear(WIDE, 4 * WIDE), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDE, WIDE)
        )

    def forward(self, x: Any) -> Any:
        n, t, c = x.shape
        parts = self.qkv(self.norm1(x)).split(WIDE, dim=2)
        q, k, v = (p.view(n, t, HEADS, c // HEADS).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A small language model."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDE)
        self.places = nn.Embedding(TIME, WIDE)
        self.layers = nn.Sequential(*(Transformer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDE)
        self.out = nn.Linear(WIDE, VOCABULARY, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return self.out(self.norm(self.layers(y)))


def mlp() -> Any:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(inplace=True), nn.Linear(256, 10))


MODELS = {"lenet": lenet, "vgg": vgg, "resnet": resnet, "lstm": LSTM, "gpt": GPT, "mlp": mlp}


class Torch:
    """A model, its optimiser, its batches."""

    def __init__(self, name: str, layout: Any):
        torch.manual_seed(1)
        self.model = MODELS[name]()
        self.batches = []
        for x, y in NETS[name].batches():
            kind = torch.long if NETS[name].tokens else torch.get_default_dtype()
            x = torch.from_numpy(x).to(kind)
            if x.ndim == 4:
                x = x.permute(0, 3, 1, 2).contiguous(memory_format=layout)
            self.batches.append((x, torch.from_numpy(y).long()))
        if self.batches[0][0].ndim == 4:
            self.model = self.model.to(memory_format=layout)
        parameters = list(self.model.parameters())
        if name == "lstm":  # one bias, as ours
            parameters = [p for p in parameters if p is not self.model.lstm.bias_hh_l0]
            self.model.lstm.bias_hh_l0.requires_grad_(False)
        self.adam = torch.optim.Adam(parameters, ETA, betas=BETA, eps=EPSILON, fused=True)

    def error(self, x: Any, y: Any) -> Any:
        scores = self.model(x)
        return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))

    def run(self, steps: int) -> float:
        """Train; the last loss."""
        value: Any = None
        for k in range(steps):
            self.adam.zero_grad()
            value = self.error(*self.batches[k % 4])
            value.backward()
            self.adam.step()
        return value.item()

    def compare(self, path: str) -> float:
        """How far a gradient, saved after the weights it is for, is from this one's."""
        with np.load(path) as saved:
            arrays = [torch.from_numpy(saved[k]) for k in saved.files]
        if not any(isinstance(m, nn.Conv2d) for m in self.model.modules()):
            FLATTENED.clear()
        weights, grads = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        slots = list(_slots(self.model))
        with torch.no_grad():
            for (parameter, rows, linear), w in zip(slots, weights, strict=True):
                parameter[rows] = _turned(parameter, w, linear)
        self.model.zero_grad()
        self.error(*self.batches[0]).backward()
        errors = []
        for (parameter, rows, linear), g in zip(slots, grads, strict=True):
            mine, g = parameter.grad[rows].double(), _turned(parameter, g, linear).double()
            errors.append(float((g - mine).norm() / mine.norm()))
        return max(errors)


def _slots(model: Any) -> Iterator[tuple[Any, slice, bool]]:
    """Parameters in our order, the rows that one of our arrays fills, and whether it is turned."""
    for module in model.modules():
        linear = not isinstance(module, nn.Embedding)
        parts = 3 if isinstance(module, nn.Linear) and module.out_features == 3 * WIDE else 1
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        for i in range(parts):
            for parameter in own:
                rows = len(parameter) // parts
                yield parameter, slice(i * rows, (i + 1) * rows), linear


def _turned(parameter: Any, array: Any, linear: bool) -> Any:
    """One of our arrays with its axes in PyTorch's order."""
    if parameter.ndim == 4:
        return array.permute(3, 2, 0, 1)
    if len(array) in FLATTENED and array.ndim == 2:  # rows by place, then channel
        array = array.reshape(*FLATTENED[len(array)], -1).permute(2, 0, 1, 3).flatten(0, 2)
    return array.T if linear and parameter.ndim == 2 else array


def make(name: str) -> Torch:
    """The net, in the memory layout in which it is faster."""
    if len(NETS[name].shape) < 4:
        return Torch(name, None)
    seconds = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        mine, taken = Torch(name, layout), []
        for _ in range(_TRIED):
            start = time.perf_counter()
            mine.run(1)
            taken.append(time.perf_counter() - start)
        seconds[layout] = sum(sorted(taken)[: _TRIED // 2])
    return Torch(name, min(seconds, key=lambda layout: seconds[layout]))


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    torch.set_num_interop_threads(1)
    torch.set_default_dtype(torch.float64 if sys.argv[2] == "double" else torch.float32)
    serve(lambda: make(sys.argv[1]))
