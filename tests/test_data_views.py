"""Data sets made of others: mapped, chosen, joined, in windows, in batches."""

from __future__ import annotations

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loading import Squares

import fluxax as fx

Pair = namedtuple("Pair", "x y")
X = np.arange(12).reshape(6, 2)


def plain(value):
    """A value with its arrays as lists."""
    return jax.tree.map(lambda v: v.tolist() if hasattr(v, "tolist") else v, value)


#: How a view is made, and its entries.
VIEWS = {
    "obsview": (lambda: fx.obsview(X, [3, 0, 3]), [[6, 7], [0, 1], [6, 7]]),
    "obsview of all": (lambda: fx.obsview(list("abc")), ["a", "b", "c"]),
    "obsview by a slice": (lambda: fx.obsview(jnp.arange(6), slice(4, None)), [4, 5]),
    "obsview by booleans": (lambda: fx.obsview(list("abc"), [True, False, True]), ["a", "c"]),
    "obsview from the end": (lambda: fx.obsview(np.arange(6), [-1]), [5]),
    "obsview of none": (lambda: fx.obsview(X, []), []),
    "obsview of nested data": (
        lambda: fx.obsview((np.arange(3), {"y": list("abc")}), [2, 1]),
        [(2, {"y": "c"}), (1, {"y": "b"})],
    ),
    "obsview along an axis": (lambda: fx.obsview(X, [1], axis=1), [[1, 3, 5, 7, 9, 11]]),
    "obsview of a view": (lambda: fx.obsview(fx.obsview(np.arange(6), [5, 4, 3]), [2, 0]), [3, 5]),
    "mapobs": (lambda: fx.mapobs(lambda x: int(x.sum()), X), [1, 5, 9, 13, 17, 21]),
    "mapobs of nested data": (
        lambda: fx.mapobs(lambda o: o[0] * o[1], (np.arange(3), [5, 6, 7])),
        [0, 6, 14],
    ),
    "mapobs along an axis": (lambda: fx.mapobs(len, X, axis=1), [6, 6]),
    "joinobs": (lambda: fx.joinobs(np.arange(2), [7, 8], jnp.arange(1)), [0, 1, 7, 8, 0]),
    "joinobs of empty ones": (lambda: fx.joinobs([], [1], []), [1]),
    "joinobs of pairs": (lambda: fx.joinobs(([1], [2]), ([3], [4])), [(1, 2), (3, 4)]),
    "windows": (lambda: fx.slidingwindow(np.arange(5), 3), [[0, 1, 2], [1, 2, 3], [2, 3, 4]]),
    "windows apart": (
        lambda: fx.slidingwindow(np.arange(8), size=2, stride=3),
        [[0, 1], [3, 4], [6, 7]],
    ),
    "windows, some left": (
        lambda: fx.slidingwindow(list("abcde"), 2, stride=2),
        [["a", "b"], ["c", "d"]],
    ),
    "windows of pairs": (
        lambda: fx.slidingwindow((np.arange(3), list("abc")), 2),
        [([0, 1], ["a", "b"]), ([1, 2], ["b", "c"])],
    ),
    "windows along an axis": (lambda: fx.slidingwindow(X[:2], 1, axis=1), [[[0], [2]], [[1], [3]]]),
    "BatchView": (lambda: fx.BatchView(np.arange(5), 2), [[0, 1], [2, 3], [4]]),
    "BatchView of whole ones": (
        lambda: fx.BatchView(np.arange(5), 2, partial=False),
        [[0, 1], [2, 3]],
    ),
    "BatchView of one": (lambda: fx.BatchView(np.arange(2)), [[0], [1]]),
    "BatchView, large": (lambda: fx.BatchView(np.arange(2), 9), [[0, 1]]),
    "BatchView of pairs": (
        lambda: fx.BatchView((np.arange(3), list("abc")), 2),
        [([0, 1], ["a", "b"]), ([2], ["c"])],
    ),
    "BatchView by a function": (lambda: fx.BatchView(list("abc"), 2, collate="".join), ["ab", "c"]),
    "BatchView along an axis": (lambda: fx.BatchView(X[:2], 2, axis=1), [[[0, 1], [2, 3]]]),
}


@pytest.mark.parametrize("case", VIEWS)
def test_views_are_sequences(case):
    make, entries = VIEWS[case]
    view = make()
    assert len(view) == fx.numobs(view) == len(entries)
    assert plain(list(view)) == entries
    assert plain([view[i] for i in range(-len(view), 0)]) == entries
    assert plain(view[::-1]) == entries[::-1]
    assert plain(fx.getobs(view, list(range(len(view))))) == entries
    for outside in (len(view), -len(view) - 1):
        with pytest.raises(IndexError, match="expects an index into"):
            view[outside]


@pytest.mark.parametrize("workers, processes", [(0, False), (2, False), (2, True)])
def test_a_loader_reads_views(workers, processes):
    data = fx.joinobs(fx.obsview(Squares(9), [7, 2]), Squares(3))
    loader = fx.DataLoader(data, 2, workers=workers, processes=processes)
    assert [int(i) for x, _ in loader for i in x.ravel()] == [7, 2, 0, 1, 2]


def test_views_read_nothing_before_they_are_asked():
    read = []
    data = fx.mapobs(lambda x: read.append(x) or x, list("abcd"))
    view = fx.joinobs(fx.obsview(data, [3]), fx.slidingwindow(data, 2))
    assert (len(view), read) == (4, [])
    assert (view[0], read) == ("d", ["d"])


def test_mapobs_by_several_functions():
    data = (np.arange(4), np.arange(4) * 10)
    two = fx.mapobs(Pair(lambda o: int(o[0]), lambda o: int(o[1])), data)
    assert (type(two), list(two.x), list(two.y)) == (Pair, [0, 1, 2, 3], [0, 10, 20, 30])
    named = fx.mapobs({"sum": lambda o: int(sum(o))}, data)
    assert list(named["sum"]) == [0, 11, 22, 33]
    (batch,) = fx.DataLoader(named, 4)
    assert batch["sum"].tolist() == [0, 11, 22, 33]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_filterobs_and_groupobs(array):
    data = array([3, 1, 4, 1, 5]), list("abcde"), Squares(5)
    odd = fx.filterobs(lambda o: o[0] % 2 == 1, data)
    assert isinstance(odd[0], jax.Array) == (array is jnp.asarray)
    assert (odd[0].tolist(), odd[1], len(odd[2])) == ([3, 1, 1, 5], list("abde"), 4)
    assert fx.numobs(fx.filterobs(lambda o: False, data)) == 0
    groups = fx.groupobs(lambda o: o[0], data)
    assert {key: labels for key, (_, labels, _) in groups.items()} == {
        3: ["a"],
        1: ["b", "d"],
        4: ["c"],
        5: ["e"],
    }
    assert list(fx.groupobs(lambda o: (o[1] > "b", o[1] > "d"), data)) == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert fx.groupobs(len, X, axis=1)[6].tolist() == X.tolist()


class Noisy:
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return i + fx.obsrng().normal()


def test_random_observations_in_batches_follow_the_seed_or_the_loader():
    view = fx.BatchView(Noisy(), 2)
    first, again = view[0], view[0]
    assert (first != again).all()
    for _ in range(2):
        fx.seed(3)
        seeded = view[0].tolist(), view[1].tolist()
    fx.seed(3)
    assert seeded == (view[0].tolist(), view[1].tolist())
    loader = fx.DataLoader(view, 1, rng=0)
    epochs = [[x.tolist() for x in loader] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] == [x.tolist() for x in fx.DataLoader(view, 1, rng=0, workers=2)]


def test_randobs():
    data = np.arange(5), list("abcde")
    x, y = fx.randobs(data, 400, rng=0)
    assert y == ["abcde"[i] for i in x]
    assert {*y} == {*"abcde"}  # and more than there are, since each is drawn from all
    assert fx.randobs(data, 400, rng=0)[1] == y
    one = fx.randobs(data, rng=0)
    assert one[1] == "abcde"[one[0]]
    fx.seed(3)
    first = fx.randobs(data, 9)[1]
    fx.seed(3)
    assert fx.randobs(data, 9)[1] == first
    assert fx.randobs(X, 3, axis=1).shape == (6, 3)


# Sentences

REFUSED = {
    "obsview of one": (
        lambda: fx.obsview(X, 2),
        TypeError,
        "obsview expects several indices, got 2. Write [2]",
    ),
    "obsview outside": (
        lambda: fx.obsview(X, [6]),
        IndexError,
        "indices into 6 observations, got 6",
    ),
    "obsview of no data": (
        lambda: fx.obsview(3),
        TypeError,
        "obsview expects arrays, or data with",
    ),
    "mapobs of no function": (
        lambda: fx.mapobs(X, len),
        TypeError,
        "mapobs expects a function of an observation first, got i64[6,2]. The order is mapobs(f,",
    ),
    "mapobs of no data": (
        lambda: fx.mapobs(len, 3),
        TypeError,
        "mapobs expects arrays, or data with",
    ),
    "filterobs of no function": (
        lambda: fx.filterobs(X, len),
        TypeError,
        "The order is filterobs(f, data).",
    ),
    "filterobs that says nothing": (
        lambda: fx.filterobs(lambda x: None, X),
        TypeError,
        "filterobs expects a function that gives True or False, got None.",
    ),
    "filterobs that says much": (
        lambda: fx.filterobs(lambda x: x > 0, X),
        TypeError,
        "True or False, got bool[2]",
    ),
    "groupobs of no function": (
        lambda: fx.groupobs(X, len),
        TypeError,
        "The order is groupobs(f, data).",
    ),
    "groupobs by lists": (
        lambda: fx.groupobs(lambda x: [1], X),
        TypeError,
        "groupobs expects a function that gives keys of a dict, got",
    ),
    "groupobs by arrays": (
        lambda: fx.groupobs(lambda x: x, X),
        TypeError,
        "keys of a dict, got i64[2]",
    ),
    "joinobs of none": (
        lambda: fx.joinobs(),
        ValueError,
        "joinobs expects data to join, got none.",
    ),
    "joinobs of no data": (
        lambda: fx.joinobs(X, 3),
        TypeError,
        "joinobs expects arrays, or data with",
    ),
    "randobs of none": (
        lambda: fx.randobs([]),
        ValueError,
        "randobs expects at least one observation, got",
    ),
    "randobs, 0": (lambda: fx.randobs(X, 0), ValueError, "randobs expects n of at least 1, got 0."),
    "windows too large": (
        lambda: fx.slidingwindow(X, 7),
        ValueError,
        "slidingwindow expects size from 1 to 6, the number of observations, got 7.",
    ),
    "windows of 0": (
        lambda: fx.slidingwindow(X, 0),
        ValueError,
        "slidingwindow expects size from 1",
    ),
    "windows of a half": (
        lambda: fx.slidingwindow(X, 2.5),
        ValueError,
        "size from 1 to 6, the number of observations, got 2.5",
    ),
    "windows that stand": (
        lambda: fx.slidingwindow(X, 2, stride=0),
        ValueError,
        "stride of at least 1, got 0",
    ),
    "BatchView of 0": (
        lambda: fx.BatchView(X, 0),
        ValueError,
        "BatchView expects batchsize of at least 1, got 0.",
    ),
    "labels": (
        lambda: fx.kfolds(X, 2, stratified=[1, 2]),
        ValueError,
        "kfolds expects one label for each of 6 observations in `stratified`, got",
    ),
    "leavepout of all": (
        lambda: fx.leavepout(X, 4),
        ValueError,
        "leavepout expects p from 1 to 3, half the number of observations, got 4.",
    ),
    "leavepout of a half": (
        lambda: fx.leavepout(X, 0.5),
        ValueError,
        "leavepout expects p from 1 to 3",
    ),
    "no time before": (
        lambda: fx.timefolds(X, 3, size=2),
        ValueError,
        "than it validates and leaves out, got 6 for 3 folds of 2 and a gap of 0.",
    ),
    "a gap before": (
        lambda: fx.timefolds(X, 1, size=2, gap=4),
        ValueError,
        "a gap of 4. Take fewer or smaller folds.",
    ),
    "a negative gap": (
        lambda: fx.timefolds(X, 2, gap=-1),
        ValueError,
        "timefolds expects gap of at least 0, got -1.",
    ),
    "no folds": (
        lambda: fx.timefolds(X, 0),
        ValueError,
        "timefolds expects k of at least 1, got 0.",
    ),
    "many folds": (
        lambda: fx.timefolds(X, 9),
        ValueError,
        "timefolds expects more than k=9 observations, got 6",
    ),
    "Flux's parallel": (
        lambda: fx.DataLoader(X, parallel=True),
        TypeError,
        "DataLoader expects workers to read ahead, got `parallel`. Write workers=4",
    ),
    "PyTorch's workers": (
        lambda: fx.DataLoader(X, num_workers=2),
        TypeError,
        "got `num_workers`. Write workers=4",
    ),
    "another word": (
        lambda: fx.DataLoader(X, size=2),
        TypeError,
        "DataLoader expects data, batchsize, shuffle,",
    ),
    "eachobs": (
        lambda: fx.eachobs(X, obsdim=1),
        TypeError,
        "eachobs expects the axis of the observations, got `obsdim`. Write axis=-1",
    ),
    "train": (
        lambda: fx.train(1, 2, 3, 4, progres=1),
        TypeError,
        "train expects loss, model, data, opt_state and progress, got `progres`.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_how(case):
    call, error, said = REFUSED[case]
    with pytest.raises(error) as raised:
        call()
    assert said in str(raised.value)


SHOWN = [
    (lambda: fx.obsview(X, [1, 2]), "ObsView of 2 observations of i64[6,2]"),
    (lambda: fx.mapobs(len, X), "mapobs(len, i64[6,2])"),
    (lambda: fx.joinobs(X, Squares(3)), "joinobs(i64[6,2], a Squares)"),
    (lambda: fx.slidingwindow(X, 2, stride=3), "slidingwindow(i64[6,2], size=2, stride=3)"),
    (lambda: fx.BatchView(X, 4), "BatchView(i64[6,2], batchsize=4)"),
    (lambda: fx.BatchView(X, 4, partial=False), "BatchView(i64[6,2], batchsize=4, partial=False)"),
]


@pytest.mark.parametrize("make, text", SHOWN)
def test_printing(make, text):
    assert repr(make()) == text


def test_type_checkers_see_what_train_and_the_loader_take():
    import inspect

    for function in (fx.train, fx.DataLoader, fx.eachobs):
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
