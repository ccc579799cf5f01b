"""train and trainstep: one pass, one step, the guard, and what interrupts leave behind."""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from tests.witness import compiling, snapshot

RULES = [
    fx.Descent(0.1),
    fx.Momentum(0.1),
    fx.Adam(0.05),
    fx.AdamW(0.05, lam=0.1),
    fx.OptimiserChain(fx.ClipNorm(0.5), fx.WeightDecay(0.1), fx.RMSProp(0.01)),
]


def net() -> fx.Chain:
    return fx.Chain(fx.Dense(2, 5, fx.tanh, rng=1), fx.Dense(5, 1, rng=2))


def items(n: int, size: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(7)
    xs = draw.normal(size=(n, size, 2)).astype(np.float32)
    return [(x, x.sum(-1, keepdims=True)) for x in xs]


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


# --- a pass, a step, the loop: one thing ---------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_train_trainstep_and_the_loop_agree(rule: Any) -> None:
    models = [net(), net(), net()]
    states = [fx.setup(rule, m) for m in models]
    losses = fx.train(mse, models[0], items(6), states[0])
    stepped = [fx.trainstep(mse, models[1], item, states[1]) for item in items(6)]
    looped = []
    for x, y in items(6):
        val, grads = fx.withgradient(lambda m: mse(m, x, y), models[2])
        fx.update(states[2], models[2], grads[0])
        looped.append(val)
    assert isinstance(losses, np.ndarray)
    assert losses.dtype == np.float32
    assert losses.shape == (6,)
    close(losses, np.array(stepped))
    close(losses, np.array(looped))
    close(models[0], models[1])
    close(models[0], models[2])


def test_compiled_and_eager_agree() -> None:
    models = [net(), net()]
    states = [fx.setup(fx.Adam(0.05), m) for m in models]
    losses = fx.train(mse, models[0], items(5), states[0])
    with fx.eager():
        eager = fx.train(mse, models[1], items(5), states[1])
    close(losses, eager)
    close(models[0], models[1])


def test_one_program_for_a_whole_pass_and_the_next() -> None:
    model = net()
    opt_state = fx.setup(fx.Adam(0.05), model)
    fx.train(mse, model, items(2), opt_state)
    with compiling() as seen:
        fx.train(mse, model, items(20), opt_state)
    assert seen == []
    with compiling() as seen:
        jax.jit(lambda x: x - 17)(jnp.ones(3))
    assert seen, "the listener does not listen"


def test_momentums_known_case() -> None:
    model = fx.Dense(2, 1, fx.leakyrelu, init=fx.ones32)
    opt_state = fx.setup(fx.Momentum(0.1), model)
    data = [(np.array([0.2, -0.3], "f4"), np.array([0.4], "f4"))] * 2
    fx.train(lambda m, x, y: jnp.sum(jnp.abs(m(x) - y)) * 100, model, data, opt_state)
    np.testing.assert_allclose(model.bias, [10.19], rtol=1e-5)
    # Flux's velocity is added, ours (as in Optimisers.jl) is subtracted
    (v_bias,) = jax.tree.leaves(opt_state.bias.state)
    (v_weight,) = jax.tree.leaves(opt_state.weight.state)
    np.testing.assert_allclose(v_bias, [-10.09], rtol=1e-5)
    np.testing.assert_allclose(np.ravel(v_weight), [-2.018, 3.027], rtol=1e-5)


# --- what an item may be -------------------------------------------------------------------

Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "item, loss",
    [
        (items(1)[0], mse),
        (list(items(1)[0]), mse),
        (Pair(*items(1)[0]), lambda m, d: mse(m, d.x, d.y)),
        (dict(zip("xy", items(1)[0])), lambda m, d: mse(m, d["x"], d["y"])),
        (items(1)[0][0], lambda m, x: jnp.sum(m(x) ** 2)),
        ((items(1)[0][0],), lambda m, x: jnp.sum(m(x) ** 2)),
    ],
    ids=["tuple", "list", "named tuple", "dict", "array", "tuple of one"],
)
def test_only_plain_tuples_and_lists_are_spread(item: Any, loss: Any) -> None:
    model, other = net(), net()
    opt_state = fx.setup(fx.Descent(0.1), model)
    losses = fx.train(loss, model, [item, item], opt_state)
    assert losses[1] < losses[0]
    value = fx.trainstep(loss, other, item, fx.setup(fx.Descent(0.1), other))
    assert float(value) == pytest.approx(float(losses[0]), rel=1e-6)


def test_data_is_any_iterable() -> None:
    expected = None
    for data in (
        items(4),
        tuple(items(4)),
        (d for d in items(4)),
        zip(*map(list, zip(*items(4)))),
        iter(items(4)),
        fx.DataLoader(tuple(np.concatenate(a) for a in zip(*items(4))), batchsize=4),
    ):
        model = net()
        losses = fx.train(mse, model, data, fx.setup(fx.Adam(0.1), model))
        expected = losses if expected is None else expected
        close(losses, expected)


def test_numbers_of_a_numpy_array_are_inputs() -> None:
    xs = np.linspace(0.1, 1, 30, dtype=np.float32)
    model = {"w": jnp.array(0.5, jnp.float32)}
    loss = lambda m, x, y: (m["w"] * x - y) ** 2
    fx.clear_cache()
    losses = fx.train(loss, model, zip(xs, 2 * xs), fx.setup(fx.Descent(0.1), model))
    w, expected = 0.5, []
    for x in xs.astype(np.float64):
        expected.append((w * x - 2 * x) ** 2)
        w -= 0.1 * 2 * x * (w * x - 2 * x)
    close(losses, np.array(expected))
    assert [r.traces for r in fx.explain()] == [1]


def test_a_data_set_of_one_row() -> None:
    model = net()
    x, y = np.ones((1, 2), np.float32), np.ones((1, 1), np.float32)
    opt_state = fx.setup(fx.Descent(0.1), model)
    losses = fx.train(mse, model, fx.DataLoader((x, y), batchsize=1), opt_state)
    assert losses.shape == (1,)
    assert fx.train(mse, model, fx.DataLoader((x, y)), opt_state)[0] < losses[0]


def test_a_short_last_batch_is_one_more_program() -> None:
    model = net()
    x = np.ones((10, 2), np.float32)
    fx.clear_cache()
    data = fx.DataLoader((x, x[:, :1]), batchsize=4)
    opt_state = fx.setup(fx.Adam(0.1), model)
    for _ in range(3):
        assert fx.train(mse, model, data, opt_state).shape == (3,)
    assert [r.traces for r in fx.explain()] == [2]


@pytest.mark.parametrize("data", [[], iter(()), (d for d in [])], ids=["list", "iter", "generator"])
def test_no_data_is_a_warning_and_an_empty_array(data: Any) -> None:
    model = net()
    opt_state = fx.setup(fx.Adam(0.1), model)
    before = snapshot(model, opt_state)
    with pytest.warns(UserWarning, match="no data"):
        losses = fx.train(mse, model, data, opt_state)
    assert losses.shape == (0,)
    assert isinstance(losses, np.ndarray)
    assert snapshot(model, opt_state) == before


# --- what a loss may return ----------------------------------------------------------------

Out = namedtuple("Out", "loss guess")
SHAPES = {
    "tuple": (lambda l, p: (l, p), lambda v: v[1]),
    "named tuple": (Out, lambda v: v.guess),
    "dict": (lambda l, p: {"loss": l, "guess": p}, lambda v: v["guess"]),
}


@pytest.mark.parametrize("make, guess", SHAPES.values(), ids=list(SHAPES))
def test_more_than_a_loss(make: Any, guess: Any) -> None:
    model, plain = net(), net()

    def loss(m: Any, x: Any, y: Any) -> Any:
        p = m(x)
        return make(fx.mse(p, y), p)

    opt_state, other = fx.setup(fx.Adam(0.1), model), fx.setup(fx.Adam(0.1), plain)
    x, y = items(1)[0]
    expected = plain(x)
    value = fx.trainstep(loss, model, (x, y), opt_state)
    assert type(value) is type(make(0, 0))
    close(guess(value), expected)
    fx.trainstep(mse, plain, (x, y), other)
    close(model, plain)
    losses = fx.train(loss, model, items(3), opt_state)
    close(losses, fx.train(mse, plain, items(3), other))
    close(model, plain)


# --- models --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dict", "list", "nested"])
def test_roots_that_are_no_modules(kind: str) -> None:
    make = {
        "dict": lambda: {"w": jnp.ones((2, 1)), "b": jnp.zeros(1)},
        "list": lambda: [jnp.ones((2, 1)), jnp.zeros(1)],
        "nested": lambda: {"w": (jnp.ones((2, 1)),), "b": [jnp.zeros(1)]},
    }[kind]
    use = {
        "dict": lambda m, x: x @ m["w"] + m["b"],
        "list": lambda m, x: x @ m[0] + m[1],
        "nested": lambda m, x: x @ m["w"][0] + m["b"][0],
    }[kind]
    model, dense = make(), fx.Dense(2, 1, init=fx.ones32)
    loss = lambda m, x, y: fx.mse(use(m, x), y)
    losses = fx.train(loss, model, items(5), fx.setup(fx.Adam(0.1), model))
    close(losses, fx.train(mse, dense, items(5), fx.setup(fx.Adam(0.1), dense)))
    arrays = jax.tree.leaves(model)
    close(sorted(a.size for a in arrays), [1, 2])
    close(max(arrays, key=np.size), dense.weight)


@pytest.mark.parametrize("way", ["list", "loader", "eager"])
def test_a_loss_that_is_a_number_of_the_code(way: str) -> None:
    model = {"w": jnp.ones(())}
    opt_state = fx.setup(fx.Descent(0.1), model)
    data: Any = fx.DataLoader(np.ones(2), batchsize=1) if way == "loader" else [1.0, 2.0]
    with fx.eager() if way == "eager" else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not depend on the model
        losses = fx.train(lambda m, x: 2.0, model, data, opt_state)
    assert losses.tolist() == [2.0, 2.0]
    assert float(model["w"]) == 1.0


def test_the_model_is_the_same_object_after() -> None:
    model = net()
    layers, first = model.layers, model.layers[0]
    fx.train(mse, model, items(3), fx.setup(fx.Adam(0.1), model))
    assert model.layers is layers
    assert model.layers[0] is first


def test_old_handles_stay_valid() -> None:
    model = net()
    opt_state = fx.setup(fx.Adam(0.1), model)
    w = model.layers[0].weight
    m, *_ = jax.tree.leaves(opt_state.layers[0].weight.state)
    before = np.array(w), np.array(m)
    fx.train(mse, model, items(3), opt_state)
    fx.trainstep(mse, model, items(1)[0], opt_state)
    now = jax.tree.leaves(opt_state.layers[0].weight.state)[0]
    held = np.array(now)
    fx.train(mse, model, items(3), opt_state)
    assert np.array_equal(w, before[0])
    assert np.array_equal(m, before[1])
    assert np.array_equal(now, held)
    assert not np.array_equal(model.layers[0].weight, w)


def test_a_user_may_change_the_model_between_steps() -> None:
    model = net()
    opt_state = fx.setup(fx.Descent(0.1), model)
    x, y = items(1)[0]
    fx.trainstep(mse, model, (x, y), opt_state)
    model.layers[0].weight = jnp.zeros((2, 5))
    model.layers[1].weight = jnp.zeros((5, 1))
    model.layers[1].bias = jnp.zeros(1)
    value = fx.trainstep(mse, model, (x, y), opt_state)
    assert float(value) == pytest.approx(float(np.mean(y**2)), rel=1e-5)
    np.testing.assert_allclose(model.layers[1].bias, [0.2 * np.mean(y)], rtol=1e-4)


# --- interrupts ----------------------------------------------------------------------------


def reference(steps: int, rule: Any = RULES[2]) -> list[Any]:
    """Model and state after a number of whole steps."""
    model = net()
    opt_state = fx.setup(rule, model)
    for item in items(20)[:steps]:
        fx.trainstep(mse, model, item, opt_state)
    return snapshot(model, opt_state)


def broken(at: int, error: BaseException) -> Iterator[Any]:
    yield from items(20)[:at]
    raise error


@pytest.mark.parametrize("at", [0, 1, 5, 17])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk"), StopAsyncIteration()])
def test_an_error_in_the_data_leaves_whole_steps(error: BaseException, at: int) -> None:
    model = net()
    opt_state = fx.setup(RULES[2], model)
    with pytest.raises(type(error)):
        fx.train(mse, model, broken(at, error), opt_state)
    assert snapshot(model, opt_state) == reference(at)
    assert np.isfinite(fx.train(mse, model, items(2), opt_state)).all()


def test_an_error_in_the_loss_leaves_whole_steps() -> None:
    def loss(m: Any, x: Any, y: Any) -> Any:
        if x.shape[0] == 3:
            raise RuntimeError("a bad batch")
        return mse(m, x, y)

    model = net()
    opt_state = fx.setup(RULES[2], model)
    data = [*items(20)[:4], items(1, size=3)[0]]
    with pytest.raises(RuntimeError, match="a bad batch"):
        fx.train(loss, model, data, opt_state)
    assert snapshot(model, opt_state) == reference(4)


@pytest.mark.parametrize("way", ["trainstep", "list", "pieces"])
@pytest.mark.parametrize("kind", ["module", "dict"])
def test_another_dtype_is_another_program(way: str, kind: str) -> None:
    def loss(m: Any, x: Any) -> Any:
        out = m(x) if kind == "module" else x @ m["w"]
        return jnp.mean(out**2) * (2.0 if out.dtype == jnp.float32 else 3.0)

    for dtype in (np.float32, np.float16, np.float32):
        weight = jnp.ones((2, 2), dtype)
        model = fx.Dense(weight, False) if kind == "module" else {"w": weight}
        opt_state = fx.setup(fx.Momentum(0.1), model)
        x = np.ones((8, 2), dtype)
        if way == "trainstep":
            found = fx.trainstep(loss, model, (x,), opt_state)
        else:
            data = [(x,)] if way == "list" else fx.DataLoader((x,), 4)
            found = fx.train(loss, model, data, opt_state)[0]
        assert float(found) == (8.0 if dtype == np.float32 else 12.0)
        (after,) = fx.trainables(model)
        assert after.dtype == dtype
