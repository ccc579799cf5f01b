"""What every test can rely on: one seed, and Hypothesis without a clock or a memory."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import jax
import pytest
from hypothesis import settings

import fluxax as fx
from fluxax._compile import _check, _content
from tests.shared_programs import shared_programs

#: Scripts that print golden numbers; they need the libraries that they take them from.
collect_ignore_glob = ["golden/make_*.py"]

# A slow machine is no failure, and the same commit gives the same verdict every time.
settings.register_profile("fluxax", deadline=None, derandomize=True, database=None)
settings.load_profile("fluxax")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make quick` runs one row of every table, and every fifth test of those that are left."""
    parser.addoption("--rows", type=int, default=0, help="at most so many rows of each table")
    parser.addoption("--every", type=int, default=1, help="every so many-th of the tests left")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with many rows, some that are spread over all of them; the same ones every time.

    After pytest's own choice (`-m`, `-k`), so that what is left out there takes nobody's place.
    """
    rows = config.getoption("--rows")
    most = rows or len(items)
    tables: dict[Any, list[pytest.Item]] = {}
    for item in items:
        if not rows and item.get_closest_marker("part"):
            continue
        tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = []
    for table in tables.values():
        n = min(most, len(table))
        chosen += [table[len(table) * k // n] for k in range(n)]
    kept = set(map(id, chosen[:: config.getoption("--every")]))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def pytest_report_header() -> str:
    """What the tests ran on; pytest itself names the Python."""
    return ", ".join(f"{name} {version(name)}" for name in ("JAX", "NumPy", "Optax", "Equinox"))


@pytest.fixture(autouse=True, scope="module")
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """JAX keeps every trace, and where holders of an object are looked for, all are looked at."""
    counted = request.node.get_closest_marker("own_programs")
    with nullcontext() if counted else shared_programs():
        yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random numbers, in whatever order they run."""
    fx.seed(0)


@pytest.fixture(autouse=True)
def reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two traces of a function are one program to the last detail: chance has no part in it."""

    def by_chance(old: Any, new: Any) -> bool:
        raise AssertionError(f"two traces differ: {_content.difference(old, new)}")

    monkeypatch.setattr(_check, "alike", by_chance)


#: An installed package: what it holds is dropped, and what it does is done, while it is called.
PACKAGE = """
import gc, logging, tempfile, jax
KEPT = []
def drop(): KEPT.clear()
def take(): return next(KEPT[0])
def make_garbage():
    for _ in range(5000):
        a = []; a.append(a)
def raise_signal(number):
    import signal
    jax.tree.map(signal.raise_signal, [number])
def log(text): jax.tree.map(logging.getLogger("of_the_package").warning, [text])
def collect(): jax.tree.map(gc.collect, [0])
def log_itself(text): logging.getLogger("of_the_package").warning(text)
def folder():
    with tempfile.TemporaryDirectory() as name: return len(name)
def folder_kept(): KEPT.append(tempfile.TemporaryDirectory())
"""


@pytest.fixture
def package() -> Iterator[Any]:
    """A module that looks installed, whose functions act on the world."""
    made = types.ModuleType("of_others")
    made.__file__ = "/home/user/lib/site-packages/of_others.py"
    sys.modules["of_others"] = made
    exec(compile(PACKAGE, made.__file__, "exec"), made.__dict__)
    yield made
    del sys.modules["of_others"]
