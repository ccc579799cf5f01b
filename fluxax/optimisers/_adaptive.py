"""Rules that divide the gradient by a running size of itself, without momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from fluxax.optimisers._arrays import abs2, average, full_like, zeros_like
from fluxax.optimisers._hyper import real_dtype
from fluxax.optimisers._rule import DECAY, NOT_NEGATIVE, Rule


@dataclass
class RMSProp(Rule):
    """The gradient divided by the root of its mean square.

        q ← ρ q + (1 - ρ) |dx|²          dx' = η dx / (√q + ϵ)
        l ← ρ l + (1 - ρ) dx             centred: √(q - |l|²) instead of √q

    There is no bias correction: the first step has length η / √(1 - ρ). Where rounding
    makes q - |l|² negative it counts as 0 (in Optimisers.jl it gives NaN).

    Args:
        eta: learning rate η ≥ 0.
        rho: decay ρ in [0, 1) of the means.
        epsilon: ϵ ≥ 0, outside the root.
        centred: whether to divide by the deviation instead of the size. It decides what the
            state is, so it stays as it was at `setup`.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = RMSProp(0.01), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.4f}")
        0.0316

    Reference: Tieleman & Hinton 2012, Coursera, lecture 6.5; centred: Graves 2013,
    arXiv:1308.0850, equations 38 to 45 (ϵ under the root there).
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8
    centred: bool = False

    limits = Rule.limits | {"rho": DECAY, "epsilon": NOT_NEGATIVE}

    def init(self, x: Any) -> Any:
        return zeros_like(x, real_dtype(x)), zeros_like(x) if self.centred else None

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        q, mean = state
        if self.centred != (mean is not None):
            raise ValueError(
                f"RMSProp expects `centred` as it was at setup, got {self.centred}. Set up anew."
            )
        q = variance = average(self.rho, q, abs2(dx))
        if self.centred:
            mean = average(self.rho, mean, dx)
            variance = jnp.maximum(q - abs2(mean), 0)
        return (q, mean), self.eta * dx / (jnp.sqrt(variance) + self.epsilon)


@dataclass
class AdaGrad(Rule):
    """The gradient divided by the root of the sum of its squares so far.

        s ← s + |dx|²          dx' = η dx / (√s + ϵ)

    s starts at ϵ, not at 0.

    Args:
        eta: learning rate η ≥ 0.
        epsilon: ϵ ≥ 0.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = AdaGrad(), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.4f}")
        0.1000

    Reference: Duchi, Hazan & Singer 2011, JMLR 12, section 1.1 (diagonal).
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.1
    epsilon: float = 1e-8

    limits = Rule.limits | {"epsilon": NOT_NEGATIVE}

    def init(self, x: Any) -> Any:
        return full_like(x, self.epsilon, real_dtype(x))

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        s = state + abs2(dx)
        return s, self.eta * dx / (jnp.sqrt(s) + self.epsilon)


@dataclass
class AdaDelta(Rule):
    """The gradient times the size of the steps before it, divided by its own size.

        a ← ρ a + (1 - ρ) |dx|²          dx' = dx √(d + ϵ) / √(a + ϵ)
        d ← ρ d + (1 - ρ) |dx'|²

    with the old d in the step. There is no learning rate; the first argument is ρ.

    Args:
        rho: decay ρ in [0, 1) of both means.
        epsilon: ϵ ≥ 0, inside both roots.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = AdaDelta(), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.6f}")
        0.000316

    Reference: Zeiler 2012, arXiv:1212.5701, Algorithm 1.
    """

    elementwise: ClassVar[bool] = True

    rho: float = 0.9
    epsilon: float = 1e-8

    limits = Rule.limits | {"rho": DECAY, "epsilon": NOT_NEGATIVE}

    def init(self, x: Any) -> Any:
        return zeros_like(x, real_dtype(x)), zeros_like(x, real_dtype(x))

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        a, d = state
        a = average(self.rho, a, abs2(dx))
        step = dx * jnp.sqrt((d + self.epsilon) / (a + self.epsilon))
        return (a, average(self.rho, d, abs2(step))), step
