"""The moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from fluxax._between import read_between
from fluxax._jax import beside, is_tracer
from fluxax._parameters import fmap
from fluxax.optimisers._arrays import average
from fluxax.optimisers._match import match_model
from fluxax.optimisers._rule import DECAY, Rule, with_states
from fluxax.optimisers._state import Leaf


@dataclass
class EMA(Rule):
    """A moving average of the parameter; the step passes through.

        a ← γ a + (1 - γ) (x - dx)

    with x - dx the parameter after the step, and the step that of the whole chain, wherever `EMA`
    stands in it. a starts at the parameter. `fx.ema(opt_state, model)` gives the model of the
    averages, in the parameters' dtypes. It counts steps, not micro-batches. Of a float16 or
    bfloat16 parameter a is float32, and x - dx not yet rounded.

    Args:
        decay: γ in [0, 1); about 1 / (1 - γ) steps are averaged.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = {"w": jnp.ones(1)}
        >>> opt_state = fx.setup(fx.OptimiserChain(fx.Descent(1.0), fx.EMA(0.75)), model)
        >>> _ = fx.update(opt_state, model, {"w": jnp.ones(1)})
        >>> model["w"], fx.ema(opt_state, model)["w"]
        (Array([0.], dtype=float32), Array([0.75], dtype=float32))

    Reference: Polyak & Juditsky 1992, doi:10.1137/0330046, in exponential form.
    """

    elementwise: ClassVar[bool] = True
    watching: ClassVar[bool] = True

    decay: float = 0.999

    limits = Rule.limits | {"decay": DECAY}

    def init(self, x: Any) -> Any:
        return x if is_tracer(x) else beside(np.array(x), x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return average(self.decay, state, x - dx), dx


def ema(opt_state: Any, model: Any) -> Any:
    """A model with the moving averages that `EMA` keeps in place of the parameters.

    Args:
        opt_state: the state tree, whose rules have an `EMA`; or a part of it.
        model: the model, or the same part of it. It stays as it is.

    Returns:
        A new model. What has no average (statistics of norm layers, parts whose rule has no
        `EMA`) is as in the model.

    Raises:
        ValueError: if no rule there has an `EMA`, or state and model do not belong together.

    Example:
        >>> import fluxax as fx
        >>> model = fx.Dense(2, 3)
        >>> opt_state = fx.setup(fx.OptimiserChain(fx.Adam(), fx.EMA(0.99)), model)
        >>> slow = fx.ema(opt_state, model)  # a model: slow(x) works
    """
    return read_between(_averaged, opt_state, model)


def _averaged(opt_state: Any, model: Any) -> Any:
    averages: dict[int, Any] = {}
    for _, leaf, array in match_model("ema", opt_state, model):
        for found in averages_of(leaf):
            averages[id(array)] = found
    if not averages:
        raise ValueError(
            "ema expects a state tree with an EMA in its rules, got none. "
            "Write setup(OptimiserChain(rule, EMA(0.999)), model)."
        )
    return fmap(lambda a: averages.get(id(a), a), model)


def averages_of(leaf: Leaf) -> Iterator[Any]:
    """The moving averages of one leaf, copies in the dtype of its parameter."""
    for rule, state in with_states(leaf.rule, leaf.peek()):
        if isinstance(rule, EMA):
            yield jnp.array(state, leaf.dtype, copy=True)
