"""Bad calls of every public function: each ends in one sentence of ours, or works.

The calls and their sentences stand in `fuzz_cases.txt`. Nothing may have changed after one that
fails, and no sentence may speak of what is inside JAX.
"""

from __future__ import annotations

import builtins
import math
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import snapshot

#: What only somebody who knows the inside of JAX or of fluxax can read.
INSIDE = re.compile(
    r"tracer|traced<|PyTreeDef|treedef|deleted|donated|jaxlib|jit-wrapped|abstract array|XlaRuntime"
    r"|0x[0-9a-f]{6}|ShapedArray|_compile|<locals>|NoneType|Sidestep",
    re.IGNORECASE,
)


class Case(NamedTuple):
    """A call, the kind of its error (`None` if it works) and how its sentence begins."""

    call: str
    kind: str | None
    sentence: str


def cases() -> list[Case]:
    text = Path(__file__).with_name("fuzz_cases.txt").read_text("utf-8")
    found = re.findall(r"^(\S.*)\n    (?:works|(\w+): ?(.*))$", text, re.MULTILINE)
    return [Case(call, kind or None, sentence) for call, kind, sentence in found]


CASES = cases()


class Odd:
    """An object that nobody knows."""


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def make_world(folder: Path) -> dict[str, Any]:
    """What the names in a call stand for."""
    fx.seed(0)
    x, y = ones(4, 2), ones(4, 1)
    model = fx.Chain(enc=fx.Dense(2, 3, fx.tanh, rng=1), dec=fx.Dense(3, 1, rng=2))
    cycle: list[Any] = []
    cycle.append(cycle)
    return {
        "model": model,
        "tree": fx.setup(fx.Adam(0.1), model),
        "grad": fx.gradient(lambda m: fx.mse(m(x), y), model)[0],
        "ps": fx.params(model),
        "x": x,
        "y": y,
        "loader": fx.DataLoader((x, y), 2),
        "cyc": cycle,
        "bn": fx.BatchNorm(2),
        "emb": fx.Embedding(5, 3),
        "lstm": fx.LSTM(2, 3),
        "mha": fx.MultiHeadAttention(4, nheads=2),
        "folder": str(folder),
        **{"fx": fx, "np": np, "jnp": jnp, "ones": ones, "mse": mse, "Odd": Odd},
        **{"nan": math.nan, "inf": math.inf},
    }


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One world for all calls: none of them may change it."""
    return make_world(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.call)
def test_a_bad_call_ends_in_a_sentence(case: Case, worlds: dict[str, Any]) -> None:
    before = snapshot(worlds["model"], worlds["tree"], worlds["grad"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if case.kind is None:
            eval(case.call, worlds)
        else:
            kind = getattr(fx, case.kind, None) or getattr(builtins, case.kind)
            with pytest.raises(kind) as caught:
                eval(case.call, worlds)
            said = str(caught.value)
            assert said.startswith(case.sentence)
            assert not INSIDE.search(said), said
            assert said.rstrip().endswith((".", "!", "fits."))
    assert snapshot(worlds["model"], worlds["tree"], worlds["grad"]) == before


def test_it_still_works_afterwards(worlds: dict[str, Any]) -> None:
    losses = fx.train(mse, worlds["model"], worlds["loader"], worlds["tree"])
    assert np.isfinite(losses).all()


# --- after calls that went well: what is bad now came in by the fast way --------------------


def layer_and_tree() -> tuple[Any, Any]:
    layer = fx.Dense(2, 3, rng=0)
    return layer, fx.setup(fx.Descent(0.1), layer)


@pytest.mark.parametrize(
    "bias, got",
    [
        (jnp.ones(1), "an array of shape (3,) at grad.bias, got f32[1]."),
        (jnp.ones((2, 3)), "an array of shape (3,) at grad.bias, got f32[2,3]."),
        (jnp.ones(3, "complex64"), "a real gradient at grad.bias, got c64[3]."),
    ],
)
def test_a_bad_gradient_after_good_ones(bias: Any, got: str) -> None:
    layer, tree = layer_and_tree()
    good = fx.Node(weight=jnp.ones((2, 3)), bias=jnp.ones(3), activation=None)
    for _ in range(2):
        fx.update(tree, layer, good)
    before = snapshot(layer, tree)
    with pytest.raises(ValueError, match="^" + re.escape(f"update expects {got}")):
        fx.update(tree, layer, fx.Node(weight=good.weight, bias=bias, activation=None))
    assert snapshot(layer, tree) == before
    fx.update(tree, layer, good)


def test_a_bad_batch_after_good_ones() -> None:
    layer, tree = layer_and_tree()
    loss = lambda m, x: jnp.sum(m(x))
    for _ in range(2):
        fx.trainstep(loss, layer, ones(4, 2), tree)
    before = snapshot(layer, tree)
    for bad in (ones(4, 2).astype(object), ones(4, 2).astype("datetime64[s]"), np.array(["a"])):
        with pytest.raises(ValueError, match=r"^Dense\(2, 3\) expects an array of numbers, got "):
            fx.trainstep(loss, layer, bad, tree)
    assert snapshot(layer, tree) == before


def test_integers_where_parameters_stood() -> None:
    layer, tree = layer_and_tree()
    layer.bias = jnp.zeros(3, int)
    sentence = "trainstep expects f32[3] at model.bias, as when setup was called, got i32[3]."
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        fx.trainstep(lambda m, x: jnp.sum(m(x)), layer, ones(4, 2), tree)


# --- whole families ------------------------------------------------------------------------

RULES = [
    name
    for name, rule in vars(fx).items()
    if isinstance(rule, type) and issubclass(rule, fx.Rule) and hasattr(rule, "eta")
]
LOSSES = [name for name in fx.losses.__all__ if name not in ("label_smoothing", "mean")]


@pytest.mark.parametrize("name", RULES)
def test_a_bad_learning_rate(name: str) -> None:
    rule = getattr(fx, name)
    for eta in ("fast", None, [0.1], ones(2)):
        with pytest.raises(TypeError, match=f"^{name} expects `eta` to be a number"):
            rule(eta)
    for eta in (-1.0, math.nan):
        with pytest.raises(ValueError, match=f"^{name} expects `eta` of at least 0, got"):
            rule(eta)
    with pytest.raises(ValueError, match=f"^{name} expects `eta` to be finite, got inf"):
        rule(math.inf)
    for eta in (0, jnp.zeros(()), np.float32(0.1), lambda step: 0.1):
        assert repr(rule(eta)).startswith(f"{name}(eta=")


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_no_numbers(name: str) -> None:
    loss, good = getattr(fx, name), jnp.ones((2, 3))
    for bad in ("a", None, np.array(["a", "b"]), ones(2, 3).astype(object), {"x": 1}):
        with pytest.raises(TypeError, match=f"^{name} expects numbers as `y_hat`, got "):
            loss(bad, good)
        with pytest.raises(TypeError, match=f"^{name} expects numbers as `y`, got "):
            loss(good, bad)


ACTIVATIONS = [name for name in fx._activations.__all__ if name != "glu"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_takes_what_numbers_there_are(name: str) -> None:
    activation = getattr(fx, name)
    assert activation(ones(0, 2)).shape == (0, 2)
    assert np.shape(activation([1.0, 2.0])) == (2,)
    assert activation(np.array([math.nan, 3e38, -math.inf], "f4")).shape == (3,)


@pytest.mark.parametrize("name", [name for name in fx._activations.__all__ if name != "identity"])
def test_an_activation_of_no_numbers(name: str) -> None:
    activation = getattr(fx, name)
    for bad in ("a", None, {"x": 1}, Odd(), np.array(["a"]), [[1.0], [2.0, 3.0]]):
        with pytest.raises(TypeError, match=f"^{activation.__name__} expects numbers as `x`, got "):
            activation(bad)


def test_every_public_function_is_there() -> None:
    called = set(re.findall(r"fx\.(\w+)\(", " ".join(case.call for case in CASES)))
    public = {name for name, thing in vars(fx).items() if callable(thing) and name[0] != "_"}
    assert public - called - {*RULES, *LOSSES, *ACTIVATIONS, *ELSEWHERE} == set()


#: What takes nothing, stands under other names above, or has sentences of its own kind elsewhere.
ELSEWHERE = {"clear_cache", "explain", "eager", "strict", "glu", "activations", "ema"}
ELSEWHERE |= {
    "Module",
    "Rule",
    "Leaf",
    "Grads",
    "Params",
    "NonFiniteLoss",
    "Sometimes",
    "StaleProgram",
}


def test_there_are_many() -> None:
    assert sum(case.kind is not None for case in CASES) >= 200
    assert len({case.call for case in CASES}) == len(CASES)
