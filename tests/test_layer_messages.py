"""Every sentence that a layer can answer with, word for word."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


MESSAGES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "features": (
        lambda: fx.Dense(10, 5)(ones(4, 3)),
        ValueError,
        "Dense(10, 5) expects input of shape (…, 10), got f32[4,3].",
    ),
    "flatten": (
        lambda: fx.Chain(fx.relu, fx.Dense(784, 5))(ones(4, 28, 28, 1)),
        ValueError,
        "Dense(784, 5) expects input of shape (…, 784), got f32[4,28,28,1] at model.layers[1]. "
        "Put fx.flatten in front of it.",
    ),
    "nested": (
        lambda: fx.Chain(fx.relu, fx.Chain(fx.Dense(9, 5)))(ones(4, 3)),
        ValueError,
        "Dense(9, 5) expects input of shape (…, 9), got f32[4,3] at model.layers[1].layers[0].",
    ),
    "skip": (
        lambda: fx.SkipConnection(fx.Dense(9, 9), jnp.add)(ones(4, 3)),
        ValueError,
        "Dense(9, 9) expects input of shape (…, 9), got f32[4,3] at model.layers.",
    ),
    "integers": (
        lambda: fx.Dense(3, 5)(np.ones((4, 3), int)),
        ValueError,
        "Dense(3, 5) expects floating input, got",
    ),
    "tuple": (
        lambda: fx.Dense(3, 5)((ones(2, 3), ones(2))),
        ValueError,
        "Dense(3, 5) expects an array, got a tuple of 2. Pass its parts: an array each.",
    ),
    "sizes": (lambda: fx.Dense(0, 5), ValueError, "Dense expects in to be at least 1, got 0."),
    "one size": (
        lambda: fx.Dense(5),
        TypeError,
        "Dense expects two sizes, Dense(in, out), got only 5.",
    ),
    "float size": (
        lambda: fx.Dense(5, 2.0),
        TypeError,
        "Dense expects out to be an integer, got 2.0.",
    ),
    "activation": (
        lambda: fx.Dense(2, 3, "relu"),
        TypeError,
        "Dense expects a function as activation, got 'relu'. Write fx.relu.",
    ),
    "bias": (
        lambda: fx.Dense(2, 3, bias=ones(2)),
        ValueError,
        "Dense(2, 3) expects a bias of shape (3,), got f32[2].",
    ),
    "init": (
        lambda: fx.Dense(2, 3, init=lambda *shape: ones(3, 2)),
        ValueError,
        "Dense expects init to return an array of shape (2, 3), got f32[3,2].",
    ),
    "init of JAX's": (
        lambda: fx.Dense(2, 3, init=jax.nn.initializers.he_normal()),
        TypeError,
        "Dense expects init to be called with the sizes, as fx.glorot_uniform is, got one of "
        "JAX's, which takes a key and a shape. Write "
        "init=lambda *shape: initializer(jax.random.key(0), shape).",
    ),
    "no batch": (
        lambda: fx.Conv((3, 3), 3, 4)(ones(8, 8, 3)),
        ValueError,
        "Conv((3, 3), 3, 4) expects input of shape (N, H, W, 3), got f32[8,8,3]. "
        "Add a batch axis, x[None].",
    ),
    "no channel": (
        lambda: fx.Conv((3, 3), 1, 4)(ones(5, 8, 8)),
        ValueError,
        "Conv((3, 3), 1, 4) expects input of shape (N, H, W, 1), got f32[5,8,8]. "
        "Add a channel axis, x[..., None].",
    ),
    "channels first": (
        lambda: fx.Conv((3, 3), 3, 4)(ones(5, 3, 8, 8)),
        ValueError,
        "Conv((3, 3), 3, 4) expects input of shape (N, H, W, 3), got f32[5,3,8,8]. "
        "Channels come last: jnp.moveaxis(x, 1, -1).",
    ),
    "too small": (
        lambda: fx.Conv((3, 3), 3, 4, dilation=2)(ones(5, 4, 8, 3)),
        ValueError,
        "expects at least 5 by 5 places with padding, got f32[5,4,8,3].",
    ),
    "kernel": (
        lambda: fx.Conv(3, 1, 4),
        TypeError,
        "Conv expects kernel as a tuple, got 3. Write (3, 3) for images.",
    ),
    "groups": (
        lambda: fx.Conv((3, 3), 3, 4, groups=2),
        ValueError,
        "Conv expects groups to divide in=3, got groups=2.",
    ),
    "dilation": (
        lambda: fx.Conv((3, 3), 3, 4, dilation=0),
        ValueError,
        "Conv expects dilation to be at least 1, got 0.",
    ),
    "stride": (
        lambda: fx.Conv((3, 3), 3, 4, stride=(1, 2, 3)),
        ValueError,
        "Conv expects stride as a number or 2 numbers, got a tuple of 3.",
    ),
    "pad": (
        lambda: fx.Conv((3, 3), 3, 4, pad="valid"),
        ValueError,
        "Conv expects pad as a number, 2 or 4 numbers or \"same\", got 'valid'.",
    ),
    "negative pad": (
        lambda: fx.MaxPool((3, 3), pad=-1),
        ValueError,
        "MaxPool expects pad to be at least 0, got -1.",
    ),
    "pool": (
        lambda: fx.MaxPool((3, 3))(ones(2, 2, 5, 3)),
        ValueError,
        "MaxPool((3, 3)) expects at least 3 by 3 places with padding, got f32[2,2,5,3].",
    ),
    "p": (lambda: fx.Dropout(1.5), ValueError, "Dropout expects p from 0 to 1, got 1.5."),
    "nan p": (lambda: fx.Dropout(np.nan), ValueError, "Dropout expects p from 0 to 1, got nan."),
    "axis": (
        lambda: fx.Dropout(0.5, axis=3)(ones(2, 2)),
        ValueError,
        "Dropout(0.5, axis=(3,)) expects input with an axis 3, got f32[2,2].",
    ),
    "active": (
        lambda: fx.Dropout(0.5, active="auto"),
        ValueError,
        "Dropout expects active to be True, False or None, got 'auto'.",
    ),
    "one value": (
        lambda: fx.BatchNorm(3, active=True)(ones(1, 3)),
        ValueError,
        "BatchNorm(3, active=True) expects more than one value per channel in train mode, "
        "got f32[1,3].",
    ),
    "norm": (
        lambda: fx.LayerNorm(3, 4)(ones(3, 5)),
        ValueError,
        "LayerNorm(3, 4) expects input of shape (…, 3, 4), got f32[3,5].",
    ),
    "scale": (
        lambda: fx.Scale(3)(ones(3, 5)),
        ValueError,
        "Scale(3) expects input of shape (…, 3), got f32[3,5].",
    ),
    "no size": (lambda: fx.Scale(), ValueError, "Scale expects at least one size, got none."),
    "floats": (
        lambda: fx.Embedding(3, 5)(ones(2)),
        ValueError,
        "Embedding(3, 5) expects integers, got f32[2]. Convert them with x.astype(int).",
    ),
    "layers": (
        lambda: fx.Chain(layers=fx.relu),
        ValueError,
        "Chain expects another name for a layer, got `layers`, its attribute.",
    ),
    "list name": (
        lambda: fx.Chain(count=fx.relu),
        ValueError,
        "Chain expects names that a list does not have, got `count`.",
    ),
    "mixed": (
        lambda: fx.Chain(fx.relu, a=fx.relu),
        ValueError,
        "Chain expects its layers by position or by name, got 1 by position and 1 by name.",
    ),
    "no layer": (
        lambda: fx.Chain(fx.relu, 3),
        TypeError,
        "Chain expects layers or functions, got 3 at 1.",
    ),
    "class": (lambda: fx.Chain(fx.Dense), TypeError, "got the class Dense at 0. Call it"),
    "no time": (
        lambda: fx.LSTM(3, 5)(ones(4, 3)),
        ValueError,
        "LSTM(3, 5) expects input of shape (N, T, 3), got f32[4,3]. Add a batch axis, x[None].",
    ),
    "heads": (
        lambda: fx.MultiHeadAttention(10, nheads=3),
        ValueError,
        "MultiHeadAttention expects nheads to divide 10, got nheads=3.",
    ),
    "mask": (
        lambda: fx.MultiHeadAttention(4, nheads=1)(ones(2, 3, 4), mask=np.ones((2, 2), bool)),
        ValueError,
        "MultiHeadAttention(4, nheads=1) expects a mask that fits the scores (2, 1, 3, 3), "
        "got bool[2,2].",
    ),
    "mask word": (
        lambda: fx.MultiHeadAttention(4, nheads=1)(ones(2, 3, 4), mask="none"),
        ValueError,
        "expects mask \"causal\" or an array of booleans, got 'none'.",
    ),
    "group norm": (
        lambda: fx.GroupNorm(4, 3),
        ValueError,
        "GroupNorm expects groups to divide ch=4, got groups=3.",
    ),
    "adaptive": (
        lambda: fx.AdaptiveMaxPool((7, 7))(ones(1, 7, 6, 1)),
        ValueError,
        "AdaptiveMaxPool((7, 7)) expects at least 7 by 7 places, got f32[1,7,6,1].",
    ),
    "shuffle": (
        lambda: fx.PixelShuffle(2)(ones(1, 2, 2, 6)),
        ValueError,
        "PixelShuffle(2) expects an image (N, …, C) with channels that r to the power of its "
        "axes of space divides, got f32[1,2,2,6].",
    ),
    "state": (
        lambda: fx.LSTM(3, 5)(ones(2, 4, 3), ones(2, 5)),
        ValueError,
        "LSTM(3, 5) expects a state of shape (2, 5), (2, 5), got f32[2,5].",
    ),
    "state's size": (
        lambda: fx.GRU(3, 5)(ones(2, 4, 3), ones(3, 5)),
        ValueError,
        "GRU(3, 5) expects a state of shape (2, 5), got f32[3,5].",
    ),
    "features second": (
        lambda: fx.RNN(3, 5)(ones(2, 3, 7)),
        ValueError,
        "RNN(3, 5) expects input of shape (N, T, 3), got f32[2,3,7]. "
        "Features come last: jnp.moveaxis(x, 1, -1).",
    ),
    "group norm's channels": (
        lambda: fx.GroupNorm(4, 2)(ones(2, 4, 3, 3)),
        ValueError,
        "GroupNorm(4, 2) expects input of shape (N, …, 4), got f32[2,4,3,3]. "
        "Channels come last: jnp.moveaxis(x, 1, -1).",
    ),
    "attention's batch": (
        lambda: fx.MultiHeadAttention(4, nheads=1)(ones(2, 3, 4), ones(1, 3, 4)),
        ValueError,
        "expects queries, keys and values of one batch, keys as many as values, "
        "got (2, 3), (1, 3) and (1, 3) (N, T).",
    ),
    "bilinear": (
        lambda: fx.Bilinear((2, 3), 4)(ones(5, 2), ones(4, 3)),
        ValueError,
        "expects inputs of shapes (…, 2) and (…, 3), got f32[5,2] and f32[4,3].",
    ),
    "bilinear's sizes": (
        lambda: fx.Bilinear((2, 3)),
        TypeError,
        "Bilinear expects inputs and outputs, got only a tuple of 2.",
    ),
    "bag": (
        lambda: fx.EmbeddingBag(3, 2)(1),
        ValueError,
        "EmbeddingBag(3, 2) expects bags of indices, got 1.",
    ),
    "offsets": (
        lambda: fx.EmbeddingBag(3, 2)(np.array([1, 2]), np.array([0, 3])),
        ValueError,
        "EmbeddingBag(3, 2) expects offsets that rise from 0 to at most 2, got others.",
    ),
    "offsets' kind": (
        lambda: fx.EmbeddingBag(3, 2)(np.array([[1, 2]]), np.array([0])),
        ValueError,
        "expects its offsets as integers in one row, beside one row of indices, got i32[1] beside "
        "f32[1,2,2] from the table.",
    ),
    "offsets' reduction": (
        lambda: fx.EmbeddingBag(3, 2, jnp.prod)(np.array([1, 2]), np.array([0])),
        ValueError,
        "expects jnp.mean, sum, max or min for offsets, got another reduction.",
    ),
    "reduction": (
        lambda: fx.EmbeddingBag(3, 2, "mean"),
        TypeError,
        "EmbeddingBag expects a function as reduction, got 'mean'.",
    ),
    "upsample": (
        lambda: fx.Upsample("bilinear"),
        ValueError,
        "Upsample expects either scale or size, got neither.",
    ),
    "upsample both": (
        lambda: fx.Upsample(scale=2, size=(3, 3)),
        ValueError,
        "Upsample expects either scale or size, got both.",
    ),
    "upsample mode": (
        lambda: fx.Upsample("cubic", scale=2),
        ValueError,
        "Upsample expects mode as one of ['nearest', 'linear', 'bilinear', 'trilinear'], "
        "got 'cubic'.",
    ),
    "upsample twice": (
        lambda: fx.Upsample(2, scale=2),
        ValueError,
        "Upsample expects one scale, got 2 and 2.",
    ),
    "upsample scale": (
        lambda: fx.Upsample(scale=0),
        ValueError,
        "Upsample expects scale above 0, got 0.",
    ),
    "upsample scales": (
        lambda: fx.Upsample("bilinear", scale=(2, 2, 2)),
        ValueError,
        "Upsample expects 2 numbers for bilinear, got 3.",
    ),
    "upsample scale's kind": (
        lambda: fx.Upsample(scale=None, size=3),
        TypeError,
        "Upsample expects size as a tuple, got 3.",
    ),
    "upsample word": (
        lambda: fx.Upsample(scale="2"),
        TypeError,
        "Upsample expects scale as a number or several, got '2'.",
    ),
    "upsample input": (
        lambda: fx.Upsample("bilinear", scale=2)(ones(1, 2, 3)),
        ValueError,
        "Upsample('bilinear', scale=2) expects input of shape (N, H, W, C), got f32[1,2,3]. "
        "Add a batch axis, x[None].",
    ),
    "upsample nothing": (
        lambda: fx.Upsample(scale=2)(ones(1, 0, 3)),
        ValueError,
        "Upsample('nearest', scale=2) expects at least one place, got f32[1,0,3].",
    ),
    "weight norm": (
        lambda: fx.WeightNorm(fx.relu),
        TypeError,
        "WeightNorm expects a layer, got the function relu.",
    ),
    "weight norm's array": (
        lambda: fx.WeightNorm(fx.Dense(2, 3, bias=False), "bias"),
        ValueError,
        "WeightNorm expects an array `bias` in Dense(2, 3, bias=False), got None.",
    ),
    "weight norm's axis": (
        lambda: fx.WeightNorm(fx.Dense(2, 3), axis=2),
        ValueError,
        "WeightNorm expects an axis of an array with 2 axes, got 2.",
    ),
    "weight norm's axes": (
        lambda: fx.WeightNorm(fx.Dense(2, 3), axis="in"),
        TypeError,
        "WeightNorm expects axis as one or several axes, got 'in'.",
    ),
    "weight norm's layer": (
        lambda: fx.Chain(fx.WeightNorm(fx.Dense(2, 3)))(ones(1, 4)),
        ValueError,
        "Dense(2, 3) expects input of shape (…, 2), got f32[1,4] at model.layers[0].layer.",
    ),
    "maxout": (
        lambda: fx.Maxout(fx.Dense(2, 3), fx.Dense(2, 4))(ones(1, 2)),
        ValueError,
        "Maxout expects outputs of one shape, got f32[1,3] and f32[1,4] from its layers.",
    ),
}


@pytest.mark.parametrize("make, kind, words", MESSAGES.values(), ids=list(MESSAGES))
def test_messages(make: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    assert str(caught.value).endswith((".", ")")), "a sentence"


def test_an_error_keeps_its_place_through_pickle() -> None:
    with pytest.raises(ValueError, match="layers") as caught:
        fx.Chain(fx.Dense(2, 3))(ones(1, 1))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
