"""fluxax in its four ways of writing a loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from works import BETA, EPSILON, ETA, Work

import fluxax as fx


def chain(work: Work) -> Any:
    """The net of a work."""
    *inner, (w, b) = work.weights()
    layers = [fx.Dense(jnp.asarray(v), jnp.asarray(c), fx.relu) for v, c in inner]
    return fx.Chain(*layers, fx.Dense(jnp.asarray(w), jnp.asarray(b)))


class _Ours:
    """A model, its state, its loss."""

    name = ""

    def __init__(self, work: Work):
        self.work = work
        self.model = chain(work)
        self.opt_state = fx.setup(fx.Adam(ETA, BETA, EPSILON), self.model)
        self.error = fx.logitcrossentropy if work.classes else fx.mse
        self.loss = lambda m, x, y: self.error(m(x), y)
        self.batches = jax.tree.map(jnp.asarray, work.batches())

    def wait(self, value: Any) -> float:
        """Wait for all that was dispatched."""
        jax.block_until_ready([(layer.weight, layer.bias) for layer in self.model.layers])
        return float(value)

    def gradient(self) -> list[np.ndarray] | None:
        """The gradient of the first batch, where this way of writing shows one."""
        return None


class Trainstep(_Ours):
    name = "trainstep"

    def run(self, steps: int) -> float:
        value: Any = None
        loss, model, opt_state = self.loss, self.model, self.opt_state
        for batch in self.batches[:steps]:
            value = fx.trainstep(loss, model, batch, opt_state)
        return self.wait(value)


class Loop(_Ours):
    name = "withgradient + update"

    def run(self, steps: int) -> float:
        value: Any = None
        error, model, opt_state = self.error, self.model, self.opt_state
        for x, y in self.batches[:steps]:
            value, grads = fx.withgradient(lambda m: error(m(x), y), model)
            fx.update(opt_state, model, grads[0])
        return self.wait(value)

    def gradient(self) -> list[np.ndarray]:
        error, (x, y) = self.error, self.batches[0]
        grad = fx.gradient(lambda m: error(m(x), y), self.model)[0]
        return [np.asarray(g) for layer in grad.layers for g in (layer.weight, layer.bias)]


class TrainLoader(_Ours):
    name = "train, DataLoader"

    def __init__(self, work: Work):
        super().__init__(work)
        self.loaders: dict[int, Any] = {}

    def run(self, steps: int) -> float:
        if steps not in self.loaders:
            x, y = self.work.arrays()
            n = steps * self.work.batch
            self.loaders[steps] = fx.DataLoader((x[:n], y[:n]), batchsize=self.work.batch)
        losses = fx.train(self.loss, self.model, self.loaders[steps], self.opt_state)
        return self.wait(losses[-1])


class TrainList(_Ours):
    name = "train, list"

    def run(self, steps: int) -> float:
        losses = fx.train(self.loss, self.model, self.batches[:steps], self.opt_state)
        return self.wait(losses[-1])


OURS = (Trainstep, Loop, TrainLoader, TrainList)
