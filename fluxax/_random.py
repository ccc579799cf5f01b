"""One seed for everything random: initialisers, Dropout, shuffling.

Everything here draws with NumPy on the host, so that building a model or
shuffling a data set compiles nothing. Inside an objective `_draws` draws instead, from
numbers that its calls take here.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluxax._errors import short

_CALLS = 0xCA115  # keeps the calls' stream apart from other children of the same root

_lock = threading.Lock()
_generator = np.random.default_rng()


class Calls:
    """The calls of objectives that drew something, since `seed`: how many there were."""

    def __init__(self, root: Any, made: int = 0) -> None:
        self.root, self.made = root, made  # a seed sequence
        self._words: Any = None

    def rows(self, first: int, n: int) -> np.ndarray:
        """By call, what its numbers are drawn from: two words of the seed, two of its number, 0."""
        if self._words is None:
            child = np.random.SeedSequence(self.root.entropy, spawn_key=(_CALLS,))
            self._words = child.generate_state(2, np.uint32)
        rows = np.zeros((n, 5), np.uint32)
        numbers = np.arange(first, first + n, dtype=np.uint64)
        rows[:, :2], rows[:, 2], rows[:, 3] = self._words, numbers >> 32, numbers
        return rows


_calls = Calls(_generator.bit_generator.seed_seq)


class Tickets(NamedTuple):
    """Numbers that calls took: `n` of them from `first` on."""

    calls: Calls
    first: int
    n: int

    def rows(self) -> np.ndarray:
        """By call, what its random numbers are drawn from."""
        return self.calls.rows(self.first, self.n)

    def give_back(self, used: int = 0) -> None:
        """All but the first `used` were not used; another call gets them, if none took more."""
        with _lock:
            if self.calls.made == self.first + self.n:
                self.calls.made = self.first + used


def take(n: int = 1) -> Tickets:
    """The next numbers, for `n` calls that draw something; no other call gets them."""
    with _lock:
        calls, first = _calls, _calls.made
        calls.made += n
    return Tickets(calls, first, n)


class _Now(threading.local):
    """What draws in this thread while an objective runs."""

    draws: Any = None


now = _Now()


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
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"seed expects an integer of at least 0, got {short(n)}.")
    if now.draws is not None:
        now.draws.begin_anew()
    install(np.random.default_rng(int(n)))


def generator(rng: Any = None) -> np.random.Generator:
    """The NumPy generator that `rng` stands for.

    Args:
        rng: `None` (a child of the one that `seed` fixes), an int, a
            `numpy.random.Generator` (used as it is) or a JAX key.
    """
    if rng is None and now.draws is not None:
        return now.draws.on_host()
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
        state = dict(_generator.bit_generator.state)
        return {"entropy": source.entropy, "state": state, "calls": _calls.made}


def at_position(position: dict[str, Any]) -> tuple[np.random.Generator, int]:
    """What stands where `position` was taken, for `install`."""
    new = np.random.Generator(np.random.PCG64(position["entropy"]))
    new.bit_generator.state = position["state"]
    return new, position.get("calls", 0)  # files of fluxax until 0.1 do not have it


def install(new: np.random.Generator, calls: int = 0) -> None:
    """Let the random numbers behind `seed` go on from another generator and number of a call."""
    global _generator, _calls
    with _lock:
        _generator, _calls = new, Calls(new.bit_generator.seed_seq, calls)
