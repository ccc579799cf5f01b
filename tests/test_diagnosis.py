"""What `NonFiniteLoss` says: the place that went bad, whatever was planted, and nothing touched."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _pass, _replay
from fluxax._tree import arrays, path_string
from tests.witness import snapshot

DRAW = np.random.default_rng(3)
X = DRAW.normal(size=(64, 2)).astype("f4")
Y = X.sum(1, keepdims=True)


@pytest.fixture(autouse=True)
def few_programs() -> None:
    """One loss trains all the models here; more than eight programs for one would be a warning."""
    if any(record.traces > 5 for record in fx.explain()):
        fx.clear_cache()


def items(n: int = 3, x: Any = X, y: Any = Y) -> list[Any]:
    return [(x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]) for i in range(n)]


def planted(array: Any, row: int, value: float = np.nan) -> Any:
    new = np.array(array)
    new[row] = value
    return new


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def net() -> Any:
    return fx.Chain(
        fx.Dense(2, 5, fx.tanh, rng=1),
        fx.BatchNorm(5),
        fx.Dropout(0.3, rng=3),
        fx.Dense(5, 1, rng=2),
    )


def stopped(loss: Any, model: Any, data: Any, rule: Any = None) -> fx.NonFiniteLoss:
    """The error of a pass."""
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(loss, model, data, fx.setup(rule or fx.Adam(0.05), model))
    assert "\n" not in str(caught.value)
    return caught.value


# --- what is planted is found --------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [path_string(path) for path, a in arrays(net()) if a.dtype == np.float32]
)
def test_nan_in_each_array_of_the_model(path: str) -> None:
    model = net()
    fx.testmode(model[1])  # so that it uses its statistics
    owner, _, name = path.rpartition(".")
    layer = eval(owner, {"model": model})
    setattr(layer, name, getattr(layer, name).at[0].set(jnp.nan))
    error = stopped(mse, model, items())
    assert (error.path, error.index) == (path, 0)
    assert f"{path} itself is not finite: f32[" in str(error)
    assert " NaN among " in str(error)


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "list": lambda x, y: items(16, x, y),
    "generator": lambda x, y: iter(items(16, x, y)),
    "pieces": lambda x, y: fx.DataLoader((x, y), 4),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row, value", [(0, np.nan), (41, np.nan), (63, np.inf)])
@pytest.mark.parametrize("part", [0, 1])
def test_a_bad_number_in_the_batch(part: int, row: int, value: float, way: str) -> None:
    x, y = (planted(X, row, value), Y) if part == 0 else (X, planted(Y, row, value))
    error = stopped(mse, fx.Chain(fx.Dense(2, 1, rng=1)), WAYS[way](x, y), fx.Descent(0.01))
    assert (error.path, error.index, error.phase) == (f"batch[{part}]", row // 4, "forward")
    kind = "NaN" if np.isnan(value) else "inf"
    assert f"batch[{part}] (`{'xy'[part]}` of the loss) is not finite" in str(error)
    assert f"{kind} among" in str(error)
    assert "The learning rate is 0.01." in str(error)


def test_a_bad_number_in_a_dict_and_in_a_bare_array() -> None:
    data = fx.DataLoader({"x": X, "y": planted(Y, 9)}, 4)
    model = fx.Chain(fx.Dense(2, 1, rng=1))
    assert stopped(lambda m, d: mse(m, d["x"], d["y"]), model, data).path == "batch['y']"
    error = stopped(lambda m, x: jnp.sum(m(x)), model, [planted(X, 0)])
    assert error.path == "batch"
    assert "batch (`x` of the loss)" in str(error)


def test_a_label_out_of_range() -> None:
    model = fx.Chain(fx.Dense(2, 3, rng=1))
    data = [(X[:4], np.array([0, 2, 1, 7]))]
    error = stopped(lambda m, x, y: fx.logitcrossentropy(m(x), y), model, data)
    assert (error.path, error.phase) == ("batch[1]", "forward")
    assert "has the label 7, but the model gives 3 classes, 0 to 2" in str(error)


class Net(fx.Module):
    """A layer of the user's with a computation of its own."""

    def __init__(self) -> None:
        self.first, self.second = fx.Dense(2, 5, rng=1), fx.Dense(5, 1, rng=2)

    def __call__(self, x: Any) -> Any:
        return self.second(jnp.log(self.first(x)))


SPOT: dict[str, tuple[str, Callable[[], Any]]] = {
    "function in a Chain": (
        "model.layers[1]",
        lambda: fx.Chain(fx.Dense(2, 5, rng=1), jnp.log, fx.Dense(5, 1, rng=2)),
    ),
    "activation": (
        "model.layers[0]",
        lambda: fx.Chain(fx.Dense(2, 5, jnp.log, rng=1), fx.Dense(5, 1, rng=2)),
    ),
    "layer in a layer": (
        "model.layers[1].layers.layers[0]",
        lambda: fx.Chain(
            fx.Dense(2, 5, rng=1),
            fx.SkipConnection(fx.Chain(lambda x: x / 0.0, fx.Dense(5, 5, rng=2)), jnp.add),
            fx.Dense(5, 1, rng=4),
        ),
    ),
    "its own computation": ("model", Net),
    "after Dropout, whose numbers are others now": (
        "model.layers[2]",
        lambda: fx.Chain(fx.Dense(2, 5), fx.Dropout(0.9, rng=1), jnp.log, fx.Dense(5, 1)),
    ),
}


@pytest.mark.parametrize("path, make", SPOT.values(), ids=list(SPOT))
def test_the_first_layer_that_gives_bad_numbers(path: str, make: Any) -> None:
    error = stopped(mse, make(), items(1))
    assert (error.path, error.phase) == (path, "forward")
    assert f"In the forward pass {path} (" in str(error)
    assert "It was given f32[4," in str(error)


def test_a_loss_that_is_bad_by_itself() -> None:
    error = stopped(lambda m, x, y: jnp.log(-mse(m, x, y)), fx.Chain(fx.Dense(2, 1)), items(1))
    assert error.path == "loss"
    assert "Every layer gave finite numbers, so it was in the loss itself" in str(error)
    assert "batch[1] (`y` of the loss) is f32[4,1] from" in str(error)


def test_infinities_that_belong_there_are_not_blamed() -> None:
    model = fx.Chain(fx.Dense(2, 5, rng=1), jnp.log, fx.Dense(5, 1, rng=2))
    mask = np.full((4, 1), -np.inf, "f4")
    loss = lambda m, x, y, mask: fx.mse(m(x) + jnp.exp(mask), y)
    assert stopped(loss, model, [(*items(1)[0], mask)]).path == "model.layers[1]"


def test_a_model_that_the_loss_closes_over_is_named_as_there() -> None:
    teacher = fx.Chain(fx.Dense(2, 5, rng=1), jnp.log, fx.Dense(5, 1, rng=2))
    teacher[0].weight = planted(teacher[0].weight, 0)
    error = stopped(lambda m, x, y: fx.mse(m(x), teacher(x)), fx.Chain(fx.Dense(2, 1)), items(1))
    assert error.path == "teacher.layers[0]"
    assert "its weight is f32[2,5] with 5 NaN among 10 numbers" in str(error)


# --- only a gradient -----------------------------------------------------------------------


def spoil(x: Any) -> Any:
    """Gives what it gets, and a gradient of NaN."""
    return x + jnp.sqrt(x * 0)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_backward_pass_is_followed_from_its_end(at: int) -> None:
    layers = [fx.Dense(2, 5, rng=1), fx.Dense(5, 5, rng=2), fx.Dense(5, 1, rng=3)]
    model = fx.Chain(*layers[: at + 1], spoil, *layers[at + 1 :])
    error = stopped(mse, model, items(1))
    assert (error.path, error.phase) == (f"model.layers[{at}].weight", "backward")
    assert np.isfinite(error.value)
    assert f"The gradient that reached model.layers[{at + 1}] (spoil) was still finite" in str(
        error
    )


class Spoilt(fx.Dense):
    """A layer one of whose parameters gets a bad gradient."""

    def __call__(self, x: Any) -> Any:
        return x @ self.weight + spoil(self.bias)


def test_the_gradient_of_one_parameter() -> None:
    model = fx.Chain(fx.Dense(2, 5), Spoilt(5, 5), fx.Dense(5, 1))
    error = stopped(mse, model, items(1))
    assert (error.path, error.phase) == ("model.layers[1].bias", "backward")
    assert "The gradient that reached model.layers[1] (Spoilt(5, 5)) was still" in str(error)


@pytest.mark.slow
def test_a_gradient_that_the_loss_spoils() -> None:
    error = stopped(lambda m, x, y: spoil(mse(m, x, y)), net(), items(1))
    assert (error.path, error.phase) == ("model.layers[3].weight", "backward")
    assert "It was not finite already where the loss handed it to the model." in str(error)


def test_a_frozen_gradient_is_not_blamed() -> None:
    model = fx.Chain(Spoilt(2, 5), fx.Dense(5, 1), spoil)
    opt_state = fx.setup(fx.Adam(), model)
    fx.freeze(opt_state.layers[1])
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(mse, model, items(1), opt_state)
    assert caught.value.path == "model.layers[0].weight"


# --- the implicit style --------------------------------------------------------------------


def test_by_params() -> None:
    model = fx.Chain(fx.Dense(2, 5), fx.Dropout(0.1), spoil, fx.Dense(5, 1))
    before = snapshot(fx.trainables(model))
    loss = lambda x, y: mse(model, x, y)
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(loss, fx.params(model), items(1), fx.Adam())
    assert (caught.value.path, caught.value.phase) == ("model.layers[0].weight", "backward")
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(loss, fx.params(model), items(1, y=planted(Y, 2)), fx.Adam())
    assert caught.value.path == "batch[1]"
    assert snapshot(fx.trainables(model)) == before


# --- nothing is touched --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_model_and_state_are_those_of_single_steps(way: str) -> None:
    """The replay leaves parameters, statistics, random streams and other models alone."""
    other, twin_other = net(), net()
    model, twin = net(), net()
    opt_state, twin_state = fx.setup(fx.Adam(0.05), model), fx.setup(fx.Adam(0.05), twin)
    y = planted(Y, 41)
    for d in items(11, y=y):
        fx.trainstep(lambda m, x, y: fx.mse(m(x) + twin_other(x), y), twin, d, twin_state)
    loss = lambda m, x, y: fx.mse(m(x) + other(x), y)
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(loss, model, WAYS[way](X, y), opt_state)
    assert caught.value.path == "batch[1]"
    assert snapshot(model, opt_state, other) == snapshot(twin, twin_state, twin_other)


def test_a_loss_of_no_layers_and_no_arrays() -> None:
    error = stopped(lambda m, x: m["w"] * np.nan, {"w": jnp.ones(())}, [1.0])
    assert error.path == "loss"
    assert "it was in the loss itself. The learning" in str(error)


def test_an_uncompiled_loss_is_not_run_again() -> None:
    seen: list[int] = []

    def loss(m: Any, x: Any, y: Any) -> Any:
        seen.append(1)
        return mse(m, x, y)

    with fx.eager():
        error = stopped(loss, fx.Chain(fx.Dense(2, 1)), items(3, y=planted(Y, 5)))
    assert (error.path, error.index, len(seen)) == ("batch[1]", 1, 2)
    with fx.eager():
        error = stopped(loss, fx.Chain(fx.Dense(2, 1), jnp.log), items(3))
    assert (error.path, error.index, len(seen)) == (None, 0, 3)


def test_whatever_happens_there_the_error_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(_replay.Replay, "forward", broken)
    assert stopped(mse, fx.Chain(fx.Dense(2, 1), jnp.log), items(1)).path is None
    assert stopped(mse, fx.Chain(fx.Dense(2, 1)), items(1, y=planted(Y, 1))).path == "batch[1]"
    monkeypatch.setattr(_pass.Pass, "_batch", broken)
    error = stopped(mse, fx.Chain(fx.Dense(2, 1)), items(1, y=planted(Y, 1)))
    assert (error.path, error.index) == (None, 0)


def test_ctrl_c_in_the_replay_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(_replay.Replay, "_run", interrupted)
    model = fx.Chain(fx.Dense(2, 1, rng=1))
    before, call = snapshot(model), fx.Dense.__call__
    with pytest.raises(KeyboardInterrupt):
        fx.train(mse, model, items(1, y=planted(Y, 1)), fx.setup(fx.Adam(), model))
    assert snapshot(model) == before
    assert fx.Dense.__call__ is call


def test_the_error_can_be_pickled() -> None:
    error = stopped(mse, fx.Chain(fx.Dense(2, 1)), items(3, y=planted(Y, 5)))
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.index, again.phase, str(again)) == (
        "batch[1]",
        1,
        "forward",
        str(error),
    )


def test_few_batches_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Big ones are let go soon."""
    monkeypatch.setattr(_pass.Pass, "_BYTES", 0)
    alive: list[Any] = []
    most = [0]

    def data() -> Any:
        for _ in range(40):
            x = np.ones((4, 2), "f4")
            alive.append(weakref.ref(x))
            most[0] = max(most[0], sum(ref() is not None for ref in alive))
            yield x, np.ones((4, 1), "f4")

    model = fx.Chain(fx.Dense(2, 1))
    fx.train(mse, model, data(), fx.setup(fx.Descent(0.01), model))
    assert most[0] <= 6
