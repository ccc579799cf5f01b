"""Every change of what an objective reads is seen at the next call: rebinding and mutation."""

from __future__ import annotations

import collections
import importlib.util
import operator
import sys
import types
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from objectives import Cases, Turns, check_case, check_eager

case = Cases()
ARRAYS = [jnp.float32(c) for c in (2.0, 3.0, 5.0)]

# --- cells, defaults, function attributes --------------------------------------------------


@case(traces=2)
def cell_number() -> Turns:
    for c in (2.0, 3.0, 5.0, 7.0):
        yield (lambda w: jnp.sum(c * w**2)), c


@case(traces=1)
def cell_array() -> Turns:
    for c in ARRAYS:
        yield (lambda w: jnp.sum(c * w**2)), c


@case(traces=1)
def one_lambda_whose_cell_is_assigned() -> Turns:
    c = ARRAYS[0]
    f = lambda w: jnp.sum(c * w**2)
    for c in ARRAYS:
        yield f, c


@case(traces=1)
def cell_of_an_inner_function() -> Turns:
    for c in ARRAYS:

        def scaled(w: Any) -> Any:
            return c * w**2

        yield (lambda w: jnp.sum(scaled(w))), c


@case(traces=1)
def interleaved_closures_of_one_code_object() -> Turns:
    fs = [(lambda w, c=c: (lambda: jnp.sum(c * w**2))()) for c in ARRAYS]
    for i in (0, 1, 2, 1, 0, 2, 0):
        yield fs[i], ARRAYS[i]


@case(traces=2)
def default_number() -> Turns:
    for c in (2.0, 3.0, 5.0):
        yield (lambda w, c=c: jnp.sum(c * w**2)), c


@case(traces=1)
def default_replaced_on_one_function() -> Turns:
    def f(w: Any, c: Any = ARRAYS[0]) -> Any:
        return jnp.sum(c * w**2)

    for c in ARRAYS:
        f.__defaults__ = (c,)
        yield f, c


@case(traces=1)
def keyword_default_changed_in_place() -> Turns:
    def f(w: Any, *, c: Any = ARRAYS[0]) -> Any:
        return jnp.sum(c * w**2)

    for c in ARRAYS:
        f.__kwdefaults__["c"] = c
        yield f, c


@case(traces=2)
def helper_default() -> Turns:
    def helper(w: Any, c: Any = 1.0) -> Any:
        return c * w**2

    for c in (2.0, 3.0, 5.0):
        helper.__defaults__ = (c,)
        yield (lambda w: jnp.sum(helper(w))), c


@case(traces=1)
def function_attribute() -> Turns:
    def helper(w: Any) -> Any:
        return helper.scale * w**2

    for c in ARRAYS:
        helper.scale = c
        yield (lambda w: jnp.sum(helper(w))), c


# --- globals, helpers, modules -------------------------------------------------------------

SCALE: Any = 0.0
CHOSEN: Any = None


def two_deep(w: Any) -> Any:
    return SCALE * w**2


def one_deep(w: Any) -> Any:
    return two_deep(w)


@case(traces=2)
def global_number() -> Turns:
    global SCALE
    for SCALE in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(SCALE * w**2)), SCALE


@case(traces=1)
def global_of_a_helper_two_calls_deep() -> Turns:
    global SCALE
    for SCALE in ARRAYS:
        yield (lambda w: jnp.sum(one_deep(w))), SCALE


@case(traces=3)
def helper_redefined() -> Turns:
    global CHOSEN
    CHOSEN = lambda w: 2 * w**2
    f = lambda w: jnp.sum(CHOSEN(w))
    yield f, 2
    CHOSEN = lambda w: 3 * w * w
    yield f, 3
    CHOSEN = two_deep
    global SCALE
    SCALE = 4.0
    yield f, 4


@case(traces=2)
def helper_whose_code_is_replaced() -> Turns:
    def helper(w: Any) -> Any:
        return 2 * w**2

    f = lambda w: jnp.sum(helper(w))
    yield f, 2
    helper.__code__ = (lambda w: 3 * w * w).__code__
    yield f, 3


@case(traces=2)
def global_that_hides_a_builtin() -> Turns:
    f = lambda w: jnp.sum(abs(w) ** 2)
    yield f, 1
    globals()["abs"] = lambda w: 2 * w
    try:
        yield f, 4
    finally:
        del globals()["abs"]
    yield f, 1


def _user_module(name: str, source: str) -> Any:
    """A module of the user's own, as an import would make it; its file need not exist."""
    spec = importlib.util.spec_from_loader(name, loader=None, origin=f"/home/user/{name}.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = f"/home/user/{name}.py"
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    sys.modules[name] = module
    return module


@case(traces=2)
def module_attribute() -> Turns:
    settings = _user_module("settings_of_mine", "scale = 0.0")
    for settings.scale in (2.0, 3.0, 5.0):
        yield (lambda w: jnp.sum(settings.scale * w**2)), settings.scale


@case(traces=1)
def global_of_a_module_function() -> Turns:
    mine = _user_module(
        "functions_of_mine",
        "def scaled(w):\n    return inner(w)\n\ndef inner(w):\n    return c * w**2\n",
    )
    for c in ARRAYS:
        mine.c = c
        yield (lambda w: jnp.sum(mine.scaled(w))), c


@case(traces=1)
def module_in_a_module() -> Turns:
    outer, inner = _user_module("outer_of_mine", ""), _user_module("inner_of_mine", "")
    outer.inner = inner
    for inner.scale in ARRAYS:
        yield (lambda w: jnp.sum(outer.inner.scale * w**2)), inner.scale


@case(traces=2)
def name_made_from_strings() -> Turns:
    cfg = types.SimpleNamespace()
    for c in (2.0, 3.0, 5.0):
        cfg.lam_1 = c
        yield (lambda w: jnp.sum(getattr(cfg, "lam" + "_1") * w**2)), c


@case(traces=3)
def name_read_through_an_attrgetter() -> Turns:
    cfg, read = types.SimpleNamespace(), operator.attrgetter("hidden")
    for c in (2.0, 3.0, 5.0):
        cfg.hidden = c
        yield (lambda w: jnp.sum(read(cfg) * w**2)), c


# --- containers ----------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Any
    second: Any


@case(traces=1)
def list_item_of_arrays() -> Turns:
    xs = [None, 1.0]
    for c in ARRAYS:
        xs[0] = c
        yield (lambda w: jnp.sum(xs[0] * w**2)), c


@case(traces=3)
def list_that_grows() -> Turns:
    xs: list[float] = []
    for n in (1, 2, 3):
        xs.append(1.5)
        yield (lambda w: jnp.sum(sum(xs) * w**2)), 1.5 * n


@case(traces=1)
def dict_value() -> Turns:
    d: dict[Any, Any] = {}
    for c in ARRAYS:
        d["c"] = c
        yield (lambda w: jnp.sum(d["c"] * w**2)), c


@case(traces=2)
def dict_key_added() -> Turns:
    d = {1: jnp.float32(2.0)}
    f = lambda w: jnp.sum(sum(d.values()) * w**2)
    yield f, 2
    d[(2, "b")] = jnp.float32(3.0)
    yield f, 5


@case(traces=2)
def dict_reordered() -> Turns:
    d = {"a": 2.0, "b": 3.0}
    f = lambda w: jnp.sum(next(iter(d.values())) * w**2)
    yield f, 2
    d["a"] = d.pop("a")
    yield f, 3


@case(traces=3)
def keys_that_are_equal_but_of_other_types() -> Turns:
    for key, c in ((1, 2.0), (True, 3.0), (1.0, 4.0)):
        d = {key: None}
        f = lambda w: jnp.sum({int: 2.0, bool: 3.0, float: 4.0}[type(next(iter(d)))] * w**2)
        yield f, c


@case(traces=2)
def set_member_added() -> Turns:
    s = {"a"}
    f = lambda w: jnp.sum((2.0 if "b" in s else 1.0) * w**2)
    yield f, 1
    s.add("b")
    yield f, 2
    s.remove("b")
    yield f, 1


@case(traces=1)
def tuple_rebound() -> Turns:
    for c in ARRAYS:
        t = (c, "name")
        yield (lambda w: jnp.sum(t[0] * w**2)), c


@case(traces=2)
def named_tuple_rebound() -> Turns:
    for c in (2.0, 3.0, 5.0):
        t = Pair(c, 1.0)
        yield (lambda w: jnp.sum(t.first * w**2)), c


@case(traces=1)
def other_containers() -> Turns:
    queue = collections.deque([None], maxlen=1)
    ordered, lazy = collections.OrderedDict(), collections.defaultdict(float)
    for c in ARRAYS:
        queue.append(c)
        ordered["c"] = lazy["c"] = c
        yield (lambda w: jnp.sum((queue[0] + ordered["c"] + lazy["c"]) / 3 * w**2)), c


@case(traces=2)
def deep_inside() -> Turns:
    tree: Any = {"a": [types.SimpleNamespace(b=({"c": 0.0},))]}
    for c in (2.0, 3.0, 5.0):
        tree["a"][0].b[0]["c"] = c
        yield (lambda w: jnp.sum(tree["a"][0].b[0]["c"] * w**2)), c


@case(traces=3)  # a product of two numbers alone: they stay constants
def self_referential_list_and_object() -> Turns:
    xs: list[Any] = [1.0]
    xs.append(xs)
    node: Any = types.SimpleNamespace(c=1.0)
    node.me, node.list = node, xs
    for c in (2.0, 3.0, 5.0):
        xs[0] = node.c = c
        yield (lambda w: jnp.sum(node.me.list[1][1][0] * node.me.me.c * w**2)), c * c


def _power(w: Any, n: int) -> Any:
    return SCALE * w**2 if n == 0 else _power(w, n - 1)


@case(traces=1)
def recursion() -> Turns:
    global SCALE
    for SCALE in ARRAYS:
        yield (lambda w: jnp.sum(_power(w, 3))), SCALE


# --- NumPy arrays --------------------------------------------------------------------------


@case(traces=1)
def numpy_array_written_in_place() -> Turns:
    c = np.ones(2, np.float32)
    for n in (2, 3, 5):
        c[:] = n
        yield (lambda w: jnp.sum(c * w**2)), c.copy()


@case(traces=1)
def view_whose_base_is_written() -> Turns:
    base = np.ones((2, 2), np.float32)
    view = base[1]
    view.flags.writeable = False
    for n in (2, 3, 5):
        base[:] = n
        yield (lambda w: jnp.sum(view * w**2)), base[1].copy()


@case(traces=None)
def ties_made_and_broken_later() -> Turns:
    a, b = jnp.float32(2.0), jnp.float32(3.0)
    xs = [a, b]
    f = lambda w: jnp.sum(xs[0] * xs[1] * w**2 * (2.0 if xs[0] is xs[1] else 1.0))
    yield f, 6
    xs[1] = a
    yield f, 8
    xs[1] = b
    yield f, 6


@case(traces=4)
def numpy_and_jax_functions_in_a_variable() -> Turns:
    for f, factor in ((np.sum, 1), (jnp.sum, 1), (np.mean, 0.5), (jnp.add, 2), (np.sum, 1)):
        g = (lambda w: jnp.sum(f(w**2, w**2))) if f is jnp.add else (lambda w: f(w**2))
        yield g, factor


@pytest.mark.parametrize("name", list(case.table))
def test_arithmetic(name: str) -> None:
    check_case(*case.table[name])


@pytest.mark.parametrize("name", list(case.table))
def test_eager(name: str) -> None:
    check_eager(case.table[name][0])
