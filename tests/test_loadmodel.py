"""loadmodel: a filter, absent biases, tensors, and what it says; walking: modules, paths."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx


class Tensor:
    """Another library's tensor: the protocols that PyTorch's speak, and a dtype of its own."""

    dtype = "other.float32"
    device = type("Device", (), {"type": "cpu"})

    def __init__(self, array: np.ndarray):
        self.array = array

    @property
    def shape(self) -> Any:
        return self.array.shape

    def detach(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray:
        return self.array

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__()


def same(a: Any, b: Any) -> bool:
    return bool(jnp.all(a == b))


def no_dropout(part: Any) -> bool:
    return not isinstance(part, fx.Dropout)


def test_a_bias_into_none_is_left_out_and_none_makes_zeros() -> None:
    bare, full = fx.Dense(2, 3, bias=False), fx.Dense(2, 3)
    full.bias = jnp.ones(3)
    for source in (full, fx.state(full)):
        fx.loadmodel(bare, source)
        assert bare.bias is None
        assert same(bare.weight, full.weight)
    bare.weight = bare.weight + 1
    for source in (bare, fx.state(bare)):
        full = fx.Dense(2, 3)
        full.bias = jnp.ones(3)
        fx.loadmodel(full, source)
        assert full.bias.tolist() == [0, 0, 0]
        assert full.bias.dtype == jnp.float32
        assert same(full.weight, bare.weight)
    inside = fx.Chain(fx.Dense(2, 3, bias=False), fx.LSTM(3, 4))
    fx.loadmodel(inside, fx.Chain(fx.Dense(2, 3), fx.LSTM(3, 4)))
    mine = {"bias": jnp.ones(2), "w": jnp.ones(1)}
    assert fx.loadmodel(mine, {"bias": None, "w": jnp.ones(1)})["bias"].tolist() == [0, 0]


def test_no_other_array_becomes_zeros() -> None:
    with pytest.raises(ValueError, match=r"got one without model\.weight"):
        fx.loadmodel(fx.Dense(2, 3), fx.Node(weight=None, bias=jnp.ones(3)))


def test_a_filter_leaves_parts_out_on_both_sides() -> None:
    old = fx.Chain(fx.Dense(2, 3), fx.Dropout(0.5), fx.Dense(3, 1))
    new = fx.Chain(fx.Dense(2, 3), fx.Dense(3, 1), fx.Dropout(0.5))
    assert fx.loadmodel(new, old, filter=no_dropout) is new
    assert same(new[1].weight, old[2].weight)
    back = fx.Chain(fx.Dense(2, 3), fx.Dropout(0.5), fx.Dense(3, 1))
    fx.loadmodel(back, new, filter=no_dropout)
    assert same(back[2].weight, old[2].weight)
    named = fx.Chain(enc=fx.Dense(2, 3), head=fx.Dense(3, 5))
    other = fx.Chain(enc=fx.Dense(2, 3), head=fx.Dense(3, 7))
    head = named.layers.head.weight
    fx.loadmodel(named, other, filter=lambda part: getattr(part, "shape", (0,))[-1] not in (5, 7))
    assert same(named.layers.enc.weight, other.layers.enc.weight)
    assert named.layers.head.weight is head


def test_a_filter_sees_arrays_and_ties_hold() -> None:
    w = jnp.zeros(2)
    mine = [w, {"w": w}, jnp.zeros(3)]
    numbers = [jnp.ones(2), {"w": jnp.ones(2)}, jnp.ones(3)]
    fx.loadmodel(mine, numbers, filter=lambda part: getattr(part, "shape", ()) != (3,))
    assert mine[0] is mine[1]["w"]
    assert (mine[0].tolist(), mine[2].tolist()) == ([1, 1], [0, 0, 0])
    for mine in ([w, {"w": w}], [{"w": w}, w]):
        new = fx.loadmodel(mine, [jnp.full(2, 3)], filter=lambda part: not isinstance(part, dict))
        flat = jax.tree.leaves(new)
        assert flat[0] is flat[1]
        assert flat[0].tolist() == [3, 3]


def test_the_message_lists_the_arrays() -> None:
    mine = fx.Chain(fx.Dense(2, 3), fx.Dense(3, 1))
    sentence = (
        "loadmodel expects a tree with the arrays of the model, got one without "
        "model.layers[1].weight, model.layers[1].bias. Leave parts out on both sides with filter=."
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fx.loadmodel(mine, fx.Chain(fx.Dense(2, 3)))
    with pytest.raises(ValueError, match=r"without model\.a, with model\['a'\] besides\."):
        fx.loadmodel(fx.Node(a=jnp.ones(1)), {"a": jnp.ones(1)})
    many = {f"w{i}": jnp.ones(1) for i in range(9)}
    with pytest.raises(ValueError, match=r"model\['w5'\] and 3 more\."):
        fx.loadmodel(many, {})


def test_tensors_are_taken() -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    layer = fx.Dense(2, 3)
    layer.weight = Tensor(numbers)
    assert isinstance(layer.weight, jax.Array)
    wanted = numbers.copy()
    numbers[:] = -1  # the other library goes on with its own
    assert same(layer.weight, wanted)
    tree = fx.setup(fx.Adam(), layer)
    fx.trainstep(lambda m, x: jnp.sum(m(x)), layer, (np.ones((4, 2), np.float32),), tree)
    fx.loadmodel(layer, fx.Node(weight=Tensor(wanted), bias=Tensor(np.ones(3, np.float32))))
    assert same(layer.weight, wanted)
    assert layer.bias.tolist() == [1, 1, 1]
    given = fx.Dense(Tensor(wanted), Tensor(np.ones(3, np.float32)))
    assert same(given.weight, wanted)
    assert given(np.ones((1, 2), np.float32)).shape == (1, 3)


def test_tensors_that_would_not_be_trained_are_named() -> None:
    model = {"a": jnp.ones(2), "b": [Tensor(np.ones(2, np.float32))]}
    with pytest.raises(TypeError, match=r"setup expects arrays, got .* at model\['b'\]\[0\]\."):
        fx.setup(fx.Adam(), model)


def test_modules_are_the_layers_once() -> None:
    shared = fx.Dense(3, 3)
    model = fx.Chain(shared, fx.SkipConnection(shared, jnp.add), fx.LayerNorm(3))
    found = fx.modules({"a": [model]})
    names = ["Chain", "Dense", "SkipConnection", "LayerNorm"]
    assert [type(m).__name__ for m in found if type(m).__name__ in names] == names
    assert found[0] is model
    assert sum(m is shared for m in found) == 1
    assert fx.modules([jnp.ones(1)]) == []


class Biased(fx.Module):
    def __init__(self, bias: Any) -> None:
        self.bias = bias


def test_tied_places_take_what_is_none_and_what_is_no_number() -> None:
    w = jnp.ones(3)
    tied = [Biased(w), Biased(w)]
    fx.loadmodel(tied, [Biased(False), Biased(jnp.zeros(3))])
    assert tied[0].bias is tied[1].bias
    assert not tied[0].bias.any()
    with pytest.raises(ValueError, match="one value for the tied"):
        fx.loadmodel(tied, [Biased(None), Biased(jnp.ones(3))])
    nan = [Biased(np.full(3, np.nan)) for _ in range(2)]
    assert np.isnan(fx.loadmodel(tied, nan)[1].bias).all()


@pytest.mark.parametrize(
    "new, message",
    [
        ({"a": np.ones(3), "b": np.ones(2)}, r"expects f32\[3\] at model\['b'\], got f64\[2\]"),
        ({"a": np.array(list("abc"))}, r"expects f32\[3\] at model\['a'\], got str"),
        ({"a": np.array([1, None, 3])}, r"expects f32\[3\] at model\['a'\], got object"),
        ({"k": jax.random.key(1), "j": np.ones(())}, r"expects key<fry>\[\] at model\['j'\]"),
        (
            {"n": np.array([1, 1000])},
            r"numbers that i8\[2\] can hold at model\['n'\], got .*1 to 1000",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_place(new: Any, message: str) -> None:
    w, key = jnp.ones(3), jax.random.key(0)
    whole = {"a": w, "b": w, "k": key, "j": key, "n": jnp.zeros(2, jnp.int8)}
    model = {name: whole[name] for name in new}
    with pytest.raises(ValueError, match=message):
        fx.loadmodel(model, new)
    assert all(model[name] is whole[name] for name in new)


def test_modules_inside_an_objective_are_the_traced_ones() -> None:
    model = fx.Chain(fx.Dense(2, 3), fx.Dense(3, 1))
    penalty = lambda m: sum(
        jnp.sum(d.weight**2) / 2 for d in fx.modules(m) if isinstance(d, fx.Dense)
    )
    grads = fx.gradient(penalty, model)[0]
    assert same(grads.layers[1].weight, model[1].weight)


def test_paths_of_trainables_are_those_of_setup() -> None:
    w = jnp.ones(2)
    model = {"net": fx.Chain(enc=fx.Dense(2, 3), dec=fx.BatchNorm(3)), "list": [w, w]}
    pairs = fx.trainables(model, path=True)
    assert [a for _, a in pairs] == fx.trainables(model)
    names = [name for name, _ in pairs]
    assert names == [
        *(f"net.layers.enc.{n}" for n in ("weight", "bias")),
        *(n for n in names if ".dec." in n),
        "list[0]",
    ]
    for name in names:
        tree = fx.setup({name: fx.Adam()}, model)
        assert sum(isinstance(leaf, fx.Leaf) for leaf in jax.tree.leaves(tree, is_leaf=_leaf)) >= 1
    seen: list[str] = []
    fx.setup(lambda path, x: seen.append(path) or fx.Descent(), {"net": model["net"]})
    assert seen == names[:-1]


def _leaf(value: Any) -> bool:
    return isinstance(value, fx.Leaf)


def test_update_without_a_gradient_says_where_one_comes_from() -> None:
    model = fx.Dense(2, 3)
    with pytest.raises(
        TypeError, match="update expects the gradient as a third argument, got none"
    ):
        fx.update(fx.setup(fx.Adam(), model), model)
