"""Several rules, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fluxax._errors import short
from fluxax.optimisers._optax import Transformation, as_rule, direction
from fluxax.optimisers._rule import Rule, rules_in
from fluxax.optimisers._taken import Sometimes, held


@dataclass(init=False, repr=False)
class OptimiserChain(Rule):
    """Rules from left to right, each on what the one before it made of the gradient.

        dx₁ = rule₁(x, dx)     dx₂ = rule₂(x, dx₁)     …     dx' = dxₙ

    Each sees the parameter x itself. Without rules the step is the gradient, as with
    `Descent(1)`. A chain may be a member of a chain. `adjust` reaches every member that has the
    field. If a member takes no step (`AccumGrad`), those after it stay as they are.

    Args:
        opts: the rules; Optax transformations too. What the last of these gives is added to the
            parameter, as in Optax; what an earlier one gives is passed on as it is.

    Raises:
        TypeError: if one of them is no rule.
        ValueError: if one of them must stand elsewhere.

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
        return in_order(tuple(inner_rule("OptimiserChain", opt) for opt in value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.opts))})"

    def init(self, x: Any) -> Any:
        return tuple(opt.init(x) for opt in self.opts)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        states, taken = list(state), True
        for i in sorted(range(len(states)), key=lambda i: watches(self.opts[i])):
            new, dx = self.opts[i].apply(state[i], x, dx)
            states[i] = new if taken is True else held(taken, new, state[i])
            if dx is None:
                return tuple(states), None
            if isinstance(dx, Sometimes):
                taken = dx.taken if taken is True else taken & dx.taken
                dx = dx.dx
        return tuple(states), dx if taken is True else Sometimes(dx, taken)

    def states_in(self, state: Any) -> list[tuple[Any, Any]]:
        """The members with their states."""
        return list(zip(self.opts, state, strict=True))


def inner_rule(who: str, value: Any) -> Any:
    """A rule inside another one."""
    rule = as_rule(who, value)
    if hasattr(rule, "parameter"):
        name = type(rule).__name__
        raise ValueError(f"{who} expects {name} to be outermost. Write {name}({who}(...)).")
    return rule


def watches(rule: Any) -> bool:
    """Whether a rule only watches the others, as `EMA` does: it comes last, wherever it stands."""
    return getattr(rule, "watching", False)


def in_order(opts: tuple[Any, ...]) -> tuple[Any, ...]:
    """A chain's members, each told whether its result is the chain's."""
    movers = [i for i, opt in enumerate(opts) if not watches(opt)]
    for i in movers[:-1]:
        if any(map(watches, rules_in(opts[i]))):
            raise ValueError(
                "OptimiserChain expects a chain with EMA in it to stand last, got one before "
                f"{type(opts[movers[-1]]).__name__}. Put EMA into the outer chain."
            )
    return tuple(_passing_on(opt) if i in movers[:-1] else opt for i, opt in enumerate(opts))


def check_downhill(rule: Any) -> None:
    """An error if Optax's signs and ours, in one chain, would lead uphill."""
    opts = [opt for opt in _flat(rule) if not watches(opt)]
    if all(isinstance(opt, Transformation) for opt in opts):
        return  # Optax's own meaning
    for opt in opts:
        way = direction(opt.tx.init, opt.tx.update) if isinstance(opt, Transformation) else 0
        if way < 0 and opt is not opts[-1]:
            raise ValueError(
                f"OptimiserChain expects {opt!r}, which turns the gradient around, to stand last, "
                f"got {type(opts[-1]).__name__} after it. Change the order."
            )
        if way > 0 and opt is opts[-1]:
            raise ValueError(
                "OptimiserChain expects its last Optax transformation to turn the gradient around, "
                f"as its result is added, got {opt!r}. Put it before the others, or "
                "optax.scale(-1.0) after it."
            )


def _flat(rule: Any) -> list[Any]:
    """The rules that a gradient goes through."""
    if isinstance(rule, OptimiserChain):
        return [inner for opt in rule.opts for inner in _flat(opt)]
    return _flat(rule.rule) if hasattr(rule, "parameter") else [rule]


def _passing_on(rule: Any) -> Any:
    """A member whose result goes to another rule."""
    if isinstance(rule, Transformation):
        return Transformation(rule.tx, last=False)
    return (
        OptimiserChain(*map(_passing_on, rule.opts)) if isinstance(rule, OptimiserChain) else rule
    )
