"""One seed for everything random: initialisers, Dropout, shuffling.

Everything here draws with NumPy on the host, so that building a model or
shuffling a data set compiles nothing.
"""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short

_lock = threading.Lock()
_generator = np.random.default_rng()


def seed(n: int) -> None:
    """Fix every random choice that follows: initialisers, Dropout, shuffle.

    Args:
        n: an integer ≥ 0.

    Example:
        >>> import fluxax as fx
        >>> fx.seed(0); a = fx.randn32(2)
        >>> fx.seed(0); b = fx.randn32(2)
        >>> bool((a == b).all())
        True
    """
    global _generator
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"seed expects an integer of at least 0, got {short(n)}.")
    with _lock:
        _generator = np.random.default_rng(int(n))


def generator(rng: Any = None) -> np.random.Generator:
    """The NumPy generator that `rng` stands for.

    Args:
        rng: `None` (a child of the one that `seed` fixes), an int, a
            `numpy.random.Generator` (used as it is) or a JAX key.
    """
    if rng is None:
        with _lock:
            return np.random.default_rng(_generator.integers(0, 2**63, size=2))
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"rng expects an integer of at least 0, got {rng}.")
        return np.random.default_rng(int(rng))
    if isinstance(rng, jax.Array):
        data = jax.random.key_data(rng) if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else rng
        return np.random.default_rng(np.asarray(data).astype(np.uint32).ravel().tolist())
    raise TypeError(
        f"rng expects an int, a numpy.random.Generator or a JAX key, got {type(rng).__name__}."
    )


def position() -> dict[str, Any]:
    """Where the random numbers behind `seed` stand, as plain values."""
    with _lock:
        source: Any = _generator.bit_generator.seed_seq
        return {"entropy": source.entropy, "state": dict(_generator.bit_generator.state)}


def at_position(position: dict[str, Any]) -> np.random.Generator:
    """A generator that stands where `position` was taken, for `install`."""
    new = np.random.Generator(np.random.PCG64(position["entropy"]))
    new.bit_generator.state = position["state"]
    return new


def install(new: np.random.Generator) -> None:
    """Let the random numbers behind `seed` go on from another generator."""
    global _generator
    with _lock:
        _generator = new
