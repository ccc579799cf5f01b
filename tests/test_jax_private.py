"""What fluxax leans on of JAX's private parts, each by its behaviour.

A JAX version that changes one fails here, with the name of what changed, before anything else
gives a puzzling result.
"""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluxax import _jax

X = jnp.array([1.0, 2.0])


def test_the_version_of_jax_is_one_that_was_tried() -> None:
    version = tuple(map(int, jax.__version__.split(".")[:2]))
    assert (0, 10) <= version < (0, 11), (
        f"fluxax leans on private parts of JAX that were tried with 0.10, got {jax.__version__}. "
        "If the other tests of this file pass, widen the range here and in docs/design/capture.md."
    )


def test_the_class_of_arrays() -> None:
    assert type(X) is _jax.ArrayImpl
    assert type(jax.jit(lambda x: x)(X)) is _jax.ArrayImpl


def test_the_class_of_jit_functions() -> None:
    assert isinstance(jax.jit(lambda x: x), _jax.JitFunction)
    assert isinstance(jnp.tanh, _jax.JitFunction)


def test_traces_are_told_apart() -> None:
    seen = []

    def f(x: jax.Array) -> jax.Array:
        outer = _jax.current_trace()
        jax.vmap(lambda v: seen.append(_jax.current_trace() is outer) or v)(x)
        seen.append(_jax.current_trace() is outer)
        return x.sum()

    jax.make_jaxpr(f)(X)
    jax.vjp(f, X)
    assert seen == [False, True, False, True]


def test_tracing_is_known() -> None:
    seen = []
    jax.make_jaxpr(lambda x: seen.append(_jax.tracing()) or x)(X)
    jax.vjp(lambda x: seen.append(_jax.tracing()) or x, X)
    assert seen == [True, True]
    assert not _jax.tracing()


def test_settings_that_change_a_program_are_seen() -> None:
    before = _jax.trace_settings()
    with jax.enable_x64():
        assert _jax.trace_settings() != before
    assert _jax.trace_settings() == before
    hash(before)


def test_eager_tracers_have_their_values() -> None:
    seen = []
    jax.vjp(lambda x: seen.append(_jax.concrete(x * 2)) or x.sum(), X)
    np.testing.assert_array_equal(seen[0], [2.0, 4.0])


def test_eager_tracers_answer_only_in_our_runs() -> None:
    def f(x: jax.Array) -> jax.Array:
        loss = x.sum()
        with pytest.raises(jax.errors.ConcretizationTypeError):
            float(loss)
        _jax.showing.now = True
        try:
            assert (float(loss), f"{loss:.1f}", str(loss)) == (3.0, "3.0", "3.0")
        finally:
            _jax.showing.now = False
        return loss

    jax.vjp(f, X)


def test_abstract_tracers_have_none() -> None:
    seen = []
    jax.make_jaxpr(lambda x: seen.append(_jax.is_tracer(_jax.concrete(x))) or x)(X)
    assert seen == [True]


def test_what_wraps_a_function_is_pickled_and_copied_by_name() -> None:
    for function in (jnp.tanh, jax.nn.relu, jnp.add, jnp.logaddexp):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(jax.custom_jvp(lambda x: x))


def test_arrays_are_placed_as_firmly_as_others() -> None:
    firm = jax.device_put(X, jax.devices()[0])
    assert _jax.beside(np.zeros(2), firm).committed
    assert not _jax.beside(np.zeros(2), X).committed


def test_a_jaxpr_can_be_cut() -> None:
    """`optimisers/_hold.py` evaluates parts of one."""
    closed = jax.make_jaxpr(lambda x: (y := x + 1, y * 3))(X)
    jaxpr = closed.jaxpr
    first = jaxpr.eqns[0].outvars[0]
    info = jaxpr.debug_info.with_unknown_names()
    part = jaxpr.replace(
        invars=[first], eqns=jaxpr.eqns[-1:], outvars=jaxpr.outvars[1:], debug_info=info
    )
    np.testing.assert_array_equal(_jax.eval_jaxpr(part, [], X)[0], [3.0, 6.0])


def test_keys_are_known() -> None:
    assert _jax.is_key(jax.random.key(0))
    assert not _jax.is_key(X)


def test_traces_are_forgotten_and_programs_are_not() -> None:
    scale, traces = [2.0], []

    @jax.jit
    def helper(x: jax.Array) -> jax.Array:
        traces.append(scale[0])
        return x * scale[0]

    outer = lambda x: helper(x)
    jax.make_jaxpr(outer)(X)
    helper(X)
    scale[0] = 3.0
    jax.make_jaxpr(lambda x: helper(x))(X)
    assert 3.0 not in traces
    _jax.forget_traces()
    before = len(traces)
    helper(X)  # compiled as it was
    assert len(traces) == before
    jax.make_jaxpr(lambda x: helper(x))(X)
    assert traces[-1] == 3.0


def test_an_alias_is_another_object_with_the_same_memory() -> None:
    for array in (jnp.arange(3.0), jax.device_put(jnp.arange(3.0), jax.devices()[0])):
        again = _jax.alias(array)
        assert again is not array
        assert again.unsafe_buffer_pointer() == array.unsafe_buffer_pointer()
        assert (again.committed, again.sharding) == (array.committed, array.sharding)
        np.testing.assert_array_equal(again + 1, [1, 2, 3])
