"""Classes made as large as each other, by repeating or by leaving away."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import Squares

import fluxax as fx

labels = st.lists(st.sampled_from("abc"), min_size=0, max_size=30)


@given(labels, st.sampled_from([0.3, 0.5, 1.0]), st.booleans())
def test_oversampling_repeats_evenly_and_loses_nothing(y, fraction, shuffle):
    x, z = fx.oversample((np.arange(len(y)), y), fraction=fraction, shuffle=shuffle)
    assert [y[i] for i in x] == z
    before, after = Counter(y), Counter(z)
    wanted = int(np.ceil(fraction * max(before.values(), default=0)))
    assert after == {label: max(n, wanted) for label, n in before.items()}
    times = Counter(x.tolist())
    assert len(times) == len(y)
    for label in before:
        often = [times[i] for i in range(len(y)) if y[i] == label]
        assert max(often) - min(often) <= 1
    if not shuffle:
        assert x[: len(y)].tolist() == list(range(len(y)))
        assert z[len(y) :] == sorted(z[len(y) :])


@given(labels, st.booleans())
def test_undersampling_leaves_as_many_of_each(y, shuffle):
    x, z = fx.undersample((np.arange(len(y)), y), shuffle=shuffle)
    assert [y[i] for i in x] == z
    assert len(set(x.tolist())) == len(x)
    assert Counter(z) == dict.fromkeys(set(y), min(Counter(y).values(), default=0))
    if not shuffle:
        assert x.tolist() == sorted(x)


@pytest.mark.parametrize("change", [fx.oversample, fx.undersample])
def test_data_and_classes_apart(change):
    y = jnp.array([0, 1, 1, 1, 2, 2])
    data = (np.arange(12).reshape(2, 6), list("abcdef"), Squares(6))
    (x, names, squares), z = change(data, y, axis=-1, rng=1)
    assert isinstance(z, jax.Array)
    assert x.shape[1] == len(names) == len(squares) == len(z)
    for k, i in enumerate(x[0]):
        assert (names[k], int(squares[k][0]), int(z[k])) == ("abcdef"[i], i, int(y[i]))
    again = change(data, y, axis=-1, rng=1)[0]
    np.testing.assert_array_equal(x, again[0])
    fx.seed(5)
    first = change(data, y, axis=-1)[1].tolist()
    fx.seed(5)
    assert change(data, y, axis=-1)[1].tolist() == first


X = np.zeros((4, 2), "float32")
ERRORS = [
    (
        lambda: fx.oversample(X),
        "oversample expects a class for each observation, got f32[4,2] alone. "
        "Write oversample((X, Y)) or oversample(X, Y).",
    ),
    (
        lambda: fx.undersample(X, [1, 2]),
        "undersample expects one class for each of 4 observations, got i64[2]. "
        "Pass labels, as `onecold` gives them.",
    ),
    (
        lambda: fx.oversample((X, np.zeros(4)), fraction=2),
        "oversample expects a fraction above 0, up to 1, got 2.",
    ),
]


@pytest.mark.parametrize("call, sentence", ERRORS)
def test_sentences(call, sentence):
    with pytest.raises(ValueError, match="expects") as caught:
        call()
    assert str(caught.value) == sentence
