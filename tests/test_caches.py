"""What is remembered is bounded, can be cleared, and keeps nothing of the caller's alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax.optimisers import _remember

pytestmark = pytest.mark.own_programs

X = np.ones((4, 2), "f")


def net() -> Any:
    return fx.Chain(fx.Dense(2, 3, fx.tanh), fx.BatchNorm(3), fx.Dense(3, 1))


def programs() -> int:
    """How many compiled programs there are in this process."""
    gc.collect()
    return len(jax.devices()[0].client.live_executables())


def loss(m: Any, x: Any) -> Any:
    return jnp.mean(m(x) ** 2)


def _update(f: Any, m: Any, s: Any) -> None:
    _, grads = fx.withgradient(lambda m: f(m, X), m)
    fx.update(s, m, grads[0])


def _uncompiled(f: Any, m: Any, s: Any) -> None:
    seen: list[float] = []
    fx.trainstep(lambda m, x: (seen.append(float(x.sum())), f(m, x))[1], m, (X,), s)


def _implicit(f: Any, m: Any, s: Any) -> None:
    ps, opt = fx.params(m), fx.Adam()
    fx.update(opt, ps, fx.gradient(lambda: f(m, X), ps))
    fx.train(lambda x: f(m, x), ps, [(X,)] * 2, opt)


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "gradient": lambda f, m, s: fx.gradient(f, m, X),
    "withgradient": lambda f, m, s: fx.withgradient(f, m, X),
    "compiled": lambda f, m, s: fx.compiled(f)(m, X),
    "evaluate": lambda f, m, s: fx.evaluate(f, m, [(X,)] * 2),
    "update": _update,
    "trainstep": lambda f, m, s: fx.trainstep(f, m, (X,), s),
    "train": lambda f, m, s: fx.train(f, m, [(X,)] * 2, s),
    "pieces": lambda f, m, s: fx.train(f, m, fx.DataLoader((X,), 2), s),
    "implicit": _implicit,
}


def dropped(call: Any) -> dict[str, Any]:
    """Weak references to all that a call was given, which is gone now."""
    model, big, host = net(), jnp.ones(1000), np.ones(1000, "f")
    opt_state = fx.setup(fx.Adam(), model)

    class Config:
        lam = 1.0

    config = Config()

    def scaled(x: Any) -> Any:
        return x * config.lam + 0 * big.sum() + 0 * host.sum()

    f = lambda m, x: scaled(jnp.mean(m(x) ** 2))
    for _ in range(3):
        call(f, model, opt_state)
    store = opt_state.layers[0].weight.store
    things = {
        "model": model,
        "a weight": model.layers[0].weight,
        "the state": store,
        "an array of the state": store.arrays[0],
        "a captured array": big,
        "a captured NumPy array": host,
        "a captured object": config,
        "a helper": scaled,
        "the function": f,
    }
    return {name: weakref.ref(thing) for name, thing in things.items()}


@pytest.mark.filterwarnings("ignore:.*runs uncompiled")
@pytest.mark.parametrize("name", [*CALLS, "uncompiled"])
def test_nothing_that_was_dropped_is_kept(name: str) -> None:
    fx.clear_cache()
    left = dropped(CALLS.get(name, _uncompiled))
    gc.collect()
    assert [thing for thing, ref in left.items() if ref() is not None] == []


def test_a_rule_that_stays_forgets_a_model_that_goes() -> None:
    opt, kept, model = fx.Adam(), net(), net()
    for m in (kept, model):
        ps = fx.params(m)
        for _ in range(2):
            fx.update(opt, ps, fx.gradient(lambda m=m: loss(m, X), ps))
    memory = _remember._memories[id(opt)]
    leaves = [weakref.ref(leaf) for place, leaf in memory.leaves.items() if "0" in str(place)]
    before = len(memory.leaves)
    del model, m, ps
    gc.collect()
    assert len(memory.leaves) == before // 2
    assert sum(ref() is not None for ref in leaves) == len(leaves) // 2
    ps = fx.params(kept)
    fx.update(opt, ps, fx.gradient(lambda: loss(kept, X), ps))


@pytest.mark.parametrize("name", CALLS)
def test_clear_cache_frees_every_program(name: str) -> None:
    model = net()
    opt_state = fx.setup(fx.Adam(), model)
    CALLS[name](loss, model, opt_state)  # JAX keeps programs of single operations
    fx.clear_cache()
    before = programs()
    CALLS[name](loss, model, opt_state)
    assert programs() > before
    fx.clear_cache()
    assert programs() <= before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has been compiled")
def test_programs_for_many_shapes_are_bounded() -> None:
    model = {"w": jnp.ones(1)}
    opt_state = fx.setup(fx.Descent(0.1), model)
    fx.clear_cache()
    before, most = programs(), 0
    for n in range(1, 201):
        fx.trainstep(lambda m, x: (m["w"] * x).sum(), model, (np.ones(n, "f"),), opt_state)
        most = max(most, programs() - before if n % 25 == 0 else 0)
    assert 60 < most < 80, most  # 64 of the objective, and a few of JAX's own
    fx.clear_cache()
    assert programs() - before < 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has been compiled")
def test_programs_for_many_frozen_patterns_are_bounded() -> None:
    model = {str(i): jnp.ones(2) for i in range(8)}
    opt_state = fx.setup(fx.Descent(0.1), model)
    fx.clear_cache()
    before = programs()
    for pattern in range(100):
        for i in range(7):
            fx.thaw(opt_state[str(i)])
            if pattern >> i & 1:
                fx.freeze(opt_state[str(i)])
        fx.trainstep(lambda m, x: sum(jnp.sum(v) for v in m.values()), model, (X,), opt_state)
    assert 60 < programs() - before < 80
    fx.clear_cache()
    assert programs() - before < 10


def test_programs_are_used_again_by_other_models_of_the_same_structure() -> None:
    fx.clear_cache()
    made = 0
    for _ in range(3):
        model = net()
        opt_state = fx.setup(fx.Adam(), model)
        before = programs()
        for _ in range(2):
            fx.trainstep(loss, model, (X,), opt_state)
        made = programs() - before
    assert made == 0
    assert [record.traces for record in fx.explain()] == [1]
