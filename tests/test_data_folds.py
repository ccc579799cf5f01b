"""Folds: shuffled, with as many of each label, of a size, in time."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluxax as fx


def plain(value):
    """A value with its arrays as lists."""
    return jax.tree.map(lambda v: v.tolist() if hasattr(v, "tolist") else v, value)


@given(st.integers(2, 20), st.data())
def test_shuffled_folds_are_those_of_shuffled_data(n, data):
    k = data.draw(st.integers(2, n))
    x = np.arange(n)
    mine = [plain(fold) for fold in fx.kfolds(x, k, shuffle=True, rng=1)]
    assert mine == [plain(fold) for fold in fx.kfolds(fx.shuffleobs(x, rng=1), k)]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.booleans(), st.data())
def test_stratified_folds_have_as_many_of_each_label(labels, shuffle, data):
    n = len(labels)
    k = data.draw(st.integers(2, n))
    folds = list(fx.kfolds((np.arange(n), labels), k, shuffle=shuffle, stratified=labels, rng=0))
    assert sorted(i for _, (val, _) in folds for i in val.tolist()) == list(range(n))
    for (train, _), (val, of) in folds:
        assert sorted([*train, *val]) == list(range(n))
        assert of == [labels[i] for i in val]
        assert shuffle or val.tolist() == sorted(val)
    for counts in ([len(of) for _, (_, of) in folds], *_counts(labels, folds)):
        assert max(counts) - min(counts) <= 1


def _counts(labels, folds):
    return [[of.count(label) for _, (_, of) in folds] for label in set(labels)]


@given(st.integers(2, 30), st.data())
def test_leavepout_leaves_each_out_once(n, data):
    p = data.draw(st.integers(1, n // 2))
    folds = list(fx.leavepout(n, p))
    assert len(folds) == n // p
    assert np.concatenate([val for _, val in folds]).tolist() == list(range(n))
    assert p != 1 or {len(val) for _, val in folds} == {1}
    shuffled = [plain(f) for f in fx.leavepout(n, p, shuffle=True, rng=2)]
    assert shuffled == [plain(f) for f in fx.kfolds(n, n // p, shuffle=True, rng=2)]


TIMES = {
    "as many as fit": ((7, 3), {}, [(range(4), [4]), (range(5), [5]), (range(6), [6])]),
    "a size": ((7, 2), {"size": 2}, [(range(3), [3, 4]), (range(5), [5, 6])]),
    "a gap": ((7, 2), {"size": 2, "gap": 2}, [([0], [3, 4]), ([0, 1, 2], [5, 6])]),
    "a window": ((7, 2), {"size": 2, "window": 2}, [([1, 2], [3, 4]), ([3, 4], [5, 6])]),
    "both": ((8, 2), {"window": 2, "gap": 1}, [([1, 2], [4, 5]), ([3, 4], [6, 7])]),
    "one": ((4, 1), {}, [([0, 1], [2, 3])]),
}


@pytest.mark.parametrize("case", TIMES)
def test_folds_in_time(case):
    (n, k), options, expected = TIMES[case]
    folds = list(fx.timefolds((np.arange(n), list(range(n))), k, **options))
    assert [([*train[1]], [*val[1]]) for train, val in folds] == [
        ([*train], [*val]) for train, val in expected
    ]
    for train, val in folds:
        assert train[0].tolist() == train[1]
        assert val[0].tolist() == val[1]
        assert max(train[1]) < min(val[1])
    if "a" in case:
        assert [plain(f) for f in fx.timefolds(n, k, **options)] == [
            ([*train], [*val]) for train, val in expected
        ]


MIXED = {
    "text and numbers": np.array(["a", 1] * 3, object),
    "none": [None, 1] * 3,
    "nested": [[1], [2, 3]] * 3,
}


@pytest.mark.parametrize("labels", MIXED)
@pytest.mark.parametrize("who", ["kfolds", "splitobs"])
def test_labels_of_several_sorts_are_refused(who, labels):
    split = getattr(fx, who)
    with pytest.raises(
        (TypeError, ValueError), match=f"{who} expects (labels of one sort|one label)"
    ):
        split(6, 2 if who == "kfolds" else 0.5, stratified=MIXED[labels])
