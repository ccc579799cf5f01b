"""What the engine adds to one call: `fx.gradient` less a bare `jax.jit` call of that gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import Times, stopwatch, take_turns

import fluxax as fx

NAMES = (1, 10, 100)
ARRAYS = (4, 40, 400)
_CALLS = 100


def costs(rounds: int) -> list[tuple[str, float, float, float]]:
    """Rows of (what, µs of fx.gradient, µs of the bare call, µs of the engine)."""
    cases = [(f"{n} captured arrays", captured(n, numbers=False)) for n in NAMES]
    cases += [(f"{n} captured numbers", captured(n, numbers=True)) for n in NAMES]
    cases += [(f"{n} arrays in the model", in_model(n)) for n in ARRAYS]
    return [_row(name, *pair, rounds) for name, pair in cases]


def _row(name: str, ours: Any, bare: Any, rounds: int) -> tuple[str, float, float, float]:
    a, b = timed([ours, bare], rounds)
    return name, a.median, b.median, a.median - b.median


def timed(calls: list[Callable[[], Any]], rounds: int) -> list[Times]:
    """Times of calls that take turns."""

    def repeat(call: Callable[[], Any]) -> None:
        for _ in range(_CALLS - 1):
            call()
        jax.block_until_ready(call())

    for call in calls:
        repeat(call)
    return take_turns([lambda c=c: stopwatch(lambda: repeat(c)) for c in calls], rounds, _CALLS)


def captured(n: int, *, numbers: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A function made anew for each call that closes over `n` names, and the bare gradient."""
    make = _maker(n)
    x = jnp.ones(4)
    values: Any = [1.0 + i if numbers else jnp.full(4, 1.0 + i) for i in range(n)]
    bare = jax.jit(jax.grad(lambda x, values: make(*values)(x)))
    if numbers:
        fixed = jax.jit(jax.grad(make(*values)))
        _same(fx.gradient(make(*values), x)[0], fixed(x))
        return lambda: fx.gradient(make(*values), x)[0], lambda: fixed(x)
    _same(fx.gradient(make(*values), x)[0], bare(x, values))
    return lambda: fx.gradient(make(*values), x)[0], lambda: bare(x, values)


def _maker(n: int) -> Callable[..., Callable[[Any], Any]]:
    """A function of `n` values that gives a lambda which closes over each by a name of its own."""
    names = [f"c{i}" for i in range(n)]
    space: dict[str, Any] = {"jnp": jnp}
    total = " + ".join(names)
    exec(f"def make({', '.join(names)}):\n    return lambda x: jnp.sum(x * x * ({total}))", space)
    return space["make"]


def in_model(n: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The gradient by a Chain of `n` arrays, and the bare one by as many arrays in a list."""
    model = fx.Chain(*(fx.Dense(2, 2) for _ in range(n // 2)))
    arrays = [a for layer in model.layers for a in (layer.weight, layer.bias)]

    def bare_loss(arrays: Any) -> Any:
        return sum(jnp.sum(a * a) for a in arrays)

    def loss(m: Any) -> Any:
        return bare_loss([a for layer in m.layers for a in (layer.weight, layer.bias)])

    bare = jax.jit(jax.grad(bare_loss))
    _same(fx.gradient(loss, model)[0].layers[0].weight, bare(arrays)[0])
    return lambda: fx.withgradient(lambda m: loss(m), model).val, lambda: bare(arrays)


def _same(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5)
