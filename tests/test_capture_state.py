"""State that layers write, errors inside objectives, and models that must not change."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import agree, quietly, record

import fluxax as fx

X = jnp.array([[1.0, 0.0], [3.0, 4.0]])


@pytest.fixture(autouse=True)
def empty() -> None:
    fx.clear_cache()


class Counter(fx.Module):
    """Counts its calls in an array, sums what it saw, and scales."""

    def __init__(self) -> None:
        self.scale = jnp.ones(2)
        self.count = jnp.int32(0)
        self.total = jnp.float32(0)

    def __call__(self, x: Any) -> Any:
        self.count = self.count + 1
        self.total = self.total + jnp.sum(fx.stop_gradient(x))
        return self.bump(x)

    def bump(self, x: Any) -> Any:
        return x * self.scale


class Latest(fx.Module):
    def __init__(self) -> None:
        self.scale = jnp.ones(2)

    def __call__(self, x: Any) -> Any:
        self.seen = fx.stop_gradient(jnp.max(x))
        return x * self.scale


class Plain(fx.Module):
    """Writes what is no array: it runs uncompiled, and every write lands."""

    def __init__(self) -> None:
        self.scale, self.n, self.history, self.stats = jnp.ones(2), 0, [], {}

    def __call__(self, x: Any) -> Any:
        self.n += 1
        self.history.append(jnp.sum(x * self.scale))
        self.stats["last"] = jnp.max(x * self.scale)
        return x * self.scale


def loss(m: Any, x: Any) -> Any:
    return jnp.sum(m(x))


WAYS = {"compiled": contextlib.nullcontext, "eager": fx.eager}


@pytest.mark.parametrize("way", WAYS)
def test_arrays_written_by_assignment_land_on_the_model(way: str) -> None:
    model = Counter()
    with WAYS[way]():
        for turn in (1, 2, 3):
            g = fx.gradient(loss, model, X * turn)[0]
            np.testing.assert_allclose(g.scale, np.array([4.0, 4.0]) * turn)
            assert int(model.count) == turn
            assert not isinstance(model.count, jax.core.Tracer)
    assert float(model.total) == 8 * (1 + 2 + 3)
    if way == "compiled":
        assert (record().compiled, record().traces) == (True, 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_captured_model_counts_too(way: str) -> None:
    model = Counter()
    with WAYS[way]():
        for _ in range(3):
            fx.gradient(lambda x: jnp.sum(model(x)), X)
    assert int(model.count) == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_in_two_places_counts_both(way: str) -> None:
    layer = Counter()
    model = fx.Chain(layer, layer)
    with WAYS[way]():
        for _ in range(3):
            g = fx.gradient(loss, model, X)[0]
    assert model.layers[0] is model.layers[1] is layer
    assert int(layer.count) == 6
    np.testing.assert_allclose(g.layers[0].scale, [8.0, 8.0])
    assert g.layers[1].scale is None


@pytest.mark.parametrize("way", WAYS)
def test_a_new_attribute_is_written(way: str) -> None:
    model = Latest()
    with WAYS[way]():
        for turn in (1, 2, 3, 4):
            fx.gradient(loss, model, X * turn)
            assert float(model.seen) == 4 * turn
    if way == "compiled":
        assert record().compiled
        assert record().traces <= 2


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_array_is_written_once_per_call(way: str) -> None:
    model = Plain()
    with WAYS[way]():
        quietly(lambda: [fx.gradient(loss, model, X * t) for t in (1, 2, 3)])
    assert model.n == 3
    assert [float(v) for v in model.history] == [8.0, 16.0, 24.0]
    assert float(model.stats["last"]) == 12.0


@pytest.mark.parametrize("way", WAYS)
def test_state_is_held_when_the_value_is_not_finite(way: str) -> None:
    model = Counter()
    with WAYS[way]():
        fx.gradient(loss, model, X)
        fx.gradient(loss, model, X * jnp.nan)
        assert float(model.total) == 8.0
        fx.gradient(loss, model, X)
    assert float(model.total) == 16.0


def test_batch_norm_follows_its_formula_and_agrees_with_eager() -> None:
    compiled, eager = fx.BatchNorm(2), fx.BatchNorm(2)
    mean, var = np.zeros(2), np.ones(2)
    f = lambda m, x: jnp.sum(m(x) * jnp.arange(4.0).reshape(2, 2))
    for turn in (1, 2, 3):
        got = fx.withgradient(f, compiled, X * turn)
        with fx.eager():
            agree(got, fx.withgradient(f, eager, X * turn), rtol=1e-4)
        x = np.asarray(X) * turn
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0, ddof=1)
        np.testing.assert_allclose(compiled.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(compiled.var, var, rtol=1e-5)
        np.testing.assert_allclose(eager.mean, mean, rtol=1e-5)
    assert all(r.compiled for r in fx.explain())


def test_modes_are_part_of_the_key() -> None:
    model = fx.BatchNorm(2)
    f = lambda m: jnp.sum(m(X) ** 2)
    training = float(fx.withgradient(f, model).val)
    fx.testmode(model)
    mean, var = np.asarray(model.mean), np.asarray(model.var)
    tested = float(fx.withgradient(f, model).val)
    np.testing.assert_allclose(
        tested, np.sum((np.asarray(X) - mean) ** 2 / (var + 1e-5)), rtol=1e-4
    )
    fx.testmode(model, "auto")
    np.testing.assert_allclose(float(fx.withgradient(f, model).val), training, rtol=1e-5)
    assert abs(training - tested) > 0.1


def test_compiled_runs_in_test_mode() -> None:
    model = fx.Chain(fx.Dropout(0.5), fx.BatchNorm(2))
    got = fx.compiled(lambda: model(X))()
    np.testing.assert_allclose(got, model(X), rtol=1e-6)
    assert float(model.layers[1].mean[0]) == 0.0


def test_trainstep_writes_state_and_sees_a_changing_closure() -> None:
    model = Counter()
    opt_state = fx.setup(fx.Descent(0.1), model)
    scale = np.ones(2)
    for turn in (1, 2, 3):
        target = jnp.full(2, float(turn))
        value = fx.trainstep(lambda m, x: jnp.sum(m(x) * target), model, (X,), opt_state)
        np.testing.assert_allclose(float(value), np.sum(np.asarray(X) * scale) * turn, rtol=1e-5)
        scale -= 0.1 * 4 * turn
        np.testing.assert_allclose(model.scale, scale, rtol=1e-5, atol=1e-6)
    assert int(model.count) == 3


def test_old_handles_stay_readable() -> None:
    model = Counter()
    before, count = model.scale, model.count
    opt_state = fx.setup(fx.Adam(0.1), model)
    for _ in range(3):
        fx.trainstep(loss, model, (X,), opt_state)
    np.testing.assert_allclose(before, [1.0, 1.0])
    assert int(count) == 0


# --- inside other transformations -----------------------------------------------------------

INSIDE: dict[str, Any] = {
    "scan": lambda m, x: jnp.sum(jax.lax.scan(lambda c, row: (c, m(row)), 0.0, x)[1]),
    "vmap": lambda m, x: jnp.sum(jax.vmap(m)(x)),
    "checkpoint": lambda m, x: jnp.sum(jax.checkpoint(lambda v: m(v))(x)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", INSIDE)
def test_a_write_inside_is_an_error_that_names_the_layer(name: str, way: str) -> None:
    model = Counter()
    with WAYS[way](), pytest.raises(ValueError, match=r"Counter.*(count|total)"):
        quietly(lambda: fx.gradient(INSIDE[name], model, X))
    assert int(model.count) == 0


def test_a_write_under_a_foreign_jit_is_dropped_with_one_warning() -> None:
    model = Counter()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        out = jax.jit(lambda m, x: m(x))(model, X)
        grad = jax.grad(lambda m: jnp.sum(m(X)), allow_int=True)(model)
    np.testing.assert_allclose(out, X)
    np.testing.assert_allclose(grad.scale, [4.0, 4.0])
    assert int(model.count) == 0
    assert len({str(w.message) for w in seen}) == len(seen) <= 2
    assert any("dropped" in str(w.message) for w in seen)


def test_batch_norm_under_a_foreign_jit_is_in_test_mode() -> None:
    layer = fx.BatchNorm(2)
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(layer, X), layer(X), rtol=1e-5)


def test_a_layer_with_two_states_warns_once_that_they_are_dropped() -> None:
    class Norm(fx.BatchNorm):  # a class that nobody was warned of yet
        pass

    layer = Norm(2)
    fx.trainmode(layer)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            jax.jit(lambda m, x: m(x))(layer, X)
    (warning,) = seen
    assert "dropped" in str(warning.message)


# --- errors ---------------------------------------------------------------------------------


class Breaks(fx.Module):
    def __init__(self) -> None:
        self.scale, self.count, self.extra = jnp.ones(2), jnp.int32(0), []

    def __call__(self, x: Any) -> Any:
        self.count = self.count + 1
        self.extra.append(1)
        raise KeyError("line of mine")


@pytest.mark.parametrize("way", WAYS)
def test_an_error_keeps_its_type_and_shows_the_users_line(way: str) -> None:
    model = Breaks()
    with WAYS[way](), pytest.raises(KeyError, match="line of mine") as caught:
        quietly(lambda: fx.gradient(loss, model, X))
    text = "".join(traceback.format_exception(caught.value))
    assert "line of mine" in text
    assert "test_capture_state.py" in text
    assert int(model.count) == 0
    assert not isinstance(model.count, jax.core.Tracer)


def test_an_error_is_no_reason_to_warn_or_to_give_up() -> None:
    f = lambda w, x: jnp.sum(x @ w)
    for _ in range(3):
        with pytest.raises(TypeError, match="dot_general"):
            fx.gradient(f, jnp.ones(2), jnp.ones((4, 3)))
    assert float(fx.withgradient(f, jnp.ones(2), jnp.ones((4, 2))).val) == 8.0
    assert record().compiled


def test_an_exception_that_is_data_dependent_is_raised_each_time() -> None:
    def f(w: Any) -> Any:
        if float(jnp.sum(w)) > 5:
            raise StopIteration("enough")
        return jnp.sum(w)

    for scale in (1.0, 2.0, 1.0, 2.0):
        w = jnp.array([1.0, 2.0]) * scale
        if scale == 2.0:
            with pytest.raises(StopIteration, match="enough"):
                quietly(lambda: fx.gradient(f, w))
        else:
            np.testing.assert_allclose(quietly(lambda: fx.gradient(f, w))[0], [1.0, 1.0])


def test_tracers_never_leak_into_the_model() -> None:
    model = Plain()
    quietly(lambda: [fx.gradient(loss, model, X) for _ in range(2)])
    quietly(lambda: fx.gradient(lambda x: jnp.sum(model(x)), X))
    for leaf in jax.tree.leaves(vars(model)):
        assert not isinstance(leaf, jax.core.Tracer)
    assert model.n == 3


def test_a_nested_gradient_is_part_of_the_outer_program() -> None:
    inner = lambda w: fx.gradient(lambda v: jnp.sum(v**3), w)[0]
    for scale in (1.0, 2.0):
        w = jnp.array([1.0, 2.0]) * scale
        outer = quietly(lambda: fx.gradient(lambda w: jnp.sum(inner(w)), w))[0]
        np.testing.assert_allclose(outer, 6 * w)
        np.testing.assert_allclose(jax.jit(inner)(w), 3 * w**2)


GAIN = 1.0


class Gained(fx.Module):
    """A layer whose method reads a global and a class attribute."""

    power = 1.0

    def __init__(self) -> None:
        self.scale = jnp.ones(2)

    def __call__(self, x: Any) -> Any:
        return jnp.sum(self.scale * x) * GAIN * self.power


@pytest.mark.parametrize("way", WAYS)
def test_a_number_that_a_method_of_the_argument_reads_is_seen(way: str) -> None:
    global GAIN
    model, x = Gained(), jnp.ones(2)
    with WAYS[way]():
        for GAIN, Gained.power in ((1.0, 1.0), (2.0, 1.0), (2.0, 5.0), (1.0, 1.0)):
            grad = fx.gradient(lambda m: m(x), model)[0].scale
            np.testing.assert_allclose(grad, GAIN * Gained.power)
