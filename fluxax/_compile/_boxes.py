"""How each sort of box is copied: one entry a sort."""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

import jax

from fluxax import _tree
from fluxax._compile._poison import Poison
from fluxax._compile._spec import How


def _fill_list(new: list[Any], old: list[Any], parts: dict[Any, Any]) -> None:
    del old
    list.__setitem__(new, slice(None), [parts[i] for i in range(len(parts))])


def _shell_list(old: list[Any]) -> list[Any]:
    if isinstance(old, _tree.NamedList):
        return _tree.NamedList(old, old.names)
    return [] if type(old) is list else copy.copy(old)


def _fill_dict(new: dict[Any, Any], old: dict[Any, Any], parts: dict[Any, Any]) -> None:
    for key in old:
        dict.__setitem__(new, key, parts[key])


def _empty(old: Any) -> Any:
    """An instance of an object's class on which no constructor has run."""
    cls: Any = type(old)
    try:
        return object.__new__(cls)
    except TypeError:  # a class with something of C in it, such as SimpleNamespace
        return cls.__new__(cls)


def _fill_object(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    """Attributes that no reached code mentions are poison: reading one shows that it does."""
    cls = type(old).__name__
    for name in vars(old):
        new.__dict__[name] = parts[name] if name in parts else Poison(f"{cls}.{name}")


def _fill_slots(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    del old
    for name, part in parts.items():
        object.__setattr__(new, name, part)


def _fill_deque(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    del old
    new.clear()
    new.extend(parts[i] for i in range(len(parts)))


def _fill_module(new: types.ModuleType, old: types.ModuleType, parts: dict[Any, Any]) -> None:
    new.__dict__.update((name, Poison(f"{old.__name__}.{name}")) for name in vars(old))
    new.__dict__.update(parts)


def _fill_cell(new: types.CellType, old: Any, parts: dict[Any, Any]) -> None:
    del old
    new.cell_contents = parts["content"]


def _cell_now(cell: types.CellType) -> dict[Any, Any]:
    try:
        return {"content": cell.cell_contents}
    except ValueError:
        return {}


def _build_partial(old: functools.partial[Any], parts: dict[Any, Any]) -> Any:
    args = [parts["arg", i] for i in range(len(old.args))]
    return functools.partial(parts["func"], *args, **{k: parts["kw", k] for k in old.keywords})


def _build_pytree(old: Any, parts: dict[Any, Any]) -> Any:
    structure = jax.tree.structure(old, is_leaf=lambda v: v is not old)
    return structure.unflatten([parts[i] for i in range(len(parts))])


LIST = How("list", shell=_shell_list, fill=_fill_list, now=lambda v: dict(enumerate(v)))
DEQUE = How("deque", shell=copy.copy, fill=_fill_deque, now=lambda v: dict(enumerate(v)))
DICT = How(
    "dict", shell=lambda old: {} if type(old) is dict else copy.copy(old), fill=_fill_dict, now=dict
)
SET = How("set", shell=set, fill=lambda *_: None, now=lambda s: dict.fromkeys(s, True))
FROZENSET = How("frozenset", build=lambda old, _: old)
TUPLE = How(
    "tuple",
    build=lambda old, parts: _tree.TUPLE.rebuild(old, [parts[i] for i in range(len(parts))]),
)
OBJECT = How(
    "object",
    shell=_empty,
    fill=_fill_object,
    now=lambda v: dict(v.__dict__),
)
SLOTS = How(
    "slots",
    shell=lambda old: object.__new__(type(old)),
    fill=_fill_slots,
    now=lambda v: {
        n: getattr(v, n)
        for c in type(v).__mro__
        for n in vars(c).get("__slots__", ())
        if hasattr(v, n)
    },
)
FUNCTION = How("function", now=lambda f: dict(f.__dict__))  # its shell needs the cells: `_rebuild`
CELL = How("cell", shell=lambda old: types.CellType(), fill=_fill_cell, now=_cell_now)
EMPTY_CELL = How(
    "empty cell", shell=lambda old: types.CellType(), fill=lambda *_: None, now=_cell_now
)
METHOD = How("method", build=lambda old, p: types.MethodType(p["func"], p["self"]))
BUILTIN_METHOD = How("builtin method", build=lambda old, p: getattr(p["self"], old.__name__))
PARTIAL = How("partial", build=_build_partial)
WRAPPER = How("wrapper", build=lambda old, p: p["wrapped"])
CLASS = How("class", build=lambda old, _: old, now=lambda cls: dict(vars(cls)))
ARRAY = How("NumPy constant", build=lambda old, _: old, now=lambda a: {a.tobytes(): a})
CLASS_VALUE = How("class value", build=lambda old, _: old)
PYMODULE = How(
    "module",
    shell=lambda old: types.ModuleType(old.__name__),
    fill=_fill_module,
    now=lambda v: {k: x for k, x in vars(v).items() if not k.startswith("__")},
)
PYTREE = How("pytree", build=_build_pytree)
