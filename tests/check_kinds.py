"""What a function can read and how that changes, a kind of value at a time; and a walk made blind.

A blinded walk takes values of a kind for constants: no guard looks at them, no copies are made.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fluxax as fx
from fluxax._compile._capture import Capture
from fluxax._compile._reads import reads_of
from fluxax._compile._rebuild import Rebuild
from fluxax._compile._spec import Spec

X = jnp.ones(3)


class Unseen(Spec):
    """A value that no guard looks at, and of which no copy is made."""

    __slots__ = ()


Chosen = Callable[[Any], bool]


def blinded(monkeypatch: pytest.MonkeyPatch, chosen: Chosen) -> None:
    """Let the walk take some values for constants."""
    take, make = Capture.take, Rebuild.make

    def taking(self: Any, value: Any, label: str) -> Any:
        if not chosen(value):
            return take(self, value, label)
        self.tokens.append((label, "unseen"))
        inside = getattr(value, "func", None) or getattr(value, "__func__", value)
        inside = inspect.unwrap(inside)
        if type(inside) is types.FunctionType:
            self.fixed_codes |= reads_of(inside.__code__).codes  # the sensors look away, too
        return Unseen(value, label)

    monkeypatch.setattr(Capture, "take", taking)
    monkeypatch.setattr(
        Rebuild, "make", lambda self, s: s.value if type(s) is Unseen else make(self, s)
    )


# --- kinds: what is read, and how it changes ------------------------------------------------


@dataclasses.dataclass
class Config:
    k: float = 1.0


class Slotted:
    __slots__ = ("k",)


class Colour(enum.Enum):
    RED = 1

    def __init__(self, _: int) -> None:
        self.k = 1.0


class AttrDict(dict):  # type: ignore[type-arg]
    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


K = 1.0
ARRAY = np.ones(3)
Kind = tuple[Callable[..., Any], Callable[[float], None], Chosen]
KINDS: dict[str, Callable[[], Kind]] = {}


def kind(make: Callable[[], Kind]) -> Callable[[], Kind]:
    KINDS[make.__name__] = make
    return make


def of(cls: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) is cls


@kind
def a_list() -> Kind:
    xs = [1.0]
    return lambda x: jnp.sum(x) * xs[0], lambda k: xs.__setitem__(0, k), of(list)


@kind
def a_dict() -> Kind:
    d = {"k": 1.0}
    return lambda x: jnp.sum(x) * d["k"], lambda k: d.update(k=k), of(dict)


@kind
def a_dict_with_attributes() -> Kind:
    d: Any = AttrDict(k=1.0)
    return lambda x: jnp.sum(x) * d.k, lambda k: d.update(k=k), of(AttrDict)


@kind
def a_deque() -> Kind:
    d = collections.deque([1.0])
    return lambda x: jnp.sum(x) * d[0], lambda k: d.__setitem__(0, k), of(collections.deque)


@kind
def a_set() -> Kind:
    s = {1.0}

    def poke(k: float) -> None:
        s.clear()
        s.add(k)

    return lambda x: jnp.sum(x) * sum(s), poke, of(set)


@kind
def a_dataclass() -> Kind:
    c = Config()
    return lambda x: jnp.sum(x) * c.k, lambda k: setattr(c, "k", k), of(Config)


@kind
def a_namespace() -> Kind:
    n = types.SimpleNamespace(k=1.0)
    return lambda x: jnp.sum(x) * n.k, lambda k: setattr(n, "k", k), of(types.SimpleNamespace)


@kind
def slots() -> Kind:
    s = Slotted()
    s.k = 1.0
    return lambda x: jnp.sum(x) * s.k, lambda k: setattr(s, "k", k), of(Slotted)


@kind
def an_enum() -> Kind:
    return (
        lambda x: jnp.sum(x) * Colour.RED.k,
        lambda k: setattr(Colour.RED, "k", k),
        lambda v: isinstance(v, (enum.Enum, enum.EnumType)),
    )


@kind
def a_class() -> Kind:
    class Settings:
        k = 1.0

    return lambda x: jnp.sum(x) * Settings.k, lambda k: setattr(Settings, "k", k), of(type)


@kind
def a_module() -> Kind:
    m: Any = types.ModuleType("of_mine")
    m.k = 1.0
    return lambda x: jnp.sum(x) * m.k, lambda k: setattr(m, "k", k), of(types.ModuleType)


@kind
def a_number() -> Kind:
    k = 1.0

    def poke(new: float) -> None:
        nonlocal k
        k = new

    return lambda x: jnp.sum(x) * k, poke, of(float)


@kind
def a_global_of_a_function() -> Kind:
    def poke(k: float) -> None:
        global K
        K = k

    poke(1.0)
    return lambda x: helper(x), poke, of(types.FunctionType)


def helper(x: Any) -> Any:
    return jnp.sum(x) * K


@kind
def a_method() -> Kind:
    class Scale:
        def __init__(self) -> None:
            self.k = 1.0

        def of(self, x: Any) -> Any:
            return jnp.sum(x) * self.k

    s = Scale()
    method = s.of
    return lambda x: method(x), lambda k: setattr(s, "k", k), of(types.MethodType)


@kind
def a_partial() -> Kind:
    xs = [1.0]
    p = functools.partial(lambda xs, x: jnp.sum(x) * xs[0], xs)
    return lambda x: p(x), lambda k: xs.__setitem__(0, k), of(functools.partial)


@kind
def a_numpy_array() -> Kind:
    a = np.ones(3, np.float32)
    return lambda x: jnp.sum(x * a), lambda k: a.__setitem__(slice(None), k), of(np.ndarray)


@kind
def a_jax_array() -> Kind:
    a = X

    def poke(k: float) -> None:
        nonlocal a
        a = k * X

    return lambda x: jnp.sum(x * a), poke, lambda v: isinstance(v, jax.Array)


@kind
def a_module_of_ours() -> Kind:
    layer = fx.Dense(3, 1, init=fx.ones32)
    poke = lambda k: setattr(layer, "weight", k * jnp.ones((3, 1)))
    return lambda x: jnp.sum(layer(x)), poke, of(fx.Dense)


@kind
def a_tuple() -> Kind:
    xs = ([1.0],)
    return lambda x: jnp.sum(x) * xs[0][0], lambda k: xs[0].__setitem__(0, k), of(tuple)


@kind
def a_proxy() -> Kind:
    d = {"k": 1.0}
    p = types.MappingProxyType(d)
    return lambda x: jnp.sum(x) * p["k"], lambda k: d.update(k=k), of(types.MappingProxyType)


@kind
def a_weak_reference() -> Kind:
    c = Config()
    ref = weakref.ref(c)
    read: Any = lambda x: jnp.sum(x) * ref().k  # type: ignore[union-attr]
    return read, lambda k: setattr(c, "k", k), of(weakref.ref)


@kind
def a_text() -> Kind:
    name = "a"

    def poke(k: float) -> None:
        nonlocal name
        name = "b" if k == 3.0 else "a"

    return lambda x: jnp.sum(x) * {"a": 1.0, "b": 3.0}[name], poke, of(str)


@kind
def a_jitted_helper() -> Kind:
    def poke(k: float) -> None:
        global K
        K = k

    poke(1.0)
    return lambda x: jitted(x), poke, of(type(jitted))


@jax.jit
def jitted(x: Any) -> Any:
    return jnp.sum(x) * K


@kind
def a_scanned_body() -> Kind:
    xs = [1.0]
    body = lambda total, x: (total + x * xs[0], None)
    return lambda x: jax.lax.scan(body, 0.0, x)[0], lambda k: xs.__setitem__(0, k), of(type(body))


@kind
def a_checkpointed_helper() -> Kind:
    def poke(k: float) -> None:
        global K
        K = k

    poke(1.0)
    blind_to = lambda v: v is remembering or type(v) is types.FunctionType
    return lambda x: remembering(x), poke, blind_to


remembering = jax.checkpoint(helper)

#: Uncompiled, what JAX remembers of these answers, as it does without us.
OF_JAX = {"a_jitted_helper", "a_checkpointed_helper"}


def record(f: Any) -> Any:
    """What `explain` says of a function."""
    code = f.__code__
    return next(r for r in fx.explain() if r.where == f"{code.co_filename}:{code.co_firstlineno}")
