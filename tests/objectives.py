"""Cases of the capture tests: objectives whose value and gradient are known by arithmetic.

A case is a generator that yields `(f, scale)` between changes of what `f` reads; every `f`
is a way to write `sum(scale * w²)`, so its value is `scale · 5` and its gradient `2 scale w`
at `w = (1, 2)`, whatever the way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fluxax as fx

W = np.array([1.0, 2.0])

Turns = Iterator[tuple[Callable[..., Any], Any]]


class Cases:
    """A table of cases; `@cases(traces=2)` puts a generator into it."""

    def __init__(self) -> None:
        self.table: dict[str, tuple[Callable[[], Turns], int | None]] = {}

    def __call__(self, traces: int | None) -> Callable[[Callable[[], Turns]], Callable[[], Turns]]:
        def register(make: Callable[[], Turns]) -> Callable[[], Turns]:
            assert make.__name__ not in self.table
            self.table[make.__name__] = (make, traces)
            return make

        return register


def check_case(make: Callable[[], Turns], traces: int | None, compiled: bool = True) -> None:
    """Arithmetic holds at every turn, compiled, with at most `traces` traces."""
    fx.clear_cache()
    w = jnp.asarray(W, jnp.float32)
    for turn, (f, scale) in enumerate(make()):
        val, grads = fx.withgradient(f, w)
        want = np.sum(np.asarray(scale) * W**2), 2 * np.asarray(scale) * W
        np.testing.assert_allclose(val, want[0], rtol=1e-5, err_msg=f"value at turn {turn}")
        np.testing.assert_allclose(grads[0], want[1], rtol=1e-5, err_msg=f"gradient at turn {turn}")
    assert not compiled or all(r.compiled for r in fx.explain()), fx.explain()
    if traces is not None:
        assert sum(r.traces for r in fx.explain()) <= traces, [r.reasons for r in fx.explain()]


def check_eager(make: Callable[[], Turns]) -> None:
    """The same arithmetic holds uncompiled."""
    w = jnp.asarray(W, jnp.float32)
    with fx.eager():
        for f, scale in make():
            val, grads = fx.withgradient(f, w)
            np.testing.assert_allclose(val, np.sum(np.asarray(scale) * W**2), rtol=1e-5)
            np.testing.assert_allclose(grads[0], 2 * np.asarray(scale) * W, rtol=1e-5)


def record() -> Any:
    """The only record there is."""
    found = fx.explain()
    assert len(found) == 1, found
    return found[0]


def uncompiled(f: Callable[..., Any], *args: Any) -> Any:
    """`withgradient` of what must run uncompiled: it warns, and the record says so."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = fx.withgradient(f, *args)
    texts = [str(w.message) for w in seen]
    assert any("uncompiled" in t for t in texts), texts
    assert any(not r.compiled for r in fx.explain())
    return found


def quietly(f: Callable[[], Any]) -> Any:
    """What `f` gives, whatever it warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f()


def agree(got: Any, want: Any, rtol: float = 1e-5) -> None:
    """Two nested results are equal, `None`s and structure included."""
    a, b = (jax.tree.flatten(t, is_leaf=lambda v: v is None) for t in (got, want))
    assert a[1] == b[1], (a[1], b[1])
    for x, y in zip(a[0], b[0], strict=True):
        assert (x is None) == (y is None), (got, want)
        if hasattr(x, "dtype") or isinstance(x, (int, float)):
            assert jnp.result_type(x) == jnp.result_type(y), (x, y)
            np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=1e-7)
        else:
            assert x == y


def both(make: Callable[[], Iterator[tuple[Any, ...]]]) -> list[Any]:
    """`withgradient(*turn)` for every turn of a case, compiled and uncompiled; they agree."""
    fx.clear_cache()
    compiled = [fx.withgradient(*turn) for turn in make()]
    assert all(r.compiled for r in fx.explain()), fx.explain()
    with fx.eager():
        eager = [fx.withgradient(*turn) for turn in make()]
    for got, want in zip(compiled, eager, strict=True):
        agree(got, want)
    return compiled
