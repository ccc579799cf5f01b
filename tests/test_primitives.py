"""What is understood of JAX's primitives, and what is assumed of one that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.interpreters import ad, mlir

import fluxax as fx
from fluxax import _primitives
from fluxax._compile._jaxpr import dependence, lonely_numbers, reaches
from tests.objectives import uncompiled

X = np.arange(3, dtype=np.float32)


def new_primitive(name: str, f: Callable[..., Any]) -> Any:
    """A primitive that nobody has heard of: two operands, two results, or one of each."""
    primitive = jex.Primitive(name)
    primitive.multiple_results = True
    run = lambda *args, **params: f(*args)
    primitive.def_impl(run)
    primitive.def_abstract_eval(lambda *avals, **params: list(avals))
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))

    def jvp(primals: Any, tangents: Any, **params: Any) -> Any:
        return jax.jvp(run, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))

    ad.primitive_jvps[primitive] = jvp
    return primitive


swapped = new_primitive("swapped", lambda a, b: [b * b, 1.0 * a])


def of_a_library(primitive: Any, **params: Any) -> Callable[..., Any]:
    """A function that uses it, where JAX is installed: objectives that call it are compiled."""
    space = {"primitive": primitive, "params": params}
    code = "def use(a, b):\n    return primitive.bind(a, b, **params)"
    exec(compile(code, jax.__file__, "exec"), space)
    space["__name__"] = "jax.swapping"
    return space["use"]


swap = of_a_library(swapped)
swap_by = of_a_library(swapped, by=print)


def depends(f: Callable[..., Any], *args: Any) -> list[bool]:
    """Which of the arguments the first output depends on."""
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    return dependence(jaxpr, [i == 0 for i in range(len(jaxpr.outvars))])


def lonely(f: Callable[..., Any], *args: Any) -> bool:
    """Whether the first argument, a number, must stay a constant."""
    return bool(lonely_numbers(jax.make_jaxpr(f)(*args).jaxpr, {0: 0}))


def test_every_output_of_what_is_not_understood_depends_on_every_input() -> None:
    assert depends(lambda a, b, c: swapped.bind(a, b)[0], X, X, X) == [True, True, False]
    assert depends(jax.jit(lambda a, b, c: swapped.bind(a, b)[1]), X, X, X) == [True, True, False]


def test_every_number_that_goes_into_it_stays_a_constant() -> None:
    assert lonely(lambda n, x: swapped.bind(n, x[0])[1], 2.0, X)
    assert lonely(lambda n, x: lax.map(lambda v: swapped.bind(n, v)[1], x), 2.0, X)
    assert not lonely(lambda n, x: n * x + swapped.bind(x, x)[0], 2.0, X)


def test_its_pulled_back_gradient_is_reached() -> None:
    jaxpr = jax.make_jaxpr(lambda ct: [swapped.bind(ct, X[0])[0], jnp.zeros(3)])(X[0]).jaxpr
    assert reaches(jaxpr) == [True, False]


def test_its_gradients_are_right() -> None:
    fx.clear_cache()
    found = fx.withgradient(lambda a, b, k: jnp.sum(swap(a, b)[0]) * k, X, X + 1, 2.0)
    np.testing.assert_allclose(found.val, 2 * np.sum((X + 1) ** 2), rtol=1e-6)
    np.testing.assert_allclose(found.grad[0], np.zeros(3))  # not None: nobody knows
    np.testing.assert_allclose(found.grad[1], 4 * (X + 1), rtol=1e-6)
    for n in (2, 3, 4):  # a number that changes
        found = fx.withgradient(lambda a: jnp.sum(swap(a, n * a)[0]), X)
        np.testing.assert_allclose(found.grad[0], 2 * n * n * X, rtol=1e-6)
    assert all(r.compiled for r in fx.explain())


def test_it_may_call_python_if_it_has_a_function() -> None:
    plain = jax.make_jaxpr(lambda a: swapped.bind(a, a))(X).jaxpr
    assert _primitives.calls_back(plain) is None
    hidden = jax.make_jaxpr(jax.jit(lambda a: swapped.bind(a, a, by=print)))(X).jaxpr
    assert _primitives.calls_back(hidden) == "swapped"
    found = uncompiled(lambda a: jnp.sum(swap_by(a, a)[0]), X)
    np.testing.assert_allclose(found.grad[0], 2 * X)


OF_ONE_OPERATION = {
    "einsum": lambda a: jnp.einsum("ij,kj->ik", a[None], a[None]),
    "searchsorted": lambda a: a[jnp.searchsorted(a, a)],
    "nonzero": lambda a: a[jnp.nonzero(a > 1, size=2)[0]],
    "ldexp": lambda a: jnp.ldexp(a, 2),
    "checkpoint_name": lambda a: checkpoint_name(a, "here"),
    "sort": jnp.sort,
    "solve": lambda a: jnp.linalg.solve(jnp.eye(3) + a, a),
    "scan": lambda a: jax.lax.associative_scan(jnp.multiply, a),
    "interp": lambda a: jnp.interp(a, a, a),
    "bits": lambda a: a * jax.random.bernoulli(jax.random.key(0), 0.5, (3,)),
}


@pytest.mark.parametrize("what", OF_ONE_OPERATION)
def test_operations_of_jax_do_not_call_python(what: str) -> None:
    """From 0.12 on some are primitives of a new kind, with an object that tells all."""
    fx.clear_cache()
    f = OF_ONE_OPERATION[what]
    assert _primitives.calls_back(jax.make_jaxpr(f)(X).jaxpr) is None
    with fx.strict():
        found = fx.gradient(lambda a: jnp.sum(f(a)), X)
    np.testing.assert_allclose(found[0], jax.grad(lambda a: jnp.sum(f(a)))(X), rtol=1e-5)


def test_it_may_loop_if_it_has_a_program() -> None:
    inner = jax.make_jaxpr(lambda a: a + 1)(X)
    assert not _primitives.may_loop(jax.make_jaxpr(lambda a: swapped.bind(a, a))(X))
    assert _primitives.may_loop(jax.make_jaxpr(lambda a: swapped.bind(a, a, program=inner))(X))


def renamed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if JAX had given a primitive of that name operands of another order."""
    monkeypatch.setattr(_primitives, "holds", lambda part: part != name)


def scan_of(use: str) -> Callable[..., Any]:
    def f(k: Any, c: Any, other: Any, xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            c, other = carry
            return (c + k.sum() + x.sum(), other * 2), other

        (c, other), ys = lax.scan(body, (c, other), xs)
        return {"carry": c, "other": other.sum(), "stacked": ys}[use]

    return f


SCANS = {
    "carry": [True, True, False, True],
    "other": [False, False, True, False],
    "stacked": [False, False, True, False],
}
SHAPES = (np.ones(1, np.float32), np.float32(1), np.ones((2, 2), np.float32), np.ones((5, 3)))


@pytest.mark.parametrize("use", SCANS)
def test_a_scan_is_known_by_its_shapes(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert depends(scan_of(use), *SHAPES) == SCANS[use]
    renamed(monkeypatch, "scan")
    assert depends(scan_of(use), *SHAPES) == [True] * 4


def test_a_scan_of_one_shape_throughout() -> None:
    """Three turns over (3, 3): no shape alone says what is a constant and what is carried."""
    square = np.ones((3, 3), np.float32)
    stack = np.ones((3, 3, 3), np.float32)
    f = lambda k, c, d, xs: lax.scan(lambda s, x: ((s[1] + x, s[0] @ k), x), (c, d), xs)[0][0]
    assert depends(f, square, square, square, stack) == [True, True, True, True]
    f = lambda k, c, d, xs: lax.scan(lambda s, x: ((s[0] + x, s[1] @ k), s[1]), (c, d), xs)[0][0]
    assert depends(f, square, square, square, stack) == [False, True, False, True]


def test_the_turns_of_a_scan() -> None:
    scan = lambda xs: jax.make_jaxpr(lambda c: lax.scan(lambda c, _: (c * 2, None), c, xs, 7))(X)
    for xs in (None, np.ones((7, 2))):
        assert _primitives.turns(scan(xs).jaxpr.eqns[-1]) == 7


def choice(i: Any, a: Any, b: Any) -> Any:
    return lax.cond(i > 0, lambda a, b: (a * 2, b), lambda a, b: (-a, a), a, b)[0]


def test_a_branch_is_chosen_without_a_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    assert depends(choice, np.float32(1), X, X) == [False, True, False]
    renamed(monkeypatch, "cond")
    assert depends(choice, np.float32(1), X, X) == [False, True, True]  # `i > 0` is boolean


@jax.custom_jvp
def ruled(a: Any, b: Any) -> Any:
    return a * 2


ruled.defjvp(lambda primals, tangents: (ruled(*primals), 2 * tangents[0]))

CALLS = {
    "jit": jax.jit(lambda a, b: a * 2),
    "checkpoint": jax.checkpoint(lambda a, b: a * 2),
    "custom_jvp": ruled,
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_are_looked_into(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f = lambda a, b: CALLS[call](a, b)
    assert depends(f, X, X) == [True, False]
    assert not lonely(lambda n, x: CALLS[call](x, n), 2.0, X)
    renamed(monkeypatch, "calls")
    assert depends(f, X, X) == [True, True]
    assert lonely(lambda n, x: CALLS[call](x, n), 2.0, X)


def test_numbers_in_branches_and_scans() -> None:
    turn = lambda g: lambda n, x: lax.scan(lambda c, v: (c + g(n, v), None), 0.0, x)[0]
    assert not lonely(turn(lambda n, v: n * v), 2.0, X)
    assert lonely(turn(lambda n, v: n * n * v), 2.0, X)
    fork = lambda g: lambda n, x: lax.cond(x[0] > 0, lambda n: g(n, x), lambda n: x, n)
    assert not lonely(fork(lambda n, x: n * x), 2.0, X)
    assert lonely(fork(lambda n, x: n * n * x), 2.0, X)
    assert lonely(lambda n, x: lax.while_loop(lambda c: c[0] < n, lambda c: c + 1, x), 2.0, X)


def test_what_is_written_through_a_reference_has_a_path() -> None:
    def f(a: Any, b: Any) -> Any:
        box = jax.new_ref(jnp.zeros(3))
        box[...] = a * 2
        return box[...]

    assert depends(f, X, X)[0]
    assert reaches(jax.make_jaxpr(f)(X, X).jaxpr) == [True]


COMMON = {
    "where": lambda n, x: jnp.where(x > 1, x, n),
    "clip": lambda n, x: jnp.clip(x, n, x + 1),
    "maximum": lambda n, x: jnp.maximum(x, n),
    "power": lambda n, x: n**x,
    "logaddexp": lambda n, x: jnp.logaddexp(x, n),
    "index": lambda n, x: x[n],
    "set": lambda n, x: x.at[0].set(n),
    "sum": lambda n, x: jnp.sum(x, initial=n),
    "softmax": lambda n, x: jax.nn.softmax(x / n),
    "leaky": lambda n, x: jax.nn.leaky_relu(x, n),
    "key": lambda n, x: x * jax.random.normal(jax.random.fold_in(jax.random.key(0), n), (3,)),
}


@pytest.mark.parametrize("what", COMMON)
def test_numbers_in_common_operations_are_inputs(what: str) -> None:
    """A new name for an old operation would make numbers constants without need."""
    assert not lonely(COMMON[what], 2 if what in ("index", "key") else 2.0, X)
