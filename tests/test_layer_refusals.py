"""Sentences of layers that came later, and of layers' functions, word for word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def abs_cell(x: Any, state: Any) -> Any:
    return jnp.abs(x)


def growing_cell(x: Any, state: Any) -> Any:
    return x, x if state is None else jnp.concatenate([state, x])


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "attention's bias": (
        lambda: fx.MultiHeadAttention(4, nheads=1)(ones(2, 3, 4), bias=ones(2, 2)),
        ValueError,
        "MultiHeadAttention(4, nheads=1) expects a bias that fits the scores (2, 1, 3, 3), "
        "got f32[2,2].",
    ),
    "attention without weights": (
        lambda: fx.dot_product_attention(ones(2, 3, 4), ones(2, 3, 5)),
        ValueError,
        "dot_product_attention expects (N, T, features), as many in keys as in queries, got "
        "f32[2,3,4], f32[2,3,5] and f32[2,3,5].",
    ),
    "heads without weights": (
        lambda: fx.dot_product_attention(ones(2, 3, 4), nheads=3),
        ValueError,
        "dot_product_attention expects nheads to divide the features, got nheads=3 and f32[2,3,4]",
    ),
    "padding only": (
        lambda: fx.Chain(fx.MaxPool((2, 2), pad=2))(ones(2, 3, 3, 4)),
        ValueError,
        "MaxPool((2, 2), pad=2) expects less padding than that: a window would see nothing of "
        "f32[2,3,3,4] at model.layers[0].",
    ),
    "complex statistics": (
        lambda: fx.BatchNorm(3)(ones(2, 3) + 1j * ones(2, 3)),
        ValueError,
        "BatchNorm(3) expects real numbers, got c64[2,3].",
    ),
    "complex order": (
        lambda: fx.Maxout(fx.identity)(1j * ones(2)),
        ValueError,
        "Maxout expects real outputs of its layers, got c64[2].",
    ),
    "convolution's channels": (
        lambda: fx.Conv((3, 3), 4),
        TypeError,
        "Conv expects its channels too, Conv(kernel, in, out), got only (3, 3).",
    ),
    "convolution's weights": (
        lambda: fx.ConvTranspose(ones(2, 3)),
        ValueError,
        "ConvTranspose expects weights of three to five axes, got f32[2,3].",
    ),
    "two biases": (
        lambda: fx.Conv(ones(3, 1, 2), ones(2), bias=False),
        TypeError,
        "Conv expects one bias and one activation, got two.",
    ),
    "two activations": (
        lambda: fx.Conv(ones(3, 1, 2), True, fx.relu, fx.tanh),
        TypeError,
        "Conv expects one bias and one activation, got two.",
    ),
    "padding index": (
        lambda: fx.Embedding(4, 2, padding_idx=4),
        ValueError,
        "Embedding expects padding_idx from 0 to 3, got 4.",
    ),
    "none beside": (
        lambda: fx.Parallel(jnp.add),
        ValueError,
        "Parallel expects at least one layer, got none.",
    ),
    "no input": (
        lambda: fx.Parallel(jnp.add, fx.relu)(),
        ValueError,
        "Parallel expects at least one input, got none.",
    ),
    "recurrence of no pair": (
        lambda: fx.Recurrence(abs_cell)(ones(2, 3, 4)),
        TypeError,
        "Recurrence expects a cell that returns an output and a state, got f32[2,4]. "
        "Return `y, state`.",
    ),
    "recurrence of an image": (
        lambda: fx.Recurrence(abs_cell)(ones(2, 3)),
        ValueError,
        "expects input of shape (N, T, in) with some time, got f32[2,3].",
    ),
    "recurrence of other features": (
        lambda: fx.Chain(fx.Recurrence(fx.GRUCell(3, 5)))(ones(2, 7, 4)),
        ValueError,
        "Recurrence expects input of shape (N, T, 3), got f32[2,7,4] at model.layers[0].",
    ),
    "recurrence of a number": (
        lambda: fx.Recurrence(lambda x, state: (0.0, x))(ones(2, 3, 4)),
        TypeError,
        "Recurrence expects a cell whose output has a batch axis, got 0.0.",
    ),
    "recurrence that grows": (
        lambda: fx.Recurrence(growing_cell)(ones(2, 3, 4)),
        TypeError,
        "Recurrence expects a cell whose state keeps its shape and type, got f32[4,4] after "
        "f32[2,4].",
    ),
    "recurrence that forgets": (
        lambda: fx.Recurrence(lambda x, state: (x, x if state is None else None))(ones(2, 3, 4)),
        TypeError,
        "Recurrence expects a cell whose state keeps its shape and type, got None after f32[2,4].",
    ),
    "no layers left": (
        lambda: fx.Maxout(fx.relu, fx.tanh)[2:],
        ValueError,
        "Maxout expects at least one layer, got none.",
    ),
    "more than a scale has": (
        lambda: fx.Scale(ones(2), True, fx.relu, 3),
        TypeError,
        "Scale expects scale, bias and activation, got 4.",
    ),
    "depthwise weights": (
        lambda: fx.DepthwiseConv(ones(3, 1, 4), 2, 4),
        TypeError,
        "DepthwiseConv expects kernel as a tuple of sizes, got f32[3,1,4]. For weights of your own "
        "write Conv(weights, groups=in).",
    ),
    "no state": (
        lambda: fx.initialstates(fx.Dense(2, 3)),
        TypeError,
        "initialstates expects a recurrent cell or layer, got a Dense. A cell of your own needs a "
        "method `initialstates()`.",
    ),
    "normalise's axis": (
        lambda: fx.normalise(ones(2, 3), 2),
        ValueError,
        "normalise expects an axis of an array with 2 axes, got 2.",
    ),
    "dropout's axis": (
        lambda: fx.dropout(ones(2, 3), 0.5, axis=2),
        ValueError,
        "dropout expects input with an axis 2, got f32[2,3].",
    ),
}


@pytest.mark.parametrize("make, kind, words", REFUSED.values(), ids=list(REFUSED))
def test_refusals(make: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
