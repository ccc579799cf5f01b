"""A traced function as a program: what goes in, what comes out, its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._jax import eval_jaxpr
from fluxax.kernels import options_for


class Write(NamedTuple):
    """A state that a layer writes: which input holds it before, if any, and its name."""

    input: int | None
    name: str
    label: str


class Program:
    """A traced function: its jaxpr, what comes in and out, and what was found about it."""

    def __init__(self, closed: Any, make: Any, writes: list[Write], n_outputs: int):
        self.closed, self.make, self.writes, self.n_outputs = closed, make, writes, n_outputs
        self.used: list[int] = []  # inputs with a gradient
        self.nests: list[Any] = []  # how the gradient of each argument is nested
        self.n_arrays = 0
        self.n_leaves = 0  # inputs that may have a gradient
        self.labels: list[str] = []  # of the array inputs
        self.alone: frozenset[int] = frozenset()  # inputs that stand in variables only
        self.parameters: list[int] | None = None  # for a training step: inputs that it may change
        self.places: Any = None  # and where those stand
        self.call: Any = None
        self.extra: dict[Any, Any] = {}  # programs that later rooms build around this one

    def compile_run(self) -> Any:
        """The program without a gradient, to be called with its inputs."""
        once = Once(lambda *inputs: self.run(inputs), "compiled")
        return jax.jit(once, compiler_options=options_for(self.closed))

    def run(self, inputs: Any) -> list[Any]:
        """The outputs, then the written states; to be traced."""
        outs = eval_jaxpr(self.closed.jaxpr, self.closed.consts, *inputs)
        return [jnp.asarray(x) if isinstance(x, (bool, int, float)) else x for x in outs]

    def value_and_grads(self, inputs: Any, used: list[int]) -> tuple[list[Any], list[Any]]:
        """All outputs, and the gradient of the first by the inputs `used`; to be traced."""

        def loss_of(variables: list[Any]) -> tuple[Any, list[Any]]:
            merged = list(inputs)
            for position, v in zip(used, variables, strict=True):
                merged[position] = v
            outs = self.run(merged)
            return outs[0], outs

        variables = [inputs[i] for i in used]
        (_, outs), grads = jax.value_and_grad(loss_of, has_aux=True)(variables)
        return outs, [jnp.conj(g) if jnp.iscomplexobj(g) else g for g in grads]

    def held(self, good: Any, inputs: Any, outs: list[Any]) -> list[Any]:
        """The written states; floating ones as they were where `good` is false."""
        states = outs[self.n_outputs :]
        return [
            jnp.where(good, new, inputs[w.input]) if w.input is not None and floating(new) else new
            for w, new in zip(self.writes, states, strict=True)
        ]

    def fits(self, inputs: Any) -> bool:
        """Whether inputs have the shapes and types of the trace: a guard does not look at all."""
        arrays = zip(inputs, self.closed.in_avals[: self.n_arrays], strict=False)
        return all(
            x.shape == a.shape and a.dtype in (x.dtype, canonical(x.dtype)) for x, a in arrays
        )

    def value(self, outs: Any, own: Any) -> Any:
        """What the function returned, from the program's outputs and the caller's objects."""
        return outs[0] if self.make is None else self.make(outs, own)


def floating(x: Any) -> bool:
    """Whether an array's numbers are floating or complex."""
    return jnp.issubdtype(x.dtype, np.inexact)


def canonical(dtype: Any) -> Any:
    """The dtype that JAX makes of NumPy's: 32 bits unless x64 is on."""
    return jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)


class ShapeMiss(Exception):
    """The program was called with arrays of other shapes or types than it was traced for."""


class Once:
    """A function that JAX may trace only once: a second time means that shapes changed unseen."""

    def __init__(self, function: Callable[..., Any], name: str):
        self.function = function
        self.__name__ = self.__qualname__ = name  # what profiles and logs call the program
        self.done = False

    def __call__(self, *inputs: Any) -> Any:
        if self.done:
            raise ShapeMiss
        outs = self.function(*inputs)
        self.done = True
        return outs
