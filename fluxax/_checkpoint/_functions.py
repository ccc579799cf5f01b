"""Functions by name and by what they hold, so that another one in their place is noticed."""

from __future__ import annotations

import enum
import functools
import hashlib
import sys
import types
from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._checkpoint._values import encoded, is_plain
from fluxax._errors import short

_DEEP = 12  # functions that hold functions that hold …


def description(value: Any, depth: int = 0) -> Any:
    """What a checkpoint notes of something that is not stored: JSON, equal for equal things."""
    if is_plain(value):
        return encoded(value)
    if _tree.is_array(value):
        return {"array": short(value), **_numbers(value)}
    if depth >= _DEEP:
        return {"what": type(value).__name__}
    inside = functools.partial(description, depth=depth + 1)
    if isinstance(value, (enum.Enum, np.dtype)):
        return {"what": str(value)}
    if isinstance(value, type):
        return {"what": f"the class {value.__qualname__}"}
    if isinstance(value, functools.partial):
        parts = {"func": value.func, **dict(enumerate(value.args)), **value.keywords}
        return {"what": "partial", "holds": {str(k): inside(v) for k, v in parts.items()}}
    if isinstance(value, (list, tuple, dict)):
        pairs = _tree.parts(value)  # of a named tuple by name
        held = {str(_tree.key_name(k)): inside(v) for k, v in pairs}
        return {"what": type(value).__name__, "holds": held}
    inner: Any = value
    if isinstance(inner, (np.ufunc, jnp.ufunc)):
        return {"what": getattr(inner, "__name__", "ufunc")}
    while not isinstance(inner, types.FunctionType) and hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__  # below a jax.jit
    if isinstance(inner, types.FunctionType):
        return _function(inner, inside)
    if callable(value) and hasattr(value, "__qualname__"):
        return {"what": value.__qualname__}
    found: dict[str, Any] = {"what": type(value).__name__}
    if callable(value) and getattr(value, "__dict__", None):
        found["holds"] = {k: inside(v) for k, v in vars(value).items()}
    return found


def _function(f: types.FunctionType, inside: Any) -> dict[str, Any]:
    """A function: its name, and the values of its closure and of its defaults."""
    held: dict[str, Any] = {}
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        try:
            held[name] = inside(cell.cell_contents)
        except ValueError:  # not bound yet
            held[name] = {"what": "nothing"}
    names = f.__code__.co_varnames[: f.__code__.co_argcount]
    defaults = f.__defaults__ or ()
    held.update(zip(names[len(names) - len(defaults) :], map(inside, defaults), strict=True))
    held.update({k: inside(v) for k, v in (f.__kwdefaults__ or {}).items()})
    found: dict[str, Any] = {"what": f.__qualname__.removeprefix("__main__.")}
    if held:
        found["holds"] = held
    if "<lambda>" in f.__name__:
        found["code"] = f"{sys.version_info[0]}.{sys.version_info[1]}:{_code(f.__code__)}"
    return found


def _code(code: types.CodeType) -> str:
    """A fingerprint of what a function does; equal within one version of Python."""
    consts = [c if is_plain(c) else _code(c) for c in code.co_consts if is_plain(c) or _is_code(c)]
    text = repr((code.co_code, consts, code.co_names))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_code(value: Any) -> bool:
    return isinstance(value, types.CodeType)


def _numbers(array: Any) -> dict[str, Any]:
    try:
        return {"sha256": hashlib.sha256(np.asarray(array).tobytes()).hexdigest()[:16]}
    except (TypeError, RuntimeError):  # keys, tracers, memory that is gone
        return {}


def difference(saved: Any, now: Any) -> str | None:
    """How two descriptions differ, in words; `None` if they do not.

    >>> one, other = description(lambda s, a=1: s * a), description(lambda s, a=2: s * a)
    >>> difference(one, other)
    'a = 1 in the checkpoint, 2 here'
    """
    if saved == now:
        return None
    if not (isinstance(saved, dict) and isinstance(now, dict)) or saved.get("what") != now.get(
        "what"
    ):
        return f"{named(saved)} in the checkpoint, {named(now)} here"
    mine, theirs = saved.get("holds", {}), now.get("holds", {})
    for name in [*mine, *theirs]:
        if name not in mine or name not in theirs:
            place = "here" if name in theirs else "in the checkpoint"
            return f"{named(saved)} holds {name} only {place}"
        found = difference(mine[name], theirs[name])
        if found:
            return f"{name} = {found}"
    return _other_code(saved, now)


def _other_code(saved: dict[str, Any], now: dict[str, Any]) -> str | None:
    a, b = str(saved.get("code", ":")).split(":"), str(now.get("code", ":")).split(":")
    if a[0] == b[0] and a[1] != b[1]:
        return f"{named(saved)} has other code in the checkpoint"
    if saved.get("array"):
        return f"{saved['array']} with other numbers in the checkpoint"
    return None


def named(description: Any) -> str:
    """A description in a few characters."""
    if isinstance(description, dict):
        return str(description.get("what") or description.get("array") or next(iter(description)))
    return short(description)
