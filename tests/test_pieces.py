"""train over a loader of arrays runs many steps per dispatch: the same numbers as single steps."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _pieces
from tests.test_interrupts import interrupted
from tests.witness import snapshot

N, BATCH = 240, 4  # 60 steps
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 3)).astype(np.float32)
Y = RNG.standard_normal((N, 2)).astype(np.float32)
Pair = namedtuple("Pair", "x y")


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces in 60 steps."""
    monkeypatch.setattr(_pieces, "_MOST", 16)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each piece had that was run."""
    seen: list[int] = []
    one = _pieces.Pieces._one

    def counted(self: Any, made: Any, loop: Any, start: int, n: int) -> Any:
        seen.append(n)
        return one(self, made, loop, start, n)

    monkeypatch.setattr(_pieces.Pieces, "_one", counted)
    return seen


def mse(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def net() -> Any:
    """A net with statistics and a random stream."""
    return fx.Chain(
        fx.Dense(3, 8, fx.tanh, rng=0), fx.BatchNorm(8), fx.Dropout(0.2), fx.Dense(8, 2, rng=1)
    )


def setting(rule: Any = None, model: Any = None, x: Any = X, y: Any = Y) -> tuple[Any, Any, Any]:
    """(model, loader, opt_state), the same each time."""
    fx.seed(5)
    model = fx.Dense(3, 2, rng=0) if model is None else model()
    loader = fx.DataLoader((x, y), BATCH, shuffle=True, rng=7)
    return model, loader, fx.setup(rule or fx.Descent(1e-2), model)


def singly(loader: Any) -> Iterator[Any]:
    """The loader's batches as any iterable gives them: single steps."""
    yield from loader


def both(run: Callable[[Callable[[Any], Any]], Any], pieces: list[int]) -> tuple[Any, Any]:
    """What `run` gives with single steps and in pieces; the second really ran in pieces."""
    single = run(singly)
    assert not pieces
    many = run(lambda loader: loader)
    assert pieces
    return single, many


def falling(step: Any) -> Any:
    """A schedule."""
    return 0.1 / (1 + step)


RULES = {
    "Adam": fx.Adam(1e-2),
    "chain": fx.OptimiserChain(fx.WeightDecay(0.1), fx.ClipNorm(1.0), fx.Momentum(falling)),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_sixty_steps_singly_and_in_pieces_are_bit_equal(rule: str, pieces: list[int]) -> None:
    def run(way: Any) -> Any:
        model, loader, opt_state = setting(RULES[rule], net)
        losses = fx.train(mse, model, way(loader), opt_state)
        return losses.tolist(), snapshot(model, opt_state), loader.state_dict()

    single, many = both(run, pieces)
    assert single == many
    assert pieces == [16, 16, 16, 12]


def last_state(m: Any, x: Any) -> Any:
    """A loop of the objective's own, so small that XLA makes one kernel of it."""
    return jax.lax.scan(lambda h, v: (jnp.tanh(m(h) + v), None), x, jnp.stack([x] * 5))[0]


SMALL = {
    "two by two": lambda m, x, y: jnp.mean((m(x) - y) ** 2),
    "loss of many sums": lambda m, x, y: jnp.sum(jnp.exp(m(x)).mean(0)) + jnp.std(m(x) - y),
    "scan": lambda m, x, y: jnp.mean((last_state(m, x) - y) ** 2),
    "scan with sums": lambda m, x, y: jnp.std(last_state(m, x) * y) + jnp.sum(m(x) ** 2),
}


@pytest.mark.parametrize("rows", [2, 4, 32])
@pytest.mark.parametrize("name", SMALL)
def test_small_programs_are_bit_equal(name: str, rows: int, pieces: list[int]) -> None:
    """XLA may make one kernel of a small loop, in which operations round otherwise."""

    def run(way: Any) -> Any:
        model = fx.Dense(2, 2, rng=0)
        loader = fx.DataLoader((X[:, :2], Y), rows, shuffle=True, rng=7)
        opt_state = fx.setup(fx.Adam(1e-2), model)
        losses = fx.train(SMALL[name], model, way(loader), opt_state)
        return losses.tolist(), snapshot(model, opt_state)

    single, many = both(run, pieces)
    assert single == many


def test_nan_at_item_37_stops_both_at_the_same_place(pieces: list[int]) -> None:
    def run(way: Any) -> Any:
        model, loader, opt_state = setting(x=X.copy())
        order = np.concatenate([np.asarray(k) for k in loader.pieces_source().batches()])
        loader = fx.DataLoader((loader.data[0], Y), BATCH, shuffle=True, rng=7)
        loader.data[0][order[37 * BATCH + 1]] = np.nan
        with pytest.raises(fx.NonFiniteLoss) as caught:
            fx.train(mse, model, way(loader), opt_state)
        error = caught.value
        assert np.isnan(error.value)
        return error.index, error.phase, error.losses.tolist(), snapshot(model, opt_state)

    single, many = both(run, pieces)
    assert single == many
    assert many[0] == 37


def test_the_loader_stands_behind_the_bad_item() -> None:
    model, loader, opt_state = setting(x=np.full_like(X, np.inf))
    with pytest.raises(fx.NonFiniteLoss):
        fx.train(mse, model, loader, opt_state)
    assert loader.state_dict()["position"] == BATCH


DATA = {
    "jax": (jnp.asarray(X), jnp.asarray(Y)),
    "float64": (X.astype(np.float64), Y.astype(np.float64)),
    "strided": (X.repeat(2, 1)[:, ::2], Y[::-1]),
    "int8": ((X * 10).astype(np.int8), Y),
}


@pytest.mark.parametrize("kind", DATA)
def test_all_sorts_of_arrays(kind: str, pieces: list[int]) -> None:
    def run(way: Any) -> Any:
        model, loader, opt_state = setting(None, None, *DATA[kind])
        loss = lambda m, x, y: fx.mse(m(x * 1.0), y)
        return fx.train(loss, model, way(loader), opt_state).tolist(), snapshot(model, opt_state)

    single, many = both(run, pieces)
    assert single == many


NESTED = {
    "dict": ({"x": X, "y": Y}, lambda m, d: fx.mse(m(d["x"]), d["y"])),
    "named": (Pair(X, Y), lambda m, d: fx.mse(m(d.x), d.y)),
    "one": (X, lambda m, x: fx.mse(m(x), x[:, :2])),
    "same": ((X, X), lambda m, x, y: fx.mse(m(x), y[:, :2])),
    "deep": (
        ({"b": X, "a": Pair(Y, X)}, Y),
        lambda m, d, y: fx.mse(m(d["b"]), d["a"].x + d["a"].y[:, :2] - y),
    ),
}


@pytest.mark.parametrize("kind", NESTED)
def test_all_sorts_of_batches(kind: str, pieces: list[int]) -> None:
    data, loss = NESTED[kind]

    def run(way: Any) -> Any:
        model, _, opt_state = setting()
        loader = fx.DataLoader(data, 32)
        return fx.train(loss, model, way(loader), opt_state).tolist(), snapshot(model, opt_state)

    single, many = both(run, pieces)
    assert single == many
    assert pieces == [7]  # the short batch at the end is a step of its own
    assert len(many[0]) == 8


def test_single_observations(pieces: list[int]) -> None:
    def run(way: Any) -> Any:
        model, _, opt_state = setting()
        return fx.train(mse, model, way(fx.DataLoader((X, Y), -1)), opt_state).tolist()

    single, many = both(run, pieces)
    assert single == many


@pytest.mark.slow
def test_captures_frozen_parts_and_changes_between_passes(pieces: list[int]) -> None:
    def run(way: Any) -> Any:
        model, loader, opt_state = setting(model=net)
        scale, weights, found = {"lam": 0.5}, np.ones(2, np.float32), []
        loss = lambda m, x, y: scale["lam"] * jnp.mean(weights * (m(x) - y) ** 2)
        for epoch in range(4):
            found.append(fx.train(loss, model, way(loader), opt_state).tolist())
            if epoch == 0:
                fx.freeze(opt_state.layers[0])
                scale["lam"] = 0.25
            elif epoch == 1:
                fx.thaw(opt_state)
                fx.adjust(opt_state, 1e-3)
                weights[0] = 3
            else:
                fx.testmode(model)
        return found, snapshot(model, opt_state)

    single, many = both(run, pieces)
    assert single == many


def test_ctrl_c_between_pieces_leaves_whole_steps() -> None:
    def run(lines: int) -> int:
        model, loader, opt_state = setting()
        train = lambda: fx.train(mse, model, loader, opt_state)
        stopped = interrupted(lines, "/_pieces.py", train)
        steps = loader.state_dict()["position"] // BATCH if stopped else 60
        assert opt_state.weight.steps == steps
        other, batches, state = setting()
        for batch in itertools.islice(batches, steps):
            fx.trainstep(mse, other, batch, state)
        assert snapshot(model, opt_state) == snapshot(other, state)
        return steps

    fx.train(mse, *setting())  # compiled before
    assert {0, 16, 32} <= {run(lines) for lines in range(20, 400, 23)}


def test_has_aux_gives_everything_stacked(pieces: list[int]) -> None:
    def loss(m: Any, x: Any, y: Any) -> Any:
        out = m(x)
        return fx.mse(out, y), {"mean": jnp.mean(out), "first": out[0], "n": len(x)}

    def run(way: Any) -> Any:
        model, _, opt_state = setting()
        loader = fx.DataLoader((X[:90], Y[:90]), BATCH)
        losses, aux = fx.train(loss, model, way(loader), opt_state, has_aux=True)
        assert losses.shape == (23,)
        assert aux["first"].shape == (23, 2)
        assert aux["n"].tolist() == [4] * 22 + [2]
        return losses.tolist(), jax.tree.map(np.ndarray.tolist, aux)

    single, many = both(run, pieces)
    assert single == many


def test_has_aux_of_tuples_and_of_nothing() -> None:
    model, loader, opt_state = setting()
    losses, aux = fx.train(mse, model, loader, opt_state, has_aux=True)
    assert losses.shape == (60,)
    assert aux is None
    three = lambda m, x, y: (fx.mse(m(x), y), jnp.sum(x), jnp.sum(y))
    _, (a, b) = fx.train(three, model, loader, opt_state, has_aux=True)
    assert a.shape == b.shape == (60,)


def test_the_data_are_the_callers_again_when_train_returns(pieces: list[int]) -> None:
    x = X.copy()
    model, loader, opt_state = setting(x=x)
    losses = fx.train(mse, model, loader, opt_state)
    before = snapshot(model, opt_state)
    x[:] = np.nan
    assert snapshot(model, opt_state) == before
    assert np.isfinite(losses).all()
    assert pieces


def test_each_pass_sees_the_data_as_they_are_now() -> None:
    x = X.copy()
    model, loader, opt_state = setting(x=x)
    fx.train(mse, model, loader, opt_state)
    x[:] = np.nan
    with pytest.raises(fx.NonFiniteLoss):
        fx.train(mse, model, loader, opt_state)


SINGLE = {
    "a convolution": (
        lambda: fx.Chain(fx.Conv((2,), 3, 2), fx.flatten),
        lambda m, x, y: fx.mse(m(x[:, None, :].repeat(2, 1)), y),
    ),
    "Python that cannot be compiled": (
        lambda: fx.Dense(3, 2),
        lambda m, x, y: mse(m, x, y) * (float(x[0, 0]) * 0 + 1),
    ),
    "much arithmetic": (
        lambda: fx.Dense(3, 2),
        lambda m, x, y: mse(m, x, y) + 0 * jnp.sum(jnp.ones((512, 512)) @ jnp.ones((512, 512))),
    ),
}


@pytest.mark.parametrize("what", SINGLE)
@pytest.mark.filterwarnings("ignore:.*runs uncompiled")
def test_single_steps_where_a_loop_gains_nothing(what: str, pieces: list[int]) -> None:
    make, loss = SINGLE[what]
    model = make()
    loader = fx.DataLoader((X[:16], Y[:16]), BATCH)
    losses = fx.train(loss, model, loader, fx.setup(fx.Descent(0.01), model))
    assert losses.shape == (4,)
    assert np.isfinite(losses).all()
    assert not pieces


def test_one_row_one_batch_and_none() -> None:
    model, _, opt_state = setting()
    for n in (1, 3, 4, 5, 8):
        losses = fx.train(mse, model, fx.DataLoader((X[:n], Y[:n]), min(n, 4)), opt_state)
        assert losses.shape == (-(-n // 4),)


def test_a_pass_is_traced_and_compiled_once() -> None:
    model, loader, opt_state = setting()
    loss = lambda m, x, y: fx.mse(m(x), y)
    for _ in range(3):
        fx.train(loss, model, loader, opt_state)
    record = next(r for r in fx.explain() if r.where.endswith(f":{loss.__code__.co_firstlineno}"))
    assert record.traces == 1
    assert record.compiled


def test_the_bar_counts_the_steps_of_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    model, loader, opt_state = setting()
    fx.train(mse, model, loader, opt_state, progress=True)
    assert "60/60" in capsys.readouterr().err


def test_a_loaders_own_batches_are_not_copied_and_others_are(monkeypatch: Any) -> None:
    lent: list[bool] = []
    monkeypatch.setattr(
        "fluxax._pass.step",
        lambda *a, real=fx._pass.step: lent.append(fx._pass.lending.now) or real(*a),
    )
    model, _, opt_state = setting()
    batch = (X[:4], Y[:4])
    fx.train(mse, model, fx.DataLoader((X[:3], Y[:3]), 3), opt_state)
    fx.train(mse, model, [batch], opt_state)
    fx.train(mse, model, fx.DataLoader([batch], 1, collate=lambda rows: rows[0]), opt_state)
    assert lent == [True, False, False]
    assert not fx._pass.lending.now


def test_data_of_another_length_run_in_pieces_too(pieces: list[int]) -> None:
    model, _, opt_state = setting()
    for n in (32, 64, 32):
        fx.train(mse, model, fx.DataLoader((X[:n], Y[:n]), BATCH), opt_state)
    assert pieces == [8, 16, 8]
