"""What of ours is drawn inside an objective: new at every call, although it is compiled.

A call that draws takes the next number (`_random.take`). Its draws are counted, and the key of each
is folded from the seed, the number of the call and that of the draw: from a *root*, which is an
input of the program of a function that draws. `docs/design/random.md`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.random import fold_in, key_data, wrap_key_data

from fluxax import _random
from fluxax._errors import InputError, users_line
from fluxax._jax import current_trace, no_trace, traces_around

#: The form of a root: two words of the seed, two of the call's number, and that of its first draw.
ROOT = jax.ShapeDtypeStruct((5,), np.uint32)

#: What stands in its place for a program that draws nothing.
NO_ROOT = np.zeros(ROOT.shape, ROOT.dtype)


class Place:
    """Where in JAX's traces something stands: in the running one, or outside of all.

    Args:
        outermost: outside of all.
    """

    def __init__(self, *, outermost: bool = False):
        self.state = no_trace() if outermost else current_trace()
        around = traces_around()
        self.trace = weakref.ref(around[-1 if outermost else 0]) if around else None

    def is_here(self) -> bool:
        """Whether it is that of the running code, but for derivatives that are taken around it."""
        if current_trace() == self.state:
            return True
        for trace in traces_around():
            if type(trace) not in _derivatives():
                return self.trace is not None and trace is self.trace()
        return False


@cache
def _derivatives() -> frozenset[type]:
    """The classes of the traces in which JAX takes derivatives: code runs there each time."""
    found: list[type] = []
    see = lambda x: found.append(type(traces_around()[0])) or x
    with jax.ensure_compile_time_eval():
        jax.vjp(see, 1.0)
        jax.jvp(see, (1.0,), (1.0,))
    return frozenset(found)


class Draws:
    """The numbers that one call of an objective draws: as a `numpy.random.Generator`, by JAX.

    Args:
        root: without one, the next is taken at the first draw.

    Attributes:
        count: how many draws there were.
        tickets: the number that was taken for them, if one was.
    """

    def __init__(self, root: Any = None):
        self.root, self.count = root, 0
        self.tickets: _random.Tickets | None = None
        # what takes a number for itself is no part of a program that somebody else traces
        self._place = Place(outermost=root is None)
        self._call: Any = None  # the key of this call

    @contextmanager
    def following(self, there: bool) -> Iterator[None]:
        """A context in which what runs here may draw, if it could be drawn `there` already."""
        before = self._place
        self._place = Place() if there else before
        try:
            yield
        finally:
            self._place = before

    def may_draw(self) -> bool:
        """Whether a draw here would be made anew at each call."""
        return self._place.is_here()

    def begun(self) -> Any:
        """The root, which is there from the first draw on."""
        if not self.may_draw():
            raise InputError(
                "fluxax expects its random numbers to be drawn outside of jax.jit, lax.scan, vmap, "
                f"checkpoint and the like, got a draw inside of one at {users_line()}, where it "
                "would be the same each time",
                advice="Draw before, and pass the numbers in.",
            )
        if self.root is None:
            self.tickets = _random.take()
            self.root = self.tickets.rows()[0]
        return self.root

    def key(self) -> jax.Array:
        """The key of the next draw."""
        root = jnp.asarray(self.begun())
        if self._call is None:
            seed = wrap_key_data(root[:2], impl="threefry2x32")
            self._call = fold_in(fold_in(seed, root[2]), root[3])
        self.count += 1
        return fold_in(self._call, root[4] + np.uint32(self.count - 1))

    # -- as NumPy's generators have it

    def random(self, shape: Any, dtype: Any) -> jax.Array:
        """Uniform in [0, 1)."""
        return jax.random.uniform(self.key(), shape, dtype)

    def uniform(self, low: float, high: float, shape: Any) -> jax.Array:
        """Uniform between two numbers; never one of them, so that their quantiles are finite."""
        half = np.float32(2**-24)  # of the distance between two numbers that JAX gives
        chance = jax.random.uniform(self.key(), shape, np.float32) + half
        return float(low) + float(high - low) * chance

    def standard_normal(self, shape: Any, dtype: Any) -> jax.Array:
        """Normal of mean 0 and standard deviation 1."""
        return jax.random.normal(self.key(), shape, dtype)

    def permuted(self, x: Any, axis: int) -> jax.Array:
        """Each slice along an axis in an order of its own."""
        return jax.random.permutation(self.key(), jnp.asarray(x), axis, independent=True)

    # -- for others

    def on_host(self) -> np.random.Generator:
        """A generator of NumPy's. It needs values: a function that asks for it runs uncompiled."""
        return np.random.default_rng(np.asarray(key_data(self.key())).tolist())

    def begin_anew(self) -> None:
        """After `seed`: take a number again. A function that does this runs uncompiled."""
        np.asarray(NO_ROOT if self.root is None else self.root)
        self.root = self.tickets = self._call = None
        self.count = 0


@contextmanager
def drawing_from(root: Any) -> Iterator[Draws]:
    """A context in which what of ours is drawn comes from a root."""
    before, draws = _random.now.draws, Draws(root)
    _random.now.draws = draws
    try:
        yield draws
    finally:
        _random.now.draws = before


class Turn:
    """A call of a program that draws: its root, until it is `over`; else it did not take place.

    Args:
        draws: how many the program makes.
        calls: of a program that makes many calls: how many; there is a root for each of them.
    """

    def __init__(self, draws: int, calls: int | None = None):
        self.draws, self.calls = draws, calls
        self.around, self.count = _random.now.draws, 0

    def __enter__(self) -> Turn:
        self.tickets: _random.Tickets | None = None
        if self.around is not None:  # inside an objective: some of its draws
            self.count = self.around.count
            self.root = self.around.begun() + np.array([0, 0, 0, 0, self.count], np.uint32)
        else:
            self.tickets = _random.take(self.calls or 1)
            rows = self.tickets.rows()
            self.root = rows[0] if self.calls is None else rows
        self.ended = False
        return self

    def over(self, result: Any) -> Any:
        """It took place; the same result."""
        if self.around is not None:
            self.around.count = self.count + self.draws
        self.ended = True
        return result

    def __exit__(self, *_: Any) -> None:
        if not self.ended and self.tickets is not None:
            self.tickets.give_back()


def source(rng: Any = None) -> Any:
    """What draws for `rng`: a NumPy generator; inside an objective, without one, its `Draws`."""
    if isinstance(rng, Draws):
        return rng
    draws = _random.now.draws if rng is None else None
    return _random.generator(rng) if draws is None else draws


def words(rng: Any = None) -> jax.Array:
    """Two random words, which a stream begins with; outside of objectives nothing is compiled."""
    drawn = source(rng)
    if isinstance(drawn, Draws):
        return key_data(drawn.key())
    return jax.device_put(drawn.integers(0, 2**32, 2, np.uint32))
