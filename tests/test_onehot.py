"""One-hot arrays against a search by hand, in NumPy, in JAX and under `jax.jit`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluxax as fx


def places(xs, labels):
    """Where each x stands first among the labels; NaN is NaN."""
    same = lambda a, b: a == b or (a != a and b != b)
    return [next(i for i, label in enumerate(labels) if same(x, label)) for x in xs]


NUMBERS = [
    ("ints", [2, 0, 1, 2], [0, 1, 2]),
    ("gaps", [7, -3, 7], [-3, 7, 100]),
    ("unsorted", [3, 1], [3, 2, 1]),
    ("twice", [1, 2], [2, 1, 1, 2]),
    ("floats", [0.1, 2.5], [2.5, 0.1, 0.3]),
    ("nan", [math.nan, 1.0], [1.0, math.nan]),
    ("nan twice", [math.nan], [math.nan, 0.0, math.nan]),
    ("infinite", [math.inf, -math.inf], [-math.inf, 0.0, math.inf]),
    ("booleans", [True, False], [False, True]),
    ("one label", [5, 5], [5]),
    ("zeros", [0.0, -0.0], [0.0, 1.0]),
]
OTHERS = [
    ("strings", ["b", "a"], ["a", "b", "c"]),
    ("long and short", ["frog", "ox"], ["ox", "horse", "frog"]),
    ("mixed", [1, "a", None], ["a", 1, None]),
    ("tuples", [(0, 1), (2,)], [(2,), (0, 1)]),
    ("one against text", ["1", 1], [1, "1"]),
    ("bytes", [b"x"], [b"y", b"x"]),
]


@pytest.mark.parametrize("name, xs, labels", NUMBERS + OTHERS)
def test_a_list_gives_numpy_booleans(name, xs, labels):
    hot = fx.onehotbatch(xs, labels)
    assert type(hot) is np.ndarray
    assert hot.dtype == bool
    assert hot.shape == (len(xs), len(labels))
    assert (hot.sum(-1) == 1).all()
    assert hot.argmax(-1).tolist() == places(xs, labels)
    for x, row in zip(xs, hot):
        np.testing.assert_array_equal(fx.onehot(x, labels), row)


@pytest.mark.parametrize("name, xs, labels", NUMBERS)
def test_jax_agrees_with_numpy_also_under_jit(name, xs, labels):
    want = fx.onehotbatch(xs, labels)
    x = jnp.asarray(xs)
    hot = fx.onehotbatch(x, labels)
    assert isinstance(hot, jax.Array)
    assert hot.dtype == bool
    np.testing.assert_array_equal(hot, want)
    np.testing.assert_array_equal(jax.jit(lambda x: fx.onehotbatch(x, labels))(x), want)
    np.testing.assert_array_equal(fx.onehot(x[0], labels), want[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64"])
def test_types_of_numbers(dtype):
    labels = [3, 1, 2] if "int" in dtype else [0.3, 0.1, 0.2]
    xs = np.array(labels, dtype)
    np.testing.assert_array_equal(fx.onehotbatch(xs, labels), np.eye(3, dtype=bool))
    np.testing.assert_array_equal(fx.onehotbatch(xs, xs), np.eye(3, dtype=bool))
    np.testing.assert_array_equal(fx.onehotbatch(jnp.asarray(xs), labels), np.eye(3, dtype=bool))
    np.testing.assert_array_equal(fx.onehotbatch(xs, np.array(labels)), np.eye(3, dtype=bool))


def test_large_integers_are_compared_exactly():
    xs = np.array([2**63 + 1, 2**63], np.uint64)
    hot = fx.onehotbatch(xs, [2**63, 2**63 + 1, 2**63 + 2])
    assert hot.argmax(-1).tolist() == [1, 0]
    hot = fx.onehotbatch(np.array([2**53 + 1]), np.array([2**53, 2**53 + 1], np.uint64))
    assert hot.argmax(-1).tolist() == [1]


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=6), st.lists(st.integers(-4, 4), max_size=8)
)
def test_the_first_of_equal_labels_and_the_default(labels, xs):
    default = labels[-1]
    hot = fx.onehotbatch(xs, labels, default)
    want = places([x if x in labels else default for x in xs], labels)
    assert hot.shape == (len(xs), len(labels))
    assert hot.argmax(-1).tolist() == want
    padded = jnp.asarray((xs + [default] * 8)[:8], jnp.int32)  # one shape, so few programs
    in_jax = fx.onehotbatch(padded, labels, default)
    np.testing.assert_array_equal(in_jax[: len(xs)], hot)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (2, 1, 3)])
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_classes_come_last(shape, array):
    xs = np.arange(math.prod(shape), dtype=np.int32).reshape(shape) % 4
    hot = fx.onehotbatch(array(xs), range(4))
    assert hot.shape == (*shape, 4)
    np.testing.assert_array_equal(hot, xs[..., None] == np.arange(4))
    np.testing.assert_array_equal(fx.onecold(hot), xs)
    assert isinstance(hot, jax.Array) == (array is jnp.asarray)


def test_labels_may_be_any_iterable():
    want = fx.onehotbatch([1, 0], [0, 1, 2])
    for labels in (
        range(3),
        (0, 1, 2),
        np.arange(3),
        jnp.arange(3),
        iter([0, 1, 2]),
        {0: "a", 1: "b", 2: "c"},
    ):
        np.testing.assert_array_equal(fx.onehotbatch([1, 0], labels), want)
    np.testing.assert_array_equal(fx.onehotbatch("abba", "abc").argmax(-1), [0, 1, 1, 0])
    np.testing.assert_array_equal(fx.onehotbatch(np.array(["b", "a"]), "ab").argmax(-1), [1, 0])
    np.testing.assert_array_equal(fx.onehotbatch([[1], [0]], range(2)).argmax(-1), [[1], [0]])
    np.testing.assert_array_equal(fx.onehotbatch(1, range(2)), [False, True])
    assert fx.onehotbatch((x for x in [1, 0]), range(2)).shape == (2, 2)


def test_a_missing_label_under_jit_is_a_row_of_false():
    hot = jax.jit(lambda x: fx.onehotbatch(x, range(3)))(jnp.array([1, 7]))
    np.testing.assert_array_equal(hot, [[False, True, False], [False, False, False]])


ERRORS = [
    (
        lambda: fx.onehotbatch([0, 1, 2, 7], range(3)),
        ValueError,
        "onehotbatch expects labels among 0, 1, 2, got 7 at index 3. "
        "Pass `default=` to say which label stands for unknown ones.",
    ),
    (
        lambda: fx.onehotbatch(jnp.array([[0, 1], [9, 2]]), range(3)),
        ValueError,
        "onehotbatch expects labels among 0, 1, 2, got 9 at index (1, 0). "
        "Pass `default=` to say which label stands for unknown ones.",
    ),
    (
        lambda: fx.onehotbatch(np.array([0.5, math.nan], "float32"), np.array([0.5])),
        ValueError,
        "onehotbatch expects labels among 0.5, got nan at index 1. "
        "Pass `default=` to say which label stands for unknown ones.",
    ),
    (
        lambda: fx.onehot("d", "abc"),
        ValueError,
        "onehot expects labels among 'a', 'b', 'c', got 'd'. "
        "Pass `default=` to say which label stands for unknown ones.",
    ),
    (
        lambda: fx.onehotbatch([50], range(20)),
        ValueError,
        "onehotbatch expects labels among 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..., got 50 at index 0. "
        "Pass `default=` to say which label stands for unknown ones.",
    ),
    (
        lambda: fx.onehotbatch(["a"], ["a", "b"], "e"),
        ValueError,
        "onehotbatch expects a default among 'a', 'b', got 'e'.",
    ),
    (
        lambda: fx.onehotbatch(jnp.array([1]), ["a", "b"]),
        ValueError,
        "onehotbatch expects numbers as labels of a JAX array, got 'a'.",
    ),
    (
        lambda: fx.onehotbatch(jnp.array([1]), [0, 2**40]),
        ValueError,
        "onehotbatch expects labels that fit int32, got 1099511627776. "
        "Pass a NumPy array instead of a JAX array.",
    ),
    (
        lambda: fx.onehotbatch([1], 10),
        TypeError,
        "onehotbatch expects the labels in order, got 10. Pass `range(n)`.",
    ),
    (
        lambda: fx.onehot("a", {"a", "b"}),
        TypeError,
        "onehot expects the labels in order, got a set of 2. Pass `sorted(labels)`.",
    ),
    (
        lambda: fx.onehotbatch([1], []),
        ValueError,
        "onehotbatch expects a flat list of labels, got f64[0].",
    ),
    (
        lambda: fx.onehotbatch([1], [[1, 2]]),
        ValueError,
        "onehotbatch expects a flat list of labels, got i64[1,2].",
    ),
    (
        lambda: fx.onecold(np.zeros((5, 10)), "abc"),
        ValueError,
        "onecold expects as many labels as classes, got 3 labels for f64[5,10].",
    ),
    (
        lambda: fx.onecold(np.zeros((5, 0))),
        ValueError,
        "onecold expects an array with classes along its last axis, got f64[5,0].",
    ),
    (
        lambda: fx.onecold(3.0),
        ValueError,
        "onecold expects an array with classes along its last axis, got f64[].",
    ),
    (
        lambda: fx.onecold(jnp.array([0.1, math.nan, 0.3])),
        ValueError,
        "onecold expects numbers that can be compared, got nan at index 1.",
    ),
    (
        lambda: jax.jit(lambda y: fx.onecold(y, "ab"))(jnp.zeros((3, 2))),
        ValueError,
        "onecold expects numbers as labels under `jax.jit`, got others. "
        "Call it outside, or leave the labels away.",
    ),
]


@pytest.mark.parametrize("call, kind, sentence", ERRORS)
def test_sentences(call, kind, sentence):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_onecold_takes_the_first_of_the_largest(array):
    y = array(np.array([[0.1, 0.7, 0.7], [0.5, 0.5, 0.0], [-1.0, -2.0, -0.5]], "float32"))
    best = fx.onecold(y)
    assert isinstance(best, jax.Array) == (array is jnp.asarray)
    assert best.tolist() == [1, 0, 2]
    assert fx.onecold(y, [10, 20, 30]).tolist() == [20, 10, 30]
    assert fx.onecold(y, "abc").tolist() == ["b", "a", "c"]
    assert fx.onecold(y, [("x",), None, 3]).tolist() == [None, ("x",), 3]
    assert fx.onecold(y[2], "abc") == "c"
    assert fx.onecold(y[2]) == 2
    assert isinstance(fx.onecold(y, [10, 20, 30]), jax.Array) == (array is jnp.asarray)


def test_onecold_in_jit_and_with_nan_in_rows():
    y = jnp.array([[0.1, jnp.nan, 0.3], [3.0, 2.0, 1.0]])
    assert fx.onecold(y).tolist() == [1, 0]
    assert jax.jit(lambda y: fx.onecold(y, [5, 6, 7]))(y).tolist() == [6, 5]


@given(st.lists(st.sampled_from("abcdefg"), max_size=9))
def test_onecold_undoes_onehotbatch(xs):
    assert fx.onecold(fx.onehotbatch(xs, "gfedcba"), "gfedcba").tolist() == xs
