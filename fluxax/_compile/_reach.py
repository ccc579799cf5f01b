"""What a function reaches, for uncompiled runs: values in there are replaced, in place."""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable
from typing import Any

from fluxax import _tree
from fluxax._compile._reads import (
    function_in,
    is_user_class,
    is_user_function,
    is_user_module,
    reads_of,
)
from fluxax._module import Module

#: Gives what is to stand in the place of a value; the value itself where it stays.
New = Callable[[Any], Any]


def replace_reached(root: Any, new: New, *, own: bool = False) -> list[Any]:
    """Put `new(value)` in the place of everything that a function reaches.

    Args:
        own: whether only the user's own functions and objects, containers and Modules are entered.

    Returns:
        All that it reaches.
    """
    seen: dict[int, Any] = {}
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if id(value) not in seen:
            seen[id(value)] = value
            if not _tree.is_array(value) and not (own and _is_foreign(value)):
                stack.extend(_parts(value, new))
    return list(seen.values())


def _is_foreign(value: Any) -> bool:
    """Whether a value belongs to an installed package; a Module of ours does not count."""
    if isinstance(value, types.FunctionType):
        return not is_user_function(value)
    plain = (*_CONTAINERS, types.MethodType, functools.partial, Module)
    return not isinstance(value, (type, *plain)) and not is_user_class(type(value))


_CONTAINERS = (dict, list, collections.deque, tuple, set, frozenset)


def _parts(value: Any, new: New) -> list[Any]:
    """Replace what stands right inside a value; the parts to look at next."""
    if isinstance(value, types.FunctionType):
        return _of_function(value, new)
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return _of_dict(value, new)
    if isinstance(value, (list, collections.deque)):
        put: Any = list.__setitem__ if isinstance(value, list) else type(value).__setitem__
        for i, item in enumerate(value):
            _replace(item, new, lambda v: put(value, i, v))
        return list(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    if isinstance(value, type):
        return _of_class(value, new) if is_user_class(value) else []
    if isinstance(value, types.ModuleType):
        return []
    return [type(value), *_of_object(value, new)]


def _replace(item: Any, new: New, put: Callable[[Any], None]) -> None:
    now = new(item)
    if now is not item:
        put(now)


def _of_dict(space: dict[Any, Any], new: New) -> list[Any]:
    for key, item in list(space.items()):
        _replace(item, new, lambda v: dict.__setitem__(space, key, v))
    return list(space.values())


def _of_object(value: Any, new: New) -> list[Any]:
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if hasattr(value, name):
                item = getattr(value, name)
                _replace(item, new, lambda v: object.__setattr__(value, name, v))
    space = getattr(value, "__dict__", None)
    return _of_dict(space, new) if isinstance(space, dict) else []


def _of_class(cls: type, new: New) -> list[Any]:
    found: list[Any] = list(cls.__bases__)
    for name, item in list(vars(cls).items()):
        _replace(item, new, lambda v: setattr(cls, name, v))
        found.append(function_in(item) or item)
    return found


def _of_module(module: types.ModuleType, names: frozenset[str], new: New) -> list[Any]:
    """What code that names a module reads of it; of an installed package nothing."""
    found = names & vars(module).keys() if is_user_module(module) else ()
    for name in found:
        _replace(vars(module)[name], new, lambda v: setattr(module, name, v))
    return [vars(module)[name] for name in found]


def _of_function(f: types.FunctionType, new: New) -> list[Any]:
    _replace(f.__defaults__, new, lambda v: setattr(f, "__defaults__", v))
    found = [*(f.__defaults__ or ()), *_of_dict(f.__dict__, new)]
    found += _of_dict(f.__kwdefaults__ or {}, new)
    for cell in f.__closure__ or ():
        try:
            _replace(cell.cell_contents, new, lambda v: setattr(cell, "cell_contents", v))
            found.append(cell.cell_contents)
        except ValueError:  # an empty cell
            continue
    reads = reads_of(f.__code__)
    for name in reads.globals:
        if name in f.__globals__:
            item = f.__globals__[name]
            _replace(item, new, lambda v: f.__globals__.__setitem__(name, v))
            found.append(f.__globals__[name])
    modules = [v for v in found if isinstance(v, types.ModuleType)]
    found += [v for module in modules for v in _of_module(module, reads.names, new)]
    return [v for v in found if not isinstance(v, types.ModuleType)]
