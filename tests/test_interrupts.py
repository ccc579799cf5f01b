"""Ctrl-C, at every line of a training step: whole steps, and what follows is right."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jax

import fluxax as fx
from tests.test_train import RULES, items, mse, net, reference
from tests.witness import snapshot

PACKAGE = str(Path(fx.__file__).parent)


class CtrlC:
    """Raises SIGINT when the n-th line of a file of fluxax is about to run, of any if not named.

    With n = 0 it counts the lines of each file.
    """

    def __init__(self, n: int = 0, file: str = ""):
        self.n, self.file, self.counts = n, file, Counter[str]()

    def __enter__(self) -> CtrlC:
        # a process that a shell put into the background has SIGINT ignored
        self.before = signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)
        signal.signal(signal.SIGINT, self.before)

    def trace(self, frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE + self.file):
            return None
        self.counts[name[len(PACKAGE) :]] += event == "line"
        if event == "line" and self.counts.total() == self.n:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return self.trace


def interrupted(n: int, file: str, run: Any) -> bool:
    """Whether the n-th line was reached and its Ctrl-C came out of `run`."""
    try:
        with CtrlC(n, file):
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


def test_ctrl_c_at_any_line_leaves_whole_steps() -> None:
    whole = [reference(n) for n in range(5)]
    with CtrlC() as lines:
        fx.train(mse, *_with(items(3)))
    total = lines.counts.total()
    done = [after_ctrl_c(n, "", whole) for n in range(1, total, max(1, total // 150))]
    assert {0, 1, 2, 3} <= set(done)


def test_ctrl_c_while_compiling_leaves_whole_steps() -> None:
    whole = [reference(n) for n in range(5)]
    _forget()
    with CtrlC() as lines:
        fx.train(mse, *_with(items(3)))
    for file, count in lines.counts.items():
        _forget()
        after_ctrl_c(max(1, count // 2), file, whole)


def _forget() -> None:
    """Compile everything anew; no other test may have left a plan."""
    fx.clear_cache()
    jax.clear_caches()


def _with(data: Any) -> tuple[Any, Any, Any]:
    model = net()
    return model, data, fx.setup(RULES[2], model)
