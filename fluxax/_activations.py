"""Activation functions: NNlib's names and defaults, elementwise unless an axis is named.

Every one of them keeps the dtype of floating input, lets NaN through, and has a finite
derivative wherever its value is finite. At a corner the derivative is that of one side
(`relu` at 0: 0), not their mean. Half precision is computed in float32 and rounded once. Integers
are float32 before anything is added to them or negated: short ones would overflow. Complex input
is refused where the formula asks which number is larger.

Reference: NNlib.jl, `src/activations.jl`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from fluxax._elementwise import Input, checked, floated, key_from, real
from fluxax._half import like, wide
from fluxax._softmax import glu, logsoftmax, softmax

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
    lo = max(lo, 0) if jnp.issubdtype(jnp.result_type(x), jnp.unsignedinteger) else lo
    return jnp.where(x <= lo, lo, jnp.where(x >= hi, hi, x))


def relu(x: Input) -> jax.Array:
    """Rectified linear unit: `max(0, x)`.

    >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    x = real("relu", x)
    # A select also in the derivative, where `jnp.maximum` would halve it at 0.
    return jnp.where(x <= 0, 0, x)


def leakyrelu(x: Input, a: Input = 0.01) -> jax.Array:
    """Leaky rectified linear unit: `x` where `x > 0`, else `a x`.

    >>> leakyrelu(jnp.array([-10.0, 2.0]), 0.5).tolist()
    [-5.0, 2.0]

    Reference: Maas et al. 2013, ICML workshop on deep learning for audio.
    """
    x = real("leakyrelu", x, a=a)
    return like(x, jnp.where(x > 0, x, jnp.multiply(a, wide(x))))


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
    x = floated(real("rrelu", x, lo=lo, hi=hi))
    slopes = jax.random.uniform(key_from(rng, x), x.shape, wide(x).dtype, lo, hi)
    return leakyrelu(x, slopes)


def relu6(x: Input) -> jax.Array:
    """Rectified linear unit capped at six: `min(max(0, x), 6)`.

    >>> relu6(jnp.array([-1.0, 3.0, 10.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    x = real("relu6", x)
    return _clamp(x, 0, 6)


def trelu(x: Input, theta: float = 1.0) -> jax.Array:
    """Threshold-gated linear unit: `x` where `x > theta`, else 0.

    >>> trelu(jnp.array([0.5, 1.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]

    Reference: Konda et al. 2014, arXiv:1402.3337.
    """
    x = real("trelu", x, theta=theta)
    return jnp.where(x <= theta, 0, x)


def hardtanh(x: Input) -> jax.Array:
    """Segment-wise linear `tanh`: `max(-1, min(1, x))`.

    >>> hardtanh(jnp.array([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    x = real("hardtanh", x)
    return _clamp(x, -1, 1)


def hardsigmoid(x: Input) -> jax.Array:
    """Segment-wise linear `sigmoid`: `max(0, min(1, (x + 3) / 6))`.

    >>> hardsigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    x = floated(real("hardsigmoid", x))
    return like(x, _clamp(jnp.add(wide(x), 3) / 6, 0, 1))


def hardswish(x: Input) -> jax.Array:
    """Segment-wise linear gate: `x hardsigmoid(x)`.

    >>> hardswish(jnp.array([-4.0, 3.0])).tolist()
    [0.0, 3.0]

    Reference: Howard et al. 2019, arXiv:1905.02244.
    """
    x = floated(real("hardswish", x))
    w = wide(x)
    # Not `0 * x`, which is -0 left of the gate, and NaN for -inf.
    return like(x, jnp.where(w <= -3, 0, jnp.multiply(w, hardsigmoid(w))))


def softshrink(x: Input, lam: float = 0.5) -> jax.Array:
    """Soft thresholding: `x - lam` above `lam`, `x + lam` below `-lam`, 0 between.

    >>> softshrink(jnp.array([-2.0, 0.25, 2.0])).tolist()
    [-1.5, 0.0, 1.5]
    """
    x = floated(real("softshrink", x, lam=lam))
    w = wide(x)
    return like(x, jnp.where(jnp.abs(w) <= lam, 0, w - lam * jnp.sign(w)))


def elu(x: Input, alpha: float = 1.0) -> jax.Array:
    """Exponential linear unit: `x` where `x > 0`, else `alpha (exp(x) - 1)`.

    >>> elu(jnp.array([-100.0, 2.0]), 2).tolist()
    [-2.0, 2.0]

    Reference: Clevert et al. 2015, arXiv:1511.07289.
    """
    x = real("elu", x, alpha=alpha)
    w = wide(x)
    # The inner select keeps the overflow of `exp` out of the derivative where `x` is large.
    return like(x, jnp.where(w > 0, w, alpha * jnp.expm1(jnp.where(w > 0, 0.0, w))))


def celu(x: Input, alpha: float = 1.0) -> jax.Array:
    """Continuously differentiable `elu`: `max(0, x) + min(0, alpha (exp(x / alpha) - 1))`.

    >>> celu(jnp.array([-100.0, 2.0]), 2).tolist()
    [-2.0, 2.0]

    Reference: Barron 2017, arXiv:1704.07483.
    """
    x = real("celu", x, alpha=alpha)
    w = wide(x)
    return like(x, jnp.where(w > 0, w, alpha * jnp.expm1(jnp.where(w > 0, 0.0, w) / alpha)))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(x: Input) -> jax.Array:
    """Self-normalising `elu`: `1.0507 elu(x, 1.6733)`.

    >>> [round(v, 4) for v in selu(jnp.array([-100.0, 1.0])).tolist()]
    [-1.7581, 1.0507]

    Reference: Klambauer et al. 2017, arXiv:1706.02515.
    """
    x = real("selu", x)
    return like(x, _SELU_SCALE * elu(wide(x), _SELU_ALPHA))


def softplus(x: Input) -> jax.Array:
    """Smooth `relu`: `log(1 + exp(x))`, without overflow.

    >>> softplus(jnp.array([-1e4, 1e4])).tolist()
    [0.0, 10000.0]
    """
    x = real("softplus", x)
    return like(x, jax.nn.softplus(wide(x)))


def logcosh(x: Input) -> jax.Array:
    """`log(cosh(x)) = |x| + log(1 + exp(-2|x|)) - log(2)`, without overflow.

    >>> round(float(logcosh(100.0)), 4)
    99.3069
    """
    x = floated(real("logcosh", x))
    a = jnp.abs(wide(x))
    return like(x, a + jnp.log1p(jnp.exp(-2.0 * a)) - math.log(2))


# --- sigmoidal ----------------------------------------------------------------------------


def sigmoid(x: Input) -> jax.Array:
    """`1 / (1 + exp(-x))`, Flux's σ.

    >>> sigmoid(jnp.array([-1e4, 0.0, 1e4])).tolist()
    [0.0, 0.5, 1.0]
    """
    x = floated(checked("sigmoid", x))
    return like(x, jax.nn.sigmoid(wide(x)))


def logsigmoid(x: Input) -> jax.Array:
    """`log(sigmoid(x)) = -softplus(-x)`, without underflow.

    >>> logsigmoid(jnp.array([-1e4, 1e4])).tolist()
    [-10000.0, -0.0]
    """
    x = floated(real("logsigmoid", x))
    return -softplus(jnp.negative(x))


def tanh(x: Input) -> jax.Array:
    """Hyperbolic tangent: `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`.

    >>> tanh(jnp.array([0.0, 100.0])).tolist()
    [0.0, 1.0]
    """
    x = checked("tanh", x)
    return like(x, jnp.tanh(wide(x)))


#: NNlib's fast ones have a few wrong bits; XLA's are fast as they are.
sigmoid_fast, tanh_fast = sigmoid, tanh


def softsign(x: Input) -> jax.Array:
    """`x / (1 + |x|)`.

    >>> softsign(jnp.array([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """
    x = floated(checked("softsign", x))
    w = wide(x)
    return like(x, w / (1 + jnp.abs(w)))


def tanhshrink(x: Input) -> jax.Array:
    """`x - tanh(x)`.

    >>> tanhshrink(jnp.array([0.0, 100.0])).tolist()
    [0.0, 99.0]
    """
    x = checked("tanhshrink", x)
    w = wide(x)
    return like(x, w - jnp.tanh(w))


def swish(x: Input) -> jax.Array:
    """Self-gated unit: `x sigmoid(x)`. Elsewhere called SiLU.

    >>> swish(jnp.array([0.0, 100.0])).tolist()
    [0.0, 100.0]

    Reference: Ramachandran et al. 2017, arXiv:1710.05941.
    """
    x = checked("swish", x)
    w = wide(x)
    return like(x, w * sigmoid(w))


def lisht(x: Input) -> jax.Array:
    """Linearly scaled hyperbolic tangent: `x tanh(x)`.

    >>> lisht(jnp.array([-100.0, 100.0])).tolist()
    [100.0, 100.0]

    Reference: Roy et al. 2019, arXiv:1901.05894.
    """
    x = checked("lisht", x)
    w = wide(x)
    return like(x, w * jnp.tanh(w))


def mish(x: Input) -> jax.Array:
    """`x tanh(softplus(x))`.

    >>> mish(jnp.array([0.0, 100.0])).tolist()
    [0.0, 100.0]

    Reference: Misra 2019, arXiv:1908.08681.
    """
    x = real("mish", x)
    w = wide(x)
    return like(x, w * jnp.tanh(softplus(w)))


def gelu_tanh(x: Input) -> jax.Array:
    """Gaussian error linear unit, by `tanh`: `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.

    Computed as `x sigmoid(√(8/π) (x + 0.044715 x³))`, which is the same. NNlib's `gelu`.

    >>> round(float(gelu(1.0)), 4)
    0.8412

    Reference: Hendrycks & Gimpel 2016, arXiv:1606.08415.
    """
    x = floated(real("gelu_tanh", x))
    w = wide(x)
    # Beyond ±20 the gate is 0 or 1 to the last bit.
    gate = _clamp(w, -20, 20)
    return like(x, w * sigmoid(math.sqrt(8 / math.pi) * gate * (1 + 0.044715 * gate * gate)))


gelu = gelu_tanh


def gelu_erf(x: Input) -> jax.Array:
    """Gaussian error linear unit, exactly: `x Φ(x) = x/2 (1 + erf(x/√2))`.

    >>> round(float(gelu_erf(1.0)), 4)
    0.8413
    """
    x = real("gelu_erf", x)
    w = wide(x)
    # erfc keeps the digits that `1 + erf` loses where `x` is negative.
    return like(x, w * lax.erfc(-floated(w) * math.sqrt(0.5)) / 2)


def gelu_sigmoid(x: Input) -> jax.Array:
    """Gaussian error linear unit, by `sigmoid`: `x sigmoid(√(8/π) (x + 0.044715 x³))`.

    The same numbers as `gelu_tanh`, as in NNlib.

    >>> round(float(gelu_sigmoid(1.0)), 4)
    0.8412
    """
    return gelu_tanh(real("gelu_sigmoid", x))
