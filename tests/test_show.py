"""How models print: constructors, counts, totals, ties, modes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


class Net(fx.Module):
    """A user's model: Modules in attributes, in lists and in dicts, and an array of its own."""

    def __init__(self) -> None:
        self.enc = fx.Dense(2, 3)
        self.blocks = [fx.Dense(3, 3), fx.LayerNorm(3)]
        self.heads = {"a": fx.Scale(3)}
        self.token = jnp.ones((3, 4))
        self.depth = 3


class Affine(fx.Module):
    def __init__(self) -> None:
        self.scale = jnp.ones(2)
        self.rounds = 3


MODELS = {
    "layer": (lambda: fx.Dense(2, 3), "Dense(2, 3)  # 9 parameters"),
    "one parameter": (lambda: fx.Scale(1, bias=False), "Scale(1, bias=False)  # 1 parameter"),
    "thousands": (lambda: fx.Dense(784, 64), "Dense(784, 64)  # 50_240 parameters"),
    "zeros": (
        lambda: fx.Dense(2, 3, init=fx.zeros32),
        "Dense(2, 3)  # 9 parameters (all zero)",
    ),
    "nan": (
        lambda: fx.Dense(jnp.array([[jnp.nan]]), False),
        "Dense(1, 1, bias=False)  # 1 parameter (some NaN)",
    ),
    "inf": (
        lambda: fx.Dense(jnp.array([[jnp.inf]]), False),
        "Dense(1, 1, bias=False)  # 1 parameter (some Inf)",
    ),
    "nothing": (lambda: fx.MaxPool((2, 2)), "MaxPool((2, 2))"),
    "dropout": (lambda: fx.Dropout(0.3, active=False), "Dropout(0.3, active=False)"),
    "norm": (
        lambda: fx.BatchNorm(2, momentum=0.5),
        "BatchNorm(2, momentum=0.5)  # 4 parameters, plus 4 non-trainable",
    ),
    "bare norm": (
        lambda: fx.BatchNorm(2, affine=False),
        "BatchNorm(2, affine=False)  # 4 non-trainable",
    ),
    "user's layer": (Affine, "Affine(scale=f32[2], rounds=3)  # 2 parameters"),
    "empty": (fx.Chain, "Chain()"),
    "chain": (
        lambda: fx.Chain(
            fx.Conv((3, 3), 1, 16, fx.relu, pad=1, groups=1),
            fx.BatchNorm(16),
            fx.flatten,
            fx.Chain(dec=fx.Dense(4, 2, fx.tanh, bias=False), act=jnp.tanh),
        ),
        """\
Chain(
  Conv((3, 3), 1, 16, relu, pad=1),     # 160 parameters
  BatchNorm(16),                        # 32 parameters, plus 32 non-trainable
  flatten,
  Chain(
    dec=Dense(4, 2, tanh, bias=False),  # 8 parameters
    act=tanh,
  ),
)                   # Total: 5 trainable arrays, 200 parameters, plus 2 non-trainable, \
32 numbers, 928 bytes.""",
    ),
    "user's model": (
        Net,
        """\
Net(
  enc=Dense(2, 3),                      # 9 parameters
  blocks=[
    Dense(3, 3),                        # 12 parameters
    LayerNorm(3),                       # 6 parameters
  ],
  heads={
    'a': Scale(3),                      # 6 parameters
  },
  token=f32[3,4],                       # 12 parameters
  depth=3,
)                   # Total: 9 arrays, 45 parameters, 180 bytes.""",
    ),
}


@pytest.mark.parametrize("make, text", MODELS.values(), ids=list(MODELS))
def test_printed_model(make: Any, text: str) -> None:
    assert str(make()) == text


@pytest.mark.parametrize("make, text", MODELS.values(), ids=list(MODELS))
def test_repr_is_short_where_it_can_be(make: Any, text: str) -> None:
    short = text if "\n" in text else text.partition("  #")[0]
    assert repr(make()) == short
    assert f"[{make()!r}]" == f"[{short}]"


def test_ties() -> None:
    first = fx.Dense(3, 3)
    model = fx.Chain(first, first, fx.Dense(first.weight, False), fx.Dense(first.weight, True))
    assert (
        str(model)
        == """\
Chain(
  Dense(3, 3),                          # 12 parameters
  Dense(3, 3),                          # tied to model.layers[0]
  Dense(3, 3, bias=False),              # tied to model.layers[0].weight
  Dense(3, 3),                          # 3 parameters (all zero), weight tied to \
model.layers[0].weight
)                   # Total: 3 arrays, 15 parameters, 60 bytes."""
    )


def test_ties_of_a_users_model() -> None:
    net = Net()
    net.again, net.heads["b"] = net.blocks[0], net.blocks[0]
    net.frozen = fx.Dense(net.enc.weight, False)
    text = str(net)
    assert "    'b': Dense(3, 3),                   # tied to model.blocks[0]\n" in text
    assert "  again=Dense(3, 3),                    # tied to model.blocks[0]\n" in text
    assert "  frozen=Dense(2, 3, bias=False),       # tied to model.enc.weight\n" in text
    assert text.endswith("# Total: 9 arrays, 45 parameters, 180 bytes.")


@dataclasses.dataclass
class Table:
    rows: Any
    name: str = "t"


def test_other_peoples_containers() -> None:
    class Other(fx.Module):
        def __init__(self) -> None:
            self.small = Table(jnp.ones(3))
            self.large = eqx.nn.MLP(2, 2, 2, 2, key=jax.random.key(0))

    assert str(Other()).splitlines()[0] == (
        "Other(small=Table(rows=f32[3], name='t'), large=MLP(...))  # 21 parameters"
    )


def test_mode_set_by_hand() -> None:
    model = fx.Chain(fx.Dropout(0.5), fx.BatchNorm(2))
    assert "active" not in str(model)
    with fx.trainmode(model):
        assert str(model).count("active=True") == 2
    assert "active" not in str(model)


CONSTRUCTORS = [
    "Conv((5, 5), 3, 7, relu, stride=2, pad=2)",
    "Conv((5, 3), 4, 8, stride=(2, 1), pad=(2, 1), dilation=2, groups=4, flipkernel=True)",
    "Conv((4,), 1, 2, pad=(1, 2))",
    "Conv((4, 4), 1, 2, pad=(1, 2, 1, 2))",
    "Conv((5, 5), 1, 2, bias=False, pad=(1, 2))",
    "Dense(3, 4, softplus, bias=False)",
    "MaxPool((3, 3), stride=1, pad=1)",
    "MeanPool((3,))",
    "Dropout(0.5, axis=(0,), active=True)",
    "BatchNorm(4, relu, track_stats=False, eps=0.001)",
    "LayerNorm(4, 5, relu, affine=False)",
    "Scale(4, 5, relu)",
    "Embedding(4, 5)",
    "GlobalMaxPool()",
]


@pytest.mark.parametrize("text", CONSTRUCTORS)
def test_constructors_read_back(text: str) -> None:
    assert repr(eval(text, dict(vars(fx)))) == text


def test_functions() -> None:
    softmax = functools.partial(fx.softmax, axis=1)
    assert "partial(softmax, axis=1)," in str(fx.Chain(softmax))
    assert "<lambda>," in str(fx.Chain(lambda x: x))


def test_whatever_stands_in_the_place_of_arrays_prints() -> None:
    model = fx.Chain(fx.Dense(2, 3), fx.Conv((3, 3), 1, 2), fx.BatchNorm(2))
    for other in (lambda a: None, jnp.shape, lambda a: "x", lambda a: 1.0):
        assert repr(jax.tree.map(other, model)).startswith("Chain(")
    assert "Dense(2, 3)" in repr(jax.eval_shape(lambda: fx.Dense(2, 3)))
    seen = []
    jax.jit(lambda m: seen.append(str(m)))(model)
    assert "9 parameters" in seen[0]


def test_a_cycle_prints_and_ends() -> None:
    net = Affine()
    net.child = net
    assert "..." in repr(net)


def test_deleted_arrays_print() -> None:
    layer = fx.Dense(2, 3)
    layer.weight.delete()
    assert str(layer) == "Dense(2, 3)  # 9 parameters"


def test_integer_arrays_and_numpy_count_as_what_they_are() -> None:
    layer = Affine()
    layer.order = np.arange(5)
    assert str(layer).endswith("# 2 parameters, plus 5 non-trainable")


def test_outputsize_and_summary() -> None:
    model = fx.Chain(fx.Conv((3, 3), 3, 8, fx.relu), fx.flatten, fx.Chain(fx.Dense(288, 2)))
    assert fx.outputsize(model, (5, 8, 8, 3)) == (5, 2)
    assert fx.outputsize(fx.Embedding(7, 3), (2, 5), dtype="int32") == (2, 5, 3)
    assert fx.outputsize(fx.Parallel(lambda a, b: (a, b), fx.relu, fx.tanh), (2,), (3,)) == (
        (2,),
        (3,),
    )
    before = jax.tree.structure(model)
    text = fx.summary(model, np.ones((5, 8, 8, 3)))
    assert jax.tree.structure(model) == before
    assert (
        text
        == """\
Chain(
  Conv((3, 3), 3, 8, relu),             # f32[5,6,6,8], 224 parameters
  flatten,                              # f32[5,288]
  Chain(
    Dense(288, 2),                      # f32[5,2], 578 parameters
  ),
)                   # Total: 4 arrays, 802 parameters, 3.1 KiB."""
    )
    with pytest.raises(ValueError, match=r"at model\.layers\[0\]"):
        fx.summary(model, np.ones((5, 8, 8, 1)))


def test_summary_and_outputsize_take_functions_and_numpy_sizes() -> None:
    assert fx.summary(fx.relu, np.ones((2, 3), "f4")).startswith("relu")
    assert fx.outputsize(fx.relu, (np.int64(2), 3)) == (2, 3)


def test_summary_of_a_users_model_leaves_it_alone() -> None:
    class Both(fx.Module):
        def __init__(self) -> None:
            self.a, self.b = fx.Dense(3, 2), fx.Dropout(0.5, active=True)

        def __call__(self, x: Any) -> Any:
            return self.b(self.a(x))

    model = Both()
    stream = model.b.stream
    assert "a=Dense(3, 2),                        # f32[4,2], 8 parameters" in fx.summary(
        model, np.ones((4, 3))
    )
    assert model.b.stream is stream
    assert model.b.active
    assert type(model.a) is fx.Dense
