"""What is watched in a trace: the C functions that are called, and questions to numbers."""

from __future__ import annotations

import array
import bisect
import collections
import contextlib
import copy
import decimal
import enum
import fractions
import functools
import glob
import hashlib
import heapq
import itertools
import json
import math
import operator
import pathlib
import random
import re
import string
import struct
import textwrap
import threading
import timeit
import types
import typing
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.fft
import scipy.stats
from objectives import quietly, record, uncompiled

import fluxax as fx

W = jnp.array([1.0, 2.0])
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    fx.clear_cache()
    SEEN.clear()


# --- C functions ---------------------------------------------------------------------------


class Dice(random.Random):
    pass


class Unsteady:
    """Ways to read the world, each with the C function that it ends in."""

    def __init__(self, folder: pathlib.Path, package: Any):
        self.path, self.array = folder / "flag", folder / "a.npy"
        self.raw, self.package, self.dice = folder / "a.bin", package, Dice(3)
        self.path.write_text("x")
        np.save(self.array, np.ones(2))
        np.ones(2).tofile(self.raw)


def unsteady(u: Unsteady) -> dict[str, tuple[Callable[[], Any], str]]:
    path, kept, raw, package, dice = u.path, str(u.array), str(u.raw), u.package, u.dice
    pattern = str(u.path.parent / "*")
    return {
        "clock": (lambda: timeit.default_timer(), "time."),
        "path": (lambda: path.exists(), "`path`"),
        "read": (lambda: len(path.read_text()), "`path`"),
        "write": (lambda: path.write_text("x"), "`path`"),
        "glob": (lambda: len(glob.glob(pattern)), "posix."),
        "load": (lambda: np.load(kept).sum(), "io.open"),
        "save": (lambda: np.save(kept, np.ones(2)) or 1, "io.open"),
        "fromfile": (lambda: np.fromfile(raw).sum(), "numpy.fromfile"),
        "tofile": (lambda: np.ones(2).tofile(raw) or 1, "numpy.ndarray.tofile"),
        "seterr": (lambda: len(np.seterr(over="warn")), "numpy"),
        "geterr": (lambda: len(np.geterr()), "_get_extobj_dict"),
        "printoptions": (lambda: np.get_printoptions()["precision"], "ContextVar"),
        "decimal": (lambda: decimal.getcontext().prec, "getcontext"),
        "localcontext": (lambda: len(str(decimal.localcontext())), "localcontext"),
        "random": (lambda: dice.random(), "`dice`"),
        "mapped": (lambda: dice.choice([1, 2]), "`dice`"),
        "logged": (lambda: package.log_itself("x") or 1, ""),
        "folder": (lambda: package.folder(), ""),
    }


WAYS = (
    "clock path read write glob load save fromfile tofile seterr geterr printoptions decimal "
    "localcontext random mapped logged folder"
)


@pytest.mark.parametrize("name", WAYS.split())
def test_a_c_function_that_is_not_known_makes_it_uncompiled(
    name: str, tmp_path: pathlib.Path, package: Any
) -> None:
    read, what = unsteady(Unsteady(tmp_path, package))[name]
    uncompiled(lambda w: jnp.sum(w**2) + 0 * read(), W)
    reason = record().reasons[-1]
    assert what in reason
    assert "test_capture_sensors.py:" in reason or what[0] == "`"  # of the walk: before any line


def test_each_effect_once_per_call(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"

    def f(w: Any) -> Any:
        with path.open("a") as file:
            file.write("x\n")
        return jnp.sum(w**2)

    for i in range(3):
        quietly(lambda: fx.withgradient(f, W))
        assert len(path.read_text().split()) == i + 1
    assert "`path`" in record().reasons[-1]


def test_an_effect_that_is_swallowed_is_not_done_twice(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"

    def f(w: Any) -> Any:
        try:
            with path.open("a") as file:
                file.write("x\n")
        except BaseException:
            pass
        return jnp.sum(w**2)

    for i in range(3):
        quietly(lambda: fx.withgradient(f, W))
        assert len(path.read_text().split()) == i + 1


# --- and those that only compute -----------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")
T = typing.TypeVar("T")


def stack() -> int:
    with contextlib.ExitStack() as opened, contextlib.suppress(KeyError):
        return opened.enter_context(contextlib.nullcontext(1))


dense = eqx.nn.Linear(2, 2, key=jax.random.key(0))

STEADY: dict[str, Callable[[Any], Any]] = {
    "reduce": lambda w: functools.reduce(operator.add, [1, 2, 3]) * w[0],
    "product": lambda w: sum(a * b for a, b in itertools.product([1, 2], [3.0])) * w[0],
    "math": lambda w: math.sqrt(2) * math.comb(4, 2) * w[0],
    "enum": lambda w: Colour(1).value * Colour["RED"].value * w[0],
    "typing": lambda w: typing.cast("Any", w)[0] * len(typing.get_args(list[int])),
    "counter": lambda w: collections.Counter("aab").most_common(1)[0][1] * w[0],
    "namedtuple": lambda w: Point(1.0, 2.0)._replace(x=3.0).x * w[0],
    "made namedtuple": lambda w: collections.namedtuple("P", "x y")(1, 2).y * w[0],
    "re": lambda w: len(re.sub("[a-c]+", "x", "aabbcc d")) * w[0],
    "text": lambda w: len(f"{3.14159:.2f}".rjust(8) + "{:>4}".format("a")) * w[0],
    "template": lambda w: len(string.Template("$a").substitute(a=textwrap.dedent(" x"))) * w[0],
    "linalg": lambda w: float(np.linalg.inv(np.eye(2)).sum()) * w[0],
    "quantile": lambda w: float(np.quantile(np.arange(5.0), 0.3)) * w[0],
    "nan": lambda w: float(np.nanmean(np.array([1.0, np.nan]))) * w[0],
    "einsum": lambda w: float(np.einsum("ij,jk->", np.ones((2, 2)), np.eye(2))) * w[0],
    "polynomials": lambda w: float(np.polyfit([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], 1)[0]) * w[0],
    "window": lambda w: float(np.fft.fft(np.hanning(8)).real.sum()) * w[0],
    "copy": lambda w: copy.deepcopy([[2.0]])[0][0] * copy.copy({"a": 1.0})["a"] * w[0],
    "context": lambda w: stack() * w[0],
    "checkpoint": lambda w: jax.checkpoint(jnp.sin)(w)[0],
    "isinstance": lambda w: isinstance([], collections.abc.Sequence) * w[0],
    "cached": lambda w: functools.lru_cache(lambda n: n)(3) * w[0],
    "struct": lambda w: struct.unpack("<i", struct.pack("<i", 3))[0] * w[0],
    "json": lambda w: json.loads(json.dumps({"a": 2}))["a"] * w[0],
    "hash": lambda w: len(hashlib.md5(b"x").hexdigest()) * w[0],
    "bisect": lambda w: (bisect.bisect([1, 2], 1) + heapq.nsmallest(1, [3, 2])[0]) * w[0],
    "array": lambda w: sum(array.array("d", [1.0, 2.0])) * w[0],
    "fraction": lambda w: float(fractions.Fraction(1, 3).limit_denominator(2)) * w[0],
    "named scope": lambda w: jax.named_scope("a")(lambda: w[0])(),
    "random": lambda w: jax.random.normal(jax.random.key(0), (2,)) @ w,
    "scan": lambda w: jax.lax.scan(lambda c, x: (c + x, c), 0.0, w)[0],
    "cond": lambda w: jax.lax.cond(w[0] > 0, lambda x: x, lambda x: -x, w[0]),
    "while": lambda w: w[0] * jax.lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0),
    "fori": lambda w: jax.lax.fori_loop(0, 3, lambda i, c: c + w[0], 0.0),
    "relu": lambda w: jax.nn.relu(w)[0] + jax.nn.gelu(w)[0] + jax.nn.logsumexp(w),
    "vmap": lambda w: jnp.sum(jax.vmap(jnp.sin)(w)) + jax.grad(jnp.sin)(w[0]),
    "optax": lambda w: optax.softmax_cross_entropy(w[None], jnp.ones((1, 2)))[0],
    "clipped": lambda w: optax.tree.norm({"a": w}),
    "equinox": lambda w: jnp.sum(dense(w)),
    "filter_jit": lambda w: jnp.sum(eqx.filter_jit(dense)(w)),
    "error state of a package": lambda w: float(scipy.stats.norm.cdf(0.3)) * w[0],
    "pybind11": lambda w: float(abs(scipy.fft.fft(np.ones(4))).sum()) * w[0],
    "tree": lambda w: sum(jnp.sum(a) for a in jax.tree.leaves({"a": w, "b": (w, None)})),
    "layers": lambda w: jnp.sum(fx.Chain(fx.Dense(2, 2, fx.relu, rng=0), fx.LayerNorm(2))(w[None])),
}


@pytest.mark.parametrize("name", STEADY)
def test_what_only_computes_is_compiled(name: str) -> None:
    f = STEADY[name]
    value, (gradient,) = fx.withgradient(f, W)
    assert record().compiled, record().reasons
    with fx.eager():
        want, (expected,) = fx.withgradient(f, W)
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


# --- questions to a number that became an input ---------------------------------------------


def tried(k: Any) -> float:
    try:
        return 0.0 * k.ndim
    except AttributeError:
        return 1.0


def looked_up(k: Any) -> float:
    try:
        return {2.0: 1.0, 3.0: 1.0, 4.0: 1.0, 5.0: 1.0}[k]
    except (KeyError, TypeError):
        return 0.0


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "tried": tried,
    "shape": lambda k: 1.0 if getattr(k, "shape", None) is None else 0.0,
    "dtype": lambda k: 1.0 if getattr(k, "dtype", None) is None else 0.0,
    "is_integer": lambda k: 1.0 if k.is_integer() else 0.0,
    "class": lambda k: 1.0 if k.__class__ is float else 0.0,
    "isinstance": lambda k: 1.0 if isinstance(k, float) else 0.0,
    "looked up": looked_up,
    "member": lambda k: 1.0 if k in {2.0, 3.0, 4.0, 5.0} else 0.0,
    "length": lambda k: 0.0 if getattr(k, "__len__", None) else 1.0,
    "copied": lambda k: 1.0 if type(copy.copy(SEEN)) is list and k.hex() else 0.0,
    "numpy": lambda k: 1.0 if np.ndim(k) == 0 else 0.0,
    "jax": lambda k: 1.0 if jnp.shape(k) == () else 0.0,
    "real": lambda k: 1.0,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_number_answers_as_numbers_do(name: str) -> None:
    ask, s = QUESTIONS[name], types.SimpleNamespace(k=2.0)
    for s.k in (2.0, 3.0, 4.0, 5.0):
        value, (gradient,) = fx.withgradient(lambda w: jnp.sum(w**2) * s.k * ask(s.k), W)
        assert float(value) == 5.0 * s.k
        np.testing.assert_allclose(gradient, 2 * s.k * W)
    assert record().compiled
    if name in ("jax", "real"):
        assert record().traces <= 2, record().reasons


def test_a_trace_in_another_thread_is_watched_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "flag"

    def run() -> None:
        SEEN.append(float(quietly(lambda: fx.withgradient(f, W))[0]))

    def f(w: Any) -> Any:
        return jnp.sum(w**2) * (2 if path.exists() else 1)

    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        path.write_text("x")
    assert SEEN == [5.0, 10.0]
