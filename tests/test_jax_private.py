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
from fluxax._jax_parts import PARTS, Part, failure

X = jnp.array([1.0, 2.0])


def test_the_version_of_jax_is_one_that_was_tried() -> None:
    assert _jax.was_tried(), (
        f"fluxax was tried with JAX {_jax.tried_versions()}, got {jax.__version__}. If the other "
        "tests of this file pass, change LAST_TRIED in fluxax/_jax.py."
    )


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_part_holds(part: Part) -> None:
    assert failure(part) is None


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
        jax.vmap(lambda v: seen.append(_jax.current_trace() == outer) or v)(x)
        seen.append(_jax.current_trace() == outer)
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


def test_nothing_is_traced_in_callbacks() -> None:
    seen = []
    see = lambda x: seen.append(_jax.tracing()) or x
    jax.pure_callback(see, X, X)
    jax.jit(lambda x: jax.pure_callback(see, x, x))(X)
    assert seen == [False, False]


@pytest.mark.parametrize("value", [1.5, 2, 1j], ids=str)
@pytest.mark.parametrize("wide", [False, True])
def test_weak_types(value: complex, wide: bool) -> None:
    with jax.enable_x64(wide):
        strong = jnp.asarray(np.asarray([value]))
    again = _jax.weak(strong)
    assert (again.weak_type, again.dtype, again.item()) == (True, strong.dtype, value)
    assert again.committed == strong.committed


def test_no_weak_type_for_short_floats() -> None:
    with pytest.raises(ValueError, match="no bfloat16 array with a weak type"):
        _jax.weak(jnp.ones(3, jnp.bfloat16))
