"""What layers ask of their arguments and inputs, and the sentences when it is not so."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _activations
from fluxax._errors import article, no_array, no_numbers, short
from fluxax._half import plus
from fluxax._random import generator
from fluxax._tensors import owned
from fluxax.layers._place import unfit

Pads = tuple[tuple[int, int], ...]


# --- arguments of constructors ------------------------------------------------------------


def whole(who: str, what: str, value: Any, least: int = 1) -> int:
    """An argument as an int of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who} expects {what} to be an integer, got {short(value)}.")
    if number < least:
        raise ValueError(f"{who} expects {what} to be at least {least}, got {number}.")
    return number


def window(who: str, what: str, value: Any) -> tuple[int, ...]:
    """The sizes of a kernel or window: a tuple of one, two or three positive ints."""
    if not isinstance(value, (tuple, list)):
        hint = f" Write ({value}, {value}) for images." if isinstance(value, int) else ""
        raise TypeError(f"{who} expects {what} as a tuple, got {short(value)}.{hint}")
    if not 1 <= len(value) <= 3:
        raise ValueError(f"{who} expects {what} of one, two or three sizes, got {short(value)}.")
    return tuple(whole(who, what, n) for n in value)


def per_axis(who: str, what: str, value: Any, n: int, least: int = 1) -> tuple[int, ...]:
    """An int of at least `least` for each of `n` axes; one number stands for all."""
    if not isinstance(value, (tuple, list)):
        return (whole(who, what, value, least),) * n
    if len(value) != n:
        raise ValueError(f"{who} expects {what} as a number or {n} numbers, got {short(value)}.")
    return tuple(whole(who, what, v, least) for v in value)


def pads(who: str, value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Pads:
    """`(low, high)` for each axis from a number, a number or pair per axis, 2n numbers or "same".

    "same" adds `dilation (kernel - 1)` in all; what does not divide by two goes to the high side.
    """
    n = len(kernel)
    if isinstance(value, str) and value.lower() == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    pairs: list[Any] = []
    if isinstance(value, (tuple, list)) and len(value) == n:
        pairs = [v if isinstance(v, (tuple, list)) else (v, v) for v in value]
    elif isinstance(value, (tuple, list)) and len(value) == 2 * n:
        pairs = list(zip(value[::2], value[1::2], strict=True))
    elif not isinstance(value, (tuple, list, str)):
        pairs = [(value, value)] * n
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f'{who} expects pad as a number, {n} or {2 * n} numbers or "same", got {short(value)}.'
        )
    return tuple((whole(who, "pad", low, 0), whole(who, "pad", high, 0)) for low, high in pairs)


def axes_of(who: str, axis: Any, n: int) -> tuple[int, ...]:
    """One or several axes of an array with `n` of them, counted from the front, in order."""
    chosen = several_axes(who, axis)
    for a in chosen:
        if not -n <= a < n:
            raise ValueError(f"{who} expects an axis of an array with {n} axes, got {a}.")
    return tuple(sorted({a % n for a in chosen}))


def several_axes(who: str, axis: Any) -> tuple[int, ...]:
    """One or several axes as ints."""
    chosen = axis if isinstance(axis, (tuple, list)) else (axis,)
    for a in chosen:
        if isinstance(a, bool) or not isinstance(a, (int, np.integer)):
            raise TypeError(f"{who} expects axis as one or several axes, got {short(a)}.")
    return tuple(map(int, chosen))


def flux_dims(who: str, axis: Any, dims: Any) -> Any:
    """`axis`, or `dims`, as Flux calls it; not both."""
    if axis is not None and dims is not None:
        raise TypeError(f"{who} expects `axis` or, as Flux calls it, `dims`, got both.")
    return dims if axis is None else axis


def function(who: str, value: Any, what: str = "activation") -> Callable[..., Any]:
    """An argument that is to be called."""
    if callable(value) and not isinstance(value, type):
        return value
    known = isinstance(value, str) and value in _activations.__all__
    hint = f" Write fx.{value}." if known else ""
    raise TypeError(f"{who} expects a function as {what}, got {short(value)}.{hint}")


def sizes(who: str, given: tuple[Any, ...], activation: Any) -> tuple[tuple[int, ...], Any]:
    """`(2, 3)`, `((2, 3),)` or, as Flux has it, `(2, 3, relu)` as sizes and activation."""
    if given and not isinstance(given[-1], (tuple, list)) and callable(given[-1]):
        given, activation = given[:-1], given[-1]
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = tuple(given[0])
    if not given:
        raise ValueError(f"{who} expects at least one size, got none.")
    return tuple(whole(who, "a size", n) for n in given), function(who, activation)


def drawn(who: str, init: Any, shape: tuple[int, ...], rng: Any = None) -> jax.Array:
    """What an initialiser gives for a shape, checked; `rng` is passed on only if there is one."""
    function(who, init, "init")
    if "jax" in str(getattr(init, "__module__", "")) and "initializers" in init.__module__:
        raise TypeError(
            f"{who} expects init to be called with the sizes, as fx.glorot_uniform is, got one of "
            "JAX's, which takes a key and a shape. Write "
            "init=lambda *shape: initializer(jax.random.key(0), shape)."
        )
    array = init(*shape) if rng is None else init(*shape, rng=rng)
    if not hasattr(array, "shape") or tuple(array.shape) != shape:
        raise ValueError(
            f"{who} expects init to return an array of shape {shape}, got {short(array)}."
        )
    return floating(array)


def one_rng(rng: Any) -> np.random.Generator | None:
    """One generator for a layer that draws several arrays, so that they differ."""
    return None if rng is None else generator(rng)


def floating(array: Any) -> jax.Array:
    """Weights as a JAX array: the same object if it is one, float32 if they are integers."""
    array = owned(array)
    exact = not jnp.issubdtype(array.dtype, jnp.inexact)
    if isinstance(array, jax.Array) and not exact:
        return array
    # A copy, since `device_put` may look at NumPy's memory; `jnp.asarray` would compile.
    return jax.device_put(np.array(array, np.float32 if exact else None))


def offset(who: str, bias: Any, shape: tuple[int, ...], weight: jax.Array) -> jax.Array | None:
    """A bias: zeros for `True`, none for `False` or `None`, else the array itself, checked."""
    if bias is None or bias is False or bias is True:
        return jax.device_put(np.zeros(shape, weight.dtype)) if bias else None
    if not hasattr(bias, "shape") or not hasattr(bias, "dtype"):
        raise TypeError(f"{who} expects bias to be True, False or an array, got {short(bias)}.")
    if tuple(bias.shape) != shape:
        raise ValueError(f"{who} expects a bias of shape {shape}, got {short(bias)}.")
    if bias.dtype == weight.dtype:
        return floating(bias)
    return jax.device_put(np.array(bias, weight.dtype))


def unit(x: Any, bias: Any, activation: Callable[..., Any]) -> jax.Array:
    """`activation(x + bias)`; either may be missing."""
    return activation(x if bias is None else plus(x, bias))


# --- input --------------------------------------------------------------------------------


def as_array(layer: Any, x: Any) -> jax.Array:
    """Input as a JAX array, refused if it is something else."""
    if isinstance(x, np.ma.MaskedArray):
        advice = "Call its `.filled(...)` first."
        raise unfit(layer, f"expects a plain array, got a masked {short(x)}", advice)
    if isinstance(x, list):
        if no_array(x):
            raise unfit(layer, f"expects an array of numbers, got {short(x)}")
        x = jnp.asarray(x)
    if no_numbers(x):
        raise unfit(layer, f"expects an array of numbers, got {short(x)}")
    if isinstance(x, (jax.Array, np.ndarray)) or hasattr(x, "__array__"):
        return jnp.asarray(x)
    advice = f"Pass its parts: {article('array')} each." if isinstance(x, (tuple, dict)) else ""
    raise unfit(layer, f"expects an array, got {short(x)}", advice)


def as_input(layer: Any, x: Any, weight: Any = None) -> jax.Array:
    """Floating input, in the weights' type; boolean input (one-hot) counts as 0 and 1."""
    x = as_array(layer, x)
    if weight is not None and not hasattr(weight, "dtype"):
        raise unfit(layer, f"expects arrays as its parameters, got {short(weight)}")
    if jnp.issubdtype(x.dtype, jnp.integer):
        raise unfit(
            layer,
            f"expects floating input, got {short(x)}",
            'Convert it with x.astype("float32"); for labels and indices see fx.onehotbatch '
            "and fx.Embedding.",
        )
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x
    if weight is None or not jnp.issubdtype(weight.dtype, jnp.floating):
        return x.astype(jnp.float32) if x.dtype == bool else x
    return x.astype(weight.dtype)


def channels_advice(x: Any, channels: int) -> str:
    """The likely cause where an image has its channels elsewhere than last."""
    first = x.ndim > 2 and x.shape[-1] != channels == x.shape[1]
    return "Channels come last: jnp.moveaxis(x, 1, -1)." if first else ""


def sequence_advice(x: Any, features: int) -> str:
    """The likely cause where a sequence `(N, T, features)` is something else."""
    if x.ndim == 2 and x.shape[-1] == features:
        return "Add a batch axis, x[None]."
    second = x.ndim == 3 and x.shape[-1] != features == x.shape[1]
    return "Features come last: jnp.moveaxis(x, 1, -1)." if second else ""
