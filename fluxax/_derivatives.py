"""Derivatives of functions that return more than a number: thin fronts of JAX's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from fluxax import _random, _tree
from fluxax._compile._objective import objective
from fluxax._errors import no_array, no_numbers, short


def _arrays(who: str, f: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not callable(f):
        raise TypeError(f"{who} expects a function first, got {short(f)}.")
    if not args:
        raise TypeError(
            f"{who} expects something to differentiate by, got a function alone. "
            f"Write fx.{who}(f, x)."
        )
    numbers = (np.ndarray, float, int)
    for i, arg in enumerate(args):
        wrong = [leaf for _, leaf in _tree.walk(arg) if no_numbers(leaf)]
        if wrong:
            raise TypeError(f"{who} expects numbers in argument {i}, got {short(wrong[0])}.")
    return tuple(jnp.asarray(a, float) if isinstance(a, numbers) else a for a in args)


def _to_arrays(who: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """The function; an error where it returns something that has no derivatives."""

    draws = _random.now.draws
    there = draws.may_draw()

    def checked(*args: Any) -> Any:
        with draws.following(there):  # JAX runs it once, whatever it takes by its side
            result = f(*args)
        found = jax.tree.leaves(result)
        if not found or any(map(no_array, found)):
            wrong = next(filter(no_array, found), result)
            raise TypeError(f"{who} expects a function that returns arrays, got {short(wrong)}.")
        return result

    return checked


def jacobian(f: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """The derivatives of every result of a function by every element of its arguments.

    Args:
        f: returns an array of any shape.
        args: arrays, or trees of them.

    Returns:
        A tuple with one entry per argument, of the result's shape followed by the argument's.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.jacobian(lambda x: x**2, jnp.array([1.0, 2.0]))[0]
        Array([[2., 0.],
               [0., 4.]], dtype=float32)
    """
    given = _arrays("jacobian", f, args)
    with objective(True):
        return jax.jacrev(_to_arrays("jacobian", f), argnums=tuple(range(len(args))))(*given)


def hessian(f: Callable[[Any], Any], x: Any) -> Any:
    """The second derivatives of a scalar function by an array, of its shape twice.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.hessian(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
        Array([[ 6.,  0.],
               [ 0., 12.]], dtype=float32)
    """
    given = _arrays("hessian", f, (x,))
    with objective(True):
        return jax.hessian(_to_arrays("hessian", f))(*given)


def pullback(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The value of a function, and the function that takes a gradient of it back to the arguments.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> value, back = fx.pullback(lambda x: 2 * x, jnp.array([1.0, 2.0]))
        >>> value, back(jnp.ones(2))
        (Array([2., 4.], dtype=float32), (Array([2., 2.], dtype=float32),))
    """
    given = _arrays("pullback", f, args)
    with objective(True):
        value, back = jax.vjp(_to_arrays("pullback", f), *given)
    return value, Partial(_pulled_back, value, back)


def _pulled_back(value: Any, back: Any, grad: Any) -> tuple[Any, ...]:
    """The gradients of the arguments from one of the value, which is nested and shaped alike."""
    alike = jax.tree.structure(grad) == jax.tree.structure(value)
    pairs = list(zip(jax.tree.leaves(value), jax.tree.leaves(grad), strict=alike))
    if not alike or any(no_array(g) or np.shape(g) != np.shape(v) for v, g in pairs):
        raise ValueError(
            f"The pullback expects a gradient of the value, which is {short(value)}, "
            f"got {short(grad)}."
        )
    return back(jax.tree.map(lambda v, g: jnp.asarray(g).astype(_tangent(v)), value, grad))


def _tangent(value: Any) -> Any:
    return value.dtype if _tree.is_inexact(value) else jax.dtypes.float0
