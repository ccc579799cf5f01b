"""The βᵗ of the formulas, where β may change: the running product of the decays.

As in Optimisers.jl it starts as β, that of the first step, and is multiplied after each step by the
β of that step. Kept is its logarithm, since float32 has no digits for 1 - βᵗ near 1; and for each β
since when it is what it is, so that as long as it stays, nothing is added up and the product is as
exact as a power.

All of it is 32-bit integers, numbers as their bits: the step counts of all leaves lie in one
vector, which costs a step nothing, while an array of its own for each number would. Inside an
objective, which is differentiated through, numbers are kept as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._module import run
from fluxax.optimisers._arrays import count, log, on_host, scalar, wide_dtype
from fluxax.optimisers._hyper import value_at


class Products(NamedTuple):
    """State: what the products of one or more decays are made of; integers.

    Attributes:
        steps: how many steps were taken.
        since: by β: the step after which it became what it is.
        before: by β: the logarithm of the factors before, as bits.
        last: by β: its logarithm, as bits.
    """

    steps: Any
    since: tuple[Any, ...]
    before: tuple[Any, ...]
    last: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.steps}"


class Power(NamedTuple):
    """One βᵗ, for the step with number t."""

    t: Any
    since: Any
    before: Any
    last: Any
    now: Any  # log β as it is now
    log: Any  # log βᵗ

    def one_minus(self, more: int = 0) -> Any:
        """1 - βᵗ, without the cancellation that float32 suffers near 1; or with one more factor."""
        return -jnp.expm1(self.log + self.now if more else self.log)

    @property
    def excess(self) -> Any:
        """Its logarithm less that of a power of β as it is now: exactly 0 if it always was."""
        t, since = (n.astype(self.log.dtype) for n in (self.t, self.since))
        return self.before - since * self.last + t * (self.last - self.now)


def products(x: Any, n: int = 2) -> Products:
    """The state before the first step, for a parameter and so many decays; compiles nothing."""
    zero, dtype = count(), wide_dtype(x)
    word = zero if run.trace is None else jax.device_put(np.zeros((), dtype))
    none = ((word,) * (_words(dtype) if run.trace is None else 1),) * n
    return Products(zero, (zero,) * n, none, none)


def powers(x: Any, betas: Any, steps: int) -> Products:
    """The state after some steps with decays that stayed; schedules count as they are then."""
    new = products(x, len(betas))
    last = [value_at(b, steps) if callable(b) else b for b in betas]
    words = [_host_bits(log(float(b)), len(new.last[0])) for b in last]
    return new._replace(steps=steps, last=tuple(words))


def _host_bits(value: float, n: int) -> tuple[int, ...]:
    words = []
    for _ in range(n):
        words.append(np.float32(value))
        value -= float(words[-1])
    return tuple(int(word.view(np.int32)) for word in words)


def multiplied(old: Products, betas: Any, x: Any) -> tuple[Products, list[Power]]:
    """The products for a step, and the state after it: multiplied by these decays."""
    t, dtype = old.steps + 1, wide_dtype(x)
    new, powers, first = [], [], t == 1
    for since, before, last, beta in zip(*old[1:], betas, strict=True):
        noted, sum_before = _number(last, dtype), _number(before, dtype)
        now = jnp.broadcast_to(jnp.asarray(scalar(on_host(log, beta), noted), dtype), t.shape)
        same = first | (noted == now)
        noted = lax.select(same, now, noted)
        product = sum_before + (t - since).astype(dtype) * noted
        words = zip(before, _kept(product, before), strict=True)
        kept = tuple(lax.select(same, word, other) for word, other in words)
        new.append((lax.select(same, since, t), kept, _kept(now, last)))
        powers.append(Power(t, since, sum_before, noted, now, product))
    return Products(t, *zip(*new, strict=True)), powers


def _words(dtype: Any) -> int:
    """How many float32 numbers make one of a dtype."""
    return 3 if dtype == np.float64 else 1


def _kept(value: Any, like: Any) -> tuple[Any, ...]:
    """A number as it is kept: itself, or the bits of float32 numbers whose sum it is."""
    if jnp.issubdtype(like[0].dtype, np.floating):
        return (value,)
    words = []
    for _ in like[1:]:
        words.append(lax.reduce_precision(value, 8, 23))
        value = value - words[-1]
    words = [word.astype(np.float32) for word in (*words, value)]
    return tuple(lax.bitcast_convert_type(word, np.int32) for word in words)


def _number(words: Any, dtype: Any) -> Any:
    if jnp.issubdtype(words[0].dtype, np.floating):
        return words[0]
    parts = [lax.bitcast_convert_type(word, np.float32).astype(dtype) for word in words]
    return sum(parts[1:], parts[0])
