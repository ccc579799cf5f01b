"""Several small gradients for one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._jax import is_tracer
from fluxax.optimisers._arrays import count, scalar, zeros_like
from fluxax.optimisers._rule import Rule
from fluxax.optimisers._taken import Sometimes


@dataclass
class AccumGrad(Rule):
    """The mean of n gradients, and then one step; none before.

        s ← s + dx / n          dx' = s at every n-th gradient, which sets s to 0

    What stands after it in a chain sees that mean, and nothing between: its state, its schedules
    and the leaf's `steps` stay as they are. What stands before it sees every gradient. What was
    collected at the end of an epoch stays for the next.

    Args:
        n: how many gradients, at least 1. `adjust` changes it at any time.

    Raises:
        TypeError, ValueError: if `n` is not such a number.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = {"w": jnp.zeros(1)}
        >>> opt_state = fx.setup(fx.OptimiserChain(fx.AccumGrad(2), fx.Descent(1.0)), model)
        >>> for g in (1.0, 3.0):
        ...     _ = fx.update(opt_state, model, {"w": jnp.array([g])})
        ...     print(model["w"], opt_state["w"].steps)
        [0.] 0
        [-2.] 1

    Reference: Hermans, Spanakis & Möckel 2017, PMLR 77, Accumulated Gradient Normalization.
    """

    elementwise: ClassVar[bool] = True

    n: int

    def checked(self, name: str, value: Any) -> Any:
        if name != "n" or is_tracer(value):
            return value
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"AccumGrad expects `n` to be a whole number, got {short(value)}.")
        if value < 1:
            raise ValueError(f"AccumGrad expects `n` of at least 1, got {value}.")
        return int(value)

    def init(self, x: Any) -> Any:
        return zeros_like(x), count()

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        total, seen = state
        total, seen = total + dx / self.n, seen + 1
        full = seen >= scalar(self.n, seen)
        left = jnp.where(full, 0, total), jnp.where(full, 0, seen)
        if is_tracer(full):
            return left, Sometimes(jnp.where(full, total, 0), full)
        return left, total if full else None
