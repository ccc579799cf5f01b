"""What `withgradient` returns: values, nested gradients, `None`s, for every kind of argument."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import agree, both, quietly, record

import fluxax as fx

W = jnp.array([1.0, 2.0])
X = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])


@pytest.fixture(autouse=True)
def empty() -> None:
    fx.clear_cache()


class Result(NamedTuple):
    loss: Any
    aux: Any


class Affine(fx.Module):
    def __init__(self, weight: Any, bias: Any):
        self.weight, self.bias = weight, bias
        self.steps = jnp.array([3, 4])
        self.mask = jnp.array([True, False])
        self.name = "affine"

    def __call__(self, x: Any) -> Any:
        return self.linear(x) + self.bias

    def linear(self, x: Any) -> Any:
        return x @ self.weight


class Doubled(Affine):
    def __init__(self, weight: Any, bias: Any):
        super().__init__(weight, bias)
        self.inner = [Affine(weight * 0, bias)]

    def linear(self, x: Any) -> Any:
        return 2 * super().linear(x) + self.inner[0].linear(x)


class Buffered(fx.Module):
    trainable = ("weight",)

    def __init__(self) -> None:
        self.weight, self.buffer = W, W


@dataclasses.dataclass
class Data:
    weight: Any
    name: str = "d"


class Eqx(eqx.Module):
    weight: jax.Array
    power: int = eqx.field(static=True, default=2)

    def __call__(self) -> Any:
        return jnp.sum(self.weight**self.power)


# --- what comes back as the value -----------------------------------------------------------

RETURNS: dict[str, Any] = {
    "plain": lambda w: jnp.sum(w**2),
    "tuple": lambda w: (jnp.sum(w**2), {"twice": 2 * w, "n": 3, "s": "text", "none": None}, [w]),
    "named tuple": lambda w: Result(jnp.sum(w**2), w + 1),
    "dict": lambda w: {"loss": jnp.sum(w**2), "out": w + 1},
    "NumPy scalar beside": lambda w: (jnp.sum(w**2), np.float32(2)),
    "captured array beside": lambda w: (jnp.sum(w**2), X),
    "function beside": lambda w: (jnp.sum(w**2), jnp.tanh),
}


@pytest.mark.parametrize("name", RETURNS)
def test_value(name: str) -> None:
    [got] = both(lambda: iter([(RETURNS[name], W)]))
    values = list(got.val.values()) if isinstance(got.val, dict) else got.val
    first = values[0] if isinstance(values, (list, tuple)) else values
    assert float(first) == 5.0
    np.testing.assert_allclose(got.grad[0], [2.0, 4.0])
    if name == "named tuple":
        assert type(got.val) is Result
    if name == "tuple":
        assert type(got.val[1]["n"]) is int


BAD: dict[str, tuple[Any, str]] = {
    "vector": (lambda w: w, r"f32\[2\]"),
    "one element": (lambda w: w[:1], r"f32\[1\]"),
    "integer": (lambda w: jnp.int32(3), "i32"),
    "complex": (lambda w: jnp.sum(w) * 1j, "c64"),
    "bool": (lambda w: jnp.sum(w) > 1, "bool"),
    "none": (lambda w: None, "None"),
    "text": (lambda w: "loss", "loss"),
    "empty tuple": (lambda w: (), "tuple"),
}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_a_result_that_is_no_real_scalar_is_refused(name: str, eager: bool) -> None:
    f, text = BAD[name]
    with (
        fx.eager() if eager else contextlib.nullcontext(),
        pytest.raises(ValueError, match=text),
    ):
        quietly(lambda: fx.gradient(f, W))


def test_a_loss_that_depends_on_nothing() -> None:
    got = both(lambda: iter([(lambda w: 3.0, W), (lambda w: jnp.float32(3.0), W)]))
    assert [float(g.val) for g in got] == [3.0, 3.0]
    assert [g.grad for g in got] == [(None,), (None,)]


# --- None and zero --------------------------------------------------------------------------

PATHS: dict[str, tuple[Any, Any]] = {
    "unused": (lambda a, b: jnp.sum(a), None),
    "behind stop_gradient": (lambda a, b: jnp.sum(a * fx.stop_gradient(b)), None),
    "a function stopped": (lambda a, b: jnp.sum(a * fx.stop_gradient(jnp.sin(b) * b)), None),
    "as integer": (lambda a, b: jnp.sum(a * b.astype(int)), None),
    "as condition": (lambda a, b: jnp.sum(jnp.where(b > 1, a, 0)), None),
    "as index": (lambda a, b: a[jnp.argmax(b)], None),
    "its shape": (lambda a, b: jnp.sum(a * jnp.ones_like(b)), None),
    "times zero": (lambda a, b: jnp.sum(a + 0 * b), [0.0, 0.0]),
    "times a zero array": (lambda a, b: jnp.sum(a + jnp.zeros(2) * b), [0.0, 0.0]),
    "branch not taken": (lambda a, b: jnp.sum(jnp.where(a > 0, a, b)), [0.0, 0.0]),
    "minus itself": (lambda a, b: jnp.sum(a + b - b), [0.0, 0.0]),
    "floor": (lambda a, b: jnp.sum(a * jnp.floor(b)), [0.0, 0.0]),
    "sign": (lambda a, b: jnp.sum(a * jnp.sign(b)), [0.0, 0.0]),
    "relu at zero": (lambda a, b: jnp.sum(a + jax.nn.relu(-b)), [0.0, 0.0]),
    "in aux only": (lambda a, b: (jnp.sum(a), jnp.sum(b)), None),
    "cond": (lambda a, b: jax.lax.cond(a[0] > 0, lambda: a[0], lambda: b[0]), [0.0, 0.0]),
    "half stopped": (lambda a, b: jnp.sum(b * fx.stop_gradient(b) * a / a), [1.0, 2.0]),
}


@pytest.mark.parametrize("name", PATHS)
def test_none_where_no_path_leads_and_zero_where_one_does(name: str) -> None:
    f, want = PATHS[name]
    compiled = fx.gradient(f, W, W + 0.0)[1]
    assert (compiled is None) == (want is None), compiled
    if want is not None:
        np.testing.assert_allclose(compiled, want)
    # Uncompiled, a derivative that JAX knows to be zero is no path.
    if name not in ("floor", "sign"):
        both(lambda: iter([(f, W, W + 0.0)]))


# --- arguments of every kind ----------------------------------------------------------------


def test_numbers_as_arguments() -> None:
    got = fx.gradient(lambda x, n, k, c: x * n + k**2 * c, 2.0, 3, 5, 1.5)
    np.testing.assert_allclose([float(g) for g in got], [3.0, 2.0, 15.0, 25.0])
    both(lambda: iter([(lambda x, n: x * n, 2.0, 3), (lambda x, n: x * n, 4.0, 5)]))


def test_an_int_that_is_needed_as_an_integer_has_no_gradient() -> None:
    f = lambda w, n: sum(jnp.sum(w) for _ in range(n))
    for n in (2, 3):
        val, (dw, dn) = fx.withgradient(f, W, n)
        assert (float(val), dn) == (3.0 * n, None)
        np.testing.assert_allclose(dw, [n, n])
    assert record().compiled


def test_numbers_inside_arguments() -> None:
    f = lambda p: p["a"] * p["b"][0] + 0 * p["n"]
    p, q = {"a": 2.0, "b": (3.0,), "n": 1}, {"a": 5.0, "b": (7.0,), "n": 1}
    got = both(lambda: iter([(f, p), (f, q)]))
    assert [float(g.val) for g in got] == [6.0, 35.0]
    assert [float(g.grad[0]["a"]) for g in got] == [3.0, 7.0]


def test_complex_numbers_have_the_conjugate_gradient() -> None:
    z = jnp.array([1 + 1j, 2 - 1j])
    [got] = both(lambda: iter([(lambda z: jnp.sum(jnp.abs(z) ** 2), z)]))
    np.testing.assert_allclose(got.grad[0], 2 * np.asarray(z), rtol=1e-6)


MODELS: dict[str, Any] = {
    "array": lambda: W,
    "numpy": lambda: np.array([1.0, 2.0], np.float32),
    "list": lambda: [W, 2.0],
    "tuple": lambda: (W, [W + 0.0]),
    "named tuple": lambda: Result(W, W + 0.0),
    "dict": lambda: {"a": W, "b": {"c": W + 0.0, "i": jnp.arange(2)}},
    "dataclass": lambda: Data(W),
    "module": lambda: Affine(W, jnp.float32(1.0)),
    "subclass": lambda: Doubled(W, jnp.float32(1.0)),
    "buffered": Buffered,
    "equinox": lambda: Eqx(W),
    "chain": lambda: fx.Chain(fx.Dense(2, 3, jnp.tanh, rng=0), fx.Dense(3, 1, rng=1)),
    "empty": lambda: {"a": W, "none": None, "l": [], "t": ()},
}


def _total(tree: Any) -> Any:
    leaves = [tree.weight] if isinstance(tree, Data) else jax.tree.leaves(tree)
    leaves = [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return sum((jnp.sum(jnp.asarray(x) ** 2) for x in leaves), jnp.float32(0))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_nested_like_the_model(name: str) -> None:
    model = MODELS[name]()
    compiled, again = both(lambda: iter([(_total, model), (_total, MODELS[name]())]))
    agree(compiled.grad, again.grad)
    assert jax.tree.leaves(compiled.grad[0])
    assert record().compiled


def test_a_dict_a_tuple_and_a_node_by_name() -> None:
    model = {"m": Doubled(W, jnp.float32(1.0)), "l": (W * 3,)}
    loss = lambda p: jnp.sum(p["m"](X)) + jnp.sum(p["l"][0])
    g = fx.gradient(loss, model)[0]
    np.testing.assert_allclose(g["m"].weight, [6.0, 8.0])
    np.testing.assert_allclose(g["m"].inner[0].weight, [3.0, 4.0])
    np.testing.assert_allclose(g["l"][0], [1.0, 1.0])
    assert (g["m"].steps, g["m"].mask, g["m"].name, g["m"].inner[0].bias) == (None,) * 4
    assert type(g["l"]) is tuple
    assert type(g["m"]) is fx.Node


def test_buffers_have_no_gradient() -> None:
    g = fx.gradient(lambda m: jnp.sum(m.weight * m.buffer), Buffered())[0]
    assert g.buffer is None


def test_an_equinox_module_runs_its_own_methods() -> None:
    [got] = both(lambda: iter([(lambda m: m(), Eqx(W))]))
    np.testing.assert_allclose(got.grad[0].weight, [2.0, 4.0])


# --- the model as an argument and as a capture ----------------------------------------------


def test_a_captured_model_is_not_differentiated_though_it_is_the_argument() -> None:
    model = Affine(W, jnp.float32(0.0))
    for _ in range(2):
        g = fx.gradient(lambda m: jnp.sum(m.weight * model.weight), model)[0]
        np.testing.assert_allclose(g.weight, [1.0, 2.0])
    both(lambda: iter([(lambda m: jnp.sum(m.weight * model.weight), model)]))


def test_a_captured_array_is_not_differentiated_though_it_is_the_argument() -> None:
    w = W + 0.0
    np.testing.assert_allclose(fx.gradient(lambda v: jnp.sum(v * w), w)[0], [1.0, 2.0])
    xs = [w]
    np.testing.assert_allclose(fx.gradient(lambda v: jnp.sum(v[0] * xs[0]), xs)[0][0], [1.0, 2.0])


def test_a_captured_part_of_the_argument_is_not_differentiated() -> None:
    model = fx.Chain(Affine(W, jnp.float32(0.0)))
    layer = model.layers[0]
    g = fx.gradient(lambda m: jnp.sum(m.layers[0].weight * layer.weight), model)[0]
    np.testing.assert_allclose(g.layers[0].weight, [1.0, 2.0])


def test_the_outer_model_used_by_mistake_warns() -> None:
    model = Affine(W, jnp.float32(0.0))
    with pytest.warns(UserWarning, match="does not depend on the model"):
        g = fx.gradient(lambda m: jnp.sum(model(X)), model)[0]
    assert g.weight is None


def test_a_teacher_in_the_closure_is_an_input() -> None:
    for scale in (1.0, 2.0, 3.0):
        teacher = Affine(W * scale, jnp.float32(0.0))
        val = fx.withgradient(lambda w: jnp.sum(teacher(X) * (X @ w)), W).val
        np.testing.assert_allclose(float(val), scale * (1 + 16 + 36), rtol=1e-6)
    assert record().traces == 1


# --- ties -----------------------------------------------------------------------------------


def test_tied_arrays_have_their_total_at_the_first_place() -> None:
    model = {"a": W, "b": W}
    f = lambda p: jnp.sum(p["a"] * 2 + p["b"] * 3)
    for tied in (False, True, False, True):
        model["b"] = model["a"] if tied else model["a"] + 0.0
        g = fx.gradient(f, model)[0]
        np.testing.assert_allclose(g["a"], [5.0, 5.0] if tied else [2.0, 2.0])
        assert (g["b"] is None) == tied
    assert record().traces == 2


def test_a_tie_between_argument_and_capture_that_comes_and_goes() -> None:
    for tied in (True, False, True):
        w = W + 0.0
        other = w if tied else W * 5
        got = fx.gradient(lambda v: jnp.sum(v * other), w)[0]
        np.testing.assert_allclose(got, other)


# --- structure, dtype, activation -----------------------------------------------------------


def test_changes_of_a_model_are_seen() -> None:
    model = fx.Chain(Affine(W[:, None] * 1.0, jnp.zeros(1)), fx.Dense(1, 1, init=fx.ones32))
    f = lambda m: jnp.sum(m(X))
    base = float(fx.withgradient(f, model).val)
    np.testing.assert_allclose(base, 1 + 4 + 6)
    model.layers[1].activation = lambda v: 2 * v
    np.testing.assert_allclose(float(fx.withgradient(f, model).val), 2 * base)
    model.layers[1].activation = jnp.negative
    np.testing.assert_allclose(float(fx.withgradient(f, model).val), -base)
    model.layers.append(fx.Dense(1, 1, init=lambda *s: jnp.full(s, 3.0)))
    np.testing.assert_allclose(float(fx.withgradient(f, model).val), -3 * base)
    model.layers[0].weight = model.layers[0].weight.astype(jnp.bfloat16)
    assert fx.gradient(f, model)[0].layers[0].weight.dtype == jnp.bfloat16
    del model.layers[1:]
    np.testing.assert_allclose(float(fx.withgradient(f, model).val), base)


@pytest.mark.parametrize("shapes", [[(4, 2), (4, 2), (2, 2), (4, 2), (2, 2)]])
def test_one_program_per_shape(shapes: list[Any]) -> None:
    for shape in shapes:
        x = np.ones(shape, np.float32)
        assert float(fx.withgradient(lambda w: jnp.sum(x @ w), W).val) == 3.0 * shape[0]
    assert record().traces == 2


def test_a_reason_is_given_for_every_trace() -> None:
    for x in (jnp.ones((4, 2)), jnp.ones((2, 2)), jnp.ones((2, 2), jnp.int32)):
        fx.gradient(lambda w: jnp.sum(x @ w), W)
    first, second, third = record().reasons
    assert first == "first call"
    assert "x changed shape from (4, 2) to (2, 2)" in second
    assert "dtype" in third


# --- arrays that are overwritten, threads ---------------------------------------------------


@pytest.mark.parametrize("way", ["captured", "argument", "view", "float64"])
def test_a_numpy_array_overwritten_right_after_the_call(way: str) -> None:
    big = np.ones((1000, 1000), np.float64 if way == "float64" else np.float32)
    x = big[::2] if way == "view" else big
    w = jnp.ones(1000)
    for n in (1.0, 2.0, 3.0, 4.0):
        big[:] = n
        if way == "argument":
            got = fx.withgradient(lambda v, x: jnp.sum(x * 2 @ v) / len(x), w, x)
        else:
            got = fx.withgradient(lambda v: jnp.sum(x * 2 @ v) / len(x), w)
        big[:] = -7.0
        np.testing.assert_allclose(float(got.val), 2000.0 * n, rtol=1e-4)
        np.testing.assert_allclose(got.grad[0], np.full(1000, 2 * n), rtol=1e-4)


def test_threads_do_not_mix_up_their_captures() -> None:
    wrong: list[Any] = []

    def work(k: int) -> None:
        for i in range(30):
            c, cfg = float(k), {"x": jnp.full(2, float(i))}
            val = fx.withgradient(lambda w: jnp.sum(c * cfg["x"] * w), W).val
            if abs(float(val) - 3 * k * i) > 1e-3:
                wrong.append((k, i, float(val)))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert record().compiled


def test_compiled_takes_keywords_and_sees_changes() -> None:
    f = fx.compiled(lambda x, k: jnp.sum(x) * k)
    for k in (2.0, 3.0, 5.0, 7.0):
        assert float(f(W, k=k)) == 3 * k
    assert all(r.compiled for r in fx.explain())
    assert sum(r.traces for r in fx.explain()) <= 2
