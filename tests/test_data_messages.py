"""What the loader and its kin say: printing, and the sentences of their errors."""

from __future__ import annotations

from collections import namedtuple

import jax.numpy as jnp
import numpy as np
import pytest
from loading import Squares

import fluxax as fx

Pair = namedtuple("Pair", "x y")


# Printing and sentences

SHOWN = [
    (
        lambda: fx.DataLoader(
            (np.zeros((60_000, 28, 28), "float32"), np.zeros(60_000, "int32")), 32, shuffle=True
        ),
        "1875-element DataLoader((f32[60000,28,28], i32[60000]), batchsize=32, shuffle=True)",
    ),
    (lambda: fx.DataLoader((np.zeros(3),)), "3-element DataLoader((f64[3],), batchsize=1)"),
    (
        lambda: fx.DataLoader(jnp.zeros((2, 5)), 2, axis=-1, partial=False),
        "2-element DataLoader(f32[2,5], batchsize=2, partial=False, axis=-1)",
    ),
    (
        lambda: fx.DataLoader(Pair([1, 2], {"a": np.zeros(2)}), -1),
        "2-element DataLoader(Pair(x=list of 2, y={'a': f64[2]}), batchsize=-1)",
    ),
    (
        lambda: fx.DataLoader(Squares(5), 2, collate=len, workers=3),
        "3-element DataLoader(Squares of 5, batchsize=2, collate=len, workers=3)",
    ),
]


@pytest.mark.parametrize("make, text", SHOWN)
def test_printing(make, text):
    assert repr(make()) == text


class Frame(list):
    iloc = None  # what tells a pandas object


X = np.zeros((6, 2), "float32")
ERRORS = [
    (
        lambda: fx.DataLoader((X, np.zeros(5))),
        ValueError,
        "DataLoader expects as many observations in every part, got 6 at data[0] and 5 at data[1]. "
        "Observations stand along axis 0.",
    ),
    (
        lambda: fx.DataLoader(Pair({"a": X}, [1, 2])),
        ValueError,
        "DataLoader expects as many observations in every part, got 6 at data.x['a'] "
        "and 2 at data.y. Observations stand along axis 0.",
    ),
    (
        lambda: fx.DataLoader((X, np.zeros(2)), axis=1),
        ValueError,
        "DataLoader expects arrays with observations along axis 1, got f64[2] at data[1].",
    ),
    (
        lambda: fx.DataLoader(np.ones(())),
        ValueError,
        "DataLoader expects arrays with observations along axis 0, got f64[] at data.",
    ),
    (
        lambda: fx.DataLoader(()),
        ValueError,
        "DataLoader expects at least one array, got an empty tuple.",
    ),
    (
        lambda: fx.DataLoader((X, None)),
        TypeError,
        "DataLoader expects arrays, or data with `__len__` and `__getitem__`, got None at data[1].",
    ),
    (
        lambda: fx.DataLoader(x for x in X),
        TypeError,
        "DataLoader expects arrays, or data with `__len__` and `__getitem__`, "
        "got a generator at data.",
    ),
    (
        lambda: fx.DataLoader(Frame([1])),
        TypeError,
        "DataLoader expects arrays or a data set, got a Frame of 1 at data. "
        "Pass its `.to_numpy()`, since indexing it gives columns or labels, not rows.",
    ),
    (
        lambda: fx.DataLoader(np.ma.masked_less(X, 0)),
        TypeError,
        "DataLoader expects plain arrays, got a masked f32[6,2] at data. "
        "Call its `.filled(...)` first.",
    ),
    (
        lambda: fx.DataLoader(X, X),
        TypeError,
        "DataLoader expects an int as batchsize, got f32[6,2]. "
        "Several arrays go in one tuple: DataLoader((X, Y)).",
    ),
    (
        lambda: fx.DataLoader(X, 0),
        ValueError,
        "DataLoader expects batchsize of at least 1, or -1 for single observations, got 0.",
    ),
    (
        lambda: fx.DataLoader(X, -2),
        ValueError,
        "DataLoader expects batchsize of at least 1, or -1 for single observations, got -2.",
    ),
    (
        lambda: fx.DataLoader(X, 2.0),
        TypeError,
        "DataLoader expects an int as batchsize, got 2.0.",
    ),
    (
        lambda: fx.DataLoader(X, shuffle="yes"),
        TypeError,
        "DataLoader expects True or False as shuffle, got 'yes'.",
    ),
    (
        lambda: fx.DataLoader(X, collate="stack"),
        TypeError,
        "DataLoader expects None, True, False or a function as collate, got 'stack'.",
    ),
    (
        lambda: fx.DataLoader(X, -1, collate=len),
        ValueError,
        "DataLoader expects a batchsize of at least 1 with a collate function, got -1. "
        "Single observations are not collated.",
    ),
    (
        lambda: fx.DataLoader(X, workers=-1),
        ValueError,
        "DataLoader expects workers of at least 0, got -1.",
    ),
    (
        lambda: fx.DataLoader(X, prefetch=0),
        ValueError,
        "DataLoader expects prefetch of at least 1, got 0.",
    ),
    (
        lambda: fx.DataLoader(X, timeout=0),
        ValueError,
        "DataLoader expects a timeout above 0 seconds, got 0.",
    ),
    (
        lambda: fx.DataLoader(X, timeout="1s"),
        TypeError,
        "DataLoader expects seconds or None as timeout, got '1s'.",
    ),
    (
        lambda: fx.DataLoader(X).load_state_dict(fx.DataLoader(X[:4]).state_dict()),
        ValueError,
        "load_state_dict expects the position in 6 observations, got one in 4. "
        "Make the loader over the same data.",
    ),
    (
        lambda: fx.DataLoader(X).load_state_dict(fx.DataLoader(X, shuffle=True).state_dict()),
        ValueError,
        "load_state_dict expects the position of a loader with shuffle=False, "
        "got one with shuffle=True. Make the loader with the same options.",
    ),
    (
        lambda: fx.DataLoader(X).load_state_dict({"epoch": 1}),
        TypeError,
        "load_state_dict expects what `state_dict` gave, got the keys ['epoch'].",
    ),
    (
        lambda: fx.DataLoader(X).load_state_dict(
            {**fx.DataLoader(X, rng=0).state_dict(), "seed": 1, "position": 9}
        ),
        ValueError,
        "load_state_dict expects a seed and an epoch of at least 0 and a position of at most 6, "
        "got 1, 0 and 9.",
    ),
    (
        lambda: list(fx.DataLoader([np.zeros(2), np.zeros(3)], 2)),
        ValueError,
        "batch expects observations of one shape, got f64[2] and f64[3] at observations[1]. "
        "Pad them to one shape, or pass `collate=` to the loader.",
    ),
    (
        lambda: fx.batch([]),
        ValueError,
        "batch expects at least one observation, got an empty list.",
    ),
    (
        lambda: fx.batch([{"a": 1}, {"b": 1}]),
        ValueError,
        "batch expects the keys ['a'] in every observation, got the keys ['b'] at observations[1].",
    ),
    (
        lambda: fx.batch([(1, 2), (1,)]),
        ValueError,
        "batch expects a tuple of 2 as every observation, got a tuple of 1 at observations[1]. "
        "Pad them to one length, or pass `collate=` to the loader.",
    ),
    (
        lambda: fx.batch([{"a": (1, None)}]),
        TypeError,
        "batch expects numbers, arrays, strings, or tuples, lists and dicts of them, "
        "got None at observations[0]['a'][1]. Pass a function as `collate=` to the loader.",
    ),
    (
        lambda: fx.batch([[[1, 2], [3]]]),
        ValueError,
        "batch expects lists of numbers that form an array, got a list of 2 of uneven lists "
        "at observations[0]. Use a tuple for parts of different shapes.",
    ),
    (
        lambda: fx.batch([1, 2], axis=1),
        ValueError,
        "batch expects observations that can get an axis 1, got i64[] at observations[0].",
    ),
    (
        lambda: fx.getobs(jnp.zeros(3), 3),
        IndexError,
        "getobs expects an index into 3 observations, got 3.",
    ),
    (
        lambda: fx.getobs(X, 1.0),
        TypeError,
        "getobs expects an int, a slice, or a list of ints or booleans as index, got f64[].",
    ),
    (
        lambda: fx.splitobs(X, 1.5),
        ValueError,
        "splitobs expects `at` from 0 to 1, got 1.5. "
        "A float is a fraction, an int a number of observations.",
    ),
    (
        lambda: fx.splitobs(X, 7),
        ValueError,
        "splitobs expects `at` from 0 to 6, got 7. "
        "A float is a fraction, an int a number of observations.",
    ),
    (
        lambda: fx.splitobs(X, (0.7, 0.7)),
        ValueError,
        "splitobs expects parts of at most 6 observations together, got at=(0.7, 0.7).",
    ),
    (
        lambda: fx.splitobs(X, "half"),
        TypeError,
        "splitobs expects fractions or whole numbers as `at`, got 'half'.",
    ),
    (
        lambda: fx.splitobs(X, stratified=[1, 2]),
        ValueError,
        "splitobs expects one label for each of 6 observations in `stratified`, got i64[2].",
    ),
    (
        lambda: fx.kfolds(X, 7),
        ValueError,
        "kfolds expects k from 2 to 6, the number of observations, got 7.",
    ),
    (
        lambda: fx.kfolds(X, 1),
        ValueError,
        "kfolds expects k from 2 to 6, the number of observations, got 1.",
    ),
]


@pytest.mark.parametrize("call, kind, sentence", ERRORS)
def test_sentences(call, kind, sentence):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == sentence
