"""Several rules, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fluxax._errors import short
from fluxax.optimisers._rule import Rule, check_rule


@dataclass(init=False, repr=False)
class OptimiserChain(Rule):
    """Rules from left to right, each on what the one before it made of the gradient.

        dx₁ = rule₁(x, dx)     dx₂ = rule₂(x, dx₁)     …     dx' = dxₙ

    Each sees the parameter x itself. Without rules the step is the gradient, as with
    `Descent(1)`. A chain may be a member of a chain. `adjust` reaches every member that has the
    field.

    Args:
        opts: the rules.

    Raises:
        TypeError: if one of them is no rule.

    Example:
        >>> import jax.numpy as jnp
        >>> from fluxax.optimisers._descent import Descent
        >>> from fluxax.optimisers._modifiers import ClipGrad
        >>> rule = OptimiserChain(ClipGrad(1.0), Descent(0.1))
        >>> rule
        OptimiserChain(ClipGrad(delta=1.0), Descent(eta=0.1))
        >>> x = jnp.zeros(3)
        >>> print(rule.apply(rule.init(x), x, jnp.array([0.3, 1.0, 7.0]))[1])
        [0.03 0.1  0.1 ]
    """

    elementwise: ClassVar[bool] = True  # if its members are

    opts: tuple[Any, ...]

    def __init__(self, *opts: Any):
        self.opts = opts

    def checked(self, name: str, value: Any) -> Any:
        if name != "opts":
            return super().checked(name, value)
        if not isinstance(value, (tuple, list)):
            raise TypeError(f"OptimiserChain expects `opts` to be rules, got {short(value)}.")
        return tuple(check_rule("OptimiserChain", opt) for opt in value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.opts))})"

    def init(self, x: Any) -> Any:
        return tuple(opt.init(x) for opt in self.opts)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        states = []
        for opt, old in zip(self.opts, state, strict=True):
            new, dx = opt.apply(old, x, dx)
            states.append(new)
        return tuple(states), dx
