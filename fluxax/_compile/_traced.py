"""A traced function as a program: what goes in, what comes out, its gradient."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._compile._dispatch import ShapeMiss, jitted
from fluxax._draws import NO_ROOT
from fluxax._jax import eval_jaxpr, trace_settings
from fluxax.kernels import options_for


class Write(NamedTuple):
    """A state that a layer writes: which input holds it before, if any, and its name."""

    input: int | None
    name: str
    label: str


_BUILT = 64


class Program:
    """A traced function: its jaxpr, what comes in and out, and what was found about it.

    The last input of its jaxpr is what random numbers are drawn from: an input of the program only
    if it makes `draws`.
    """

    def __init__(self, closed: Any, make: Any, writes: list[Write], n_outputs: int, draws: int):
        self.closed, self.make, self.writes, self.n_outputs = closed, make, writes, n_outputs
        self.draws = draws
        self.settings = trace_settings()  # JAX's, which the trace depended on
        self.used: list[int] = []  # inputs with a gradient
        self.nests: list[Any] = []  # how the gradient of each argument is nested
        self.written_at: list[tuple[int, str]] = []  # numbers of the boxes of `writes`, in a walk
        self.returned_at: list[int] = []  # and of what it returns of the caller's
        self.answers: dict[int, list[Any]] = {}  # what it asked of cached functions, by box
        self.n_arrays = 0
        self.n_leaves = 0  # inputs that may have a gradient
        self.alone: frozenset[int] = frozenset()  # inputs that stand in variables only
        self.parameters: list[int] | None = None  # for a training step: inputs that it may change
        self.places: Any = None  # and where those stand
        self.call: Any = None
        self.content: Any = None  # what it is made of, for checks
        self.known: Any = None  # and what was known of the function when it was made
        self.calls, self.checked = 0, 1  # how often it was asked for, and checked last
        self.due = 2  # at which of these it is checked next
        self.extra: OrderedDict[Any, Any] = OrderedDict()  # what later rooms build around this one
        self.by_plan: dict[int, Any] = {}  # the same, by who uses it

    def merged(self, parameters: Any, others: Any) -> list[Any]:
        """All inputs of a training step's objective, in their order."""
        chosen = dict(zip(self.parameters or (), parameters, strict=True))
        rest = iter(others)
        return [chosen[i] if i in chosen else next(rest) for i in range(len(chosen) + len(others))]

    def fits(self, inputs: Any) -> bool:
        """Whether inputs are of the shapes and types of the trace, and JAX is set as it was then.

        A guard does not look at these. What random numbers are drawn from may stand behind them.
        """
        traced = self.closed.in_avals[:-1]
        given = list(map(_form, map(jax.typeof, inputs[: len(traced)])))
        return given == list(map(_form, traced)) and self.settings == trace_settings()

    def shape(self, i: int) -> tuple[int, ...]:
        """The shape of an input."""
        return self.closed.in_avals[i].shape

    def keep(self, key: Any, built: Any) -> None:
        """Keep what was built around this program; the oldest goes when there is too much."""
        self.extra[key] = built
        if len(self.extra) > _BUILT:
            self.extra.popitem(last=False)
        self.by_plan.clear()

    def use(self, number: int, built: Any) -> None:
        """Note who uses what, so that it is found fast."""
        if len(self.by_plan) > _BUILT:
            self.by_plan.clear()
        self.by_plan[number] = built

    def release(self) -> None:
        """Let go of what was compiled, at once, though a cycle leads to it."""
        self.call = None
        self.extra.clear()
        self.by_plan.clear()

    def compile_run(self) -> Any:
        """The program without a gradient, to be called with its inputs."""
        run = lambda *inputs: self.run(inputs)
        return jitted(run, "compiled", options=options_for(self.closed))

    def run(self, inputs: Any) -> list[Any]:
        """The outputs, then the written states; to be traced.

        Raises:
            ShapeMiss: if the inputs, or JAX's settings, are others than those of the trace.
        """
        if not self.fits(inputs):
            raise ShapeMiss
        root = () if self.draws else (NO_ROOT,)
        outs = eval_jaxpr(self.closed.jaxpr, self.closed.consts, *inputs, *root)
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

    def run_whole(self, inputs: Any) -> tuple[list[Any], list[Any]]:
        """All that it gives: outputs and written states, and gradients if it has any."""
        return self.value_and_grads(inputs, self.used) if self.used else (self.run(inputs), [])

    def held(self, good: Any, inputs: Any, outs: list[Any]) -> list[Any]:
        """The written states; floating ones as they were where `good` is false."""
        states = outs[self.n_outputs :]
        return [
            jnp.where(good, new, inputs[w.input]) if w.input is not None and floating(new) else new
            for w, new in zip(self.writes, states, strict=True)
        ]

    def value(self, outs: Any, own: Any) -> Any:
        """What the function returned, from the program's outputs and the caller's objects."""
        return outs[0] if self.make is None else self.make(outs, own, {})


def floating(x: Any) -> bool:
    """Whether an array's numbers are floating or complex."""
    return jnp.issubdtype(x.dtype, np.inexact)


def _form(aval: Any) -> Any:
    return aval.shape, aval.dtype, aval.weak_type
