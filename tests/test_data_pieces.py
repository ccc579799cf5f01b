"""A pass as places in arrays: the same batches, order and position as iterating."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

Pair = namedtuple("Pair", "x y")
X, Y = np.arange(46.0).reshape(23, 2), np.arange(23) * 10

DATA = [
    ("array", X),
    ("pair", (X, Y)),
    ("named", Pair(X, jnp.asarray(Y))),
    ("nested", {"b": X, "a": (Y, (X,))}),
    ("ordered", OrderedDict(z=X, y=Y)),
    ("bfloat16", jnp.asarray(X, "bfloat16")),
]
OPTIONS = [
    {"batchsize": 4},
    {"batchsize": 4, "shuffle": True},
    {"batchsize": 4, "shuffle": True, "partial": False},
    {"batchsize": 23, "workers": 2},
    {"batchsize": -1, "shuffle": True},
]


@pytest.mark.parametrize("name, data", DATA, ids=[name for name, _ in DATA])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_batches_are_those_of_iterating(name, data, options):
    make = lambda: fx.DataLoader(data, rng=3, **options)
    loader, other = make(), make()
    for _ in range(2):
        pieces = loader.pieces_source()
        assert pieces is not None
        assert pieces.arrays is data
        assert pieces.batchsize == options["batchsize"]
        places = list(pieces.batches())
        assert len(places) == len(pieces) == len(loader)
        assert all(p.dtype == np.int32 for p in places)
        assert [p.tolist() for p in pieces.batches(2)] == [p.tolist() for p in places[2:]]
        for k, (place, batch) in enumerate(zip(places, other, strict=True)):
            gathered = pieces.nest([leaf[place] for leaf in pieces.leaves])
            assert type(gathered) is type(batch)
            assert jax.tree.structure(gathered) == jax.tree.structure(batch)
            for a, b in zip(jax.tree.leaves(gathered), jax.tree.leaves(batch), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            pieces.mark(k + 1)
            assert loader.state_dict() == other.state_dict()
        assert list(pieces.rest()) == []
        assert loader.state_dict() == other.state_dict()


@pytest.mark.parametrize("batchsize, whole", [(4, 5), (-1, 23)])
def test_blocks_are_rows_of_whole_batches(batchsize, whole):
    pieces = fx.DataLoader((X, Y), batchsize, shuffle=True).pieces_source()
    places = [p.tolist() for p in pieces.batches()]
    assert pieces.block(0, whole).tolist() == places[:whole]
    assert pieces.block(1, 3).tolist() == places[1:3]
    assert pieces.block(2, 2).shape == ((0, 4) if batchsize == 4 else (0,))


def test_a_pass_taken_up_in_mid_epoch_and_the_rest_in_the_usual_way():
    make = lambda: fx.DataLoader(Y, 4, shuffle=True, rng=3)
    want = [b.tolist() for b in make()]
    loader = make()
    pieces = loader.pieces_source()
    pieces.mark(2)
    saved = loader.state_dict()
    assert saved["position"] == 8
    assert [b.tolist() for b in pieces.rest()] == want[2:]
    loader.load_state_dict(saved)
    pieces = loader.pieces_source()
    assert [Y[p].tolist() for p in pieces.batches()] == want[2:]
    pieces.mark(3)
    assert [b.tolist() for b in pieces.rest()] == want[5:]
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)


OTHERS = [
    ("items", lambda path: fx.DataLoader([1.0, 2.0])),
    ("an array and items", lambda path: fx.DataLoader((np.zeros(2), [1.0, 2.0]))),
    ("a collate function", lambda path: fx.DataLoader(X, collate=len)),
    ("not collated", lambda path: fx.DataLoader(X, collate=False)),
    ("another axis", lambda path: fx.DataLoader(X, axis=1)),
    ("text", lambda path: fx.DataLoader(np.array(["a", "b"]))),
    ("objects", lambda path: fx.DataLoader(np.array([1, None]))),
    ("a memmap", lambda path: fx.DataLoader(np.memmap(path, "int8", "w+", shape=(3,)))),
]


@pytest.mark.parametrize("name, make", OTHERS, ids=[name for name, _ in OTHERS])
def test_other_loaders_have_no_pieces(name, make, tmp_path):
    loader = make(tmp_path / "x")
    assert loader.pieces_source() is None
    assert loader.state_dict()["epoch"] == 0
    assert len(list(loader)) == len(loader)


def test_the_last_axis_of_a_flat_array_is_the_first():
    assert fx.DataLoader(Y, axis=-1).pieces_source() is not None
