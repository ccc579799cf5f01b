"""Believed, then checked: a program that no longer is its function is found by another trace."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture_table import cell_module, cells, shared_programs
from capture_table_holders import HOLDERS

import fluxax as fx
from fluxax._compile import _check, _content
from tests.check_kinds import KINDS, OF_JAX, Chosen, X, blinded, of, record

Blind = Callable[[Chosen], None]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blind]:
    """Makes the walk blind to some values, for one test."""
    fx.clear_cache()
    yield functools.partial(blinded, monkeypatch)
    fx.clear_cache()


@pytest.mark.parametrize("name", KINDS)
def test_the_check_alone_notices_at_the_second_call(name: str, blind: Blind) -> None:
    f, poke, chosen = KINDS[name]()
    code = f.__code__
    blind(lambda v: getattr(v, "__code__", None) is not code and chosen(v))
    assert float(fx.withgradient(f, X).val) == 3.0
    assert all(r.compiled for r in fx.explain())
    poke(3.0)
    with pytest.warns(fx.StaleProgram, match=r"No earlier answer is in doubt.*run uncompiled"):
        val = fx.withgradient(f, X).val
    want = float(f(X))  # JAX alone goes on with what its own jit functions have read first
    assert want == 9.0 or name in OF_JAX
    assert float(val) == want
    poke(1.0)
    assert float(fx.withgradient(f, X).val) == float(f(X))
    assert not fx.explain()[0].compiled


@pytest.mark.slow
def test_without_blinding_none_of_them_is_stale() -> None:
    warnings.filterwarnings("ignore", "(?s).*runs uncompiled")
    for make in KINDS.values():
        f, poke, _ = make()
        for k in (1.0, 3.0, 3.0):
            poke(k)
            val = float(fx.withgradient(f, X).val)
            assert val == 3.0 * k or not record(f).compiled, record(f)
            assert record(f).compiled or make.__name__ in OF_JAX


# --- no alarms ------------------------------------------------------------------------------


@pytest.mark.slow
def test_500_objectives_that_do_not_change_give_no_alarm() -> None:
    tried = 0
    with shared_programs(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", fx.StaleProgram)
        for row in HOLDERS.values():
            for cell in itertools.islice(cells(row), 6):
                if cell.place.way == "trainstep":
                    continue
                with cell_module(row.source, cell.read, cell.place, row.installed) as module:
                    module.put(module.make(2.0))
                    arguments = module.arguments(X[0]) if hasattr(module, "arguments") else (X[0],)
                    f = fx.compiled if cell.place.way == "compiled" else fx.gradient
                    for _ in range(2):
                        try:
                            if f is fx.compiled:
                                fx.compiled(module.objective())(*arguments)
                            else:
                                fx.gradient(module.objective(), *arguments)
                        except fx.StaleProgram:
                            raise
                        except Exception:
                            break  # derivatives by what is no real number
                        tried += 1
    assert tried > 1000, tried


class Part:
    def __init__(self, k: float) -> None:
        self.k = k


def test_the_order_of_objects_in_a_set_is_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_check, "alike", _content.alike)

    def f(x: Any) -> Any:
        inner = {Part(k) for k in (7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0)}
        for part in inner:
            x = jnp.sin(x * part.k)
        return jnp.sum(x)

    spare = []
    for _ in range(20):
        fx.clear_cache()
        for _ in range(2):
            fx.gradient(f, X)
        spare.append([Part(0.0) for _ in range(7)])  # others lie elsewhere


def test_layers_do_not_notice() -> None:
    """A check moves no random stream and no statistics."""
    model = fx.Chain(fx.Dense(3, 8), fx.BatchNorm(8), fx.Dropout(0.5), fx.Dense(8, 1))
    found = {}
    for setting in ("0", "1"):
        fx.seed(0)
        os.environ["FLUXAX_CHECK"] = setting
        try:
            copied = fx.loadmodel(fx.fmap(lambda a: a, model), model)
            fx.clear_cache()
            vals = [fx.withgradient(lambda m: jnp.sum(m(jnp.ones((4, 3)))), copied).val]
            vals += [fx.withgradient(lambda m: jnp.sum(m(jnp.ones((4, 3)))), copied).val] * 8
        finally:
            del os.environ["FLUXAX_CHECK"]
        found[setting] = [float(v) for v in vals], jax.tree.leaves(copied)
    assert found["0"][0] == found["1"][0]
    jax.tree.map(np.testing.assert_array_equal, found["0"][1], found["1"][1])


def test_a_deep_stack_is_no_alarm() -> None:
    f = lambda x: jnp.sum(x**2)
    fx.gradient(f, X)

    def deep(n: int) -> Any:
        return deep(n - 1) if n else fx.gradient(f, X)

    depth = len(list(_frames()))
    for left in range(60, 400, 20):
        with warnings.catch_warnings():
            warnings.simplefilter("error", fx.StaleProgram)
            try:
                deep(sys.getrecursionlimit() - depth - left)
            except RecursionError:
                continue
    assert all(r.compiled for r in fx.explain() if __file__ in r.where)


def _frames() -> Iterator[Any]:
    frame: Any = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


# --- when, and what is counted --------------------------------------------------------------


def test_checks_come_at_calls_2_8_64_and_are_no_traces() -> None:
    f = lambda x: jnp.sum(x**2)
    counts = []
    for _ in range(70):
        fx.gradient(f, X)
        counts.append(record(f).checks)
    assert [i + 1 for i in range(1, 70) if counts[i] > counts[i - 1]] == [2, 8, 64]
    assert record(f).traces == 1
    assert "checks" in str(fx.explain()).splitlines()[0]


def test_a_late_change_is_found_and_the_message_says_since_when(
    blind: Blind,
) -> None:
    xs = [1.0]
    f = lambda x: jnp.sum(x) * xs[0]
    blind(of(list))
    for call in range(1, 8):
        if call == 5:
            xs[0] = 2.0
        fx.gradient(f, X)
    line = f.__code__.co_firstlineno
    with pytest.warns(fx.StaleProgram) as seen:
        assert float(fx.withgradient(f, X).val) == 6.0
    text = str(seen[0].message)
    assert "Answers since call 3" in text
    assert "`mul` has 2.0 where it had 1.0" in text
    assert f"{__file__}:{line}" in text
    assert seen[0].filename == __file__


def test_all_uses_of_the_function_run_uncompiled_afterwards(
    blind: Blind,
) -> None:
    xs = [1.0]
    loss = lambda m, x: jnp.sum(m(x)) * xs[0]
    model = fx.Dense(3, 1, init=fx.ones32)
    opt_state = fx.setup(fx.Descent(0.0), model)
    blind(of(list))
    fx.trainstep(loss, model, (X,), opt_state)
    fx.gradient(loss, model, X)
    xs[0] = 2.0
    with pytest.warns(fx.StaleProgram):
        assert float(fx.trainstep(loss, model, (X,), opt_state)) == 6.0
    assert float(fx.withgradient(loss, model, X).val) == 6.0
    assert not any(r.compiled for r in fx.explain())
    with fx.strict(), pytest.raises(RuntimeError, match="no longer"):
        fx.gradient(loss, model, X)


def test_a_step_is_not_lost_where_the_warning_is_an_error(
    blind: Blind,
) -> None:
    xs = [1.0]
    loss = lambda m, x: jnp.sum(m(x)) * xs[0]
    model = fx.Dense(3, 1, init=fx.ones32)
    opt_state = fx.setup(fx.Descent(0.5), model)
    blind(of(list))
    fx.trainstep(loss, model, (X,), opt_state)
    before = np.asarray(model.weight)
    xs[0] = 2.0
    with pytest.raises(fx.StaleProgram):
        fx.trainstep(loss, model, (X,), opt_state)
    np.testing.assert_array_equal(model.weight, before)
    fx.trainstep(loss, model, (X,), opt_state)
    np.testing.assert_array_equal(model.weight, before - 1.0)


@pytest.mark.slow
def test_in_pieces_a_step_is_a_call(blind: Blind) -> None:
    xs = [1.0]
    loss = lambda m, x: jnp.mean(m(x)) * xs[0]
    model = fx.Dense(3, 1, init=fx.ones32)
    opt_state = fx.setup(fx.Descent(0.0), model)
    loader = fx.DataLoader(np.ones((200, 3), np.float32), batchsize=2)
    blind(of(list))
    fx.train(loss, model, loader, opt_state)
    assert record(loss).checks == 1  # for calls 2, 8 and 64 at once
    fx.train(loss, model, loader, opt_state)
    assert record(loss).checks == 1
    for _ in range(4):
        fx.train(loss, model, loader, opt_state)
    assert record(loss).checks == 2  # for call 512
    xs[0] = 2.0
    losses = fx.train(loss, model, loader, opt_state)
    np.testing.assert_allclose(losses, 3.0)  # not due: this is what a check is for
    again = lambda: [fx.train(loss, model, loader, opt_state) for _ in range(40)]
    with pytest.warns(fx.StaleProgram):
        losses = again()[-1]
    np.testing.assert_allclose(losses, 6.0)


def test_checks_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, blind: Blind) -> None:
    monkeypatch.setenv("FLUXAX_CHECK", "0")
    xs = [1.0]
    f = lambda x: jnp.sum(x) * xs[0]
    blind(of(list))
    for _ in range(70):
        assert float(fx.withgradient(f, X).val) == 3.0
        xs[0] += 1.0
    assert record(f).checks == 0


def test_an_error_that_does_not_come_again_is_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX makes other errors of a Ctrl-C that comes inside of it."""
    left, closed = [ValueError("a Ctrl-C, in the end")], _check.Trace.closed

    def once(trace: Any) -> Any:
        if left:
            raise left.pop()
        return closed(trace)

    f = lambda x: jnp.sum(x**2)
    fx.gradient(f, jnp.ones(2))
    monkeypatch.setattr(_check.Trace, "closed", once)
    assert fx.gradient(f, jnp.ones(2))[0].tolist() == [2, 2]
    assert not left
