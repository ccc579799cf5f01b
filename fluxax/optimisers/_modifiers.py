"""Rules that change the gradient for the rules after them in an `OptimiserChain`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import lax

from fluxax.optimisers._arrays import abs2, scalar, wide_dtype
from fluxax.optimisers._meeting import Part, WholeTree, ask
from fluxax.optimisers._rule import BOUND, NOT_NEGATIVE, Rule


@dataclass
class WeightDecay(Rule):
    """The gradient of an L2 penalty, added: that of λ/2 Σ x².

        dx' = dx + λ x

    Args:
        lam: strength λ ≥ 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(WeightDecay(0.5).apply(None, jnp.array([2.0]), jnp.array([1.0]))[1])
        [2.]

    Reference: Krogh & Hertz 1991, NeurIPS 4.
    """

    elementwise: ClassVar[bool] = True

    lam: float = 5e-4

    limits = Rule.limits | {"lam": NOT_NEGATIVE}

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx + self.lam * x


@dataclass
class SignDecay(Rule):
    """The gradient of an L1 penalty, added: that of λ Σ |x|.

        dx' = dx + λ sign(x)

    sign(0) = 0; the sign of a complex number is x / |x|.

    Args:
        lam: strength λ ≥ 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(SignDecay(0.5).apply(None, jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]))[1])
        [1.5 1. ]

    Reference: Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x.
    """

    elementwise: ClassVar[bool] = True

    lam: float = 1e-3

    limits = Rule.limits | {"lam": NOT_NEGATIVE}

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx + self.lam * jnp.sign(x)


@dataclass
class ClipGrad(Rule):
    """Every element of the gradient, kept within ±δ.

        dx' = min(max(dx, -δ), δ)

    NaN stays NaN. Of a complex gradient, the real and the imaginary part are each clipped.

    Args:
        delta: bound δ ≥ 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(ClipGrad(1.0).apply(None, jnp.zeros(3), jnp.array([0.3, -1.0, 7.0]))[1])
        [ 0.3 -1.   1. ]

    Reference: Mikolov 2012, Statistical Language Models Based on Neural Networks, section 3.3.
    """

    elementwise: ClassVar[bool] = True

    delta: float = 10.0

    limits = Rule.limits | {"delta": BOUND}

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        delta = scalar(self.delta, dx)
        clip = lambda part: jnp.clip(part, -delta, delta)
        if jnp.iscomplexobj(dx):
            return state, lax.complex(clip(jnp.real(dx)), clip(jnp.imag(dx)))
        return state, clip(dx)


@dataclass
class ClipNorm(Rule):
    """A gradient array scaled down to norm ω if its norm is above.

        dx' = dx min(ω / ‖dx‖ₚ, 1)

    per array; `ClipGlobalNorm` looks at all of them together. A gradient whose norm is not finite
    is passed on as it is (Optimisers.jl throws), and the guard of `train` names it. The norm of
    a large finite gradient is finite, also where its square is not.

    Args:
        omega: the largest norm ω ≥ 0.
        p: which norm: 2 (Euclidean), 1, any p > 0, `inf` (largest element), 0 (how many are not 0).

    Example:
        >>> import jax.numpy as jnp
        >>> print(ClipNorm(1.0).apply(None, jnp.zeros(2), jnp.array([3.0, 4.0]))[1])
        [0.6 0.8]

    Reference: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1.
    """

    omega: float = 10.0
    p: float = 2.0

    limits = Rule.limits | {"omega": BOUND, "p": BOUND}
    static = ("p",)

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        size = norm(dx, self.p)
        return state, _shrunk(dx, size, scalar(self.omega, size))


@dataclass
class ClipGlobalNorm(WholeTree):
    """All gradients scaled down together if their common norm is above ω.

        dx' = dx min(ω / ‖(dx₁, dx₂, …)‖₂, 1)

    over all arrays that take a step and have a `ClipGlobalNorm` in their rule, whatever part of
    the model they belong to; frozen ones and those without a gradient are left out. In a chain
    the norm is that of what the rules before it made of the gradients. Gradients whose norm is not
    finite are passed on as they are, and the guard of `train` names one.

    Args:
        omega: the largest norm ω ≥ 0.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
        >>> opt_state = fx.setup(fx.OptimiserChain(fx.ClipGlobalNorm(1.0), fx.Descent(1.0)), model)
        >>> fx.update(opt_state, model, {"a": jnp.array([3.0]), "b": jnp.array([4.0])})[1]
        {'a': Array([-0.6], dtype=float32), 'b': Array([-0.8], dtype=float32)}

    Reference: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1.
    """

    elementwise: ClassVar[bool] = True  # once the norm is there

    omega: float = 10.0

    limits = Rule.limits | {"omega": BOUND}

    def apply(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        size = ask(Part(self, state, x, dx))
        return state, _shrunk(dx, size, scalar(self.omega, size))

    def meet(self, parts: list[Part]) -> list[Any]:
        """The common norm, for everybody."""
        there = [p.dx if p.real is None else jnp.where(p.real, p.dx, 0) for p in parts]
        return [_length(there)] * len(parts)


def _shrunk(dx: Any, size: Any, omega: Any) -> Any:
    """A gradient of some norm, scaled down so that the norm is at most ω."""
    above = (size > omega) & (size < math.inf)
    factor = jnp.where(above, omega / jnp.where(above, size, 1), 1)
    return (dx * factor).astype(dx.dtype)


def _length(xs: list[Any]) -> Any:
    """The Euclidean norm of all elements of arrays of float32 or wider."""
    squares = lambda scale: jnp.sqrt(sum(jnp.sum(abs2(x / scale)) for x in xs))

    def large() -> Any:  # the squares overflow; of numbers up to 1 they do not
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in xs]))
        return largest * squares(largest)

    plain = squares(1)
    return lax.cond(plain < math.inf, lambda: plain, large)


def norm(x: Any, p: float) -> Any:
    """The p-norm of all elements of an array of float32 or wider."""
    if p == 2:
        return _length([x])
    if p == 0:
        return jnp.sum(x != 0).astype(wide_dtype(x))
    largest = jnp.max(jnp.abs(x), initial=0)
    if p == math.inf:
        return largest
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sum((jnp.abs(x) / scale) ** p) ** (1 / p)
