"""Why it compiled, or did not, in plain words."""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fluxax._errors import article, dtype_name, warn


class Record:
    """What the engine knows of one objective.

    Attributes:
        where: file and line of the function.
        traces: how often it was traced.
        checks: how often it was traced once more, and was what its program is.
        reasons: why, each time.
        seconds: spent tracing and compiling.
        compiled: false if it runs uncompiled.
        inputs: the names of the arrays and numbers that are inputs of its program.
        constants: the numbers that are constants of its program, by name.
        bytes_copied: NumPy bytes copied at each call.
    """

    def __init__(self, where: str):
        self.where = where
        self.traces = 0
        self.checks = 0
        self.reasons: list[str] = []
        self.seconds = 0.0
        self.compiled = True
        self.inputs: tuple[str, ...] = ()
        self.constants: dict[str, Any] = {}
        self.bytes_copied = 0
        self.tokens: tuple[Any, ...] = ()  # the key of the newest program
        self.settings: Any = None  # and what else shaped it: the frozen parts
        self.warned = False

    def __repr__(self) -> str:
        state = "compiled" if self.compiled else "uncompiled"
        return f"{self.where}: {state}, traces={self.traces}, reasons={self.reasons}"

    def traced(self, reason: str) -> None:
        self.traces += 1
        self._note(reason)
        if self.traces > 8 and not self.warned:
            self.warned = True
            warn(
                f"{self.where} has been compiled {self.traces} times; the last time because "
                f"{reason}. {often(reason)} fx.explain() lists all reasons."
            )

    def uncompiled(self, reason: str) -> None:
        self.compiled = False
        self._note(f"uncompiled: {reason}")

    def _note(self, reason: str) -> None:
        self.reasons.append(reason)
        del self.reasons[:-100]


def often(reason: str) -> str:
    """What to do where programs are made again and again, by the reason of the last."""
    for word, hint in _OFTEN.items():
        if word in reason:
            return hint
    return (
        "Pass numbers that decide shapes or branches less often, or compute them before the lambda."
    )


_OFTEN = {
    "changed shape": "Give arrays one shape: pad them, or leave a short last batch out.",
    "changed dtype": "Give arrays one dtype, with jnp.asarray(x, dtype).",
    "changed length": "Keep the lists that it reads as long as they are.",
    "is new": "Keep the structure of what it reads.",
    "is gone": "Keep the structure of what it reads.",
    "another object": "Pass it as an argument, or keep it on a Module: methods read constants.",
}


def instead(reason: str) -> str:
    """What to do where a function runs uncompiled, by the reason; no more than is known."""
    for start, hint in _INSTEAD.items():
        if reason.startswith(start):
            return hint
    return "To make it fast, move that out of the function."


_INSTEAD = {
    "it needs the value": "Use jnp.where or jax.lax.cond, or return the value beside the loss.",
    "it changes": "Return what it keeps beside the loss, and keep it after the call.",
    "it writes": "Return what it keeps beside the loss, and keep it after the call.",
    "it assigns": "Return what it keeps beside the loss, and keep it after the call.",
    "it returns": "Return arrays in lists, dicts or plain objects.",
    "it calls": "Do that before the call, and pass what it gives.",
    "it uses": "Read it before the call, and pass the value.",
    "it draws": "Draw before the call, and pass the numbers; or use jax.random with a key.",
    "tracing it raised": "If that is a mistake, it is raised uncompiled too.",
}


class Records(list[Record]):
    """Records that print as a table."""

    def __str__(self) -> str:
        rows = [("where", "traces", "checks", "seconds", "compiled", "last reason")]
        for r in self:
            last = r.reasons[-1] if r.reasons else ""
            numbers = str(r.traces), str(r.checks), f"{r.seconds:.2f}"
            rows.append((r.where, *numbers, "yes" if r.compiled else "no", last))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join(
            "  ".join([*(c.ljust(w) for c, w in zip(row[:5], widths, strict=True)), row[5]])
            for row in rows
        )

    __repr__ = __str__


_records: OrderedDict[Any, Record] = OrderedDict()
_LIMIT = 512


def record_for(key: Any, where: str) -> Record:
    """The record of an objective, made at its first use."""
    record = _records.get(key)
    if record is None:
        record = _records[key] = Record(where)
        if len(_records) > _LIMIT:
            _records.popitem(last=False)
    return record


def explain() -> Records:
    """What was compiled, how often, and why: one record per objective.

    Returns:
        A list that prints as a table. Each record has `.where` (file:line), `.traces`,
        `.checks`, `.reasons` (one text per trace), `.seconds`, `.compiled`, `.inputs`,
        `.constants` and `.bytes_copied`.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.clear_cache()
        >>> for x in (jnp.ones(2), jnp.ones(3)):
        ...     _ = fx.gradient(lambda w: jnp.sum(w * x), x)
        >>> fx.explain()[0].traces
        2
        >>> fx.explain()[0].reasons
        ['first call', 'argument 0 changed shape from (2,) to (3,)']
    """
    return Records(r for r in _records.values() if r.traces or not r.compiled)


def clear() -> None:
    """Forget all records."""
    _records.clear()


def difference(record: Record, now: tuple[Any, ...], settings: Any) -> str:
    """The first thing that differs from the newest program's key, as a reader would say it."""
    before = record.tokens
    if not before:
        return "first call"
    if record.settings != settings:
        return "other parts of the model are frozen"
    old, new = _by_name(before), _by_name(now)
    for name, token in new.items():
        if name not in old:
            return f"{token[0]} is new" if isinstance(token[0], str) else "its structure changed"
        if old[name] != token:
            return _changed(old[name], token)
    gone = [token[0] for name, token in old.items() if name not in new]
    return f"{gone[0]} is gone" if gone else "JAX's settings changed"


def _by_name(tokens: tuple[Any, ...]) -> dict[Any, Any]:
    """The tokens by their label and how often it came before.

    Those of cells are left out: they have the names of what is in them.
    """
    seen: Counter[Any] = Counter()
    named = {}
    for token in tokens:
        if token[1] != "cell":
            named[token[0], seen[token[0]]] = token
            seen[token[0]] += 1
    return named


def _changed(old: Any, new: Any) -> str:
    label, sort = new[0], new[1]
    if "no global" in (old[1], sort):
        return f"the global {label} {'is gone' if sort == 'no global' else 'appeared'}"
    if old[1] != sort:
        if sort == "input":
            return f"{label} became an input"
        return f"{label} changed from {_sort(old)} to {_sort(new)}"
    if sort == "array":
        if old[2] != new[2]:
            return f"{label} changed shape from {old[2]} to {new[2]}"
        if old[3] != new[3]:
            return f"{label} changed dtype from {dtype_name(old[3])} to {dtype_name(new[3])}"
        if old[5] != new[5]:
            return f"{label} is {'now' if new[5] else 'no longer'} what the gradient is taken by"
        return f"{label} changed from {_sort(old)} to {_sort(new)}"
    if sort in ("number", "value"):
        a, b = _text(old[2]), _text(new[2])
        return f"{label} changed from {a} to {b}" if a != b else f"{label} is another object"
    if sort in ("list", "tuple"):
        return f"{label} changed length from {old[3]} to {new[3]}"
    return f"{label} changed"


_WEAK = " of weak type (made of Python numbers alone; jnp.asarray(x, dtype) settles it)"


def _sort(token: Any) -> str:
    weak = token[1] == "array" and token[4]
    return {
        "array": "a JAX array" + _WEAK * weak,
        "number": "a number",
        "value": "a value",
    }.get(token[1], article(token[1]))


def _text(key: Any) -> str:
    if isinstance(key, tuple) and len(key) == 2:
        cls, value = key
        if cls is float:
            return repr(float.fromhex(value))
        return repr(value)
    return repr(key)


# --- switches -----------------------------------------------------------------------------


class _Switches(threading.local):
    eager: bool = False
    strict: bool = False
    ints: dict[int, bool] | None = None  # which top-level ints the trace found to be real numbers
    pending: Callable[[], None] | None = None  # what to note once an uncompiled run has ended well


switches = _Switches()


def take_pending() -> Callable[[], None]:
    """What to call once the uncompiled run that begins now has ended without an error."""
    note, switches.pending = switches.pending, None
    return note or (lambda: None)


def is_strict() -> bool:
    """Whether running uncompiled is an error."""
    return switches.strict or os.environ.get("FLUXAX_STRICT", "") not in ("", "0")


class _Count:
    n = 0


#: How many `eager` blocks are open, in all threads: the fast path asks this first.
contexts = _Count()


@contextmanager
def _switched(name: str) -> Iterator[None]:
    before = getattr(switches, name)
    setattr(switches, name, True)
    contexts.n += 1
    try:
        yield
    finally:
        contexts.n -= 1
        setattr(switches, name, before)


def eager() -> Any:
    """A context in which everything runs uncompiled, for debuggers.

    Example:
        >>> import fluxax as fx
        >>> with fx.eager():
        ...     fx.gradient(lambda x: x**2, 3.0)
        (Array(6., dtype=float32),)
    """
    return _switched("eager")


def strict() -> Any:
    """A context in which a function that cannot be compiled is an error.

    The environment variable `FLUXAX_STRICT=1` does the same for a whole run.
    """
    return _switched("strict")
