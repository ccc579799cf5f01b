"""Ctrl-C, at every line of a training step: whole steps, and what follows is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fluxax as fx
from fluxax import _tree
from tests.test_train import RULES, items, mse, net, reference
from tests.witness import snapshot

PACKAGE = str(Path(fx.__file__).parent)
JAX = str(Path(jax.__file__).parent)


class CtrlC:
    """Raises SIGINT when the n-th line of a file of fluxax is about to run, of any if not named.

    With n = 0 it counts the lines of each file. With `below`, lines of JAX count too.
    """

    def __init__(self, n: int = 0, file: str = "", *, below: bool = False):
        self.n, self.seen, self.counts = n, 0, Counter[str]()
        self.start = (PACKAGE + file, JAX) if below else PACKAGE + file
        self.line = self.until if n else self.count  # by line, and there are millions

    def __enter__(self) -> CtrlC:
        # a process that a shell put into the background has SIGINT ignored
        self.before = signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)
        signal.signal(signal.SIGINT, self.before)

    def trace(self, frame: Any, _event: str, _: Any) -> Any:
        return self.line if frame.f_code.co_filename.startswith(self.start) else None

    def count(self, frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            self.counts[frame.f_code.co_filename[len(PACKAGE) :]] += 1
        return self.count

    def until(self, _frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            self.seen += 1
            if self.seen == self.n:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self.until


def interrupted(n: int, file: str, run: Any, *, below: bool = False) -> bool:
    """Whether the n-th line was reached and its Ctrl-C came out of `run`."""
    try:
        with CtrlC(n, file, below=below):
            run()
    except KeyboardInterrupt:
        return True
    return False


def after_ctrl_c(n: int, file: str, whole: list[Any]) -> int | None:
    """How many steps were done when Ctrl-C came; whatever follows must be right."""
    model, data, opt_state = _with(items(20)[:3])
    if not interrupted(n, file, lambda: fx.train(mse, model, data, opt_state)):
        return None
    now = snapshot(model, opt_state)
    assert now in whole[:4], f"half a step after line {n} of {file}"
    done = whole.index(now)
    fx.train(mse, model, items(20)[done:4], opt_state)
    assert snapshot(model, opt_state) == whole[4], f"wrong after line {n} of {file}"
    return done


@pytest.mark.slow
def test_ctrl_c_at_any_line_leaves_whole_steps() -> None:
    whole = [reference(n) for n in range(5)]
    with CtrlC() as lines:
        fx.train(mse, *_with(items(3)))
    total = lines.counts.total()
    done = [after_ctrl_c(n, "", whole) for n in range(1, total, max(1, total // 150))]
    assert {0, 1, 2, 3} <= set(done)


@pytest.mark.slow
def test_ctrl_c_while_compiling_leaves_whole_steps() -> None:
    whole = [reference(n) for n in range(5)]
    fx.clear_cache()
    jax.clear_caches()  # no other test may have left a trace
    with CtrlC() as lines:
        fx.train(mse, *_with(items(3)))
    for file in sorted(lines.counts)[::3]:  # benchmarks/interrupts.py takes any moment
        fx.clear_cache()  # compile everything anew
        after_ctrl_c(max(1, lines.counts[file] // 2), file, whole)


@pytest.mark.slow
def test_ctrl_c_in_an_uncompiled_step_leaves_a_whole_step() -> None:
    """What layers wrote stands for as many steps as the parameters took."""

    def loss(m: Any, x: Any) -> Any:
        value = (m(x) ** 2).mean()
        return value if float(value) >= 0 else -value

    def setting() -> tuple[Any, Any]:
        model = fx.Chain(fx.Dense(2, 3, rng=0), fx.BatchNorm(3), fx.Dense(3, 1, rng=1))
        return model, fx.setup(fx.Adam(0.1), model)

    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    model, opt_state = setting()
    whole = [snapshot(model, opt_state)]
    with fx.eager():
        fx.trainstep(loss, model, (x,), opt_state)
        whole.append(snapshot(model, opt_state))
        with CtrlC() as lines:
            fx.trainstep(loss, model, (x,), opt_state)
        done = []
        for file in ("/_step.py", "/optimisers/_update.py"):
            for n in range(1, lines.counts[file] + 1, 3):
                model, opt_state = setting()
                if interrupted(
                    n, file, lambda m=model, o=opt_state: fx.trainstep(loss, m, (x,), o)
                ):
                    now = snapshot(model, opt_state)
                    assert now in whole, f"half a step after line {n} of {file}"
                    done.append(whole.index(now))
    assert done


def test_ctrl_c_in_loadmodel_leaves_one_model_or_the_other() -> None:
    numbers = lambda m: [float(np.asarray(a).ravel()[0]) for _, a in _tree.arrays(m)]
    made = lambda value: [{"w": np.full(2, value, "f")} for _ in range(4)]
    with CtrlC() as lines:
        fx.loadmodel(made(0.0), made(1.0))
    total = lines.counts.total()
    for n in range(1, total, max(1, total // 150)):
        model = made(0.0)
        interrupted(n, "", lambda m=model: fx.loadmodel(m, made(1.0)))
        assert len(set(numbers(model))) == 1, n


def _with(data: Any) -> tuple[Any, Any, Any]:
    model = net()
    return model, data, fx.setup(RULES[2], model)


# --- a first compile that was interrupted, and JAX's Python path ---------------------------


class Setting:
    """A model with a state of every sort, and the six kinds of call that train or look at it."""

    def __init__(self) -> None:
        fx.clear_cache()
        self.model = fx.Chain(
            fx.Dense(3, 4, fx.tanh, rng=0), fx.BatchNorm(4), fx.Dense(4, 2, rng=1)
        )
        self.opt_state = fx.setup(fx.Adam(1e-2), self.model)
        self.x, self.y = np.ones((4, 3), "f"), np.ones((4, 2), "f")
        self.grads = fx.gradient(lambda m: fx.mse(m(self.x), self.y), self.model)[0]

    def gradient(self) -> Any:
        return fx.gradient(lambda m: fx.mse(m(self.x), self.y), self.model)

    def withgradient(self) -> Any:
        return fx.withgradient(lambda m: fx.mae(m(self.x), self.y), self.model)

    def compiled(self) -> Any:
        return fx.compiled(lambda: self.model(self.x))()

    def update(self) -> Any:
        return fx.update(self.opt_state, self.model, self.grads)

    def trainstep(self) -> Any:
        return fx.trainstep(mse, self.model, (self.x, self.y), self.opt_state)

    def train(self) -> Any:
        return fx.train(mse, self.model, [(self.x, self.y)], self.opt_state)

    def steps(self) -> int:
        """How many steps were taken; all that there is must be there, and agree."""
        for _, array in _tree.arrays(self.model):
            assert np.isfinite(np.asarray(array)).all()
        leaves = [v for _, v in _tree.walk(self.opt_state) if isinstance(v, fx.Leaf)]
        for leaf in leaves:
            assert all(np.isfinite(np.asarray(a)).all() for a in jax.tree.leaves(leaf.peek()))
        (steps,) = {int(leaf.steps) for leaf in leaves}
        return steps


KINDS = ["gradient", "withgradient", "compiled", "update", "trainstep", "train"]
SETTINGS = [
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
    "jax_log_compiles",
    "jax_enable_checks",
    "jax_check_tracer_leaks",
]


@contextmanager
def switched(name: str | None) -> Iterator[None]:
    """A context in which a setting of JAX's is on."""
    if name is None:
        yield
        return
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, False)


def frames_of_dispatch(run: Callable[[], Any]) -> int:
    """How many Python functions of JAX's way to run a program are called; in C there are none."""
    seen = 0

    def look(frame: Any, event: str, _: Any) -> None:
        nonlocal seen
        seen += event == "call" and frame.f_code.co_filename.endswith("/pjit.py")

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen


def interrupt_the_compiler(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the midst of a call's first compile."""

    def ctrl_c(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jax._src.compiler.compile_or_get_cached", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_compile_leaves_nothing_behind(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting()
    call = getattr(setting, kind)
    if kind != "update":  # what is left of the gradient's program would not be interrupted
        fx.clear_cache()
    interrupt_the_compiler(call, monkeypatch)
    before = setting.steps()
    call()
    assert frames_of_dispatch(call) == 0
    assert setting.steps() - before == (2 if kind in ("update", "trainstep", "train") else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *SETTINGS])
@pytest.mark.parametrize("kind", KINDS)
def test_the_state_outlives_every_ctrl_c(
    kind: str, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 lines of fluxax and of JAX, after an interrupted compile, whatever JAX is set to."""
    setting = Setting()
    call = getattr(setting, kind)
    interrupt_the_compiler(call, monkeypatch)
    call()
    with switched(name):
        call()
        with CtrlC(below=True) as lines:
            call()
    total, done = lines.counts.total(), setting.steps()
    for k in range(80):
        with switched(name):
            interrupted(1 + k * total // 80, "", call, below=True)
        now = setting.steps()  # JAX at its usual settings, or looking takes seconds
        assert now - done in (0, 1), k
        done = now
    with switched(name):
        call()
    call()
    call()
    # one of two, since the other may be the call at which the program is checked
    assert min(frames_of_dispatch(call) for _ in range(2)) == 0
    assert setting.steps() >= done


@pytest.mark.slow
def test_a_few_interrupts() -> None:
    """A short run of the harness; `python benchmarks/interrupts.py` interrupts 500 times."""
    command = [sys.executable, "benchmarks/interrupts.py", "--interrupts", "6"]
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("6 interrupts, ")
