"""What an uncompiled function writes to its arguments is left as plain Python leaves it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer
from objectives import quietly

import fluxax as fx

X = jnp.arange(3.0)
EAGER = {"uncompiled": contextlib.nullcontext, "eager": fx.eager}


@pytest.fixture(autouse=True)
def empty() -> None:
    fx.clear_cache()


class Model(fx.Module):
    def __init__(self) -> None:
        self.w = jnp.ones(3)
        self.name = "a"

    def __call__(self, x: Any) -> Any:
        return jnp.sum(self.w * x)


class Other(Model):
    pass


class Plain:
    def __init__(self) -> None:
        self.a, self.w = 1, X


class Slots:
    __slots__ = ("__b", "a", "w")

    def __init__(self) -> None:
        self.a, self.w = 1, X


class AttrDict(dict[str, Any]):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.__dict__ = self


class Shared(fx.Module):
    def __init__(self, space: dict[str, Any]) -> None:
        self.__dict__ = space


Pair = collections.namedtuple("Pair", "items table")


@dataclasses.dataclass(slots=True)
class Slotted:
    w: Any
    n: int = 0


# --- what is written to arguments: (make, write, look) -------------------------------------------

WRITES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {}


def writes(make: Callable[[], Any], look: Callable[[Any], Any]) -> Any:
    def register(write: Any) -> Any:
        WRITES[write.__name__] = make, write, look
        return write

    return register


def _pairs(d: Any) -> list[Any]:
    return list(d.items())


@writes(lambda: {"a": X, "b": X * 2, "c": "s"}, _pairs)
def keys_renamed_removed_and_reordered(d: Any) -> None:
    d["z"] = d.pop("a")
    del d["c"]
    b = d.pop("b")
    d["y"], d["b"] = 1, b


@writes(lambda: {"a": X, "b": X * 2}, _pairs)
def values_swapped(d: Any) -> None:
    d["a"], d["b"] = d["b"], d["a"]


@writes(lambda: collections.OrderedDict(a=X, b=X * 2), lambda d: (_pairs(d), list(reversed(d))))
def moved_to_the_end(d: Any) -> None:
    d.move_to_end("a")


@writes(lambda: collections.defaultdict(list, a=X), _pairs)
def made_by_a_default_factory(d: Any) -> None:
    d["log"].append(d["a"])


@writes(lambda: AttrDict(w=X, n=0), lambda d: (_pairs(d), d.__dict__ is d))
def attributes_that_are_keys(d: Any) -> None:
    d.n += 1
    d.q = d.w
    del d["n"]


@writes(lambda: [X, X * 2, X * 3], lambda v: v)
def a_list_in_another_order(v: Any) -> None:
    v.reverse()
    v.pop()
    v.insert(0, "s")


@writes(lambda: fx.Chain(one=Model(), two=Other()), lambda m: (list(m.layers), m.layers.names))
def a_named_list(m: Any) -> None:
    m.layers.append(m.layers.pop(0))


@writes(Model, lambda m: list(vars(m).items()))
def attributes_renamed(m: Any) -> None:
    m.u = m.w
    del m.w
    m.name = "b"


@writes(Model, lambda m: list(vars(m).items()))
def all_attributes_at_once(m: Any) -> None:
    m.__dict__ = {"v": m.w, "t": 1}


@writes(Model, type)
def another_class(m: Any) -> None:
    m.__class__ = Other


@writes(lambda: Slotted(X), lambda s: (s.w, s.n))
def fields_in_slots(s: Any) -> None:
    s.n += 1
    s.w = [s.w]


@writes(lambda: Pair([X], {"a": X * 2}), lambda p: (p.items, list(p.table.items())))
def containers_in_a_named_tuple(p: Any) -> None:
    p.items.append(p.table["a"])
    p.table["b"] = p.items[0]


@writes(lambda: (lambda s: [Shared(s), Shared(s)])({"w": X, "n": 0}), lambda v: list(map(vars, v)))
def objects_that_share_their_attributes(v: Any) -> None:
    v[0].n += 1
    assert v[1].n == v[0].n
    v[1].q = v[0].w


@writes(Plain, lambda p: list(vars(p).items()))
def a_plain_object(p: Any) -> None:
    p.b = p.w
    del p.a


@writes(Slots, lambda s: (hasattr(s, "a"), s._Slots__b))
def slots(s: Any) -> None:
    s._Slots__b = s.w
    del s.a


@writes(lambda: collections.UserDict(w=X, n=0), _pairs)
def a_user_dict(d: Any) -> None:
    d["n"] += 1
    d["t"] = d["w"]


@writes(lambda: {1}, sorted)
def a_set(s: Any) -> None:
    s.add(5)


@writes(lambda: collections.deque([X, 1], maxlen=2), list)
def a_deque(d: Any) -> None:
    d.append(d[0])


def shape_of(seen: Any, known: dict[int, int]) -> Any:
    """Nested data with arrays told apart by identity only."""
    if isinstance(seen, (list, tuple)):
        return [shape_of(v, known) for v in seen]
    if isinstance(seen, dict):
        return [(k, shape_of(v, known)) for k, v in seen.items()]
    if isinstance(seen, jax.Array):
        assert not isinstance(seen, Tracer)
        return known.setdefault(id(seen), len(known))
    return type(seen).__name__ if isinstance(seen, fx.Module) else seen


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("name", WRITES)
def test_arguments_are_left_as_plain_python_leaves_them(name: str, way: str, fails: bool) -> None:
    make, write, look = WRITES[name]
    left = []
    for run in ("plain", "fluxax"):
        log: list[int] = []

        def f(x: Any, arg: Any, log: list[int] = log) -> Any:
            log.append(1)
            write(arg)
            if fails:
                raise KeyError("mine")
            return jnp.sum(x)

        arg = make()
        held = jax.tree.leaves([arg])
        with EAGER[way](), pytest.raises(KeyError) if fails else contextlib.nullcontext():
            f(X, arg) if run == "plain" else quietly(lambda: fx.gradient(f, X, arg))
        assert log == [1]
        left.append(shape_of(look(arg), {id(v): i for i, v in enumerate([X, *held])}))
    assert left[0] == left[1]


def test_a_gradient_is_nested_like_the_argument_that_was_passed() -> None:
    def f(d: dict[str, Any]) -> Any:
        d["z"] = d.pop("a")
        return jnp.sum(d["z"] * d["b"])

    grad = quietly(lambda: fx.gradient(f, {"a": X, "b": X * 2}))[0]
    np.testing.assert_allclose(grad["a"], 2 * X)
    np.testing.assert_allclose(grad["b"], X)
