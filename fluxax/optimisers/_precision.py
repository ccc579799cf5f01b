"""Parameters in a narrow dtype, trained in a wide one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short
from fluxax._jax import beside, is_tracer
from fluxax.optimisers._combine import inner_rule
from fluxax.optimisers._rule import Rule, is_rule
from fluxax.optimisers._taken import Sometimes


@dataclass(init=False)
class MixedPrecision(Rule):
    """Another rule on a copy of the parameter in a wider dtype.

        z, the copy, takes the rule's step for dx;     x = z, rounded to the dtype of x

    Small steps add up in the copy that rounding would lose. It stands outside of everything else:
    `MixedPrecision(OptimiserChain(...))`. What is written to the parameter by hand is lost at the
    next step; call `setup` again.

    Args:
        rule: the rule. Its state has the wide dtype too.
        dtype: the dtype of the copy (of complex parameters: of its parts). Also in Flux's order,
            `MixedPrecision(jnp.float32, rule)`.

    Raises:
        TypeError, ValueError: if `rule` is none, or `dtype` no floating one.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = {"w": jnp.ones(1, jnp.bfloat16)}
        >>> opt_state = fx.setup(fx.MixedPrecision(fx.Descent(0.001)), model)
        >>> for _ in range(8):
        ...     _ = fx.update(opt_state, model, {"w": jnp.ones(1, jnp.bfloat16)})
        >>> model["w"]  # eight steps of 0.001, each of which would be lost
        Array([0.992188], dtype=bfloat16)

    Reference: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1.
    """

    elementwise: ClassVar[bool] = True

    rule: Any
    dtype: str

    def __init__(self, rule: Any, dtype: Any = "float32"):
        if not is_rule(rule) and not hasattr(rule, "update") and is_rule(dtype):
            rule, dtype = dtype, rule
        self.rule, self.dtype = rule, dtype

    def checked(self, name: str, value: Any) -> Any:
        if name == "rule":
            return inner_rule("MixedPrecision", value)
        try:
            dtype = jnp.dtype(value)
        except TypeError:
            dtype = np.dtype(bool)
        if not jnp.issubdtype(dtype, np.floating):
            raise TypeError(
                f"MixedPrecision expects `dtype` to be a floating one, got {short(value)}."
            )
        return dtype.name

    def init(self, x: Any) -> Any:
        dtype = jax.dtypes.canonicalize_dtype(jnp.promote_types(x.dtype, self.dtype))
        copy = x.astype(dtype) if is_tracer(x) else beside(np.array(x, dtype), x)
        return copy, self.rule.init(copy)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        copy, inner = state
        inner, step = self.rule.apply(inner, copy, dx.astype(copy.dtype))
        if step is None:
            return (copy, inner), None
        step, taken = step if isinstance(step, Sometimes) else (step, True)
        new = copy - step if taken is True else jnp.where(taken, copy - step, copy)
        if x.dtype != new.dtype:
            step = x - new.astype(x.dtype)
        return (new, inner), step if taken is True else Sometimes(step, taken)

    def parameter(self, state: Any) -> Any:
        """The new parameter, before it is rounded to its dtype."""
        return state[0]

    def states_in(self, state: Any) -> list[tuple[Any, Any]]:
        """The rule with its state."""
        return [(self.rule, state[1])]
