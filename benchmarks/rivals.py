"""The same loops in other libraries, each as its documentation writes it, where it is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from works import BETA, EPSILON, ETA, Work

THREADS = 2  # of PyTorch
_PAUSE = 0.05  # seconds in which PyTorch's threads stop spinning


class Equinox:
    """`eqx.filter_jit` around `eqx.filter_value_and_grad` and Optax's Adam."""

    name = "Equinox + Optax"
    needs = ("equinox", "optax")

    def __init__(self, work: Work):
        import equinox as eqx
        import optax

        self.model = _equinox_model(eqx, work)
        adam = optax.adam(ETA, *BETA, eps=EPSILON)
        self.state = adam.init(eqx.filter(self.model, eqx.is_array))
        self.batches = jax.tree.map(jnp.asarray, work.batches())

        def loss(model: Any, x: Any, y: Any) -> Any:
            return _optax_loss(optax, work, jax.vmap(model)(x), y)

        @eqx.filter_jit
        def step(model: Any, state: Any, x: Any, y: Any) -> Any:
            value, grads = eqx.filter_value_and_grad(loss)(model, x, y)
            updates, state = adam.update(grads, state, eqx.filter(model, eqx.is_array))
            return value, eqx.apply_updates(model, updates), state

        self.step, self.grad = step, eqx.filter_jit(eqx.filter_grad(loss))

    def run(self, steps: int) -> float:
        value: Any = None
        step, model, state = self.step, self.model, self.state
        for x, y in self.batches[:steps]:
            value, model, state = step(model, state, x, y)
        self.model, self.state = model, state
        jax.block_until_ready([p for p in jax.tree.leaves(model) if isinstance(p, jax.Array)])
        return float(value)

    def gradient(self) -> list[np.ndarray]:
        layers = self.grad(self.model, *self.batches[0]).layers[::2]
        return [np.asarray(g) for layer in layers for g in (layer.weight.T, layer.bias)]


def _equinox_model(eqx: Any, work: Work) -> Any:
    layers: list[Any] = []
    for w, b in work.weights():
        linear = eqx.nn.Linear(*w.shape, key=jax.random.key(0))
        values = (jnp.asarray(w.T), jnp.asarray(b))
        linear = eqx.tree_at(lambda new: (new.weight, new.bias), linear, values)
        layers += [linear, eqx.nn.Lambda(jax.nn.relu)]
    return eqx.nn.Sequential(layers[:-1])


def _optax_loss(optax: Any, work: Work, y_hat: Any, y: Any) -> Any:
    if work.classes:
        return optax.softmax_cross_entropy_with_integer_labels(y_hat, y).mean()
    return ((y_hat - y) ** 2).mean()


class FlaxNNX:
    """`nnx.jit` around `nnx.value_and_grad` and an `nnx.Optimizer` with Optax's Adam."""

    name = "Flax NNX + Optax"
    needs = ("flax", "optax")

    def __init__(self, work: Work):
        import optax
        from flax import nnx

        layers: list[Any] = []
        for w, b in work.weights():
            linear = nnx.Linear(*w.shape, rngs=nnx.Rngs(0))
            linear.kernel[...], linear.bias[...] = jnp.asarray(w), jnp.asarray(b)
            layers += [linear, nnx.relu]
        self.model = nnx.Sequential(*layers[:-1])
        adam = optax.adam(ETA, *BETA, eps=EPSILON)
        self.optimizer = nnx.Optimizer(self.model, adam, wrt=nnx.Param)
        self.batches = jax.tree.map(jnp.asarray, work.batches())

        def loss(model: Any, x: Any, y: Any) -> Any:
            return _optax_loss(optax, work, model(x), y)

        @nnx.jit
        def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
            value, grads = nnx.value_and_grad(loss)(model, x, y)
            optimizer.update(model, grads)
            return value

        self.step, self.grad, self.nnx = step, nnx.jit(nnx.grad(loss)), nnx

    def run(self, steps: int) -> float:
        value: Any = None
        step, model, optimizer = self.step, self.model, self.optimizer
        for x, y in self.batches[:steps]:
            value = step(model, optimizer, x, y)
        jax.block_until_ready(jax.tree.leaves(self.nnx.state(model)))
        return float(value)

    def gradient(self) -> list[np.ndarray]:
        layers = self.grad(self.model, *self.batches[0])["layers"]
        found = [layers[i] for i in sorted(layers) if "kernel" in layers[i]]
        return [np.asarray(layer[k][...]) for layer in found for k in ("kernel", "bias")]


class PyTorch:
    """PyTorch, uncompiled, fused Adam, in a process of its own: `pytorch.py` beside this file.

    Its threads spin for a while when they have nothing to do, which takes the cores from
    whatever runs next; so there is a pause after each of its turns.
    """

    name = "PyTorch, fused Adam"
    needs = ("torch",)

    def __init__(self, work: Work):
        script = Path(__file__).with_name("pytorch.py")
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, str(script), work.name, str(work.steps), str(THREADS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(names, str(THREADS))},
        )

    def _ask(self, question: str) -> list[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(question, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("PyTorch's process ended without an answer.")
        return [float(v) for v in answer.split()]

    def run(self, steps: int) -> float:
        self.seconds, loss = self._ask(f"run {steps}")
        time.sleep(_PAUSE)
        return loss

    def gradient(self) -> list[np.ndarray]:
        return [np.array(self._ask("gradient"), np.float32)]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def installed(rival: Any) -> bool:
    """Whether a rival's packages are there."""
    return all(importlib.util.find_spec(name) is not None for name in rival.needs)


RIVALS = [rival for rival in (PyTorch, Equinox, FlaxNNX) if installed(rival)]
