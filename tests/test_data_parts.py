"""Single observations, batches of them, splits and folds."""

from __future__ import annotations

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import Squares, lists

import fluxax as fx

Pair = namedtuple("Pair", "x y")


# Observations, batches


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        np.int64(2),
        slice(1, 3),
        slice(None, None, -1),
        [2, 0],
        [-1],
        [],
        [True, False, False, True],
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_getobs_is_numpys_indexing(array, index, axis):
    x = (
        np.arange(12, dtype="int32").reshape(4, 3)
        if axis == 0
        else np.arange(12, dtype="int32").reshape(3, 4)
    )
    place = np.array(index, int) if isinstance(index, list) and not index else index
    want = x[place] if axis == 0 else x[:, place]
    got = fx.getobs((array(x), list("abcd")), index, axis)
    assert isinstance(got[0], jax.Array) == (array is jnp.asarray)
    np.testing.assert_array_equal(got[0], want)
    assert got[1] == (np.array(list("abcd"))[place].tolist())
    assert fx.numobs((array(x), list("abcd")), axis) == 4


BATCHES = [
    ("numbers", [1, 2, 3]),
    ("floats", [0.5, 1.5]),
    ("strings", ["a", "b"]),
    ("arrays", [np.zeros(2), np.ones(2)]),
    ("jax", [jnp.zeros((2, 2)), jnp.ones((2, 2))]),
    ("tuples", [(1, "a"), (2, "b")]),
    ("named", [Pair(1, np.zeros(2)), Pair(2, np.ones(2))]),
    ("dicts", [{"x": 1, "y": (2, 3)}, {"x": 4, "y": (5, 6)}]),
]


@pytest.mark.parametrize("name, rows", BATCHES)
def test_unbatch_undoes_batch(name, rows):
    batched = fx.batch(rows)
    assert fx.numobs(batched) == len(rows)
    back = fx.unbatch(batched)
    assert [jax.tree.structure(r) for r in back] == [jax.tree.structure(r) for r in rows]
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(rows)):
        np.testing.assert_array_equal(a, b)
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)


def test_batch_along_another_axis_and_of_lists():
    x = fx.batch([np.zeros(2), np.ones(2)], axis=-1)
    assert x.tolist() == [[0, 1], [0, 1]]
    assert [r.tolist() for r in fx.unbatch(x, axis=-1)] == [[0, 0], [1, 1]]
    assert fx.batch([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    images, labels = fx.batch([[np.zeros(2), 1], [np.ones(2), 2]])
    assert images.shape == (2, 2)
    assert labels.tolist() == [1, 2]


def test_eachobs():
    x, y = np.arange(12).reshape(3, 4), np.arange(4)
    columns = fx.eachobs(x, axis=1)
    assert len(columns) == 4
    for i, (a, b) in enumerate(zip(columns, fx.eachobs(y))):
        np.testing.assert_array_equal(a, x[:, i])
        assert b == i
    assert lists(fx.eachobs(y, batchsize=3)) == [[0, 1, 2], [3]]


# Splits and folds


@given(st.integers(0, 30), st.lists(st.floats(0, 0.25), min_size=1, max_size=4), st.booleans())
def test_splits_are_disjoint_and_complete(n, at, shuffle):
    parts = fx.splitobs(n, tuple(at), shuffle=shuffle)
    assert len(parts) == len(at) + 1
    together = np.concatenate(parts).tolist()
    assert sorted(together) == list(range(n))
    left = n
    for part, a in zip(parts, at):
        assert len(part) == min(round(n * a), left)
        left -= len(part)
    if not shuffle:
        assert together == sorted(together)


SIZES = [
    (100, 0.7, [70, 30]),
    (100, (0.1, 0.4), [10, 40, 50]),
    (5, 0.5, [2, 3]),
    (15, 0.5, [8, 7]),
    (10, 0.0, [0, 10]),
    (10, 1.0, [10, 0]),
    (10, 1, [1, 9]),
    (10, (2, 3), [2, 3, 5]),
    (10, (2, 0.5), [2, 5, 3]),
    (10, (0.1, 0.2, 0.7), [1, 2, 7, 0]),
    (3, (0.5, 0.5), [2, 1, 0]),
]


@pytest.mark.parametrize("n, at, sizes", SIZES)
def test_sizes_of_splits(n, at, sizes):
    assert [len(part) for part in fx.splitobs(n, at)] == sizes
    data = (np.zeros((2, n)), jnp.arange(n), list(range(n)), Squares(n))
    for parts in (fx.splitobs(data[1:], at), fx.splitobs(data[1:], at, shuffle=True)):
        assert [fx.numobs(part) for part in parts] == sizes
        for y, items, squares in parts:
            assert y.tolist() == items
            assert [squares[i][1]["square"] for i in range(len(squares))] == [i * i for i in items]
            assert list(fx.DataLoader(squares, -1)) == [squares[i] for i in range(len(squares))]
    assert [part.shape[1] for part in fx.splitobs(data[0], at, axis=1)] == sizes


def test_splits_in_order_are_views_and_shuffled_ones_follow_the_seed():
    x = np.arange(10)
    a, _ = fx.splitobs(x)
    assert np.shares_memory(a, x)
    b, _ = fx.splitobs(x, shuffle=True, rng=1)
    assert not np.shares_memory(b, x)
    assert b.tolist() == fx.splitobs(x, shuffle=True, rng=1)[0].tolist()
    fx.seed(3)
    c = fx.splitobs(x, shuffle=True)[0].tolist()
    fx.seed(3)
    assert fx.splitobs(x, shuffle=True)[0].tolist() == c


@pytest.mark.parametrize("shuffle", [False, True])
def test_stratified_splits_keep_the_proportions(shuffle):
    labels = np.array(["a"] * 10 + ["b"] * 20 + ["c"] * 70)
    parts = fx.splitobs((labels, np.arange(100)), (0.5, 0.2), shuffle=shuffle, stratified=labels)
    for (names, _), share in zip(parts, (0.5, 0.2, 0.3), strict=True):
        counts = [int((names == name).sum()) for name in "abc"]
        assert counts == [round(n * share) for n in (10, 20, 70)]
    indices = np.concatenate([i for _, i in parts])
    assert sorted(indices.tolist()) == list(range(100))
    assert bool((np.diff(parts[0][1]) > 0).all()) != shuffle


def test_shuffleobs_keeps_pairs_together():
    x, y = np.arange(24).reshape(2, 12), np.arange(12)
    a, b, c = fx.shuffleobs((x, jnp.asarray(y), Squares(12)), axis=-1)
    assert b.tolist() != y.tolist()
    assert sorted(b.tolist()) == y.tolist()
    np.testing.assert_array_equal(a, x[:, b])
    assert [int(c[i][0]) for i in range(12)] == b.tolist()


@given(st.integers(2, 20), st.data())
def test_folds_validate_each_observation_once(n, data):
    k = data.draw(st.integers(2, n))
    folds = list(fx.kfolds(n, k))
    assert len(folds) == k
    assert np.concatenate([val for _, val in folds]).tolist() == list(range(n))
    assert {len(val) for _, val in folds} <= {n // k, n // k + 1}
    for train, val in folds:
        assert sorted([*train, *val]) == list(range(n))


def test_folds_of_nested_data():
    for (x, y), (v, w) in fx.kfolds((np.arange(7), list(range(7))), 3):
        assert x.tolist() == y
        assert v.tolist() == w
