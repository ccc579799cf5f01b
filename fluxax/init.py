"""Initialisers: what the weights of a layer start from.

Each is `init(*shape, rng=None)` and gives a float32 array; called without a shape it gives an
initialiser with those keywords set:

    >>> import fluxax as fx
    >>> fx.glorot_uniform(2, 3, rng=0).shape
    (2, 3)
    >>> fx.glorot_uniform(gain=2)
    glorot_uniform(gain=2)
    >>> fx.glorot_uniform(gain=2)(2, 3, rng=0).dtype
    dtype('float32')

`rng` is an int, a `numpy.random.Generator` or a JAX key; without one, the numbers come from the
stream that `fx.seed` fixes. They are drawn with NumPy, so that building a model compiles nothing;
inside an objective, without `rng`, by its program, which draws other ones at each call.
Shapes read `(…, in, out)`: Dense `(in, out)`, Conv `(kh, kw, in, out)`.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import jax
import numpy as np

from fluxax._draws import source
from fluxax._errors import no_array, short
from fluxax._jax import is_tracer

__all__ = [
    "glorot_uniform",
    "glorot_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "lecun_normal",
    "truncated_normal",
    "orthogonal",
    "sparse_init",
    "identity_init",
    "zeros32",
    "ones32",
    "rand32",
    "randn32",
    "nfan",
]

P = ParamSpec("P")


@dataclass(repr=False)
class Initialiser:
    """An initialiser with some keywords set: `glorot_uniform(gain=2)`.

    Keywords given later win; `rng=None` leaves an `rng` set here as it is.
    """

    init: Callable[..., Any]
    options: dict[str, Any]

    def __call__(self, *shape: int, rng: Any = None, **options: Any) -> Any:
        given = options if rng is None else {"rng": rng, **options}
        return self.init(*shape, **{**self.options, **given})

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.init.__name__}({options})"


def _initialiser(draw: Callable[P, np.ndarray]) -> Callable[P, Any]:
    """Check the shape, give a JAX array; without a shape, an `Initialiser`."""

    options_of = inspect.signature(draw).parameters
    known = [name for name in options_of if name != "shape"]
    needed = [name for name in known if options_of[name].default is inspect.Parameter.empty]

    @functools.wraps(draw)
    def init(*shape: Any, **options: Any) -> jax.Array | Initialiser:
        _check_options(draw.__name__, known, options)
        if not shape:
            return Initialiser(init, options)
        for name in needed:
            if name not in options:
                raise TypeError(f"{draw.__name__} expects `{name}`, got none. Write {name}=0.5.")
        sizes: Any = _sizes(draw.__name__, shape)
        drawn: Any = draw(*sizes, **options)
        if isinstance(drawn, jax.Array):  # inside an objective
            return drawn.astype(np.float32)
        # NumPy casts, and `device_put` moves: `jnp.asarray` may compile a program for either.
        return jax.device_put(np.asarray(drawn, np.float32))

    return init


def _check_options(who: str, known: list[str], options: dict[str, Any]) -> None:
    """Options must be those of the initialiser, and numbers where they are none of the others."""
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"{who} expects options among {', '.join(known)}, got `{name}`.")
        if name in ("rng", "shift"):
            continue
        number = isinstance(value, (int, float)) or getattr(value, "shape", None) == ()
        if not number or no_array(value) or is_tracer(value):
            raise TypeError(f"{who} expects a number as `{name}`, got {short(value)}.")
        if math.isnan(value) or (math.isinf(value) and name not in ("lo", "hi")):
            raise ValueError(f"{who} expects a finite number as `{name}`, got {float(value)}.")


def _sizes(who: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(n) for n in shape)
    except TypeError:
        wrong = next((n for n in shape if not hasattr(n, "__index__")), shape[0])
        remedy = f" Write `{who}(*shape)`." if isinstance(wrong, (tuple, list)) else ""
        raise TypeError(
            f"{who} expects sizes as separate integers, got {short(wrong)}.{remedy}"
        ) from None
    if min(sizes) < 0:
        raise ValueError(f"{who} expects sizes of at least 0, got {min(sizes)}.")
    return sizes


def nfan(*shape: Any) -> tuple[int, int]:
    """How many inputs and outputs one weight array connects, `(fan_in, fan_out)`.

    A kernel counts with its window: `(kh, kw, in, out)` gives `kh kw in` and `kh kw out`; a vector
    is a row; groups show only as the smaller `in`.

    >>> nfan(10, 20), nfan(3, 3, 4, 8), nfan(5)
    ((10, 20), (36, 72), (1, 5))
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    shape = _sizes("nfan", shape) if shape else ()
    if len(shape) < 2:
        return 1, shape[0] if shape else 1
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _uniform(rng: Any, shape: tuple[int, ...], limit: float) -> np.ndarray:
    return (source(rng).random(shape, np.float32) - np.float32(0.5)) * np.float32(2 * limit)


def _normal(rng: Any, shape: tuple[int, ...], std: float) -> np.ndarray:
    return source(rng).standard_normal(shape, np.float32) * np.float32(std)


@_initialiser
def glorot_uniform(*shape: int, rng: Any = None, gain: float = 1.0) -> np.ndarray:
    """Uniform in `±gain √(6 / (fan_in + fan_out))`. What Flux's layers start from.

    >>> bool((abs(glorot_uniform(2, 4, rng=0)) <= 1).all())
    True

    Reference: Glorot & Bengio 2010, AISTATS 9, eq. 16. Elsewhere called Xavier.
    """
    return _uniform(rng, shape, gain * math.sqrt(6 / max(1, sum(nfan(*shape)))))


@_initialiser
def glorot_normal(*shape: int, rng: Any = None, gain: float = 1.0) -> np.ndarray:
    """Normal of standard deviation `gain √(2 / (fan_in + fan_out))`.

    >>> glorot_normal(2, 4, rng=0).shape
    (2, 4)

    Reference: Glorot & Bengio 2010, AISTATS 9.
    """
    return _normal(rng, shape, gain * math.sqrt(2 / max(1, sum(nfan(*shape)))))


@_initialiser
def kaiming_uniform(*shape: int, rng: Any = None, gain: float = math.sqrt(2)) -> np.ndarray:
    """Uniform in `±gain √(3 / fan_in)`; the default gain is for `relu`.

    >>> bool((abs(kaiming_uniform(6, 2, rng=0)) <= 1).all())
    True

    Reference: He et al. 2015, arXiv:1502.01852.
    """
    return _uniform(rng, shape, gain * math.sqrt(3 / max(1, nfan(*shape)[0])))


@_initialiser
def kaiming_normal(*shape: int, rng: Any = None, gain: float = math.sqrt(2)) -> np.ndarray:
    """Normal of standard deviation `gain / √fan_in`; the default gain is for `relu`.

    >>> kaiming_normal(6, 2, rng=0).shape
    (6, 2)

    Reference: He et al. 2015, arXiv:1502.01852.
    """
    return _normal(rng, shape, gain / math.sqrt(max(1, nfan(*shape)[0])))


@_initialiser
def lecun_normal(*shape: int, rng: Any = None) -> np.ndarray:
    """Normal of standard deviation `√(1 / fan_in)`, truncated at ±2 as in Flux.

    >>> lecun_normal(6, 2, rng=0).shape
    (6, 2)

    Reference: LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """
    return _truncated(rng, shape, 0.0, math.sqrt(1 / max(1, nfan(*shape)[0])), -2.0, 2.0)


@_initialiser
def truncated_normal(
    *shape: int,
    rng: Any = None,
    mean: float = 0.0,
    std: float = 1.0,
    lo: float = -2.0,
    hi: float = 2.0,
) -> np.ndarray:
    """Normal, by inverse of its distribution function between `lo` and `hi`.

    Args:
        shape: the sizes.
        rng: an int, a NumPy generator or a JAX key.
        mean: mean of the normal before truncation.
        std: its standard deviation, > 0.
        lo: smallest value: a value, not a number of standard deviations.
        hi: largest value, > `lo`.

    Raises:
        ValueError: where `std` is not above 0 or `hi` not above `lo`.

    Example:
        >>> w = truncated_normal(1000, rng=0, lo=-0.5, hi=1)
        >>> bool(w.min() >= -0.5), bool(w.max() <= 1)
        (True, True)
    """
    if not std > 0:
        raise ValueError(f"truncated_normal expects `std` above 0, got {std}.")
    if not hi > lo:
        raise ValueError(f"truncated_normal expects `hi` above `lo`, got {hi} and {lo}.")
    if not lo - 2 * std <= mean <= hi + 2 * std:
        warnings.warn(
            f"truncated_normal has its mean, {mean}, more than two standard deviations outside "
            f"({lo}, {hi}): most values will lie close to one end.",
            stacklevel=3,
        )
    return _truncated(rng, shape, mean, std, lo, hi)


def _truncated(rng: Any, shape: Any, mean: float, std: float, lo: float, hi: float) -> np.ndarray:
    from scipy.special import ndtr, ndtri  # slow to import, and few models need it

    # In the upper tail the distribution function is 1 to the last digit; mirrored it is exact.
    mirror = -1.0 if lo > mean else 1.0
    low, high = sorted((mirror * (lo - mean) / std, mirror * (hi - mean) / std))
    chance = source(rng).uniform(ndtr(low), ndtr(high), shape)
    quantile: Any = jax.scipy.special.ndtri if isinstance(chance, jax.Array) else ndtri
    return (mean + std * mirror * quantile(chance)).clip(lo, hi)


@_initialiser
def orthogonal(*shape: int, rng: Any = None, gain: float = 1.0) -> np.ndarray:
    """A random matrix `W` with `WᵀW = gain² I` or, if it is wide, `WWᵀ = gain² I`.

    More than two axes are read as `(all the others, last)`.

    >>> w = orthogonal(5, 2, rng=0)
    >>> bool(abs(w.T @ w - np.eye(2)).max() < 1e-6)
    True

    Raises:
        ValueError: for a vector.

    Reference: Saxe et al. 2013, arXiv:1312.6120.
    """
    if len(shape) < 2:
        raise ValueError(f"orthogonal expects at least two sizes, got {len(shape)}.")
    rows, cols = math.prod(shape[:-1]), shape[-1]
    normal = source(rng).standard_normal((max(rows, cols), min(rows, cols)), np.float32)
    xp = normal.__array_namespace__()  # NumPy, or inside an objective JAX
    q, r = xp.linalg.qr(normal)
    q *= xp.copysign(gain, gain * xp.diagonal(r))  # else the signs are the routine's, not random
    return (q if rows >= cols else q.T).reshape(shape)


@_initialiser
def sparse_init(*shape: int, rng: Any = None, sparsity: float, std: float = 0.01) -> np.ndarray:
    """Normal, with `⌈sparsity rows⌉` zeros at random places of every column.

    A column holds what comes in to one output, as the paper has it. (Flux counts in its own
    layout, where that is a row.)

    Args:
        shape: two sizes, `(in, out)`.
        rng: an int, a NumPy generator or a JAX key.
        sparsity: the share of zeros; below 0 none, above 1 all. No default.
        std: standard deviation of the others.

    Raises:
        ValueError: for other than two sizes.

    Example:
        >>> (sparse_init(10, 4, sparsity=0.25, rng=0) == 0).sum(0).tolist()
        [3, 3, 3, 3]

    Reference: Martens 2010, "Deep learning via Hessian-free optimization", section 5.
    """
    if len(shape) != 2:
        raise ValueError(f"sparse_init expects two sizes, got {len(shape)}.")
    rng = source(rng)
    zeros = math.ceil(min(1.0, max(0.0, sparsity)) * shape[0])
    places = rng.permuted(np.tile(np.arange(shape[0])[:, None], shape[1]), axis=0)
    xp = places.__array_namespace__()
    return xp.where(places < zeros, np.float32(0), _normal(rng, shape, std))


@_initialiser
def identity_init(*shape: int, rng: Any = None, gain: float = 1.0, shift: Any = 0) -> np.ndarray:
    """Weights that pass the input on: `gain` on the diagonal, for a kernel at its centre tap.

    A vector (a bias) is zeros. Sizes that differ leave zeros where there is no partner.

    Args:
        shape: the sizes.
        rng: not used; every initialiser takes it.
        gain: the value on the diagonal.
        shift: roll the array by so many places: an int along the outputs of a matrix or the
            first axis of a kernel, or a tuple with one int per axis.

    Example:
        >>> identity_init(2, 3, gain=2).tolist()
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
        >>> identity_init(3, 1, 1)[:, 0, 0].tolist()
        [0.0, 1.0, 0.0]
    """
    weight = np.zeros(shape, np.float32)
    if len(shape) < 2:
        return weight
    shifts = shift if isinstance(shift, tuple) else (shift,)
    if not all(isinstance(s, (int, np.integer)) for s in shifts) or len(shifts) > len(shape):
        raise ValueError(
            f"identity_init expects `shift` as an int, or one for each of {len(shape)} axes, "
            f"got {short(shift)}."
        )
    if weight.size:
        weight[tuple(k // 2 for k in shape[:-2])] = gain * np.eye(shape[-2], shape[-1])
    if isinstance(shift, tuple):
        return np.roll(weight, shift, tuple(range(len(shift))))
    return np.roll(weight, shift, -1 if len(shape) == 2 else 0)


@_initialiser
def zeros32(*shape: int, rng: Any = None) -> np.ndarray:
    """Zeros in float32. `rng` is not used; every initialiser takes it.

    >>> zeros32(2).tolist()
    [0.0, 0.0]
    """
    return np.zeros(shape, np.float32)


@_initialiser
def ones32(*shape: int, rng: Any = None) -> np.ndarray:
    """Ones in float32. `rng` is not used; every initialiser takes it.

    >>> ones32(2).tolist()
    [1.0, 1.0]
    """
    return np.ones(shape, np.float32)


@_initialiser
def rand32(*shape: int, rng: Any = None) -> np.ndarray:
    """Uniform in [0, 1), in float32.

    >>> rand32(3, rng=0).shape
    (3,)
    """
    return source(rng).random(shape, np.float32)


@_initialiser
def randn32(*shape: int, rng: Any = None) -> np.ndarray:
    """Normal of mean 0 and standard deviation 1, in float32.

    >>> randn32(3, rng=0).shape
    (3,)
    """
    return _normal(rng, shape, 1.0)
