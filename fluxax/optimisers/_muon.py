"""Muon: the velocity of a matrix, with all its singular values made equal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from fluxax.optimisers._adam import AdamW
from fluxax.optimisers._arrays import zeros_like
from fluxax.optimisers._combine import inner_rule
from fluxax.optimisers._rule import DECAY, NOT_NEGATIVE, Rule

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the quintic a s + b s³ + c s⁵; steepest at 0
_STEPS = 5


@dataclass
class Muon(Rule):
    """Descent along the orthogonal factor of the velocity, for matrices.

        v ← ρ v + dx                    o = NS(dx + ρ v)
        dx' = η (o √max(1, n / m) + λ x)    for x with m rows (inputs), n columns (outputs)

    NS brings the singular values near 1: X ← G / ‖G‖, then five times
    X ← a X + (b A + c A²) X with A = X Xᵀ and (a, b, c) = (3.4445, -4.7750, 2.0315), on the
    transpose if that has fewer rows; in float32 or wider (bfloat16 there, for speed on GPUs).

    Arrays of more than two axes are matrices of all their axes but the last by the last: a
    convolution kernel `(kh, kw, in, out)` has kh·kw·in rows. Weights here are `(in, out)`, so the
    factor √max(1, n / m) is that of the reference, whose weights are `(out, in)`. Everything with
    fewer than two axes is left to the fallback. The reference leaves embeddings and the last
    layer to Adam as well: give those another rule with `setup({"": Muon(), "layers.head": …})`.

    Args:
        eta: learning rate η ≥ 0: the size of a step, whatever the gradient's. When `adjust`
            changes it, that of the fallback keeps its ratio to it.
        rho: momentum ρ in [0, 1), used as Nesterov's.
        lam: strength λ ≥ 0 of the weight decay, which η scales.
        fallback: the rule for everything that is not a matrix.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, x = Muon(0.1, lam=0.0), jnp.zeros((2, 2))
        >>> _, step = rule.apply(rule.init(x), x, jnp.array([[3.0, 0.0], [0.0, 0.3]]))
        >>> print(jnp.round(step, 2))  # 3 and 0.3 have come near each other
        [[0.07 0.  ]
         [0.   0.07]]

    Reference: Jordan et al. 2024, kellerjordan.github.io/posts/muon; the defaults are its.
    """

    eta: float = 0.02
    rho: float = 0.95
    lam: float = 0.01
    fallback: Any = field(default_factory=lambda: AdamW(3e-4, (0.9, 0.95), 0.01))

    limits = Rule.limits | {"rho": DECAY, "lam": NOT_NEGATIVE}

    def checked(self, name: str, value: Any) -> Any:
        if name == "fallback":
            return inner_rule("Muon", value)
        return super().checked(name, value)

    def passed_on(self, name: str, value: Any) -> Any:
        plain = (self.eta, value, getattr(self.fallback, "eta", None))
        if name != "eta" or not all(isinstance(v, (int, float)) for v in plain) or not self.eta:
            return value
        return value * self.fallback.eta / self.eta

    def init(self, x: Any) -> Any:
        return zeros_like(x) if x.ndim > 1 else self.fallback.init(x)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        if x.ndim < 2:
            return self.fallback.apply(state, x, dx)
        if not x.size:  # no matrix, so nothing to step
            return state, None
        v = self.rho * state + dx
        ahead = dx + self.rho * v
        n = x.shape[-1]
        m = math.prod(x.shape[:-1])
        o = orthogonal(ahead.reshape(m, n)) * math.sqrt(max(1, n / m))
        return v, self.eta * (o.reshape(x.shape) + self.lam * x)

    def states_in(self, state: Any) -> list[tuple[Any, Any]]:
        """The fallback with its state; of a matrix the state is an array of Muon's own."""
        return [] if hasattr(state, "shape") else [(self.fallback, state)]


def orthogonal(g: Any) -> Any:
    """A matrix of the same singular vectors, with singular values between about 0.7 and 1.2."""
    if g.shape[0] > g.shape[1]:
        return orthogonal(g.T).T
    x = g / (jnp.linalg.norm(g) + 1e-7)
    for _ in range(_STEPS):
        a = x @ x.conj().T
        x = _A * x + (_B * a + _C * (a @ a)) @ x
    return x
