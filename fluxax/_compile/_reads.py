"""What a code object names: globals, attributes, and whether it is the user's own code.

Worked out once per code object, by disassembly; nothing is run.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import sysconfig
import weakref
from collections import OrderedDict
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np


class Reads(NamedTuple):
    """What a code object, and those nested in it, read from outside."""

    globals: tuple[str, ...]  # names looked up as globals or builtins
    names: frozenset[str]  # attribute names, and strings that may be used as such
    writes_globals: str | None  # a global it assigns, if any
    codes: frozenset[int]  # ids of the code objects seen
    imports: tuple[Import, ...]  # what it imports while it runs


class Import(NamedTuple):
    """An `import` inside a function."""

    name: str
    level: int  # how many packages up a relative one begins
    names: tuple[str, ...]  # what is taken `from` it


_cache: OrderedDict[int, tuple[CodeType, Reads]] = OrderedDict()
_LIMIT = 4096


def reads_of(code: CodeType) -> Reads:
    """What a code object reads; kept for the next time."""
    found = _cache.get(id(code))
    if found is None:
        found = _cache[id(code)] = (code, _inspect(code))  # the code stays alive with its id
        if len(_cache) > _LIMIT:
            _cache.popitem(last=False)
    return found[1]


def clear() -> None:
    """Forget every code object."""
    _cache.clear()


def _inspect(code: CodeType) -> Reads:
    names: dict[str, None] = {}
    attributes = set(code.co_names)
    written = None
    codes = {id(code)}
    imports: list[Import] = []
    before, constants = "", [None, None]
    for op in dis.get_instructions(code):
        if op.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            names[op.argval] = None
        elif op.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written = op.argval
            names[op.argval] = None
        elif op.opname == "MATCH_CLASS":
            attributes.add("type()")  # it asks for a type
        elif op.opname == "IS_OP" and before != "LOAD_CONST":
            attributes.add("is()")  # it asks whether two things are one; `is None` does not
        elif op.opname == "LOAD_CONST":
            constants = [constants[-1], op.argval]
        elif op.opname == "IMPORT_NAME":
            level, taken = constants
            imports.append(Import(op.argval, level or 0, tuple(taken or ())))
        before = op.opname
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = _inspect(const)
            names.update(dict.fromkeys(inner.globals))
            attributes |= inner.names
            codes |= inner.codes
            imports += inner.imports
            written = written or inner.writes_globals
        elif isinstance(const, str) and const.isidentifier():
            attributes.add(const)  # getattr(cfg, "lam")
    return Reads(tuple(names), frozenset(attributes), written, frozenset(codes), tuple(imports))


def _package_folders() -> tuple[str, ...]:
    found = {
        p
        for k, p in sysconfig.get_paths().items()
        if k in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    found |= {os.path.dirname(os.path.dirname(m.__file__ or "")) for m in (jax, np)}
    found.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # fluxax itself
    return tuple(os.path.join(os.path.realpath(p), "") for p in found if p) + tuple(
        os.path.join(p, "") for p in found if p
    )


_PACKAGES = _package_folders()
_SITES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
#: Where JAX, NumPy and fluxax lie: taken as constant whoever calls them.
_CORE = tuple(
    os.path.join(os.path.dirname(os.path.abspath(m)), "")
    for m in (jax.__file__, np.__file__, os.path.dirname(__file__))
)
_users: dict[str, bool] = {}
_own: set[str] = set()  # installed packages that objectives come from: folders, or a file


def is_user_file(filename: str) -> bool:
    """Whether code from a file is the user's own: not of an installed package or of Python.

    The package that an objective comes from is the user's, wherever it lies (`adopt`).
    """
    known = _users.get(filename)
    if known is None:
        known = _users[filename] = not (
            filename.startswith("<frozen")
            or filename.startswith(_PACKAGES)
            or any(folder in filename for folder in _SITES)
        ) or filename.startswith(tuple(_own))
    return known


def is_core(filename: str) -> bool:
    """Whether code is JAX's, NumPy's or ours."""
    return filename.startswith(_CORE)


def adopt(filename: str) -> None:
    """The package of an objective: its author's project, installed as people do with their own."""
    if is_user_file(filename) or is_core(filename):
        return
    for folder in _SITES:
        before, found, inside = filename.rpartition(folder)
        if found:
            top, separator, _ = inside.partition(os.sep)
            _own.add(before + folder + top + separator)
            _users.clear()
            _kinds.clear()
            return


def is_user_function(function: Any) -> bool:
    """Whether a value is a Python function of the user's own."""
    return type(function) is FunctionType and is_user_file(function.__code__.co_filename)


def is_user_class(cls: type) -> bool:
    """Whether a class is the user's own, by its module, or by the file of its methods.

    Those may be generated, or wrapped by the standard library as `__repr__` of a dataclass is.
    """
    module = sys.modules.get(cls.__module__)
    if cls.__module__ == "__main__" or (module is not None and _has_place(vars(module))):
        return module is None or _is_user_space(vars(module), cls.__module__)
    for value in vars(cls).values():
        if (
            type(value) is FunctionType
            and value.__qualname__ == f"{cls.__qualname__}.{value.__name__}"
        ):
            return is_user_file(value.__code__.co_filename)
    # a builtin module has no file; a prompt's or a notebook's has none either, and no spec
    return module is None or _is_user_space(vars(module), cls.__module__)


def _has_place(space: dict[str, Any]) -> bool:
    return type(space.get("__file__")) is str or space.get("__path__") is not None


def is_user_module(module: ModuleType) -> bool:
    """Whether a module is the user's own, not an installed package's or Python's."""
    return _is_user_space(vars(module), module.__name__)


def user_modules() -> list[ModuleType]:
    """The user's modules; which of some thousand these are is worked out when others come."""
    seen = (len(_own), *map(id, sys.modules.values()))
    names = _modules.get(seen)
    if names is None:
        loaded = [(n, m) for n, m in list(sys.modules.items()) if type(m) is ModuleType]
        kinds = {id(m): (weakref.ref(m), _is_users(m)) for _, m in loaded}
        _kinds.clear()
        _kinds.update(kinds)
        names = [n for n, m in loaded if kinds[id(m)][1]]
        _modules.clear()
        _modules[seen] = names
    return [m for n in names if type(m := sys.modules.get(n)) is ModuleType]


_modules: dict[tuple[int, ...], list[str]] = {}  # names, by all that is imported
_kinds: dict[int, tuple[weakref.ref[ModuleType], bool]] = {}  # by id: of whom it is


def _is_users(module: ModuleType) -> bool:
    known = _kinds.get(id(module))
    return known[1] if known and known[0]() is module else is_user_module(module)


def _is_user_space(space: dict[str, Any], name: str) -> bool:
    """Whether a module's namespace is the user's: by its file, or by its folders."""
    file = space.get("__file__")
    if type(file) is str:
        return is_user_file(file)
    folders = space.get("__path__")
    if folders is not None:  # a project without __init__.py
        return any(is_user_file(os.path.join(str(folder), "")) for folder in folders)
    return name == "__main__" or space.get("__spec__") is None


def function_in(value: Any) -> Any:
    """The plain function inside what stands in a class body, or `None`."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property):
        return value.func
    return value if isinstance(value, FunctionType) else None


def place_of(error: BaseException) -> str:
    """The last line of user code that an error passed through."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_user_file(code.co_filename):
            place = f" at {code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def innermost(error: BaseException) -> tuple[Any, str]:
    """The frame that an error comes from, and the instruction that raised it."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    ops = {op.offset: op.opname for op in dis.get_instructions(trace.tb_frame.f_code)}
    return trace.tb_frame, ops.get(trace.tb_lasti, "")


def is_users_own(error: BaseException) -> bool:
    """Whether an error comes from a `raise` in the user's code."""
    frame, step = innermost(error)
    return step == "RAISE_VARARGS" and is_user_file(frame.f_code.co_filename)
