"""Names that appear later, names nobody wrote down, things that equal each other and are not."""

from __future__ import annotations

import copy
import cProfile
import decimal
import functools
import math
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import Cases, Turns, check_case, check_eager, quietly

import fluxax as fx

case = Cases()  # these must be right; some of them may step aside
SCALE: Any = 0.0
BUFFER = [0.0]


class Base:
    scale = 1.0

    def __init__(self, c: Any = 1.0):
        self.c = c

    def scaled(self, w: Any) -> Any:
        return self.c * w**2


def fresh(**names: Any) -> Any:
    """An object of a class of its own."""
    return type("Fresh", (Base,), names)(1.0)


def module_of_mine(source: str) -> Any:
    module = types.ModuleType("late_module_of_mine")
    module.__file__ = "/home/user/late.py"
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    return module


# --- what appears later --------------------------------------------------------------------


@case(None)
def method_that_appears_on_the_subclass() -> Turns:
    thing = fresh()
    f = lambda w: jnp.sum(thing.scaled(w))
    yield f, 1
    type(thing).scaled = lambda self, w: 3 * w**2
    yield f, 3


@case(None)
def method_that_appears_on_the_instance() -> Turns:
    thing = fresh()
    f = lambda w: jnp.sum(thing.scaled(w))
    yield f, 1
    thing.scaled = lambda w: 3 * w**2
    yield f, 3


@case(None)
def attribute_that_appears_on_the_class() -> Turns:
    thing = fresh()
    f = lambda w: jnp.sum(getattr(thing, "late", 1.0) * w**2)
    yield f, 1
    type(thing).late = 2.0
    yield f, 2


@case(None)
def attribute_that_appears_on_the_object() -> Turns:
    thing = fresh()
    f = lambda w: jnp.sum((thing.late if hasattr(thing, "late") else 1.0) * w**2)
    yield f, 1
    thing.late = 2.0
    yield f, 2


@case(None)
def attribute_of_a_computed_name_that_appears() -> Turns:
    thing, name = fresh(), "-".join(["la", "te"]).replace("-", "")
    f = lambda w: jnp.sum(getattr(thing, name, 1.0) * w**2)
    yield f, 1
    thing.late = 2.0
    yield f, 2


@case(None)
def number_of_attributes() -> Turns:
    thing = fresh()
    f = lambda w: jnp.sum(len(vars(thing)) * w**2)
    yield f, 1
    thing.another = "x"
    yield f, 2


@case(None)
def module_attribute_that_appears() -> Turns:
    mine = module_of_mine("")
    f = lambda w: jnp.sum(getattr(mine, "late", 1.0) * w**2)
    yield f, 1
    mine.late = 2.0
    yield f, 2


@case(None)
def module_attribute_of_a_computed_name() -> Turns:
    mine, name = module_of_mine("late = 1.0"), "-".join(["la", "te"]).replace("-", "")
    f = lambda w: jnp.sum(getattr(mine, name, 7.0) * w**2)
    for mine.late in (2.0, 3.0):
        yield f, mine.late


@case(None)
def global_that_appears() -> Turns:
    def f(w: Any) -> Any:
        try:
            return jnp.sum(LATE * w**2)  # it appears later
        except NameError:
            return jnp.sum(w**2)

    globals().pop("LATE", None)
    yield f, 1
    globals()["LATE"] = 2.0
    yield f, 2
    del globals()["LATE"]
    yield f, 1


@case(None)
def cell_that_is_emptied() -> Turns:
    c = 2.0

    def f(w: Any) -> Any:
        try:
            return jnp.sum(c * w**2)
        except NameError:
            return jnp.sum(w**2)

    yield f, 2
    del c
    yield f, 1


@case(None)
def bases_of_a_class_changed() -> Turns:
    class A:
        scale = 2.0

    class B:
        scale = 3.0

    class C(A):
        pass

    thing = C()
    f = lambda w: jnp.sum(thing.scale * w**2)
    yield f, 2
    C.__bases__ = (B,)
    yield f, 3


class Meta(type):
    scale = 1.0


class Made(metaclass=Meta):
    pass


@case(None)
def attribute_of_a_metaclass() -> Turns:
    f = lambda w: jnp.sum(Made.scale * w**2)
    for Meta.scale in (2.0, 3.0):
        yield f, Meta.scale


class Asks:
    """A descriptor and an object with attributes made on demand."""

    def __get__(self, owner: Any, cls: Any) -> Any:
        return SCALE

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return SCALE


@case(None)
def descriptor_and_dynamic_attributes() -> Turns:
    global SCALE
    owner, asks = fresh(value=Asks()), Asks()
    for SCALE in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(owner.value * asks.anything * w**2)), SCALE**2


# --- methods, which run as they are --------------------------------------------------------


@jax.jit
def jitted(w: Any) -> Any:
    return SCALE * w**2


def body(carry: Any, v: Any) -> Any:
    return carry + SCALE * v**2, None


@functools.cache
def table(n: int) -> Any:
    return jnp.arange(1.0, 1.0 + n)


class Uses:
    def by_jit(self, w: Any) -> Any:
        return jitted(w)

    def by_scan(self, w: Any) -> Any:
        return jax.lax.scan(body, jnp.float32(0), w)[0]

    def by_table(self, w: Any) -> Any:
        return table(1)[0] * w**2

    def by_type(self, w: Any, c: Any) -> Any:
        return c * w**2 if isinstance(c, float) else 0 * w

    def by_list(self, w: Any) -> Any:
        return BUFFER[0] * w**2


uses = Uses()


@case(None)
def list_read_by_a_method() -> Turns:
    for BUFFER[0] in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(uses.by_list(w))), BUFFER[0]


@case(None)
def number_whose_type_a_method_asks_for() -> Turns:
    for c in (2.0, 3.0, 5.0, 7.0):
        yield (lambda w: jnp.sum(uses.by_type(w, c))), c


@case(None)
def wrapped_by_vmap_outside() -> Turns:
    global SCALE
    rows = jax.vmap(lambda v: SCALE * v**2)
    for SCALE in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(rows(w))), SCALE


@case(None)
def wrapped_by_checkpoint_outside() -> Turns:
    global SCALE
    again = jax.checkpoint(lambda w: SCALE * w**2)
    for SCALE in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(again(w))), SCALE


# --- equal, and not the same ---------------------------------------------------------------


@case(None)
def equal_decimals_that_print_differently() -> Turns:
    for text in ("1.0", "1.00"):
        d = decimal.Decimal(text)
        yield (lambda w: jnp.sum(len(str(d)) * w**2)), len(text)


@case(None)
def equal_ranges_with_other_ends() -> Turns:
    for r in (range(0, 3, 2), range(0, 4, 2)):
        yield (lambda w: jnp.sum(r.stop * w**2)), r.stop


@case(3)
def slices() -> Turns:
    for i in (1, 2, 1, 2, 1, 2):
        s = slice(0, i)
        yield (lambda w: jnp.sum(len([1, 2, 3][s]) * w**2)), i


@case(None)
def complex_zeros_of_other_signs() -> Turns:
    for z in (complex(0, 0.0), complex(0, -0.0)):
        c = math.copysign(2.0, z.imag)
        yield (lambda w: jnp.sum(math.copysign(2.0, z.imag) * w**2)), c


@case(None)
def zeros_of_other_signs_in_a_set_and_as_a_key() -> Turns:
    for zero in (0.0, -0.0):
        s, d = {zero}, {zero: 1}
        c = math.copysign(1.0, zero)
        f = lambda w: jnp.sum(
            (math.copysign(1.0, next(iter(s))) + math.copysign(2.0, next(iter(d)))) * w**2
        )
        yield f, 3 * c


@case(None)
def order_in_which_a_set_was_filled() -> Turns:
    for s in ({8, 0}, {0, 8}):
        first = next(iter(s))
        yield (lambda w: jnp.sum((next(iter(s)) + 1) * w**2)), first + 1


@case(None)
def locks_compared_by_identity() -> Turns:
    a = b = object()
    f = lambda w: jnp.sum((2.0 if a is b else 1.0) * w**2)
    yield f, 2
    b = object()
    yield f, 1


@case(None)
def generators_compared_by_identity() -> Turns:
    a = b = (i for i in range(3))
    f = lambda w: jnp.sum((2.0 if a is b else 1.0) * w**2)
    yield f, 2
    b = (i for i in range(3))
    yield f, 1


# --- builtins as values --------------------------------------------------------------------


@case(1)
def builtins_in_variables() -> Turns:
    for _ in range(3):
        add, as_number = sum, float
        yield (lambda w: add([jnp.sum(w**2), jnp.sum(w**2)]) * as_number("1")), 2


@case(None)
def copied_inside() -> Turns:
    thing = fresh()
    for thing.c in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(copy.copy(thing).scaled(w))), thing.c


@pytest.fixture(autouse=True)
def empty() -> None:
    fx.clear_cache()
    table.cache_clear()


@pytest.mark.parametrize("name", list(case.table))
def test_arithmetic(name: str) -> None:
    make, traces = case.table[name]
    quietly(lambda: check_case(make, traces, compiled=traces is not None))


#: Functions that JAX itself remembers by identity, so that without our copies it sees no change.
REMEMBERED = {
    "wrapped_by_checkpoint_outside",
}


@pytest.mark.parametrize("name", [n for n in case.table if n not in REMEMBERED])
def test_eager(name: str) -> None:
    check_eager(case.table[name][0])


def test_a_cached_helper_of_a_method_keeps_no_tracer() -> None:
    w = jnp.ones(2)
    for _ in range(2):
        val, _ = quietly(lambda: fx.withgradient(lambda w: jnp.sum(uses.by_table(w)), w))
        assert float(val) == 2.0
    np.testing.assert_allclose(table(1), [1.0])
    assert not isinstance(table(1), jax.core.Tracer)


def test_a_function_is_compiled_while_a_profiler_runs() -> None:
    profile = cProfile.Profile()
    profile.enable()
    try:
        grads = fx.gradient(lambda w: jnp.sum(w**2), jnp.ones(2))
        assert sys.getprofile() in (profile, None)  # None: Python 3.12 watches in another way
    finally:
        profile.disable()
    np.testing.assert_array_equal(grads[0], [2.0, 2.0])
    assert fx.explain()[0].compiled
