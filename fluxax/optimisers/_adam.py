"""Adam and its kin: running means of the gradient and of its square.

βᵗ stands for the running product of the decays, as in Optimisers.jl: it starts as β and is
multiplied after every step by the β then in force, so `adjust` and schedules do not change what
was. What the formulas call m̂ and v̂ costs nothing per element: 1 / (1 - β₁ᵗ) goes into the learning
rate, and 1 / √(1 - β₂ᵗ) beside √v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from fluxax.optimisers._arrays import abs2, average, full_like, zeros_like
from fluxax.optimisers._hyper import real_dtype
from fluxax.optimisers._products import Power, multiplied, products
from fluxax.optimisers._rectifier import rectifier
from fluxax.optimisers._rule import DECAY, NOT_NEGATIVE, Rule


@dataclass
class _TwoMeans(Rule):
    """What Adam's kin have in common: three fields, two means and two products."""

    elementwise: ClassVar[bool] = True

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    limits = Rule.limits | {"beta": DECAY, "epsilon": NOT_NEGATIVE}

    def init(self, x: Any) -> Any:
        return zeros_like(x), zeros_like(x, real_dtype(x)), products(x)


def _root(v: Any, power: Power, epsilon: Any) -> Any:
    """√(v / (1 - βᵗ)) + ϵ, with the division done once for all elements."""
    return jnp.sqrt(v) * (1 / jnp.sqrt(power.one_minus())) + epsilon


@dataclass
class Adam(_TwoMeans):
    """Steps scaled by running means of the gradient and of its square.

        m ← β₁ m + (1 - β₁) dx            m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) |dx|²         v̂ = v / (1 - β₂ᵗ)
        dx' = η m̂ / (√v̂ + ϵ)

    Here and in Adam's kin βᵗ is a running product, as in Optimisers.jl: it starts as β, and each
    step multiplies it by the β then in force. So a change of β leaves what was as it was.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        epsilon: ϵ ≥ 0, outside the root.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = Adam(0.01), jnp.zeros(2)
        >>> rule
        Adam(eta=0.01, beta=(0.9, 0.999), epsilon=1e-08)
        >>> state, step = rule.apply(rule.init(x), x, jnp.array([5.0, -0.1]))
        >>> print(step)
        [ 0.01 -0.01]

    Reference: Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.
    """

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return _adam(self, state, x, dx)


def _adam(rule: Any, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
    m, v, kept = state
    kept, (power1, power2) = multiplied(kept, rule.beta, x)
    m = average(rule.beta[0], m, dx)
    v = average(rule.beta[1], v, abs2(dx))
    rate = rule.eta / power1.one_minus()
    return (m, v, kept), rate * m / _root(v, power2, rule.epsilon)


@dataclass
class AdamW(Rule):
    """Adam with weight decay that does not pass through the means.

        dx' = η (a + λ x)       couple=True, as PyTorch
        dx' = η a + λ x         couple=False, nearer to the paper, and Flux 0.13

    where a is Adam's step with η = 1. As in Optimisers.jl λ is 0 unless it is given, and this is
    Adam then, without any decay; in PyTorch it is 0.01, in Optax 0.0001.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        lam: strength λ ≥ 0 of the decay; 0, none, by default.
        epsilon: ϵ ≥ 0, outside the root.
        couple: whether the learning rate scales the decay too.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = AdamW(0.01, lam=0.1), jnp.full(2, 20.0)
        >>> state, step = rule.apply(rule.init(x), x, jnp.array([5.0, -0.1]))
        >>> print(step)
        [0.03 0.01]

    Reference: Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    lam: float = 0.0
    epsilon: float = 1e-8
    couple: bool = True

    limits = _TwoMeans.limits | {"lam": NOT_NEGATIVE}

    def init(self, x: Any) -> Any:
        return zeros_like(x), zeros_like(x, real_dtype(x)), products(x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        state, step = _adam(self, state, x, dx)
        return state, step + (self.eta * self.lam if self.couple else self.lam) * x


@dataclass
class RAdam(_TwoMeans):
    """Adam that does not divide by √v̂ before v̂ is known well enough.

        ρ∞ = 2 / (1 - β₂) - 1           ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)
        r = √((ρ - 4) (ρ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρ))
        dx' = η r m̂ / (√v̂ + ϵ)   if ρ > 4,   else   η m̂

    With the default β₂ the first four steps are the second kind.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        epsilon: ϵ ≥ 0, outside the root.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = RAdam(0.01), jnp.zeros(())
        >>> state, step = rule.apply(rule.init(x), x, jnp.array(5.0))
        >>> print(f"{step:.3f}")
        0.050

    Reference: Liu et al. 2020, arXiv:1908.03265, Algorithm 2 (threshold 4, as there; PyTorch: 5).
    """

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, kept = state
        kept, (power1, power2) = multiplied(kept, self.beta, x)
        m = average(self.beta[0], m, dx)
        v = average(self.beta[1], v, abs2(dx))
        plain = self.eta / power1.one_minus() * m
        root = _root(v, power2, self.epsilon)
        rectified, r = rectifier(self.beta[1], power2)
        return (m, v, kept), jnp.where(rectified, r * plain / root, plain)


@dataclass
class AdaMax(_TwoMeans):
    """Adam with the largest recent gradient in place of the root of the mean square.

        m ← β₁ m + (1 - β₁) dx            u ← max(β₂ u, |dx|)
        dx' = η m / (1 - β₁ᵗ) / (u + ϵ)

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the mean and of the maximum, each in [0, 1).
        epsilon: ϵ ≥ 0.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = AdaMax(0.01), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.3f}")
        0.010

    Reference: Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2 (no ϵ there).
    """

    def init(self, x: Any) -> Any:
        return zeros_like(x), zeros_like(x, real_dtype(x)), products(x, 1)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, u, kept = state
        kept, (power,) = multiplied(kept, self.beta[:1], x)
        m = average(self.beta[0], m, dx)
        u = jnp.maximum(self.beta[1] * u, jnp.abs(dx))
        rate = self.eta / power.one_minus()
        return (m, u, kept), rate * m / (u + self.epsilon)


@dataclass
class OAdam(_TwoMeans):
    """Adam that expects the next step to change as this one did, for adversarial games.

        dx' = 2 aₜ - aₜ₋₁

    where a is Adam's step, a₀ = 0.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        epsilon: ϵ ≥ 0, outside the root.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = OAdam(0.01), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.3f}")
        0.020

    Reference: Daskalakis, Ilyas, Syrgkanis & Zeng 2018, arXiv:1711.00141, Algorithm 1.
    """

    beta: tuple[float, float] = (0.5, 0.9)

    def init(self, x: Any) -> Any:
        return *super().init(x), zeros_like(x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        *means, before = state
        means, a = _adam(self, means, x, dx)
        return (*means, a), 2 * a - before


@dataclass
class AMSGrad(_TwoMeans):
    """Adam whose mean square never shrinks, without bias correction.

        m ← β₁ m + (1 - β₁) dx            v ← β₂ v + (1 - β₂) |dx|²
        u ← max(u, v)                     dx' = η m / (√u + ϵ)

    m, v and u start at ϵ, not at 0.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        epsilon: ϵ ≥ 0, outside the root.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = AMSGrad(0.01), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.4f}")
        0.0316

    Reference: Reddi, Kale & Kumar 2018, openreview.net/forum?id=ryQu7f-RZ, Algorithm 2.
    """

    def init(self, x: Any) -> Any:
        real = lambda: full_like(x, self.epsilon, real_dtype(x))
        return full_like(x, self.epsilon), real(), real()

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, u = state
        m = average(self.beta[0], m, dx)
        v = average(self.beta[1], v, abs2(dx))
        u = jnp.maximum(u, v)
        return (m, v, u), self.eta * m / (jnp.sqrt(u) + self.epsilon)


@dataclass
class NAdam(_TwoMeans):
    """Adam with Nesterov's momentum.

        n = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) dx / (1 - β₁ᵗ)
        dx' = η n / (√(β₂ v / (1 - β₂ᵗ)) + ϵ)

    with Adam's m and v.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        epsilon: ϵ ≥ 0, outside the root.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = NAdam(0.01), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.4f}")
        0.0147

    Reference: Dozat 2016, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ, Algorithm 2 (without
    its schedule for β₁; β₂ under the root is Optimisers.jl's).
    """

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, kept = state
        kept, (power1, power2) = multiplied(kept, self.beta, x)
        b1, b2 = self.beta
        m = average(b1, m, dx)
        v = average(b2, v, abs2(dx))
        ahead = self.eta * b1 / power1.one_minus(more=1)
        now = self.eta * (1 - b1) / power1.one_minus()
        root = jnp.sqrt(v) * jnp.sqrt(b2 / power2.one_minus()) + self.epsilon
        return (m, v, kept), (ahead * m + now * dx) / root


@dataclass
class AdaBelief(_TwoMeans):
    """Adam with the mean square of what the mean did not foresee.

        m ← β₁ m + (1 - β₁) dx            s ← β₂ s + (1 - β₂) |dx - m|² + ϵ
        dx' = η m / (1 - β₁ᵗ) / (√(s / (1 - β₂ᵗ)) + ϵ)

    with the new m in s.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) of the two means, each in [0, 1).
        epsilon: ϵ ≥ 0, in both places.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = AdaBelief(0.01), jnp.zeros(())
        >>> print(f"{rule.apply(rule.init(x), x, jnp.array(5.0))[1]:.4f}")
        0.0111

    Reference: Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.
    """

    epsilon: float = 1e-16

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, s, kept = state
        kept, (power1, power2) = multiplied(kept, self.beta, x)
        m = average(self.beta[0], m, dx)
        s = average(self.beta[1], s, abs2(dx - m)) + self.epsilon
        rate = self.eta / power1.one_minus()
        return (m, s, kept), rate * m / _root(s, power2, self.epsilon)


@dataclass
class Lion(Rule):
    """Steps of one size, in the direction of a sign.

        dx' = η sign(β₁ m + (1 - β₁) dx)          m ← β₂ m + (1 - β₂) dx

    with the old m in the step: the paper's update. (Optimisers.jl uses the decays the other way
    round.) The sign of a complex number is c / |c|.

    Args:
        eta: learning rate η ≥ 0.
        beta: decays (β₁, β₂) in the step and in the mean, each in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = Lion(0.01), jnp.zeros(2)
        >>> print(rule.apply(rule.init(x), x, jnp.array([5.0, -0.1]))[1])
        [ 0.01 -0.01]

    Reference: Chen et al. 2023, arXiv:2302.06675, Program 1 (β₂ = 0.99 there).
    """

    elementwise: ClassVar[bool] = True

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)

    limits = Rule.limits | {"beta": DECAY}

    def init(self, x: Any) -> Any:
        return zeros_like(x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        sign = jnp.sign(average(self.beta[0], state, dx))
        return average(self.beta[1], state, dx), self.eta * sign
