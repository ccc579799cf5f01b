"""What activations do with their input: is it numbers, which may they be, in which dtype?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fluxax import _random
from fluxax._errors import check_numbers, short

Input = Any  # a JAX array, a NumPy array or a number


def checked(who: str, x: Input, **parameters: Input) -> Any:
    """`x` ready for arithmetic, or an error; nothing in compiled code, where only traces run it."""
    check_numbers(who, x=x, **parameters)
    return jnp.asarray(x) if isinstance(x, (list, tuple)) else x


def real(who: str, x: Input, **parameters: Input) -> Any:
    """As `checked`, for formulas that ask which number is larger."""
    x = checked(who, x, **parameters)
    if jnp.iscomplexobj(x):
        raise TypeError(
            f"{who} expects real numbers, got {short(x)}. Apply it to `x.real` and `x.imag`, "
            "or to jnp.abs(x)."
        )
    return x


def floated(x: Input) -> jax.Array:
    """Integers and booleans as float32."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def key_from(rng: Any, x: jax.Array) -> jax.Array:
    """A random key: of a generator, a number or a key, or without one of the bits of `x`."""
    if rng is None:
        parts = jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x
        bits = lax.bitcast_convert_type(parts.astype(jnp.float32), jnp.uint32)
        return jax.random.key(jnp.sum(bits, dtype=jnp.uint32))
    if isinstance(rng, jax.Array):
        if rng.ndim == 0 and jnp.issubdtype(rng.dtype, jnp.integer):
            return jax.random.key(rng)
        return rng
    return jax.random.key(int(_random.generator(rng).integers(2**31)))
