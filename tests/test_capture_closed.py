"""A closed world (§4.1.11): what instances can hold, one thing for all code, whose code it is."""

from __future__ import annotations

import collections
import enum
import functools
import random
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from objectives import quietly, record

import fluxax as fx
from fluxax._compile._forms import form_of

X = jnp.arange(3.0)  # of sum 3


def value(f: Callable[..., Any], *args: Any) -> float:
    return float(fx.withgradient(f, *(args or (X,))).val)


# --- what instances can hold ----------------------------------------------------------------


class Slots:
    __slots__ = ("__hidden", "a")


class Below(Slots):
    __slots__ = "b"


class Both(Below):
    pass


class DictOf(dict[str, Any]):
    pass


class Generic(typing.Generic[typing.TypeVar("T")]):
    pass


class Count(int):
    pass


class Dice(random.Random):
    pass


class Local(threading.local):
    pass


class Bound(functools.partial[Any]):
    pass


class Watching:
    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


def test_the_form_of_a_class_of_python() -> None:
    assert form_of(Both).slots == ("b", "_Slots__hidden", "a")  # type: ignore[union-attr]
    assert form_of(Both).has_dict  # type: ignore[union-attr]
    assert not form_of(Below).has_dict  # type: ignore[union-attr]
    bases = {DictOf: dict, Count: int, Generic: object, fx.Dense: object}
    bases |= {collections.UserDict: object, collections.Counter: dict}
    bases |= {collections.OrderedDict: collections.OrderedDict}
    for cls, base in bases.items():
        assert form_of(cls).base is base  # type: ignore[union-attr]


@pytest.mark.parametrize("cls", [Dice, Local, Bound, Watching, threading.Thread, Exception, Path])
def test_what_may_hide_something_has_no_form(cls: type) -> None:
    assert form_of(cls) is None


# --- attributes that no code mentions -------------------------------------------------------


class Trainer:
    def __init__(self) -> None:
        self.scale, self.history = 1.0, []


def test_an_attribute_that_is_not_read_may_change_at_every_step() -> None:
    trainer = Trainer()
    for i in range(5):
        trainer.history.append(i)
        assert value(lambda x: jnp.sum(x) * trainer.scale) == 3.0
    assert record().traces == 1


def test_a_name_that_is_computed_is_learnt() -> None:
    settings = types.SimpleNamespace(a=1.0, b=2.0, c=3.0, rest=[0])
    for i in range(6):
        settings.b = i + 1.0
        settings.rest.append(i)
        name = "".join(["b"])
        assert value(lambda x: jnp.sum(x) * getattr(settings, name)) == 3.0 * (i + 1)
    assert record().compiled
    assert record().traces <= 3


def test_none_is_never_hidden() -> None:
    settings = types.SimpleNamespace(a=None)
    name = "".join(["a"])
    for _ in range(2):
        assert (
            value(lambda x: jnp.sum(x) * (1.0 if getattr(settings, name) is None else 2.0)) == 3.0
        )
    settings.a = 5.0
    assert value(lambda x: jnp.sum(x) * (1.0 if getattr(settings, name) is None else 2.0)) == 6.0


# --- one thing is one thing -----------------------------------------------------------------


def silent(z: Any) -> Any:
    return z


class Missing:
    pass


MISSING = Missing()
TABLE = {silent: 2.0}


class Layer(fx.Module):
    def __init__(self, act: Any):
        self.w, self.act = jnp.ones(3), act

    def __call__(self, x: Any) -> Any:
        y = jnp.sum(self.w * x)
        return y * 2.0 if self.act is silent else self.act(y)

    def looked_up(self, x: Any) -> Any:
        return jnp.sum(self.w * x) * TABLE[self.act]

    def given(self, x: Any, k: Any = MISSING) -> Any:
        return jnp.sum(self.w * x) * (1.0 if k is MISSING else 2.0)


def test_a_method_knows_a_function_again() -> None:
    for act, want in ((silent, 6.0), (lambda z: z * 5.0, 15.0), (silent, 6.0)):
        assert value(lambda m: m(X), Layer(act)) == want
    layer = Layer(silent)
    assert value(lambda m: m.looked_up(X), layer) == 6.0
    assert value(lambda x: layer(x)) == 6.0
    assert all(r.compiled for r in fx.explain())


def test_a_method_knows_a_sentinel_again() -> None:
    layer = Layer(silent)
    for k, want in ((MISSING, 3.0), (Missing(), 6.0), (MISSING, 3.0)):
        assert value(lambda x: layer.given(x, k)) == want
    assert all(r.compiled for r in fx.explain())


def test_two_things_that_become_one_are_noticed() -> None:
    a, b = [1.0], [1.0]
    objective = lambda x: jnp.sum(x) * (2.0 if a is b else 1.0)
    for other, want in ([1.0], 3.0), ([1.0], 3.0), (a, 6.0), ([1.0], 3.0), (a, 6.0):
        b = other
        assert value(objective) == want
    assert all(r.compiled for r in fx.explain())


class Colour(enum.Enum):
    RED, BLUE = [1.0], [2.0]

    def doubled(self) -> Any:
        return 2 * self.value[0]


def test_a_member_of_an_enum_is_one_thing() -> None:
    chosen = Colour.RED
    for k in (1.0, 4.0):
        Colour.RED.value[0] = k
        assert value(lambda x: jnp.sum(x) * chosen.doubled() * (chosen is Colour.RED)) == 6.0 * k
    assert record().compiled


# --- whose code it is -----------------------------------------------------------------------

PROJECT = """
import fluxax as fx, jax.numpy as jnp
SCALE = 1.0
class Net:
    def loss(self, x): return jnp.sum(x) * SCALE
def step(x):
    return float(fx.withgradient(lambda w: jnp.sum(w) * SCALE, x).val)
def by_method(x):
    net = Net()
    return float(fx.withgradient(lambda w: net.loss(w), x).val)
"""


@pytest.fixture(params=["installed", "installed folder", "no __init__"])
def project(request: Any, tmp_path: Path) -> Iterator[types.ModuleType]:
    """A module of the user's that looks like a package of somebody else's."""
    name = f"project_{request.param.replace(' ', '_').strip('_')}"
    folder = tmp_path / ("lib/site-packages" if "installed" in request.param else "src")
    inside = folder if request.param == "installed" else folder / name
    inside.mkdir(parents=True)
    where = inside / ("core.py" if inside != folder else f"{name}.py")
    where.write_text(PROJECT)
    sys.path.insert(0, str(folder))
    try:
        full = name if inside == folder else f"{name}.core"
        __import__(full)
        yield sys.modules[full]
    finally:
        sys.path.remove(str(folder))
        for found in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[found]


def test_a_project_is_its_authors_wherever_it_lies(project: Any) -> None:
    for way in (project.step, project.by_method):
        for k in (1.0, 2.0, 3.0, 4.0):
            project.SCALE = k
            assert way(X) == 3.0 * k
    assert all(r.compiled for r in fx.explain())


def test_what_user_code_names_of_a_package_is_read_at_every_call() -> None:
    package = types.ModuleType("settings_of_somebody")
    package.__file__ = "/usr/lib/site-packages/settings_of_somebody.py"
    exec("lam = 1.0\ndef scale(x): return x * lam\nconfig = {'k': 1.0}", vars(package))
    for k in (1.0, 2.0, 3.0):
        package.lam = package.config["k"] = k
        assert value(lambda x: jnp.sum(x) * package.lam * package.config["k"]) == 3.0 * k * k
    assert record().compiled
    package.scale = lambda x: x * 10.0  # put in the place of a function, as mocks do
    assert quietly(lambda: value(lambda x: package.scale(jnp.sum(x)))) == 30.0


# --- numbers by place -----------------------------------------------------------------------


def test_numbers_of_one_name_are_told_apart() -> None:
    def scaled(k: float) -> Any:
        return lambda x: jnp.sum(x) * k

    def tiled(k: int) -> Any:
        return lambda x: jnp.sum(jnp.tile(x, k))

    fixed = tiled(2)
    for i in range(12):
        changing = scaled(float(i))
        assert value(lambda x: changing(x) + fixed(x)) == 3.0 * i + 6.0
    assert record().traces <= 5


def test_random_keys_of_the_new_kind_compile() -> None:
    seen = {
        value(lambda w: jnp.sum(w * jax.random.normal(key, (3,))))
        for key in jax.random.split(jax.random.key(0), 4)
    }
    assert len(seen) == 4
    assert (record().compiled, record().traces) == (True, 1)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    fx.clear_cache()
