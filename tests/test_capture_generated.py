"""Captured trees and their mutations, generated; the arithmetic is NumPy's."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from objectives import agree, quietly

import fluxax as fx

W = jnp.array([1.0, 2.0])

NUMBERS = st.one_of(
    st.integers(-3, 3), st.sampled_from([0.0, -0.0, 1.0, 0.5, -2.25, 1e9]), st.booleans()
)
TREES = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_leaves=6,
)


def _terms(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [t for k, v in tree.items() for t in [len(k), *_terms(v)]]
    if isinstance(tree, (list, tuple)):
        return [len(tree), *(t for v in tree for t in _terms(v))]
    return [
        tree,
        2 if tree is True else 3 if isinstance(tree, float) else 5,
        math.copysign(1, tree),
    ]


@settings(max_examples=25)  # every example compiles
@given(st.lists(TREES, min_size=2, max_size=5))
def test_generated_trees_of_numbers(trees: list[Any]) -> None:
    fx.clear_cache()
    for tree in [*trees, *trees]:
        f = lambda w: sum((jnp.sum(t * w) for t in _terms(tree)), jnp.float32(0))
        val = quietly(lambda: fx.withgradient(f, W)).val
        want = 3 * sum(np.float64(t) for t in _terms(tree))
        np.testing.assert_allclose(float(val), want, rtol=1e-4, atol=1e-3)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "pop", "set", "rebind", "tie"]), st.integers(0, 3), NUMBERS
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25)  # every example compiles
@given(STEPS)
def test_generated_mutations(steps: list[Any]) -> None:
    fx.clear_cache()
    xs: list[Any] = [1.0, jnp.ones(2)]
    for action, i, n in [("none", 0, 0), *steps]:
        if action == "append":
            xs.append(jnp.full(2, n, jnp.float32) if i % 2 else n)
        elif action == "pop" and xs:
            xs.pop(i % len(xs))
        elif action == "set" and xs:
            xs[i % len(xs)] = n
        elif action == "rebind":
            xs = [*xs, n][-3:]
        elif action == "tie" and xs:
            xs.append(xs[i % len(xs)])
        f = lambda w: sum((jnp.sum(x * w) for x in xs), jnp.float32(0))
        val, grads = quietly(lambda: fx.withgradient(f, W))
        with fx.eager():
            agree(fx.withgradient(f, W).grad, grads, rtol=1e-4)
        want = sum(float(np.sum(np.asarray(x, np.float64) * [1.0, 2.0])) for x in xs)
        np.testing.assert_allclose(float(val), want, rtol=1e-4, atol=1e-3)
