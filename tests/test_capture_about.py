"""What a function writes to things beside what stands in them: their class, defaults, names.

No trace leaves it there, and none loses it; the function runs uncompiled, and writes it once.
"""

from __future__ import annotations

import functools
import gc
import math
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx

pytestmark = pytest.mark.filterwarnings("ignore:.*runs uncompiled")

HELD: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_given_up() -> None:
    """One line of these tests is the objective in all of them."""
    fx.clear_cache()


class P:
    k = 1.0


class Q(P):
    k = 3.0


class OfList(list[Any]):
    k = 1.0


class OfOtherList(list[Any]):
    k = 3.0


def _turn(v: Any, x: Any) -> float:
    v.__class__ = {P: Q, Q: P, OfList: OfOtherList, OfOtherList: OfList}[type(v)]
    return v.k


def _other_dict(v: Any, _: Any) -> float:
    v.__dict__ = {"n": v.n + 1.0}
    return v.n


def _with_default() -> Any:
    def function(a: float = 1.0, *, b: float = 2.0) -> float:
        return 10 * a + b

    return function


def _defaults(f: Any, _: Any) -> float:
    f.__defaults__ = (f.__defaults__[0] + 1.0,)
    return f()


def _keyword_defaults(f: Any, _: Any) -> float:
    f.__kwdefaults__["b"] += 1.0
    return f()


def _code(f: Any, _: Any) -> float:
    def other(a: float = 1.0, *, b: float = 2.0) -> float:
        return 100 * a + b

    kept, f.__code__ = f.__code__, other.__code__
    f.__qualname__ += kept.co_name[:1]
    return f() + len(f.__qualname__)


def _text(f: Any, _: Any) -> float:
    f.__doc__ = (f.__doc__ or "") + "x"
    f.__name__ += "x"
    return float(len(f.__doc__) + len(f.__name__))


def _class_name(cls: Any, _: Any) -> float:
    cls.__name__ += "x"
    return float(len(cls.__name__))


def _bases(cls: Any, _: Any) -> float:
    cls.__bases__ = (Q,) if cls.__bases__ == (P,) else (P,)
    return cls.k


def _keyword(p: Any, _: Any) -> float:
    p.keywords["b"] += 1.0
    return p()


def _arguments(p: Any, _: Any) -> float:
    p.__setstate__((p.func, (p.args[0] + 1.0,), p.keywords, {}))
    return p()


def _count(f: Any, _: Any) -> float:
    f.calls = getattr(f, "calls", 0.0) + 1.0
    return f.calls


def _version(m: Any, _: Any) -> float:
    m.__version__ += "x"
    return float(len(m.__version__))


def _constant(m: Any, _: Any) -> float:
    m.tau = m.tau + 1.0
    return m.tau


def _other_key(d: Any, _: Any) -> float:
    (key,) = d
    d[1.0 if type(key) is int else 1] = d.pop(key)
    return float(len(repr(d)))


def _other_member(s: Any, _: Any) -> float:
    (member,) = s
    s.discard(1)
    s.add(True if type(member) is int else 1)
    return float(len(repr(s)))


def _a_module() -> Any:
    new = types.ModuleType("settings")
    new.__dict__["__version__"] = "1"
    return new


def _counted(function: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(function, name, value)
    return function


#: What is written to a thing beside what stands in it; each gives a number that tells.
ABOUT: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], float]]] = {
    "the class": (P, _turn),
    "the class of a list": (lambda: OfList([1.0]), _turn),
    "the dict": (lambda: _counted(P(), n=1.0), _other_dict),
    "defaults": (_with_default, _defaults),
    "keyword defaults": (_with_default, _keyword_defaults),
    "code": (_with_default, _code),
    "name and text": (_with_default, _text),
    "the name of a class": (lambda: type("C", (P,), {}), _class_name),
    "the classes above": (lambda: type("C", (P,), {}), _bases),
    "a partial's keywords": (lambda: functools.partial(_with_default(), 1.0, b=2.0), _keyword),
    "a partial's arguments": (lambda: functools.partial(_with_default(), 1.0, b=2.0), _arguments),
    "a jit function's attribute": (lambda: _counted(jax.jit(lambda v: v)), _count),
    "the same, there before": (lambda: _counted(jax.jit(lambda v: v), calls=2.0), _count),
    "a module's own name": (_a_module, _version),
    "a key": (lambda: {1: 2.0}, _other_key),
    "a member": (lambda: {1}, _other_member),
}  # fmt: skip


@pytest.mark.parametrize("by_method", [True, False])
@pytest.mark.parametrize("what", ABOUT)
def test_what_is_written_beside_the_content_is_written_once(what: str, by_method: bool) -> None:
    make, write = ABOUT[what]
    thing, plain = make(), make()
    HELD.append(thing)

    def function(x: Any) -> Any:
        return x * write(thing, x)

    net: Any = AboutNet(write) if by_method else function
    try:
        for _ in range(3):
            value = fx.withgradient(lambda x: net(x), jnp.float32(2.0))[0]
            assert float(value) == 2 * write(plain, 2.0)
    finally:
        HELD.pop()
    assert write(thing, 2.0) == write(plain, 2.0)


class AboutNet:
    def __init__(self, write: Callable[[Any, Any], float]):
        self.write = write

    def __call__(self, x: Any) -> Any:
        return x * self.write(HELD[-1], x)


def test_what_is_written_to_a_module_of_python_is_written_once() -> None:
    before = math.tau

    def function(x: Any) -> Any:
        math.tau = math.tau + 1.0  # type: ignore[misc]
        return x * math.tau

    try:
        for i in range(3):
            value = fx.withgradient(function, jnp.float32(1.0))[0]
            assert float(value) == pytest.approx(before + i + 1)
    finally:
        math.tau = before  # type: ignore[misc]


def test_an_attribute_of_a_jit_function_is_read_at_each_call() -> None:
    jitted: Any = jax.jit(lambda v: 2 * v)
    for i, scale in enumerate([None, 3.0, 4.0, 4.0, 5.0]):
        if scale is not None:
            jitted.scale = scale
        value = fx.withgradient(lambda x: jitted(x) * getattr(jitted, "scale", 1.0), jnp.float32(1))
        assert float(value[0]) == 2 * (scale or 1.0), i


@pytest.mark.parametrize("reason", ["an array", "a shape", "a flag"])
def test_a_write_to_an_array_in_a_method_is_refused_and_taken_back(reason: str) -> None:
    array = np.zeros(4)
    HELD.append(array)
    try:
        with pytest.raises(
            (TypeError, AttributeError)
        ):  # as NumPy or JAX say it, if it is asked again
            fx.withgradient(lambda x: ArrayNet()(x, reason), jnp.float32(1.0))
    finally:
        HELD.pop()
    assert array.shape == (4,)
    assert array.flags.writeable
    assert not array.any()


class ArrayNet:
    def __call__(self, x: Any, reason: str) -> Any:
        array = HELD[-1]
        if reason == "an array":
            array[0] = 1.0
        elif reason == "a shape":
            array.shape = (2, 2)
        else:
            array.flags.writeable = False
        return x


@pytest.mark.parametrize("by_method", [True, False])
def test_what_was_looked_at_dies_with_its_last_name(by_method: bool) -> None:
    class Net:
        def __call__(self, x: Any) -> Any:
            return x * (1.0 if reference() is None else 2.0)

    things = [P()]
    reference, net = weakref.ref(things[0]), Net()
    gc.collect()
    gc.disable()
    try:
        values = []
        for i in range(4):
            if i == 2:
                things.clear()
            if by_method:
                value = fx.withgradient(lambda x: net(x), jnp.float32(1.0))[0]
            else:
                value = fx.withgradient(
                    lambda x: x * (1.0 if reference() is None else 2.0), jnp.float32(1.0)
                )[0]
            values.append(float(value))
    finally:
        gc.enable()
    assert values == [2.0, 2.0, 1.0, 1.0]
