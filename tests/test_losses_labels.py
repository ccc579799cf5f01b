"""Targets of losses over classes: integer labels, one-hot arrays, smoothed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

CLASSES = ["crossentropy", "logitcrossentropy", "kldivergence", "focal_loss"]


def scores(name: str, shape: tuple[int, ...], axis: int) -> jax.Array:
    x = jax.random.normal(jax.random.key(1), shape)
    return x if name == "logitcrossentropy" else jax.nn.softmax(x, axis)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("kind", ["int32", "uint8", "list"])
def test_labels_equal_one_hot(name: str, axis: int, kind: str) -> None:
    loss, y_hat = getattr(fx.losses, name), scores(name, (4, 5, 6), axis)
    rest = np.delete(y_hat.shape, axis)
    labels = np.arange(math.prod(rest)).reshape(rest) % y_hat.shape[axis]
    one_hot = jax.nn.one_hot(labels, y_hat.shape[axis], axis=axis)
    given: Any = labels.tolist() if kind == "list" else labels.astype(kind)
    for agg in (fx.identity, fx.losses.mean):
        dense = loss(y_hat, one_hot, axis=axis, agg=agg)
        assert dense.shape == loss(y_hat, given, axis=axis, agg=agg).shape
        np.testing.assert_allclose(loss(y_hat, given, axis=axis, agg=agg), dense, rtol=1e-6)
    wanted = jax.grad(lambda a: loss(a, one_hot, axis=axis))(y_hat)
    got = jax.grad(lambda a: loss(a, given, axis=axis))(y_hat)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", CLASSES)
def test_one_observation(name: str) -> None:
    loss, y_hat = getattr(fx.losses, name), scores(name, (3,), -1)
    assert float(loss(y_hat, 2)) == pytest.approx(float(loss(y_hat, np.eye(3)[2])), rel=1e-6)
    assert loss(y_hat, 2, agg=fx.identity).shape == ()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("label", [-1, 3, -100, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("compiled", [False, True])
def test_label_out_of_range_is_nan(name: str, label: int, compiled: bool) -> None:
    loss, y_hat = getattr(fx.losses, name), scores(name, (3, 3), -1)
    f = lambda a, y: loss(a, y, agg=fx.identity)
    values = (jax.jit(f) if compiled else f)(y_hat, np.array([0, label, 2], np.int32))
    assert np.isnan(values).tolist() == [False, True, False]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dtype, classes", [("int8", 128), ("uint8", 256), ("uint8", 300)])
def test_labels_shorter_than_the_number_of_classes(name: str, dtype: str, classes: int) -> None:
    """256 in eight bits is 0, and no label is below that."""
    loss, y_hat = getattr(fx.losses, name), scores(name, (2, classes), -1)
    values = loss(y_hat, np.array([0, 127], dtype), agg=fx.identity)
    np.testing.assert_array_equal(values, loss(y_hat, np.array([0, 127]), agg=fx.identity))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("label", [2**32 + 1, -(2**32) + 1, 2**31])
@pytest.mark.parametrize("x64", [False, True])
def test_label_longer_than_32_bits_is_nan(name: str, label: int, x64: bool) -> None:
    loss, y_hat = getattr(fx.losses, name), scores(name, (2, 3), -1)
    with jax.enable_x64(x64):
        values = loss(y_hat, np.array([label, 2]), agg=fx.identity)
    assert np.isnan(values).tolist() == [True, False]


def test_no_one_hot_array_is_made() -> None:
    """The compiled gradient needs about the room of its result, not of three of them."""
    n, k = 64, 4096
    f = jax.jit(jax.grad(lambda a, y: fx.logitcrossentropy(a, y)))
    memory = f.lower(jnp.ones((n, k)), jnp.ones(n, int)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.5 * n * k * 4


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, those of the functions that it calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def one_hot_arrays(f: Any, *args: Any) -> list[str]:
    """Where a program makes numbers of booleans, as one-hot arrays are made."""
    return [
        str(e)
        for e in equations(jax.make_jaxpr(f)(*args).jaxpr)
        if e.primitive.name == "convert_element_type" and e.invars[0].aval.dtype == bool
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_no_one_hot_array_stands_in_the_program(name: str) -> None:
    loss, y_hat, labels = getattr(fx.losses, name), scores(name, (5, 7), -1), jnp.arange(5)
    assert one_hot_arrays(jax.value_and_grad(loss), y_hat, labels) == []
    made = lambda a, y: loss(a, jax.nn.one_hot(y, 7))
    assert one_hot_arrays(jax.value_and_grad(made), y_hat, labels)  # it would be seen


def test_ctc_is_one_scan() -> None:
    def scans(f: Any, *args: Any) -> int:
        return sum(e.primitive.name == "scan" for e in equations(jax.make_jaxpr(f)(*args).jaxpr))

    one = jnp.zeros((6, 4)), jnp.array([0, 2])
    batch = jnp.zeros((3, 6, 4)), jnp.array([[0, 2], [1, 3], [3, 3]])
    assert scans(fx.ctc_loss, *one) == scans(fx.ctc_loss, *batch) == 1
    assert scans(jax.grad(fx.ctc_loss), *batch) == 2  # there and back


def test_the_guard_holds_back_a_label_that_is_no_class() -> None:
    model = fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3))
    opt_state = fx.setup(fx.Adam(), model)
    loss = lambda m, x, y: fx.logitcrossentropy(m(x), y)
    good, bad = (np.ones((2, 2), "f4"), np.array([0, 2])), (np.ones((2, 2), "f4"), np.array([0, 3]))
    fx.trainstep(loss, model, good, opt_state)
    before = jax.tree.leaves(model)
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(loss, model, [bad, good], opt_state)
    assert caught.value.index == 0
    for old, new in zip(before, jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_label_smoothing() -> None:
    y = np.eye(4)[[0, 3]]
    np.testing.assert_allclose(fx.label_smoothing(y, 0.2), y * 0.8 + 0.05, rtol=1e-6)
    np.testing.assert_allclose(fx.label_smoothing(y.T, 0.2, axis=0), y.T * 0.8 + 0.05, rtol=1e-6)
    np.testing.assert_allclose(fx.label_smoothing(y, 0.2, axis=None), y * 0.8 + 0.1, rtol=1e-6)
    assert fx.label_smoothing(y.astype(bool), 0.2).dtype == jnp.float32
    assert fx.label_smoothing(jnp.asarray(y, "bfloat16"), 0.2).dtype == jnp.bfloat16
    np.testing.assert_allclose(jnp.sum(fx.label_smoothing(y, 0.3), -1), 1, rtol=1e-6)
