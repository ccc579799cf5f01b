"""Activation functions: NNlib's names and defaults, elementwise unless an axis is named.

Every one of them keeps the dtype of floating input, lets NaN through, and has a finite
derivative wherever its value is finite. At a corner the derivative is that of one side
(`relu` at 0: 0), not their mean.

Reference: NNlib.jl, `src/activations.jl`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fluxax import _random
from fluxax._errors import check_numbers
from fluxax._softmax import glu, logsoftmax, softmax

Input = Any  # a JAX array, a NumPy array or a number

__all__ = [
    "celu",
    "elu",
    "gelu",
    "gelu_erf",
    "gelu_sigmoid",
    "gelu_tanh",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "identity",
    "leakyrelu",
    "lisht",
    "logcosh",
    "logsigmoid",
    "logsoftmax",
    "mish",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "sigmoid_fast",
    "softmax",
    "softplus",
    "softshrink",
    "softsign",
    "swish",
    "tanh",
    "tanh_fast",
    "tanhshrink",
    "trelu",
]


def identity(x):
    """The input itself: `x`. Also means "do not aggregate" in a loss (`agg=identity`).

    >>> identity(3)
    3
    """
    return x


# --- piecewise linear ---------------------------------------------------------------------


def _clamp(x: Input, lo: float, hi: float) -> jax.Array:
    # Not `jnp.clip`, whose derivative at the ends is one half.
    return jnp.where(x <= lo, lo, jnp.where(x >= hi, hi, x))


def relu(x: Input) -> jax.Array:
    """Rectified linear unit: `max(0, x)`.

    >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    x = _array("relu", x)
    # A select also in the derivative, where `jnp.maximum` would halve it at 0.
    return jnp.where(x <= 0, 0, x)


def leakyrelu(x: Input, a: Input = 0.01) -> jax.Array:
    """Leaky rectified linear unit: `x` where `x > 0`, else `a x`.

    >>> leakyrelu(jnp.array([-10.0, 2.0]), 0.5).tolist()
    [-5.0, 2.0]

    Reference: Maas et al. 2013, ICML workshop on deep learning for audio.
    """
    x = _array("leakyrelu", x, a=a)
    return jnp.where(x > 0, x, jnp.multiply(a, x))


def rrelu(x: Input, lo: float = 1 / 8, hi: float = 1 / 3, *, rng=None) -> jax.Array:
    """Leaky rectified linear unit with random slopes: `leakyrelu(x, a)`, each `a ~ U(lo, hi)`.

    Args:
        x: the input.
        lo: smallest slope.
        hi: largest slope.
        rng: an int, a NumPy generator or a JAX key. Without one, the bits of `x` are the seed:
            other input draws other slopes, the same input the same ones. So it works in compiled
            code, where a function without a state could not draw anew.

    Example:
        >>> y = rrelu(jnp.full(1000, -24.0))
        >>> bool((y >= -8).all() and (y <= -3).all())
        True

    Reference: Xu et al. 2015, arXiv:1505.00853. As in NNlib, random in test mode too.
    """
    x = _floating(_array("rrelu", x, lo=lo, hi=hi))
    return leakyrelu(x, jax.random.uniform(_key(rng, x), x.shape, x.dtype, lo, hi))


def relu6(x: Input) -> jax.Array:
    """Rectified linear unit capped at six: `min(max(0, x), 6)`.

    >>> relu6(jnp.array([-1.0, 3.0, 10.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    x = _array("relu6", x)
    return _clamp(x, 0, 6)


def trelu(x: Input, theta: float = 1.0) -> jax.Array:
    """Threshold-gated linear unit: `x` where `x > theta`, else 0.

    >>> trelu(jnp.array([0.5, 1.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]

    Reference: Konda et al. 2014, arXiv:1402.3337.
    """
    x = _array("trelu", x, theta=theta)
    return jnp.where(x <= theta, 0, x)


def hardtanh(x: Input) -> jax.Array:
    """Segment-wise linear `tanh`: `max(-1, min(1, x))`.

    >>> hardtanh(jnp.array([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    x = _array("hardtanh", x)
    return _clamp(x, -1, 1)


def hardsigmoid(x: Input) -> jax.Array:
    """Segment-wise linear `sigmoid`: `max(0, min(1, (x + 3) / 6))`.

    >>> hardsigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    x = _array("hardsigmoid", x)
    return _clamp(jnp.add(x, 3) / 6, 0, 1)


def hardswish(x: Input) -> jax.Array:
    """Segment-wise linear gate: `x hardsigmoid(x)`.

    >>> hardswish(jnp.array([-4.0, 3.0])).tolist()
    [0.0, 3.0]

    Reference: Howard et al. 2019, arXiv:1905.02244.
    """
    x = _array("hardswish", x)
    # Not `0 * x`, which is -0 left of the gate, and NaN for -inf.
    return jnp.where(x <= -3, 0, jnp.multiply(x, hardsigmoid(x)))


def softshrink(x: Input, lam: float = 0.5) -> jax.Array:
    """Soft thresholding: `x - lam` above `lam`, `x + lam` below `-lam`, 0 between.

    >>> softshrink(jnp.array([-2.0, 0.25, 2.0])).tolist()
    [-1.5, 0.0, 1.5]
    """
    x = _array("softshrink", x, lam=lam)
    return jnp.where(jnp.abs(x) <= lam, 0, x - lam * jnp.sign(x))


def elu(x: Input, alpha: float = 1.0) -> jax.Array:
    """Exponential linear unit: `x` where `x > 0`, else `alpha (exp(x) - 1)`.

    >>> elu(jnp.array([-100.0, 2.0]), 2).tolist()
    [-2.0, 2.0]

    Reference: Clevert et al. 2015, arXiv:1511.07289.
    """
    x = _array("elu", x, alpha=alpha)
    # The inner select keeps the overflow of `exp` out of the derivative where `x` is large.
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0.0, x)))


def celu(x: Input, alpha: float = 1.0) -> jax.Array:
    """Continuously differentiable `elu`: `max(0, x) + min(0, alpha (exp(x / alpha) - 1))`.

    >>> celu(jnp.array([-100.0, 2.0]), 2).tolist()
    [-2.0, 2.0]

    Reference: Barron 2017, arXiv:1704.07483.
    """
    x = _array("celu", x, alpha=alpha)
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0.0, x) / alpha))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(x: Input) -> jax.Array:
    """Self-normalising `elu`: `1.0507 elu(x, 1.6733)`.

    >>> [round(v, 4) for v in selu(jnp.array([-100.0, 1.0])).tolist()]
    [-1.7581, 1.0507]

    Reference: Klambauer et al. 2017, arXiv:1706.02515.
    """
    x = _array("selu", x)
    return _SELU_SCALE * elu(x, _SELU_ALPHA)


def softplus(x: Input) -> jax.Array:
    """Smooth `relu`: `log(1 + exp(x))`, without overflow.

    >>> softplus(jnp.array([-1e4, 1e4])).tolist()
    [0.0, 10000.0]
    """
    x = _array("softplus", x)
    return jax.nn.softplus(x)


def logcosh(x: Input) -> jax.Array:
    """`log(cosh(x)) = |x| + log(1 + exp(-2|x|)) - log(2)`, without overflow.

    >>> round(float(logcosh(100.0)), 4)
    99.3069
    """
    x = _array("logcosh", x)
    a = jnp.abs(x)
    return a + jnp.log1p(jnp.exp(-2.0 * a)) - math.log(2)


# --- sigmoidal ----------------------------------------------------------------------------


def sigmoid(x: Input) -> jax.Array:
    """`1 / (1 + exp(-x))`, Flux's σ.

    >>> sigmoid(jnp.array([-1e4, 0.0, 1e4])).tolist()
    [0.0, 0.5, 1.0]
    """
    return jax.nn.sigmoid(_floating(_array("sigmoid", x)))


def logsigmoid(x: Input) -> jax.Array:
    """`log(sigmoid(x)) = -softplus(-x)`, without underflow.

    >>> logsigmoid(jnp.array([-1e4, 1e4])).tolist()
    [-10000.0, -0.0]
    """
    x = _array("logsigmoid", x)
    return -softplus(jnp.negative(x))


def tanh(x: Input) -> jax.Array:
    """Hyperbolic tangent: `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`.

    >>> tanh(jnp.array([0.0, 100.0])).tolist()
    [0.0, 1.0]
    """
    x = _array("tanh", x)
    return jnp.tanh(x)


#: NNlib's fast ones have a few wrong bits; XLA's are fast as they are.
sigmoid_fast, tanh_fast = sigmoid, tanh


def softsign(x: Input) -> jax.Array:
    """`x / (1 + |x|)`.

    >>> softsign(jnp.array([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """
    x = _array("softsign", x)
    return x / (1 + jnp.abs(x))


def tanhshrink(x: Input) -> jax.Array:
    """`x - tanh(x)`.

    >>> tanhshrink(jnp.array([0.0, 100.0])).tolist()
    [0.0, 99.0]
    """
    x = _array("tanhshrink", x)
    return x - jnp.tanh(x)


def swish(x: Input) -> jax.Array:
    """Self-gated unit: `x sigmoid(x)`. Elsewhere called SiLU.

    >>> swish(jnp.array([0.0, 100.0])).tolist()
    [0.0, 100.0]

    Reference: Ramachandran et al. 2017, arXiv:1710.05941.
    """
    x = _array("swish", x)
    return x * sigmoid(x)


def lisht(x: Input) -> jax.Array:
    """Linearly scaled hyperbolic tangent: `x tanh(x)`.

    >>> lisht(jnp.array([-100.0, 100.0])).tolist()
    [100.0, 100.0]

    Reference: Roy et al. 2019, arXiv:1901.05894.
    """
    x = _array("lisht", x)
    return x * jnp.tanh(x)


def mish(x: Input) -> jax.Array:
    """`x tanh(softplus(x))`.

    >>> mish(jnp.array([0.0, 100.0])).tolist()
    [0.0, 100.0]

    Reference: Misra 2019, arXiv:1908.08681.
    """
    x = _array("mish", x)
    return x * jnp.tanh(softplus(x))


def gelu_tanh(x: Input) -> jax.Array:
    """Gaussian error linear unit, by `tanh`: `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.

    Computed as `x sigmoid(√(8/π) (x + 0.044715 x³))`, which is the same. NNlib's `gelu`.

    >>> round(float(gelu(1.0)), 4)
    0.8412

    Reference: Hendrycks & Gimpel 2016, arXiv:1606.08415.
    """
    x = _array("gelu_tanh", x)
    # Beyond ±10 the gate is 0 or 1 to the last bit; the cube would overflow in half precision.
    gate = _clamp(x, -10, 10)
    return x * sigmoid(math.sqrt(8 / math.pi) * gate * (1 + 0.044715 * gate * gate))


gelu = gelu_tanh


def gelu_erf(x: Input) -> jax.Array:
    """Gaussian error linear unit, exactly: `x Φ(x) = x/2 (1 + erf(x/√2))`.

    >>> round(float(gelu_erf(1.0)), 4)
    0.8413
    """
    x = _array("gelu_erf", x)
    # erfc keeps the digits that `1 + erf` loses where `x` is negative.
    return x * lax.erfc(-_floating(x) * math.sqrt(0.5)) / 2


def gelu_sigmoid(x: Input) -> jax.Array:
    """Gaussian error linear unit, by `sigmoid`: `x sigmoid(1.702 x)`.

    >>> round(float(gelu_sigmoid(1.0)), 4)
    0.8458
    """
    x = _array("gelu_sigmoid", x)
    return x * sigmoid(jnp.multiply(1.702, x))


def _array(who: str, x: Input, **parameters: Input) -> Any:
    """`x` ready for arithmetic, or an error; nothing in compiled code, where only traces run it."""
    check_numbers(who, x=x, **parameters)
    return jnp.asarray(x) if isinstance(x, (list, tuple)) else x


def _floating(x: Input) -> jax.Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def _key(rng, x: jax.Array) -> jax.Array:
    if rng is None:
        bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
        return jax.random.key(jnp.sum(bits, dtype=jnp.uint32))
    if isinstance(rng, jax.Array):
        return rng
    return jax.random.key(int(_random.generator(rng).integers(2**31)))
