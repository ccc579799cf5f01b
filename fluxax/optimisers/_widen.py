"""Narrow parameters, wide arithmetic: rules see float16 and bfloat16 arrays in float32.

In those types ϵ and 1 - βᵗ vanish, and a running mean stands still as soon as what is added is
less than half a unit of its last place. So state is float32, and the parameter is rounded once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._jax import beside, is_tracer


def is_narrow(x: Any) -> bool:
    """Whether an array's dtype is a floating one that is narrower than float32."""
    dtype = getattr(x, "dtype", np.float32)
    return jnp.issubdtype(dtype, np.floating) and jnp.finfo(dtype).bits < 32


def widened(x: Any) -> Any:
    """An array in float32 if it is narrow, else as it is; of a concrete one it compiles nothing."""
    if not is_narrow(x):
        return x
    return x.astype(np.float32) if is_tracer(x) else beside(np.array(x, np.float32), x)


def wide_init(init: Callable[..., Any]) -> Callable[..., Any]:
    """A rule's `init` that sees narrow parameters in float32."""

    @functools.wraps(init)
    def wide(self: Any, x: Any) -> Any:
        return init(self, widened(x))

    return wide


def wide_apply(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A rule's `apply` that sees narrow arrays in float32; a narrow parameter's step is rounded."""

    @functools.wraps(apply)
    def wide(self: Any, state: Any, x: Any, dx: Any) -> Any:
        result = apply(self, state, widened(x), widened(dx))
        if not is_narrow(x):
            return result
        state, step = result
        return state, jax.tree.map(lambda s: _rounded(s, x.dtype), step)

    return wide


def _rounded(value: Any, dtype: Any) -> Any:
    """A step in some dtype; the flag beside it, if there is one, as it is."""
    inexact = jnp.issubdtype(jnp.result_type(value), np.inexact)
    return jnp.asarray(value, dtype) if inexact else value
