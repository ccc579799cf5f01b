"""A JAX that was not tried: a warning, and without any private part right numbers or an error."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax import _jax_parts

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
Y = np.ones((4, 2), np.float32)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if this were JAX 0.99, and nothing had been looked at."""

    def forget() -> None:
        fx.clear_cache()
        _jax_parts._sentences.cache_clear()
        _jax_parts._warned.clear()
        fx.optimisers._update._recent.clear()
        fx.optimisers._programs._programs.clear()

    monkeypatch.setattr(jax, "__version__", "0.99.0.dev1")
    forget()
    yield
    monkeypatch.undo()
    forget()


class Counting(fx.Module):
    """A layer with state, whose method reads data of its module."""

    def __init__(self) -> None:
        self.dense = fx.Dense(3, 2, fx.tanh, rng=0)
        self.calls = jnp.zeros(())

    def __call__(self, x: Any) -> Any:
        self.calls = self.calls + 1
        return self.dense(x)


def loss(m: Any, x: Any, y: Any) -> Any:
    return fx.mse(m(x), y)


def plain(weights: list[Any]) -> tuple[Any, list[Any]]:
    """The same in plain JAX."""
    f = lambda ws: jnp.mean((jnp.tanh(X @ ws[0] + ws[1]) - Y) ** 2)
    return jax.value_and_grad(f)(weights)


def trained() -> dict[str, Any]:
    """All ways to a gradient, against plain JAX; what does not work says so by its version."""
    model = Counting()
    weights = [jnp.array(model.dense.weight), jnp.array(model.dense.bias)]
    val, grads = fx.withgradient(lambda m: loss(m, X, Y), model)
    wanted, slopes = plain(weights)
    np.testing.assert_allclose(val, wanted, rtol=1e-5)
    np.testing.assert_allclose(grads[0].dense.weight, slopes[0], rtol=1e-5)
    opt_state = fx.setup(fx.OptimiserChain(fx.WeightDecay(0.1), fx.Momentum(0.5)), model)
    fx.update(opt_state, model, grads[0])
    speed = [0.5 * (g + 0.1 * w) for g, w in zip(slopes, weights, strict=True)]
    weights = [w - v for w, v in zip(weights, speed, strict=True)]
    for way in ("trainstep", "train"):
        wanted, slopes = plain(weights)
        if way == "trainstep":
            val = fx.trainstep(loss, model, (X, Y), opt_state)
        else:
            val = fx.train(loss, model, fx.DataLoader((X, Y), 4), opt_state)[0]
        np.testing.assert_allclose(val, wanted, rtol=1e-5)
        speed = [
            0.9 * v + 0.5 * (g + 0.1 * w) for v, g, w in zip(speed, slopes, weights, strict=True)
        ]
        weights = [w - v for w, v in zip(weights, speed, strict=True)]
    np.testing.assert_allclose(model.dense.weight, weights[0], rtol=1e-5)
    np.testing.assert_allclose(model.dense.bias, weights[1], rtol=1e-5)
    assert float(model.calls) == 3
    return {"compiled": all(record.compiled for record in fx.explain())}


def special(compiled: bool = True) -> None:
    """What only some parts are needed for."""
    x = jnp.ones(3)
    both = fx.gradient(lambda a, b: jnp.sum(a * b * b), x, x)
    np.testing.assert_allclose(both[1], 2 * x)
    doubled = jnp.frompyfunc(lambda a: SCALE * a, 1, 1)
    np.testing.assert_allclose(fx.gradient(lambda a: jnp.sum(doubled(a)), x)[0], SCALE)
    # uncompiled, JAX remembers what the body of a loop read, with fluxax and without
    for scale in (2.0, 3.0) if compiled else ():
        Reading.scale = scale
        np.testing.assert_allclose(fx.gradient(lambda a: jnp.sum(READING(a)), x)[0], scale)
    turns = lambda a, n: jax.lax.scan(lambda c, v: (c * n + v, v), 0.0, a)[0]
    for n in (2.0, 3.0, 4.0):
        np.testing.assert_allclose(fx.gradient(turns, x, n)[0], [n * n, n, 1])
        jumps = lambda a: jnp.sum(jax.jit(lambda v: v * n)(a))
        np.testing.assert_allclose(fx.gradient(jumps, x)[0], n)
    asks = lambda a: jnp.sum(a) * (2 if float(a[0]) > 0 else 3)
    np.testing.assert_allclose(fx.gradient(asks, x)[0], 2)


SCALE = 2.0


class Reading:
    """A class whose method calls a function that JAX remembers."""

    scale = 1.0

    def __call__(self, x: Any) -> Any:
        return jax.lax.map(lambda v: Reading.scale * v, x)


READING = Reading()


def test_one_warning_names_the_version_and_what_was_tried(untried: None) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert trained()["compiled"]
        special()
    texts = [str(w.message) for w in seen]
    mine = [t for t in texts if "0.99.0.dev1" in t and "was tried with" in t]
    assert len(mine) == 1
    assert "0.10 to 0.12" in mine[0]
    assert "as they were" in mine[0]
    warning = next(w for w in seen if str(w.message) == mine[0])
    assert warning.filename == __file__


#: By part: what is broken in fluxax's view of JAX.
BREAKS = {
    "settings": ("_trace_context",),
    "evaluation": ("eval_jaxpr",),
    "forget": ("_clear_all_caches",),
    "cut": ("cut",),
    "ufuncs": ("inner_function",),
    "traces": ("_trace_state",),
}


def changed(*_: Any, **__: Any) -> Any:
    raise TypeError("got an unexpected keyword argument")


@pytest.mark.parametrize("part", _jax_parts.PARTS, ids=lambda part: part.name)
def test_without_each_part_numbers_are_right_or_refused(
    part: Any, untried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part as if its self-test had found that it does not hold; using it would raise."""
    broken = part._replace(test=changed)
    parts = [broken if p is part else p for p in _jax_parts.PARTS]
    monkeypatch.setattr(_jax_parts, "PARTS", parts)
    for name in BREAKS.get(part.name, ()) if part.name != "ufuncs" else ():
        for module in list(sys.modules.values()):
            mine = getattr(module, "__name__", "").startswith("fluxax")
            if mine and name in vars(module) and module is not _jax_parts:
                monkeypatch.setattr(module, name, changed)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if part.how == _jax_parts.REFUSED:
            with pytest.raises(RuntimeError, match=r"JAX 0\.99\.0\.dev1 does not have"):
                trained()
            return
        assert trained()["compiled"] is (part.how != _jax_parts.UNCOMPILED)
        if part.name == "values":
            with pytest.raises(RuntimeError, match=r"JAX 0\.99\.0\.dev1 does not have"):
                special()
        else:
            special(part.how != _jax_parts.UNCOMPILED)
    texts = [str(w.message) for w in seen]
    assert sum("0.99.0.dev1" in t and part.without in t for t in texts) == 1


SCRIPT = """
import importlib, sys, types, warnings
import jax, jax.numpy, jax._src.array, jax.experimental.compilation_cache.compilation_cache
sys.path.insert(0, {root!r})

class Without(types.ModuleType):
    def __init__(self, module, name, what):
        super().__init__(module.__name__)
        self.__dict__["_is"] = module, name, what
    def __getattr__(self, key):
        module, name, what = self.__dict__["_is"]
        if key == name:
            if what == "missing":
                raise AttributeError(key)
            return lambda *args, **kwargs: 1 / 0
        return getattr(module, key)

def tried(module, name, what):
    real = sys.modules[module]
    sys.modules[module] = Without(real, name, what)
    try:
        import fluxax
        from fluxax import _jax
    finally:
        sys.modules[module] = real
    jax.__version__ = "0.99.0"
    from tests import test_untried
    test_untried.special(test_untried.trained()["compiled"])

with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    try:
        tried(*sys.argv[1:])
        print("right")
    except (RuntimeError, ValueError) as error:
        print("refused", "JAX 0.99.0" in str(error))
print(sum("0.99.0" in str(w.message) and "was tried" in str(w.message) for w in seen))
"""

PLACES = {
    "jax._src.config trace_context": ("right", "right"),
    "jax._src.util clear_all_caches": ("right", "right"),
    "jax._src.core get_opaque_trace_state": ("right", "refused True"),
    "jax._src.array ArrayImpl": ("right", "refused True"),
    "jax.core eval_jaxpr": ("right", "right"),
    "jax.experimental.compilation_cache.compilation_cache reset_cache": ("right", "right"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["missing", "changed"])
@pytest.mark.parametrize("place", PLACES)
def test_importing_survives_and_what_follows_is_right_or_refused(place: str, what: str) -> None:
    """In a new process, in which a name of JAX's is not there, or something else."""
    root = str(Path(__file__).resolve().parents[1])
    script = SCRIPT.format(root=root)
    done = subprocess.run(
        [sys.executable, "-c", script, *place.split(), what], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == PLACES[place][what == "changed"], done.stderr
    assert lines[1] == ("1" if lines[0] == "right" else "0")
