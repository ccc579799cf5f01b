"""What only happens to run during a trace: it runs, and changes nothing."""

from __future__ import annotations

import contextlib
import cProfile
import gc
import itertools
import logging
import pathlib
import pstats
import signal
import sys
import types
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from objectives import quietly, record, uncompiled

import fluxax as fx
from fluxax._compile._bystanders import garbage_waits
from tests.test_interrupts import CtrlC, interrupted

W = jnp.array([1.0, 2.0])
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    fx.clear_cache()
    SEEN.clear()


# --- what only happens to run -------------------------------------------------------------


class Dying:
    def __del__(self) -> None:
        SEEN.append("died")


def suspended() -> Any:
    def numbers() -> Any:
        try:
            yield 1
        finally:
            SEEN.append("closed")

    made = numbers()
    next(made)
    return made


def suspended_async() -> Any:
    async def numbers() -> Any:
        try:
            yield 1
        finally:
            SEEN.append("closed")

    made = numbers()
    with pytest.raises(StopIteration):
        made.__anext__().send(None)
    return made


def suspended_coroutine() -> Any:
    @types.coroutine
    def pause() -> Any:
        yield

    async def wait() -> None:
        try:
            await pause()
        finally:
            SEEN.append("closed")

    made = wait()
    made.send(None)
    return made


class Plain:
    pass


def referred() -> Any:
    made = Plain()
    made.me = weakref.ref(made, lambda _: SEEN.append("unreferred"))  # pyright: ignore
    SEEN_REFS.append(made.me)  # pyright: ignore
    return made


def finalized() -> Any:
    made = Plain()
    weakref.finalize(made, lambda: SEEN.append("finalized"))
    return made


SEEN_REFS: list[Any] = []
DROPPED = {f.__name__: f for f in (suspended, suspended_async, suspended_coroutine)}
DROPPED |= {f.__name__: f for f in (Dying, referred, finalized)}


@pytest.mark.parametrize("name", DROPPED)
def test_what_a_package_drops_dies_once_and_changes_nothing(package: Any, name: str) -> None:
    def f(w: Any) -> Any:
        package.drop()
        return jnp.sum(w**2)

    package.KEPT.append(DROPPED[name]())
    assert SEEN == []
    for _ in range(3):
        assert float(fx.withgradient(f, W)[0]) == 5.0
    assert record().compiled
    assert len(SEEN) == 1


@pytest.mark.parametrize("name", DROPPED)
def test_garbage_waits_for_the_end_of_a_trace(package: Any, name: str) -> None:
    def f(w: Any) -> Any:
        package.make_garbage()
        return jnp.sum(w**2)

    for i in range(4):
        fx.clear_cache()
        cycle = [DROPPED[name]()]
        cycle.append(cycle)
        del cycle
        assert float(fx.withgradient(f, W)[0]) == 5.0
        assert record().compiled
        gc.collect()
        assert len(SEEN) == i + 1


def test_no_collection_starts_during_a_trace(package: Any) -> None:
    def f(w: Any) -> Any:
        package.make_garbage()
        return jnp.sum(w**2)

    def note(phase: str, info: Any) -> None:
        names = set()
        frame: Any = sys._getframe()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if "make_garbage" in names:
            SEEN.append(phase)

    gc.callbacks.append(note)
    try:
        fx.withgradient(f, W)
        assert SEEN == []
        package.make_garbage()
        assert SEEN  # the check can fail
    finally:
        gc.callbacks.remove(note)


def test_the_collector_is_left_as_it_was_by_a_ctrl_c() -> None:
    """At any line of what sets it; otherwise nothing would ever be collected again."""

    def waits() -> None:
        with garbage_waits():
            pass

    before, file = gc.get_threshold(), "/_compile/_bystanders.py"
    with CtrlC(0, file) as lines:
        waits()
    for n in range(1, lines.counts.total() + 1):
        assert interrupted(n, file, waits)
        assert gc.get_threshold() == before, n


def test_the_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    for bad in (False, True):
        with contextlib.suppress(ValueError), garbage_waits():
            assert gc.get_threshold()[0] == 0
            assert gc.isenabled()
            with garbage_waits():
                pass
            assert gc.get_threshold()[0] == 0
            if bad:
                raise ValueError
        assert gc.get_threshold() == before
    with garbage_waits():  # another thread has a say too
        gc.disable()
        gc.set_threshold(500)
    try:
        assert not gc.isenabled()
        assert gc.get_threshold()[0] == 500
    finally:
        gc.enable()
        gc.set_threshold(*before)


def test_handlers_run_and_change_nothing(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXAX_CHECK", "0")  # a check is one more trace

    class Handler(logging.Handler):
        def emit(self, record: Any) -> None:
            SEEN.append(pathlib.Path(__file__).read_text() and record.getMessage())

    def on_signal(number: int, frame: Any) -> None:
        SEEN.append(number)

    def on_garbage(phase: str, info: Any) -> None:
        SEEN.append(phase)

    def f(w: Any) -> Any:
        package.raise_signal(number)
        package.log("hello")
        package.collect()
        return jnp.sum(w**2)

    logger, handler = logging.getLogger("of_the_package"), Handler()
    logger.addHandler(handler)
    logger.propagate = False
    before = signal.signal(signal.SIGUSR1, on_signal)
    gc.callbacks.append(on_garbage)
    number = int(signal.SIGUSR1)
    try:
        for _ in range(3):
            assert float(fx.withgradient(f, W)[0]) == 5.0
    finally:
        gc.callbacks.remove(on_garbage)
        signal.signal(signal.SIGUSR1, before)
        logger.removeHandler(handler)
    assert record().compiled
    assert [s for s in SEEN if s in (number, "hello")] == [number, "hello"]
    assert SEEN[-2:] == ["start", "stop"]


def test_debuggers_and_profilers_go_on() -> None:
    lines: list[str] = []

    def debugger(frame: Any, event: str, arg: Any) -> Any:
        lines.append(event)
        return debugger

    def profiler(frame: Any, event: str, arg: Any) -> None:
        calls.append(event)

    calls: list[str] = []
    before = sys.gettrace()
    sys.settrace(debugger)
    try:
        fx.withgradient(lambda w: jnp.sum(w**2), W)
    finally:
        sys.settrace(before)
    assert len(lines) > 100
    sys.setprofile(profiler)
    try:
        fx.withgradient(lambda w: jnp.sum(w**2) + 1, W)
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert len(calls) > 100
    with cProfile.Profile() as profile:
        fx.withgradient(lambda w: jnp.sum(w**2) + 2, W)
        sum(range(3))
    assert any("sum" in name for _, _, name in pstats.Stats(profile).stats)  # pyright: ignore
    assert all(r.compiled for r in fx.explain())
    assert sys.unraisablehook is not None


# --- what the function itself makes and drops ----------------------------------------------


def by_del(w: Any) -> Any:
    made = Dying()
    del made
    return jnp.sum(w**2)


def by_return(w: Any) -> Any:
    made = Dying()
    return jnp.sum(w**2) if made else None


def by_helper(w: Any) -> Any:
    def helper() -> int:
        return 1 if Dying() else 0

    return jnp.sum(w**2) * helper()


def of_its_own_class(w: Any) -> Any:
    class Own:
        def __del__(self) -> None:
            SEEN.append("died")

    return jnp.sum(w**2) * (1 if Own() else 0)


def by_jax(w: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return (c + x**2 if Dying() else c), None

    return jax.lax.scan(body, jnp.float32(0), w)[0] * (1 if Dying() else 0)


@pytest.mark.parametrize("f", [by_del, by_return, by_helper, of_its_own_class])
def test_finalisers_of_its_own_objects_run_once_per_call(f: Any) -> None:
    assert float(uncompiled(f, W)[0]) == 5.0
    assert SEEN == ["died"]
    for i in range(2):
        fx.withgradient(f, W)
        assert len(SEEN) == i + 2
    assert "finaliser" in record().reasons[-1]


def test_a_finaliser_below_jax_is_its_own_too() -> None:
    uncompiled(by_jax, W)
    with fx.eager():
        n = len(SEEN)
        fx.withgradient(by_jax, W)
    assert len(SEEN) == 2 * n > 0


class Unhashable(type):
    """A metaclass of somebody who did not think of those who keep classes in a set."""

    def __hash__(cls) -> int:
        raise TypeError("no hash")


class Strange(metaclass=Unhashable):
    pass


class Mortal:
    def __del__(self) -> None:
        pass


STRANGE, MORTAL = Strange(), Mortal()


@pytest.mark.parametrize("eager", [False, True])
def test_classes_need_no_hash(eager: bool) -> None:
    def f(w: Any) -> Any:
        return jnp.sum(w**2) * (1 if isinstance(MORTAL, Mortal) else 0)

    assert type(STRANGE) is Strange
    with fx.eager() if eager else contextlib.nullcontext():
        assert [float(fx.withgradient(f, W)[0]) for _ in range(2)] == [5.0, 5.0]


class Registered:
    """Its method and its finaliser write to one list; the method would be undone in a trace."""

    def __del__(self) -> None:
        SEEN.append("died")

    def loss(self, w: Any) -> Any:
        return jnp.sum(w**2) * (1 if SEEN is not None else 0)


def test_what_a_bystander_writes_is_not_undone(package: Any) -> None:
    def f(w: Any) -> Any:
        package.drop()
        return model.loss(w) * (1 if issubclass(Registered, Registered) else 0)

    model = Registered()
    package.KEPT.append(Registered())
    assert float(quietly(lambda: fx.withgradient(f, W))[0]) == 5.0
    assert SEEN == ["died"]
    assert float(quietly(lambda: fx.withgradient(f, W))[0]) == 5.0


def test_a_generator_from_outside_that_is_asked(package: Any) -> None:
    def numbers() -> Any:
        yield from itertools.count()

    package.KEPT.append(numbers())
    package.take()
    f = lambda w: w[0] * package.take()
    found = [float(quietly(lambda: fx.withgradient(f, W))[0]) for _ in range(3)]
    assert not record().compiled
    assert found[0] < found[1] < found[2]
