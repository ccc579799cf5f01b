"""The loader against slicing by hand: what batches hold, whose memory they are, in which order."""

from __future__ import annotations

import threading
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import Squares, flat, lists

import fluxax as fx

Pair = namedtuple("Pair", "x y")


# Contents


@given(
    n=st.integers(0, 40),
    batchsize=st.integers(1, 45),
    partial=st.booleans(),
    shuffle=st.booleans(),
    axis=st.sampled_from([0, 1, -1]),
    workers=st.sampled_from([0, 0, 2]),
)
def test_an_epoch_is_the_data_in_pieces(n, batchsize, partial, shuffle, axis, workers):
    x = np.moveaxis(np.arange(n * 2, dtype=np.int32).reshape(n, 2), 0, axis)
    options = {"shuffle": shuffle, "partial": partial, "axis": axis, "workers": workers, "rng": 3}
    if 0 < n < batchsize:
        with pytest.warns(UserWarning, match=f"at most {n}"):
            loader = fx.DataLoader(x, batchsize, **options)
    else:
        loader = fx.DataLoader(x, batchsize, **options)
    batches = [np.moveaxis(b, axis, 0) for b in loader]
    size = min(batchsize, n) if n else 1
    assert len(batches) == len(loader) == (-(-n // size) if partial else n // size)
    assert all(len(b) == size for b in batches[: n // size])
    seen = np.concatenate([*batches, np.empty((0, 2), np.int32)])[:, 0] // 2
    kept = n if partial else n // size * size
    assert len(set(seen.tolist())) == len(seen) == kept
    if not shuffle:
        assert seen.tolist() == list(range(kept))
    x_again = np.moveaxis(np.arange(n * 2, dtype=np.int32).reshape(n, 2), 0, axis)
    np.testing.assert_array_equal(x, x_again)


STRUCTURES = [
    ("array", lambda x, y: x, lambda x, y: x),
    ("pair", lambda x, y: (x, y), lambda x, y: (x, y)),
    ("one in a tuple", lambda x, y: (x,), lambda x, y: (x,)),
    ("named", lambda x, y: Pair(x, y), lambda x, y: Pair(x, y)),
    ("dict", lambda x, y: {"x": x, "y": y}, lambda x, y: {"x": x, "y": y}),
    ("nested", lambda x, y: ((x, y), {"y": y}), lambda x, y: ((x, y), {"y": y})),
]


@pytest.mark.parametrize("name, data, want", STRUCTURES)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("batchsize", [3, -1])
def test_structures(name, data, want, array, batchsize):
    x = array(np.arange(14, dtype="float32").reshape(7, 2))
    y = array(np.arange(7, dtype="int32"))
    given = data(x, y)
    loader = fx.DataLoader(given, batchsize)
    assert loader.data is given
    places = range(7) if batchsize == -1 else [slice(0, 3), slice(3, 6), slice(6, 7)]
    batches = list(loader)
    assert len(batches) == len(loader) == len(places)
    for batch, place in zip(batches, places):
        expected = want(x[place], y[place])
        assert jax.tree.structure(batch) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(expected)):
            assert type(a) is type(b)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert not loader.runs_user_code
    assert loader.owns_batches


LAYOUTS = [
    ("contiguous", lambda x: x),
    ("transposed", lambda x: np.ascontiguousarray(x.T).T),
    ("strided", lambda x: np.repeat(x, 2, axis=0)[::2]),
    ("reversed", lambda x: x[::-1].copy()[::-1]),
    ("read-only", lambda x: np.broadcast_to(x, x.shape)),
    ("big-endian", lambda x: x.astype(">f4")),
    ("Fortran", np.asfortranarray),
]


@pytest.mark.parametrize("name, layout", LAYOUTS)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batchsize", [4, 10, -1])
def test_batches_are_fresh_memory(name, layout, shuffle, batchsize):
    x = layout(np.arange(30, dtype="float32").reshape(10, 3))
    want = x.copy()
    batches = list(fx.DataLoader(x, batchsize, shuffle=shuffle))
    rows = sorted(np.vstack(batches).tolist())
    assert rows == want.tolist()
    for i, batch in enumerate(batches):
        assert type(batch) is np.ndarray
        assert batch.dtype == x.dtype
        assert batch.flags.c_contiguous
        assert batch.flags.writeable
        assert not np.shares_memory(batch, x)
        assert not any(np.shares_memory(batch, other) for other in batches[:i])
        batch[...] = -1
    np.testing.assert_array_equal(x, want)


def test_batches_along_another_axis_are_contiguous():
    x = np.moveaxis(np.arange(60).reshape(10, 3, 2), 0, -1)
    for shuffle in (False, True):
        for batch in fx.DataLoader(x, 4, axis=-1, shuffle=shuffle):
            assert batch.flags.c_contiguous
            assert not np.shares_memory(batch, x)


def test_a_memmap_gives_plain_arrays(tmp_path):
    stored = np.memmap(tmp_path / "x", dtype="int16", mode="w+", shape=(9, 2))
    stored[:] = np.arange(18).reshape(9, 2)
    for shuffle in (False, True):
        batches = list(fx.DataLoader(stored, 4, shuffle=shuffle))
        assert {type(b) for b in batches} == {np.ndarray}
        assert sorted(np.concatenate(batches)[:, 0].tolist()) == list(range(0, 18, 2))


def test_the_last_axis_of_images():
    x = np.zeros((28, 28, 60_000), "uint8")
    x[0, 0] = np.arange(60_000) % 251
    loader = fx.DataLoader((x, np.arange(60_000)), 32, axis=-1)
    assert len(loader) == 1875
    for images, labels in loader:
        assert images.shape == (28, 28, 32)
        np.testing.assert_array_equal(images[0, 0], labels % 251)


def test_a_tensor_that_is_no_numpy_array_is_gathered():
    class Tensor:
        shape, dtype = (4, 2), np.dtype("float32")
        values = np.arange(8, dtype="float32").reshape(4, 2)

        def __dlpack__(self):
            raise AssertionError

        def __array__(self, dtype=None, copy=None):
            return self.values

    batches = list(fx.DataLoader(Tensor(), 3))
    assert lists(batches) == [[[0, 1], [2, 3], [4, 5]], [[6, 7]]]


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batchsize", [1, -1])
def test_few_rows(n, shuffle, batchsize):
    for data in (np.zeros((n, 3)), jnp.zeros((n, 3)), (np.zeros((n, 3)), [1] * n), [2.0] * n):
        loader = fx.DataLoader(data, batchsize, shuffle=shuffle)
        assert len(loader) == len(list(loader)) == len(list(loader)) == n


def test_a_batchsize_above_the_data_warns_and_uses_all():
    with pytest.warns(UserWarning, match="batchsize") as caught:
        loader = fx.DataLoader(np.arange(5), 32, partial=False)
    assert str(caught[0].message) == (
        "DataLoader expects a batchsize of at most 5, the number of observations, got 32. "
        "It uses all 5 in one batch."
    )
    assert caught[0].filename == __file__
    assert lists(loader) == [[0, 1, 2, 3, 4]]


# Data sets of items


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_items_are_stacked(workers, prefetch):
    data = Squares(5)
    loader = fx.DataLoader(data, 2, workers=workers, prefetch=prefetch)
    for _ in range(2):
        batches = list(loader)
        assert [x.tolist() for x, _ in batches] == [[0, 1], [2, 3], [4]]
        assert [d["square"].tolist() for _, d in batches] == [[0, 1], [4, 9], [16]]
        assert batches[0][0].dtype == np.float32
    assert loader.runs_user_code
    assert loader.owns_batches
    assert sorted(data.read) == sorted([*range(5)] * 2)
    assert (threading.main_thread() in data.threads) == (workers == 0)


COLLATE = [
    (None, 2, [([0, 1], ["a", "b"]), ([2], ["c"])]),
    (True, 2, [([0, 1], ["a", "b"]), ([2], ["c"])]),
    (False, 2, [[(0, "a"), (1, "b")], [(2, "c")]]),
    (len, 2, [2, 1]),
    (lambda rows: rows[0][1], 1, ["a", "b", "c"]),
]


@pytest.mark.parametrize("collate, batchsize, want", COLLATE)
@pytest.mark.parametrize("data", [(np.arange(3), ["a", "b", "c"]), [(0, "a"), (1, "b"), (2, "c")]])
def test_collate(collate, batchsize, want, data):
    assert lists(fx.DataLoader(data, batchsize, collate=collate)) == want


def test_a_data_set_that_reads_many_at_once():
    class Table(list):
        def __getitems__(self, indices):
            assert all(type(i) is int for i in indices)
            return [{"x": [i, i]} for i in indices]

    loader = fx.DataLoader(Table(range(5)), 2, shuffle=True)
    batches = [b["x"] for b in loader]
    assert [b.shape for b in batches] == [(2, 2), (2, 2), (1, 2)]
    assert sorted(np.concatenate(batches)[:, 0].tolist()) == list(range(5))


def test_a_data_set_that_grows_is_read_anew():
    data = [1.0, 2.0]
    loader = fx.DataLoader(data, 2)
    assert len(loader) == 1
    data += [3.0]
    assert len(loader) == 2
    assert lists(loader) == [[1, 2], [3]]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_observation_and_is_passed_by(workers):
    epoch = iter(fx.DataLoader(Squares(6, broken=[3]), 2, workers=workers))
    assert next(epoch)[0].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"^no such file \(while reading observation 3\)$"):
        next(epoch)
    assert next(epoch)[0].tolist() == [4, 5]
    assert list(epoch) == []


def test_an_error_that_cannot_take_a_sentence_gets_a_note():
    with pytest.raises(KeyError) as caught:
        list(fx.DataLoader(Squares(2, broken=[1], error=KeyError), 1))
    assert caught.value.args == ("no such file",)
    assert caught.value.__notes__ == ["(while reading observation 1)"]


@pytest.mark.parametrize("workers", [0, 2])
def test_stopiteration_from_the_data_does_not_end_the_epoch(workers):
    data = Squares(3, broken=[1], error=StopIteration)
    with pytest.raises(RuntimeError, match="got StopIteration from the data set or from collate"):
        list(fx.DataLoader(data, 1, workers=workers))


# Order


def test_each_epoch_has_its_own_order_and_the_seed_fixes_them_all():
    orders = []
    for seed in (1, 1, 2):
        fx.seed(seed)
        loader = fx.DataLoader(np.arange(100), 7, shuffle=True)
        orders.append([flat(loader) for _ in range(3)])
    assert orders[0] == orders[1] != orders[2]
    epochs = [*orders[0], *orders[2], list(range(100))]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 7


def test_a_seed_set_after_the_loader_was_made_counts_too():
    loader = fx.DataLoader(np.arange(50), 5, shuffle=True)
    fx.seed(7)
    first = [flat(loader), flat(loader)]
    fx.seed(7)
    assert [flat(loader), flat(loader)] == first
    fx.seed(8)
    assert flat(loader) != first[0]


def test_loaders_made_under_one_seed_agree_whenever_they_run():
    fx.seed(7)
    early = fx.DataLoader(np.arange(50), 5, shuffle=True)
    fx.seed(7)
    fx.shuffleobs(np.arange(3))  # other draws in between change nothing
    late = fx.DataLoader(np.arange(50), 5, shuffle=True)
    other = fx.DataLoader(np.arange(50), 5, shuffle=True)
    assert flat(early) == flat(late) != flat(other)


@pytest.mark.parametrize(
    "rng", [5, np.int64(5), lambda: np.random.default_rng(5), lambda: jax.random.key(5)]
)
def test_rng_pins_the_order(rng):
    make = rng if callable(rng) else lambda: rng
    first = fx.DataLoader(np.arange(50), 5, shuffle=True, rng=make())
    fx.seed(99)
    second = fx.DataLoader(np.arange(50), 5, shuffle=True, rng=make())
    assert [flat(first), flat(first)] == [flat(second), flat(second)]


@pytest.mark.parametrize("workers", [0, 2])
def test_two_live_loops_do_not_disturb_each_other(workers):
    data = (np.arange(20), Squares(20))
    alone = fx.DataLoader(data, 3, shuffle=True, rng=1, workers=workers)
    want = [lists(alone), lists(alone)]
    loader = fx.DataLoader(data, 3, shuffle=True, rng=1, workers=workers)
    pairs = list(zip(loader, loader, strict=True))
    assert [lists(a for a, _ in pairs), lists(b for _, b in pairs)] == want


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(workers):
    plain = fx.DataLoader((np.arange(40), Squares(40)), 3, shuffle=True, rng=1)
    threaded = fx.DataLoader(plain.data, 3, shuffle=True, rng=1, workers=workers)
    assert lists(plain) == lists(threaded)
    assert lists(plain) == lists(threaded)
