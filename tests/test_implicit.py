"""The implicit style: the explicit one's numbers, from a function that reads its parameters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fluxax as fx

DRAW = np.random.default_rng(3)
X, Y = DRAW.normal(size=(6, 2)).astype("f4"), DRAW.normal(size=(6, 1)).astype("f4")
DATA = [(X[:4], Y[:4]), (X[2:], Y[2:])] * 5
ETA, THEN, EACH = 0.1, 0.02, len(DATA)  # another learning rate for the second pass


def net() -> fx.Chain:
    return fx.Chain(enc=fx.Dense(2, 3, fx.tanh, rng=1), dec=fx.Dense(3, 1, rng=2))


def arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(tree)]


def assert_close(a: Any, b: Any) -> None:
    for left, right in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def traces(line: str) -> list[tuple[int, bool]]:
    """How often objectives of this file were traced, and whether they run compiled."""
    return [(r.traces, r.compiled) for r in fx.explain() if line in r.where]


# --- both styles agree --------------------------------------------------------------------

PARTS: dict[str, Callable[[Any], Any]] = {"whole": lambda m: m, "part": lambda m: m.layers.enc}


def by_update(model: Any, ps: Any, opt: Any) -> None:
    for x, y in DATA:
        gs = fx.gradient(lambda: fx.mse(model(x), y), ps)
        fx.update(opt, ps, gs)


def by_train(model: Any, ps: Any, opt: Any) -> None:
    fx.train(lambda x, y: fx.mse(model(x), y), ps, DATA, opt)


def by_trainstep(model: Any, ps: Any, opt: Any) -> None:
    for batch in DATA:
        fx.trainstep(lambda x, y: fx.mse(model(x), y), ps, batch, opt)


def uncompiled(model: Any, ps: Any, opt: Any) -> None:
    with fx.eager():
        by_update(model, ps, opt)
        assert not any(isinstance(a, jax.core.Tracer) for a in ps)


def train_uncompiled(model: Any, ps: Any, opt: Any) -> None:
    with fx.eager():
        by_train(model, ps, opt)


@pytest.fixture(scope="module", params=PARTS)
def explicit(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A model after 20 steps of Adam in the explicit style, of which a part was trained."""
    model, part = net(), PARTS[request.param]
    opt_state = fx.setup(fx.Adam(ETA), part(model))
    for eta in (ETA, THEN):
        fx.adjust(opt_state, eta)
        for x, y in DATA:
            grads = fx.gradient(lambda m: fx.mse(m(x), y), model)
            fx.update(opt_state, part(model), part(grads[0]))
    return request.param, model


@pytest.mark.parametrize(
    "way",
    [by_update, by_train, by_trainstep, uncompiled, train_uncompiled],
    ids=lambda f: f.__name__,
)
def test_twenty_steps_of_both_styles_agree(explicit: tuple[str, Any], way: Any) -> None:
    which, expected = explicit
    model = net()
    ps, opt = fx.params(PARTS[which](model)), fx.Adam(ETA)
    way(model, ps, opt)
    opt.eta = THEN
    way(model, ps, opt)
    assert_close(model, expected)
    assert (which == "part") == np.array_equal(model.layers.dec.weight, net().layers.dec.weight)


def test_params_made_anew_in_every_step_are_the_same(explicit: tuple[str, Any]) -> None:
    which, expected = explicit
    model, opt = net(), fx.Adam(ETA)
    for eta in (ETA, THEN):
        opt.eta = eta
        for x, y in DATA:
            ps = fx.params(PARTS[which](model))
            fx.update(opt, fx.params(ps), fx.gradient(lambda: fx.mse(model(x), y), ps))
    assert_close(model, expected)


def test_nothing_is_compiled_twice() -> None:
    fx.clear_cache()
    model, opt = net(), fx.Adam(ETA)
    ps = fx.params(model)
    for eta in (0.1, 0.05, 0.02):
        opt.eta = eta
        val, gs = fx.withgradient(lambda: fx.mse(model(X), Y), ps)
        fx.update(opt, ps, gs)
        fx.train(lambda x, y: fx.mse(model(x), y), ps, [(X, Y)], opt)
    assert traces(__file__) == [(1, True), (1, True)]
    assert float(val) < 3


@pytest.mark.slow
def test_optax_and_chains_are_rules_here_too() -> None:
    for rule in (
        optax.sgd(0.1, momentum=0.9),
        fx.OptimiserChain(fx.ClipNorm(0.1), fx.Momentum(0.1)),
    ):
        a, b = net(), net()
        opt_state, ps = fx.setup(rule, a), fx.params(b)
        for _ in range(2):
            fx.update(opt_state, a, fx.gradient(lambda m: fx.mse(m(X), Y), a)[0])
            fx.update(rule, ps, fx.gradient(lambda: fx.mse(b(X), Y), ps))
        assert_close(a, b)


def test_a_member_of_a_chain_is_adjusted() -> None:
    a, b = net(), net()
    opt = fx.OptimiserChain(fx.WeightDecay(0.1), fx.Descent(0.1))
    opt_state, ps = fx.setup(opt, a), fx.params(b)
    for eta in (0.1, 0.3):
        fx.adjust(opt_state, eta, lam=eta)
        opt.opts[0].lam = opt.opts[1].eta = eta
        fx.update(opt_state, a, fx.gradient(lambda m: fx.mse(m(X), Y), a)[0])
        fx.update(opt, ps, fx.gradient(lambda: fx.mse(b(X), Y), ps))
    assert_close(a, b)


# --- what the function may read -----------------------------------------------------------


@pytest.mark.slow
def test_a_penalty_over_the_params_themselves() -> None:
    fx.clear_cache()
    model = net()
    ps = fx.params(model)
    half = lambda p: jnp.sum(p**2) / 2
    gs = fx.gradient(lambda: fx.mse(model(X), Y) + 0.42 * sum(map(half, ps)), ps)
    expected = fx.gradient(
        lambda m: fx.mse(m(X), Y) + 0.42 * sum(half(p) for p in fx.params(m)), model
    )
    assert_close(gs.values(), expected[0])
    assert traces(__file__) == [(1, True)] * 2
    with fx.eager():
        gs = fx.gradient(lambda: fx.mse(model(X), Y) + 0.42 * sum(map(half, ps)), ps)
    assert_close(gs.values(), expected[0])


def slope(w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of the mean squared error of a linear map, in float64."""
    off = X.astype(np.float64) @ w + b - Y
    return 2 * X.T @ off / Y.size, 2 * off.sum(0) / Y.size


@pytest.mark.parametrize("mode", [nullcontext, fx.eager])
@pytest.mark.parametrize("how", ["update", "train"])
def test_numpy_arrays_are_updated_in_place(mode: Any, how: str) -> None:
    W, b = np.full((2, 1), 0.5), np.zeros(1, np.float32)
    named, ps, opt = (W, b), fx.params([W], b), fx.Descent(0.1)
    w64, b64 = W.copy(), b.astype(np.float64)
    with mode():
        for _ in range(3):
            if how == "train":
                fx.train(lambda x, y: fx.mse(x @ W + named[1], y), ps, [(X, Y)], opt)
            else:
                fx.update(opt, ps, fx.gradient(lambda: fx.mse(X @ W + named[1], Y), ps))
            w64, b64 = (p - 0.1 * g for p, g in zip((w64, b64), slope(w64, b64), strict=True))
    assert (W is named[0], W.dtype, b.dtype) == (True, np.float64, np.float32)
    np.testing.assert_allclose(W, w64, rtol=1e-5)
    np.testing.assert_allclose(b, b64, rtol=1e-5)


def test_dicts_and_lists_of_jax_arrays() -> None:
    model = {"layer": [jnp.full((2, 1), 0.5), jnp.zeros(1)], "name": "line"}
    ps = fx.params(model)
    old = model["layer"][0]
    gs = fx.gradient(lambda: fx.mse(X @ model["layer"][0] + model["layer"][1], Y), ps)
    np.testing.assert_allclose(gs[old], slope(np.full((2, 1), 0.5), np.zeros(1))[0], rtol=1e-5)
    fx.update(fx.Descent(0.1), ps, gs)
    np.testing.assert_allclose(model["layer"][0], old - 0.1 * gs[old], rtol=1e-6)
    assert gs[model["layer"], 0] is gs[model["layer"][0]] is gs[old]


class Scales(fx.Module):
    """A Module with its arrays in a tuple, which cannot be changed but in its place."""

    def __init__(self) -> None:
        self.scales = (jnp.ones(2), jnp.full(2, 3.0))

    def __call__(self, x: Any) -> Any:
        return x * self.scales[0] * self.scales[1]


@pytest.mark.parametrize("mode", [nullcontext, fx.eager])
def test_a_tuple_in_a_module_is_replaced(mode: Any) -> None:
    model = Scales()
    ps = fx.params(model)
    with mode():
        gs = fx.gradient(lambda: jnp.sum(model(jnp.ones(2))), ps)
    fx.update(fx.Descent(0.5), ps, gs)
    assert [s.tolist() for s in model.scales] == [[-0.5, -0.5], [2.5, 2.5]]


@pytest.mark.slow
def test_statistics_are_written_unless_the_value_is_not_finite() -> None:
    for mode in (nullcontext, fx.eager):
        layer = fx.BatchNorm(2)
        ps, factor = fx.params(layer), [1.0]
        objective = lambda: jnp.sum(layer(X) ** 2) * factor[0]
        with mode():
            fx.gradient(objective, ps)
            after = np.asarray(layer.mean)
            factor[0] = np.nan
            fx.gradient(objective, ps)
        np.testing.assert_allclose(after, 0.1 * X.mean(0), rtol=1e-5)
        assert np.array_equal(layer.mean, after)


# --- uncompiled ---------------------------------------------------------------------------


def test_effects_happen_once_and_on_the_users_own_objects() -> None:
    model, seen = net(), []
    ps = fx.params(model)

    def loss() -> Any:
        value = fx.mse(model(X), Y)
        seen.append((float(value), model.layers.enc.weight))
        return value

    with pytest.warns(UserWarning, match="runs uncompiled"):
        gs = fx.gradient(loss, ps)
    expected = fx.gradient(lambda m: fx.mse(m(X), Y), model)[0]
    assert_close(gs.values(), expected)
    assert len(seen) == 1
    assert seen[0][0] == pytest.approx(float(fx.mse(model(X), Y)))
    assert np.array_equal(seen[0][1], model.layers.enc.weight)


def test_after_an_error_everything_stands_where_it_stood() -> None:
    model, other, w = net(), net(), np.ones(2)
    ps = fx.params(model, other, w)  # the function does not reach `other`
    before = list(ps)

    def loss() -> Any:
        if float(jnp.sum(w)) > 0:
            raise RuntimeError("mine")
        return fx.mse(model(X), Y)

    with pytest.raises(RuntimeError, match="mine"):
        fx.gradient(loss, ps)
    assert [p is q for p, q in zip(ps, before, strict=True)] == [True] * 9
    assert w is before[-1]  # the variable that the function names


# --- tied, untouched, not finite ----------------------------------------------------------


def test_tied_arrays_stay_one() -> None:
    w = jnp.array(DRAW.normal(size=(2, 2)).astype("f4"))
    a, b = ({"enc": [w], "dec": [w]} for _ in range(2))
    loss = lambda m: jnp.sum((X @ m["enc"][0] @ m["dec"][0].T - X) ** 2)
    opt_state, opt, ps = fx.setup(fx.Adam(0.1), a), fx.Adam(0.1), fx.params(b)
    for _ in range(3):
        fx.update(opt_state, a, fx.gradient(loss, a)[0])
        gs = fx.gradient(lambda: loss(b), ps)
        fx.update(opt, ps, gs)
    assert b["enc"][0] is b["dec"][0]
    assert (len(ps), len(gs)) == (1, 1)
    assert_close(a, b)


def test_a_loss_that_touches_nothing_gives_none_and_one_warning() -> None:
    model = net()
    ps = fx.params(model)
    objective = lambda: fx.mse(net()(X), Y)
    with pytest.warns(UserWarning, match="does not touch the parameters in these Params"):
        gs = fx.gradient(objective, ps)
    assert gs[model.layers.enc.weight] is None
    assert fx.gradient(objective, ps).values() == [None] * 4
    before = arrays(model)
    fx.update(fx.AdamW(0.1, lam=0.1), ps, gs)
    assert all(map(np.array_equal, arrays(model), before))


def test_what_is_not_touched_stays_without_a_warning() -> None:
    model = net()
    ps = fx.params(model)
    gs = fx.gradient(lambda: jnp.sum(model.layers.enc(X) ** 2), ps)
    dec = model.layers.dec.weight
    fx.update(fx.Adam(), ps, gs)
    assert gs[dec] is None
    assert model.layers.dec.weight is dec
    assert model.layers.enc.weight is not gs.keys()[0]


def test_train_stops_before_the_item_that_is_not_finite() -> None:
    model, opt = net(), fx.Adam(0.1)
    ps = fx.params(model)
    loss = lambda x, y: fx.mse(model(x), y)
    fx.train(loss, ps, [(X, Y)], opt)
    before = arrays(model)
    with pytest.raises(fx.NonFiniteLoss) as caught:
        fx.train(loss, ps, [(X * np.inf, Y), (X, Y)], opt)
    assert caught.value.index == 0
    assert all(map(np.array_equal, arrays(model), before))


def test_what_changes_between_steps_is_seen() -> None:
    model, opt = net(), fx.Descent(0.1)
    ps = fx.params(model)

    def data() -> Any:
        yield X, Y
        model.layers.dec.weight = jnp.zeros((3, 1))
        opt.eta = 0.0
        yield X, Y

    fx.train(lambda x, y: fx.mse(model(x), y), ps, data(), opt)
    assert np.array_equal(model.layers.dec.weight, np.zeros((3, 1)))
