"""Tensors of other libraries: they share their memory, wherever they stand in a batch."""

from __future__ import annotations

from collections import UserDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from loading import lists

import fluxax as fx
from fluxax._tensors import as_arrays, is_tensor

Pair = namedtuple("Pair", "x y")


class Tensor:
    """What a PyTorch tensor answers to, as far as it is asked."""

    def __init__(self, values, wants_gradient=False, device="cpu"):
        self.values, self.wants_gradient = np.asarray(values), wants_gradient
        self.device = SimpleNamespace(type=device)
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __dlpack__(self):
        raise BufferError("on another device")

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def detach(self):
        return Tensor(self.values, device=self.device.type)

    def cpu(self):
        return Tensor(self.values)

    def numpy(self):
        if self.wants_gradient or self.device.type != "cpu":
            raise RuntimeError("call detach() and cpu() first")
        return self.values


X = np.arange(6, dtype="float32").reshape(3, 2)


@pytest.mark.parametrize("options", [{}, {"wants_gradient": True}, {"device": "cuda"}])
def test_a_tensor_becomes_an_array_over_the_same_memory(options):
    tensor = Tensor(X, **options)
    assert is_tensor(tensor)
    assert as_arrays(tensor) is X
    for batch in ([tensor], (tensor, 1), Pair(tensor, "a"), {"x": tensor}, [{"x": (tensor,)}]):
        got = as_arrays(batch)
        assert type(got) is type(batch)
        assert any(leaf is X for leaf in _leaves(got))
    assert as_arrays(UserDict(x=tensor)) == {"x": X}


def _leaves(x):
    if isinstance(x, dict):
        x = list(x.values())
    return [y for part in x for y in _leaves(part)] if isinstance(x, (list, tuple)) else [x]


def test_what_has_no_tensors_is_given_back_as_it_is():
    for batch in (X, 1.0, None, [X, "a"], (X, {"x": X}), Pair(X, 1), UserDict(x=X)):
        assert as_arrays(batch) is batch


def test_a_library_with_dlpack_alone():
    class Foreign:
        def __dlpack__(self, **options):
            return X.__dlpack__()

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    np.testing.assert_array_equal(as_arrays(Foreign()), X)


@pytest.mark.parametrize("nest", [lambda x, y: (x, y), lambda x, y: [x, y]])
def test_train_takes_batches_of_tensors(nest):
    def losses(array):
        model = fx.Dense(2, 1, init=fx.ones32)
        data = [nest(array(X), array(X[:, :1]))] * 3
        return fx.train(lambda m, x, y: fx.mse(m(x), y), model, data, fx.setup(fx.Adam(), model))

    np.testing.assert_array_equal(losses(Tensor), losses(np.array))


def test_train_takes_dicts_of_tensors():
    model = fx.Dense(2, 1, init=fx.ones32)
    data = [{"x": Tensor(X, wants_gradient=True)}]
    losses = fx.train(lambda m, d: fx.mse(m(d["x"]), 0), model, data, fx.setup(fx.Adam(), model))
    np.testing.assert_allclose(losses, [np.mean(X.sum(1) ** 2)])


def test_a_loader_takes_tensors_as_data_and_as_items():
    assert lists(fx.DataLoader(Tensor(X), 2)) == [X[:2].tolist(), X[2:].tolist()]
    items = [(Tensor(row, wants_gradient=True), i) for i, row in enumerate(X)]
    batch, labels = next(iter(fx.DataLoader(items, 3)))
    np.testing.assert_array_equal(batch, X)
    assert labels.tolist() == [0, 1, 2]
    assert not np.shares_memory(batch, X)
