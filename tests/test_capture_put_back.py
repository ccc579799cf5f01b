"""What a method writes to things that it reads as they are: the trace takes it back, of any kind.

Methods run on the user's own objects. What a trace leaves there is undone, and the function runs
uncompiled; then the write is done once, with numbers.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fluxax as fx

pytestmark = pytest.mark.filterwarnings("ignore:.*runs uncompiled")


@pytest.fixture(autouse=True)
def _nothing_given_up() -> None:
    """One line of these tests is the objective in all of them."""
    fx.clear_cache()


class Slots:
    __slots__ = ("a", "b")


class Mixed(Slots):
    """Slots above, a dict below."""


@dataclasses.dataclass(slots=True)
class Data:
    a: Any
    b: Any


class AttrDict(dict[str, Any]):
    def __init__(self, **items: Any):
        super().__init__(items)
        self.__dict__ = self


class List(list[Any]):
    def clear(self) -> None:
        raise RuntimeError("nobody asked for this")


class Dict(dict[str, Any]):
    def update(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("nobody asked for this")


class Deque(collections.deque[Any]):
    pass


class Set(set[Any]):
    pass


class Ordered(collections.OrderedDict[str, Any]):
    pass


class Property:
    def __init__(self) -> None:
        self.__dict__["all"] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["all"][name] = value

    def __delattr__(self, name: str) -> None:
        del self.__dict__["all"][name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["all"][name]
        except KeyError:
            raise AttributeError(name) from None


def with_attributes(new: Any) -> Any:
    new.a, new.b = 0.5, 1.0
    return new


def a_class() -> Any:
    return type("Class", (), {"a": 0.5, "b": 1.0})


def a_function() -> Any:
    def function() -> None:
        pass

    return with_attributes(function)


def a_member() -> Any:
    return with_attributes(enum.Enum("Enum", ["MEMBER"])["MEMBER"])


HOLDERS: dict[str, Callable[[], Any]] = {
    "slots": lambda: with_attributes(Slots()),
    "slots and a dict": lambda: with_attributes(Mixed()),
    "dataclass with slots": lambda: Data(0.5, 1.0),
    "namespace": lambda: types.SimpleNamespace(a=0.5, b=1.0),
    "dict that is its own attributes": lambda: AttrDict(a=0.5, b=1.0),
    "list": lambda: with_attributes(List([1.0, 2.0])),
    "dict": lambda: with_attributes(Dict(k=1.0)),
    "deque": lambda: with_attributes(Deque([1.0, 2.0], 5)),
    "set": lambda: with_attributes(Set([1.0, 2.0])),
    "ordered": lambda: with_attributes(Ordered(k=1.0, n=2.0)),
    "user's dict": lambda: with_attributes(collections.UserDict(k=1.0)),
    "properties": lambda: with_attributes(Property()),
    "class": a_class,
    "function": a_function,
    "partial": lambda: with_attributes(functools.partial(max, 1.0)),
    "enum member": a_member,
    "module": lambda: with_attributes(types.ModuleType("settings")),
}


def _replace(holder: Any, x: Any) -> None:
    holder.a = x


def _remove(holder: Any, x: Any) -> None:
    del x, holder.a


def _reorder(holder: Any, x: Any) -> None:
    a = holder.a
    del holder.a
    holder.a = a + 0 * x


WRITES = {"replace": _replace, "remove": _remove, "reorder": _reorder}


def _left(holder: Any) -> list[Any]:
    """What stands in it: items and attributes, in order."""
    parts: list[Any] = []
    if isinstance(holder, (dict, collections.UserDict)):
        parts += [("item", k, v) for k, v in holder.items()]
    elif isinstance(holder, (list, set, collections.deque)):
        parts += [("item", v) for v in holder]
    names = list(getattr(holder, "__dict__", ()))
    names = [n for n in names if n not in ("all", "data") and not n.startswith("_")]
    if isinstance(holder, Property):
        names = list(vars(holder)["all"])
    names += [n for n in ("a", "b") if n not in names and hasattr(holder, n)]
    return parts + [(n, getattr(holder, n)) for n in names]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", HOLDERS)
def test_what_a_method_writes_is_done_once(kind: str, write: str) -> None:
    HELD.append(HOLDERS[kind]())
    plain = HOLDERS[kind]()
    net, done = Net(WRITES[write]), WRITES[write]
    try:
        for _ in range(2):
            if write == "remove":
                HELD[-1].a = plain.a = 0.5
            value, (grad,) = fx.withgradient(lambda x: net(x), jnp.float32(2.0))
            before = plain.a
            done(plain, jnp.float32(2.0))
            assert float(value) == 2 * float(before)
            assert float(grad) == float(before)
            assert not any(isinstance(p[-1], jax.core.Tracer) for p in _left(HELD[-1]))
            assert _left(HELD[-1]) == _left(plain)
    finally:
        HELD.pop()


HELD: list[Any] = []


class Net:
    def __init__(self, write: Callable[[Any, Any], None]):
        self.write = write

    def __call__(self, x: Any) -> Any:
        loss = HELD[-1].a * x
        self.write(HELD[-1], x)
        return loss


ITEMS: dict[str, tuple[Any, Callable[[Any, Any], None]]] = {
    "list": (lambda: List([1.0, 2.0]), lambda v, x: list.append(v, x)),
    "list, sorted": (lambda: List([2.0, 1.0]), lambda v, _: v.sort()),
    "dict": (lambda: Dict(k=1.0), lambda v, x: v.__setitem__("n", x)),
    "dict, emptied": (lambda: Dict(k=1.0), lambda v, _: v.clear()),
    "deque": (lambda: Deque([1.0, 2.0], 2), lambda v, x: v.append(x)),
    "deque, turned": (lambda: collections.deque([1.0, 2.0, 3.0]), lambda v, _: v.rotate(1)),
    "set": (lambda: Set([1.0]), lambda v, _: v.add(3.0)),
    "ordered": (lambda: Ordered(k=1.0, n=2.0), lambda v, _: v.move_to_end("k")),
    "defaultdict": (
        lambda: collections.defaultdict(list),
        lambda v, _: v[len(v)].append(1),
    ),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_items_that_a_method_writes_are_written_once(kind: str) -> None:
    make, write = ITEMS[kind]
    HELD.append(make())
    plain = make()
    net = ItemsNet(write)
    try:
        for _ in range(2):
            fx.withgradient(lambda x: net(x), jnp.float32(2.0))
            write(plain, jnp.float32(2.0))
            assert HELD[-1] == plain
            assert list(HELD[-1]) == list(plain)
    finally:
        HELD.pop()


class ItemsNet:
    def __init__(self, write: Callable[[Any, Any], None]):
        self.write = write

    def __call__(self, x: Any) -> Any:
        self.write(HELD[-1], x)
        return x * len(HELD[-1])


def test_a_variable_that_a_method_fills_first_is_empty_again() -> None:
    def make() -> tuple[Any, Callable[[], Any]]:
        class Filling:
            def __call__(self, x: Any) -> Any:
                nonlocal kept
                kept = x
                return kept * 3.0

        kept: Any
        return Filling(), lambda: kept

    net, kept = make()
    value, (grad,) = fx.withgradient(lambda x: net(x), jnp.float32(2.0))
    assert (float(value), float(grad), float(kept())) == (6.0, 3.0, 2.0)
