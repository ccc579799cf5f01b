"""What a traced function must not touch: stand-ins that raise before anything happens.

Reading from an iterator, the clock, a file or a random generator during the trace
would happen once, not at every call. So the copies that are traced hold poison in
their places. A thing that is captured and not touched costs nothing.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import types
from typing import Any

from fluxax._compile._reads import Import, is_user_module
from fluxax._compile._spec import Sidestep


def _refuse(self: Any, *_: Any, **__: Any) -> Any:
    what, learn = object.__getattribute__(self, "_what"), object.__getattribute__(self, "_learn")
    raise Sidestep(f"it uses `{what}`, which cannot be compared between calls", learn)


class Poison:
    """Stands for what cannot be compared, or was not looked at; any use of it raises `Sidestep`.

    Args:
        what: what it stands for, for a reader.
        learn: the attribute that the walk did not look at, since no code mentions it, and others
            beside it: the next walk does.
    """

    __slots__ = ("_learn", "_what")

    def __init__(self, what: str, learn: tuple[str, ...] = ()):
        object.__setattr__(self, "_what", what)
        object.__setattr__(self, "_learn", learn)

    __getattribute__ = __setattr__ = __delattr__ = _refuse


_DUNDERS = (
    "call len iter next contains getitem setitem delitem bool int float complex index str repr "
    "format bytes eq ne lt le gt ge hash add radd sub rsub mul rmul truediv rtruediv floordiv "
    "rfloordiv mod rmod pow rpow matmul rmatmul and rand or ror xor rxor neg pos abs invert round "
    "enter exit array iadd isub imul itruediv instancecheck subclasscheck await aiter anext"
)
for _name in _DUNDERS.split():
    setattr(Poison, f"__{_name}__", _refuse)


#: Modules whose functions answer differently each time, or act on the world.
_UNSTEADY = frozenset(
    "time random secrets uuid datetime os sys io pathlib shutil subprocess socket tempfile logging "
    "threading multiprocessing signal select asyncio sqlite3 urllib http requests gc inspect "
    "traceback pickle shelve csv zoneinfo getpass platform queue sched locale warnings pdb wandb "
    "tqdm mlflow atexit contextvars weakref importlib numpy.random posix _random _io nt _thread "
    "_datetime".split()
)


def is_unsteady_module(module: types.ModuleType) -> bool:
    """Whether reading from a module is no constant: clocks, files, randomness, the environment."""
    name = module.__name__
    return name in _UNSTEADY or name.partition(".")[0] in (_UNSTEADY - {"os"})


def is_unsteady(value: Any) -> bool:
    """Whether a function or class belongs to such a module (`from time import time`)."""
    name = getattr(value, "__module__", None)
    if not isinstance(name, str):
        return False
    if name == "builtins":
        return getattr(value, "__name__", "") in FORBIDDEN
    return name in _UNSTEADY or name.startswith("numpy.random")


class PackageView:
    """A package inside the trace: its attributes, except that its unsteady modules are poison."""

    def __init__(self, module: types.ModuleType):
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return steady(getattr(self.__dict__["_module"], name), f"{self._module.__name__}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise Sidestep(f"it writes `{self._module.__name__}.{name}`")


def steady(value: Any, label: str) -> Any:
    """A constant as the traced function may see it."""
    if isinstance(value, types.ModuleType):
        if is_unsteady_module(value):
            return Poison(label)
        if any(name.startswith(value.__name__ + ".") for name in _UNSTEADY):
            return PackageView(value)
    elif callable(value) and is_unsteady(value):
        return Poison(label)
    return value


def _forbidden(name: str) -> Any:
    def stand_in(*_: Any, **__: Any) -> Any:
        raise Sidestep(f"it calls `{name}`")

    return stand_in


#: Builtins that act on the world, or answer by what a copy is not.
FORBIDDEN = frozenset("print input open exec eval compile globals locals id breakpoint".split())


def may_be_unsteady(value: Any, names: frozenset[str]) -> bool:
    """Whether code that names a value, and attributes `names`, may reach something unsteady."""
    if isinstance(value, types.ModuleType):
        inner = {n.rpartition(".")[2] for n in _UNSTEADY if n.startswith(value.__name__ + ".")}
        return is_unsteady_module(value) or not inner.isdisjoint(names)
    return callable(value) and is_unsteady(value)


def _import(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    """`import` inside the function: packages as constants, the user's own modules not."""
    module = builtins.__import__(name, globals, locals, fromlist, level)
    if is_user_module(module):
        raise Sidestep(imported(name))
    return steady(module, name) if is_steady_package(module) else ImportedView(module)


def imported(name: str) -> str:
    """Why a function that imports something while it runs is not compiled."""
    return f"it imports `{name}` while it runs; import it at the top of the file"


#: Packages whose modules stay as they are: settings of theirs are part of JAX's own key.
STEADY = frozenset("jax jaxlib numpy fluxax".split()) | sys.stdlib_module_names


def is_steady_package(module: types.ModuleType) -> bool:
    """Whether what user code names of a module is constant."""
    return module.__name__.partition(".")[0] in STEADY


class ImportedView:
    """A package that the function itself imports: its functions and classes, but no settings."""

    def __init__(self, module: types.ModuleType):
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__["_module"]
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            return steady(value, name) if is_steady_package(value) else ImportedView(value)
        if not callable(value):
            raise Sidestep(imported(f"{module.__name__}.{name}"))
        return steady(value, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Sidestep(f"it writes `{self.__dict__['_module'].__name__}.{name}`")


def may_import(one: Import, space: dict[str, Any], names: frozenset[str]) -> bool:
    """Whether an import in code that runs as it is gives nothing but functions and classes.

    Args:
        one: the import.
        space: the globals of its function.
        names: the attributes that code mentions.
    """
    try:
        name = importlib.util.resolve_name("." * one.level + one.name, space.get("__package__"))
    except (ImportError, ValueError):
        return False
    module = sys.modules.get(name)
    top = sys.modules.get(name.partition(".")[0])
    if module is None or top is None or is_user_module(module):
        return False
    if is_steady_package(module):
        return not may_be_unsteady(module, names | {*one.names})
    taken = one.names or names & {*vars(module), *vars(top)}
    found = [getattr(m, n) for m in (module, top) for n in taken if hasattr(m, n)]
    return all(callable(v) or isinstance(v, types.ModuleType) for v in found)


def trace_builtins(isinstance_: Any) -> dict[str, Any]:
    """The builtins that a traced function sees."""
    space = dict(vars(builtins))
    space.update((name, _forbidden(name)) for name in FORBIDDEN)
    space.update(__import__=_import, isinstance=isinstance_)
    return space
