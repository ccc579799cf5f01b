"""Rules whose step is the gradient, its running sum, or its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from fluxax._errors import short
from fluxax.optimisers._arrays import full_like, scalar, zeros_like
from fluxax.optimisers._rule import BOUND, DECAY, NOT_NEGATIVE, Rule


@dataclass
class Descent(Rule):
    """Gradient descent.

        dx' = η dx

    Args:
        eta: learning rate η ≥ 0.

    Raises:
        TypeError, ValueError: if a field is not a number in its range (the same in every rule).

    Example:
        >>> import jax.numpy as jnp
        >>> rule = Descent(0.1)
        >>> state, step = rule.apply(rule.init(jnp.ones(2)), jnp.ones(2), jnp.array([1.0, -2.0]))
        >>> print(step)
        [ 0.1 -0.2]

    Reference: Robbins & Monro 1951, doi:10.1214/aoms/1177729586.
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.1

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, self.eta * dx


@dataclass
class Momentum(Rule):
    """Gradient descent with a velocity.

        v ← ρ v + η dx          dx' = v

    The learning rate is inside the velocity, so changing it does not rescale what has
    accumulated (PyTorch's SGD does).

    Args:
        eta: learning rate η ≥ 0.
        rho: momentum ρ in [0, 1): how much of the velocity a step keeps.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = Momentum(0.1), jnp.zeros(())
        >>> state, step = rule.apply(rule.init(x), x, jnp.array(1.0))
        >>> state, step = rule.apply(state, x, jnp.array(1.0))
        >>> print(f"{step:.2f}")
        0.19

    Reference: Polyak 1964, doi:10.1016/0041-5553(64)90137-5.
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.01
    rho: float = 0.9

    limits = Rule.limits | {"rho": DECAY}

    def init(self, x: Any) -> Any:
        return zeros_like(x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        v = self.rho * state + self.eta * dx
        return v, v


@dataclass
class Nesterov(Rule):
    """Gradient descent with a velocity, which looks ahead.

        dx' = (1 + ρ) η dx - ρ² v          v ← ρ v - η dx

    with the old v in the step; v points downhill.

    Args:
        eta: learning rate η ≥ 0.
        rho: momentum ρ in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = Nesterov(0.1), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(1.0))[1]:.2f}")
        0.19

    Reference: Sutskever, Martens, Dahl & Hinton 2013, ICML, in the form of Bengio,
    Boulanger-Lewandowski & Pascanu 2012, arXiv:1212.0901, equation 7.
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.001
    rho: float = 0.9

    limits = Rule.limits | {"rho": DECAY}

    def init(self, x: Any) -> Any:
        return zeros_like(x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        step = (1 + self.rho) * self.eta * dx - self.rho**2 * state
        return self.rho * state - self.eta * dx, step


@dataclass
class Rprop(Rule):
    """A step length for every element, grown or shrunk by the gradient's sign alone.

        s ← min(s ℓ₂, Γ₂)   where dx has the sign of g, the gradient before
        s ← max(s ℓ₁, Γ₁)   where it has the other, and there dx counts as 0
        g ← dx              dx' = s sign(dx)

    Meant for gradients of the whole data set. The step lengths are state that starts at η:
    changing `eta` later changes nothing.

    Args:
        eta: first step length η ≥ 0.
        ell: factors (ℓ₁, ℓ₂) that shrink and grow a step length.
        gamma: the smallest and the largest step length (Γ₁, Γ₂).

    Raises:
        TypeError: for complex parameters, which have no two signs.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = Rprop(0.1), jnp.zeros(())
        >>> state, step = rule.apply(rule.init(x), x, jnp.array(5.0))
        >>> state, step = rule.apply(state, x, jnp.array(0.5))
        >>> print(f"{step:.2f}")
        0.12

    Reference: Riedmiller & Braun 1993, doi:10.1109/ICNN.1993.298623, without stepping back.
    """

    elementwise: ClassVar[bool] = True

    eta: float = 1e-3
    ell: tuple[float, float] = (0.5, 1.2)
    gamma: tuple[float, float] = (1e-6, 50.0)

    limits = Rule.limits | {"ell": NOT_NEGATIVE, "gamma": BOUND}

    def init(self, x: Any) -> Any:
        if jnp.iscomplexobj(x):
            raise TypeError(f"Rprop expects a real parameter, got {short(x)}.")
        return zeros_like(x), full_like(x, self.eta)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        g, s = state
        same = jnp.sign(g) * jnp.sign(dx)  # of g · dx, which could underflow
        grown = jnp.minimum(s * self.ell[1], scalar(self.gamma[1], s))
        shrunk = jnp.maximum(s * self.ell[0], scalar(self.gamma[0], s))
        s = jnp.where(same > 0, grown, jnp.where(same < 0, shrunk, s))
        g = jnp.where(same < 0, 0, dx)
        return (g, s), s * jnp.sign(g)
