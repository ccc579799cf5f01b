"""The capture table: holders of a number, ways to read it, and places it is read from.

A cell is a module made of text: a holder, a read of it, and the place of the objective. Its value
changes between eight calls in one of three patterns. Plain Python says what is right.

    python tests/capture_table.py [holder ...] [-p place] [-r read] [--turns N] [--all] [-v]

prints, for each holder, how many cells are right and compiled, right and uncompiled, refused and
wrong; then each cell that is wrong, refused, or ordinary and not compiled. `-v` prints every cell
that is not compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import linecache
import re
import sys
import textwrap
import time
import types
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from capture_table_holders import HOLDERS, Holder
from capture_table_places import INSTALLED, PLACES, Place
from shared_programs import shared_programs

import fluxax as fx

#: The values of eight calls, and of a ninth that is made in `fx.eager()`.
PATTERNS = {
    "every call": (1.0, 2.0, 3.0, 1.0, 5.0, 3.0, 2.0, 5.0, 3.0),
    "every third": (1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 5.0, 5.0, 3.0),
    "call 7": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 3.0),
}

#: Where nobody asks for more, each read is tried in two places, an ordinary one in eight.
TURNS = range(2)

_IMPORTS = """
import abc, array, collections, contextvars, copy, dataclasses, datetime, decimal, enum, fractions
import functools, inspect, itertools, json, math, operator, os, random, re, string, sys, threading
import types, typing, weakref
import numpy as np, jax, jax.numpy as jnp, fluxax as fx
NAMES = ["k"]
"""


class Cell(NamedTuple):
    """One cell of the table."""

    holder: Holder
    read: str
    place: Place
    pattern: str

    @property
    def ordinary(self) -> bool:
        """Whether it has to compile."""
        return self.read in self.holder.ordinary and not self.place.inner

    def __str__(self) -> str:
        read = self.read.replace("\n", "; ")
        return f"{self.holder.name} | {read} | {self.place.name} | {self.pattern}"


class Outcome(NamedTuple):
    """What became of a cell: "compiled", "uncompiled", "no cell", "refused" or "wrong"."""

    cell: Cell
    kind: str
    got: list[Any]
    want: list[Any]
    why: str

    def __str__(self) -> str:
        if self.kind == "wrong":
            return f"{self.cell}: got {_shown(self.got)}, wanted {_shown(self.want)}. {self.why}"
        return f"{self.cell}: {self.kind}. {self.why}"


def _shown(values: list[Any]) -> str:
    return " ".join(v if isinstance(v, str) else f"{v:g}" for v in values)


def cells(
    holder: Holder, turns: Iterable[int] | None = TURNS, every: bool = False, inner: bool = True
) -> Iterator[Cell]:
    """A holder's cells: each read in a place for each turn, with one of the patterns.

    Places and patterns go round, so that a holder with some reads meets all of both.

    Args:
        holder: a row of the table.
        turns: which of the places of a read, counted from one that is its own; an ordinary read
            is tried in four places at each turn. `None`: in all places.
        every: each cell with every pattern.
        inner: whether places inside JAX's own transformations are among them.
    """
    start, patterns = list(HOLDERS).index(holder.name), list(PATTERNS)
    places = [place for place in PLACES.values() if inner or not place.inner]
    for i, read in enumerate(holder.reads):
        four = 4 if read in holder.ordinary else 1
        steps = [n for turn in turns or () for n in range(four * turn, four * (turn + 1))]
        steps = range(len(places)) if turns is None else [4 * n + n // 8 for n in steps]
        for j, step in enumerate(steps):
            place = places[(7 * (start + i) + step) % len(places)]
            for pattern in patterns if every else [patterns[(start + i + j) % 3]]:
                yield Cell(holder, read, place, pattern)


# --- one cell -------------------------------------------------------------------------------


_HOLE = re.compile(r"^( *)<<([^|]*?)(?:\|(.*))?>>$", re.MULTILINE)


def fill(source: str, read: str) -> str:
    """A place's source with a read where the holes are."""

    def lines(hole: re.Match[str]) -> str:
        indent, held, result = hole.groups()
        *statements, value = re.sub(r"\bH\b", held, read).splitlines()
        result = (result or "x * ({})").replace("{}", f"({value})")
        return textwrap.indent("\n".join([*statements, f"return {result}"]), indent)

    return _HOLE.sub(lines, source)


_numbers = itertools.count()


def _module(name: str, file: str, source: str, **names: Any) -> Any:
    """A module made of text, as an import would make it."""
    module = types.ModuleType(name)
    if not file.startswith("<"):
        module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    module.__dict__.update(names)
    sys.modules[name] = module
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    return module


@contextlib.contextmanager
def cell_module(holder: str, read: str, place: Place, installed: str = "") -> Iterator[Any]:
    """The module of a holder that is read in a place, made anew."""
    names = [f"table{next(_numbers)}{suffix}" for suffix in ("", "inst")]
    files = [place.file.format(names[0]), INSTALLED.format(names[1])]
    try:
        inst = _module(names[1], files[1], _IMPORTS + installed + fill(place.installed, read))
        source = _IMPORTS + holder + fill(place.source, read)
        yield _module(names[0], files[0], source, inst=inst)
    finally:
        for name in names:
            sys.modules.pop(name, None)
        for file in files:
            linecache.cache.pop(file, None)


def _plain(cell: Cell, module: Any, x: Any, state: Any) -> Any:
    """Plain Python's answer; `jax.jit` and `scan` would keep what they read at first."""
    with jax.disable_jit(cell.place.inner):
        return _plainly(cell, module, x, state)


def _plainly(cell: Cell, module: Any, x: Any, state: Any) -> Any:
    if cell.place.way == "trainstep":
        return module.objective()(state[0], x)
    return module.objective()(*_arguments(module, x))


def _ours(cell: Cell, module: Any, x: Any, state: Any) -> Any:
    if cell.place.way == "trainstep":
        return fx.trainstep(module.objective(), state[0], (x,), state[1])
    if cell.place.way == "compiled":
        return fx.compiled(module.objective())(*_arguments(module, x))
    return fx.withgradient(module.objective(), *_arguments(module, x))[0]


def _arguments(module: Any, x: Any) -> tuple[Any, ...]:
    return module.arguments(x) if hasattr(module, "arguments") else (x,)


def _call(call: Any, *args: Any) -> Any:
    """A call's number, or the name of its error."""
    try:
        return float(call(*args))
    except Exception as error:
        text = str(error).splitlines()
        return f"{type(error).__name__}: {text[0] if text else ''}"[:200]


def _run(cell: Cell, call: Any) -> list[Any]:
    """The values of eight calls and of an eager one."""
    values, x, state = PATTERNS[cell.pattern], jnp.float32(2.0), None
    found: list[Any] = []
    row = cell.holder
    with cell_module(row.source, cell.read, cell.place, row.installed) as module:
        if cell.place.way == "trainstep":
            model = {"w": jnp.float32(1.0)}
            state = (model, fx.setup(fx.Descent(0.0), model))
        holder = module.make(values[0])
        module.put(holder)
        for i, value in enumerate(values):
            if i and value != values[i - 1]:
                new = module.poke(holder, value)
                if new is not None:
                    holder = new
                    module.put(holder)
            with fx.eager() if i == 8 and call is _ours else contextlib.nullcontext():
                found.append(_call(call, cell, module, x, state))
    return found


def outcome(cell: Cell) -> Outcome:
    """Run a cell, plain and with the engine."""
    if cell.place.differentiated and cell.holder.number and _TYPE.search(cell.read):
        return Outcome(cell, "no cell", [], [], "an array while derivatives are taken by it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = _run(cell, _plain)
        assert all(type(v) is float for v in want), f"{cell}: plain Python gives {want}"
        assert len(set(want[:8])) > 1, f"{cell}: it is {want[0]} always"
        fx.clear_cache()
        got = _run(cell, _ours)
        records = fx.explain()
    why = "; ".join(r.reasons[-1] for r in records if not r.compiled)
    errors = [v for v in got if isinstance(v, str)]
    # uncompiled, JAX's transformations keep what they read earlier, as they do without us
    kept = range(0 if why else 8, 9) if cell.place.inner else range(0)
    for i, a in enumerate(got):
        right = want[: i + 1] if i in kept else want[i : i + 1]
        if a not in errors and not any(_same(a, b) for b in right):
            return Outcome(cell, "wrong", got, want, why)
    if errors:
        cannot = all(_cannot(cell, error) for error in errors)
        return Outcome(cell, "no cell" if cannot else "refused", got, want, errors[0])
    compiled = bool(records) and all(r.compiled for r in records)
    return Outcome(cell, "compiled" if compiled else "uncompiled", got, want, why)


#: Reads that ask a number what it is.
_TYPE = re.compile(r"type\(H\)|isinstance\(H|H\.__class__|hasattr\(H")


def _same(a: float, b: float) -> bool:
    return bool(np.isclose(a, b, rtol=1e-6, atol=0.0))


def _cannot(cell: Cell, error: str) -> bool:
    """Whether a refusal is right.

    A number that carries a derivative is no Python number (an int that is asked for its bits is);
    a model is a tree; and inside its transformations JAX alone refuses, too.
    """
    if cell.place.inner and "NumPy array" in cell.holder.name and "racer" in error:
        return True  # it is a JAX array for the objective, and that has no value in there
    if cell.place.inner:
        return any(isinstance(v, str) for v in _run(cell, _plainly))
    words = ["got a cycle"] if cell.place.model else []
    if cell.place.differentiated and cell.holder.name != "int":
        words += ["Tracer", "Array(", "carries a derivative"]
    return any(word in error for word in words)


# --- the table as a program -----------------------------------------------------------------


def share(counts: Counter[str]) -> float:
    """The part of the cells that is right and compiled."""
    return counts["compiled"] / max(1, counts.total() - counts["no cell"])


def worth_a_line(found: Outcome) -> bool:
    """Whether a cell is one to be mended."""
    return found.kind in ("wrong", "refused") or (
        found.kind == "uncompiled" and found.cell.ordinary
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("holders", nargs="*", help="names, or parts of names")
    parser.add_argument("-p", "--place", default="", help="only places with this in their name")
    parser.add_argument("-r", "--read", default="", help="only reads with this text")
    parser.add_argument("-v", "--verbose", action="store_true", help="all that is not compiled")
    parser.add_argument("--turns", type=int, default=len(TURNS), help="more: more places")
    parser.add_argument("--outer", action="store_true", help="not inside jit and scan")
    parser.add_argument("--all", action="store_true", help="every place with every pattern")
    chosen = parser.parse_args()
    total: Counter[str] = Counter()
    lines: list[Outcome] = []
    with shared_programs():
        for holder in HOLDERS.values():
            if chosen.holders and not any(name in holder.name for name in chosen.holders):
                continue
            began, counts = time.perf_counter(), Counter[str]()
            turns = None if chosen.all or chosen.place else range(chosen.turns)
            for cell in cells(holder, turns, chosen.all, not chosen.outer):
                if chosen.place in cell.place.name and chosen.read in cell.read:
                    found = outcome(cell)
                    counts[found.kind] += 1
                    if worth_a_line(found) or (chosen.verbose and found.kind != "compiled"):
                        lines.append(found)
            total += counts
            print(_row(holder.name, counts, time.perf_counter() - began), flush=True)
    print(_row("total", total, 0.0), f"{share(total):.1%} compiled")
    for found in lines:
        print(("ordinary " if found.cell.ordinary else "") + str(found))
    sys.exit(any(map(worth_a_line, lines)))


def _row(name: str, counts: Counter[str], seconds: float) -> str:
    kinds = ("compiled", "uncompiled", "no cell", "refused", "wrong")
    return f"{name:46}" + "".join(f"{k} {counts[k]:<6}" for k in kinds) + f"{seconds:.1f} s"


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
