"""Ways to read a value that stand in no list of what a function names: it is seen, or refused."""

from __future__ import annotations

import builtins
import decimal
import functools
import pathlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import fluxax as fx

X = jnp.ones(3)
VALUES = (1.0, 1.0, 1.0, 2.0, 2.0, 5.0, 5.0, 5.0, 2.0, 2.0)
Turn = tuple[Callable[[Any], Any], Callable[[float], None]]


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[None]:
    """The walk and the sensors alone have to see it."""
    monkeypatch.setenv("FLUXAX_CHECK", "0")
    monkeypatch.syspath_prepend(str(tmp_path))
    fx.clear_cache()
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("hidden_"):
            del sys.modules[name]


def follows(f: Callable[[Any], Any], poke: Callable[[float], None]) -> None:
    """Each call gives what plain Python gives, compiled or not."""
    for value in VALUES:
        poke(value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = fx.withgradient(lambda x: f(x), X).val
        assert float(got) == pytest.approx(float(f(X))), value


def module(path: pathlib.Path, text: str = "k = 1.0") -> Any:
    """A module of the user's, with a `k`, as it can be imported."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def poke_module(name: str) -> Callable[[float], None]:
    def poke(value: float) -> None:
        __import__(name)
        sys.modules[name].k = value  # type: ignore[attr-defined]

    return poke


_METHOD = "class S:\n  def of(self, x):\n    {}\nf = S().of"
IMPORTS = {
    "a method": _METHOD.format("import {m}; return x.sum() * {m}.k"),
    "a method's from": _METHOD.format("from {m} import k; return x.sum() * k"),
    "a function": "def f(x):\n  from {m} import k\n  return x.sum() * k",
    "a function as": "def f(x):\n  import {m} as m\n  return x.sum() * m.k",
    "by its name": (
        "import importlib\ndef f(x):\n  return x.sum() * importlib.import_module('{m}').k"
    ),
    "by the builtin": "def f(x):\n  return x.sum() * __import__('{m}', fromlist=['k']).k",
}


@pytest.mark.parametrize("where", ["user", "folder", "installed"])
@pytest.mark.parametrize("how", IMPORTS)
def test_an_import_inside(how: str, where: str, tmp_path: pathlib.Path) -> None:
    name = "hidden_settings"
    if where == "user":
        module(tmp_path / "hidden_settings.py")
    elif where == "folder":  # no __init__.py
        module(tmp_path / "hidden_project" / "settings.py")
        name = "hidden_project.settings"
    else:
        made = types.ModuleType(name)
        made.__file__ = "/home/user/lib/site-packages/hidden_settings.py"
        made.k = 1.0  # type: ignore[attr-defined]
        sys.modules[name] = made
    if where == "folder" and how in ("a method", "a function as"):
        how = how + "'s from" if how == "a method" else "a function"
    space: dict[str, Any] = {"__name__": "hidden_main"}
    exec(compile(IMPORTS[how].format(m=name), str(tmp_path / "main.py"), "exec"), space)
    follows(space["f"], poke_module(name))


def test_an_import_of_functions_alone_compiles() -> None:
    class Scale:
        def of(self, x: Any) -> Any:
            import operator

            from optax import squared_error

            return operator.mul(2.0, jnp.sum(squared_error(x, 0.0 * x)))

    assert optax  # it is there: what has to be loaded first runs uncompiled once
    scale = Scale()
    with fx.strict():
        fx.gradient(lambda x: scale.of(x), X)


def test_static_arguments_of_a_jit_helper_that_is_exchanged() -> None:
    scale = lambda x, k: jnp.sum(x) * (k if isinstance(k, int) else 100)
    helpers = [jax.jit(scale, static_argnums=1), jax.jit(scale)]

    def poke(value: float) -> None:
        nonlocal helper
        helper = helpers[value > 1.0]

    helper = helpers[0]
    follows(lambda x: helper(x, 2), poke)


@pytest.mark.parametrize("how", ["cleared", "pushed out"])
def test_a_cached_helper_forgets(how: str) -> None:
    box = types.SimpleNamespace(k=1.0)

    @functools.lru_cache(maxsize=1 if how == "pushed out" else None)
    def reads(n: int) -> float:
        return n * box.k if n < 9 else 0.0

    def turn(value: float) -> None:
        box.k = value
        if value == 5.0:
            reads.cache_clear() if how == "cleared" else reads(9)

    follows(lambda x: jnp.sum(x) * reads(2), turn)


def test_the_decimal_context() -> None:
    def poke(value: float) -> None:
        decimal.getcontext().prec = int(value) + 1

    before = decimal.getcontext().copy()
    third = decimal.Decimal(1), decimal.Decimal(3)
    try:
        follows(lambda x: jnp.sum(x) * float(third[0] / third[1]), poke)
    finally:
        decimal.setcontext(before)


GLOBAL = 1.0


def test_the_globals_of_a_function_read_in_a_method() -> None:
    class Scale:
        def of(self, x: Any) -> Any:
            return jnp.sum(x) * Scale.of.__globals__["GLOBAL"]

    def poke(value: float) -> None:
        global GLOBAL
        GLOBAL = value

    scale = Scale()
    follows(lambda x: scale.of(x), poke)


@pytest.mark.parametrize("there", [True, False])
def test_a_name_in_builtins(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "divmod" if there else "HIDDEN_RATE"

    def poke(value: float) -> None:
        new = value if not there else (lambda a, b: value * a)
        monkeypatch.setattr(builtins, name, new, raising=False)

    poke(1.0)
    by_name = "x.sum() * divmod(1.0, 2.0)" if there else "x.sum() * HIDDEN_RATE"
    follows(eval(f"lambda x: {by_name}"), poke)


def test_the_subclasses_of_a_class() -> None:
    class Base:
        pass

    made: list[Any] = []
    poke = lambda value: made.append(type("Sub", (Base,), {})) if value > 1.0 else None
    follows(lambda x: jnp.sum(x) * len(Base.__subclasses__()), poke)


def test_the_name_of_a_class() -> None:
    class Named:
        pass

    def poke(value: float) -> None:
        Named.__name__ = "n" * int(value)

    follows(lambda x: jnp.sum(x) * len(Named.__name__), poke)


def test_a_class_that_gets_another_way_to_read_attributes() -> None:
    class Read:
        k = 1.0

    def poke(value: float) -> None:
        if value > 1.0:
            Read.__getattribute__ = lambda self, name: value  # type: ignore[assignment]

    one = Read()
    follows(lambda x: jnp.sum(x) * one.k, poke)


def test_a_number_out_of_the_range_of_its_dtype() -> None:
    f = lambda k: fx.compiled(lambda: jnp.zeros(2, jnp.uint8) + jnp.asarray(k, jnp.uint8))()
    for k in (1, 2, 3, 4):
        assert f(k).tolist() == [k, k]
    for k in (300, -5):
        with pytest.raises(OverflowError):
            f(k)
