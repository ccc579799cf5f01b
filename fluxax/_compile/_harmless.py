"""Which C functions only compute: user code may call them while it is traced.

A C function runs once per trace and not once per call. So one that reads a clock, a file or
a random generator, or that acts on the world, must not be called in a trace. Nobody can list
those; what can be listed are those that are safe, and any other makes the function uncompiled.
"""

from __future__ import annotations

import inspect
import os
from types import ModuleType
from typing import Any

from fluxax._compile._poison import FORBIDDEN

#: Modules, and modules of types, whose C functions and methods only compute.
_MODULES = frozenset(
    """builtins math cmath _operator operator itertools _functools functools _collections
    collections _collections_abc _abc _bisect _heapq _struct binascii zlib _json _codecs _sre re
    unicodedata _string string array _statistics types typing _typing enum _stat _opcode _md5 _sha1
    _sha2 _sha256 _sha512 _sha3 _blake2 _hashlib marshal _csv ml_dtypes datetime""".split()
)
#: The same, with all that is below them. SciPy draws only from NumPy's random states.
_PACKAGES = frozenset(("jax", "jaxlib", "numpy", "scipy"))

#: Harmless ones of other modules: locks, what asks for the caller, streams in memory.
_ALSO = frozenset(
    "posix.fspath nt.fspath sys.intern sys._getframe sys._getframemodulename sys.getsizeof "
    "sys.exc_info sys.exception sys.getrecursionlimit sys.getdefaultencoding sys.audit "
    "sys.getfilesystemencoding sys.getfilesystemencodeerrors sys.is_finalizing _thread.get_ident "
    "_thread.allocate_lock _thread.RLock _weakref.proxy _weakref._remove_dead_weakref "
    "io.text_encoding _io.text_encoding".split()
)
_TYPES = frozenset("_thread.lock _thread.RLock _io.StringIO _io.BytesIO".split())

#: Those that act on the world, or answer by more than what they are given, all the same.
_NOT = frozenset(
    """builtins.type.__subclasses__ builtins.print builtins.input builtins.open builtins.breakpoint
    array.array.tofile array.array.fromfile
    datetime.datetime.now datetime.datetime.utcnow datetime.datetime.fromtimestamp
    datetime.datetime.timestamp datetime.datetime.astimezone datetime.date.today
    datetime.date.fromtimestamp datetime.date.strftime datetime.date.ctime datetime.time.strftime
    datetime.datetime.strptime datetime.datetime.ctime
    numpy.fromfile numpy.ndarray.tofile numpy.ndarray.dump""".split()
)
_NOT_NAMES = frozenset(
    """_make_extobj _get_extobj_dict _load_from_filelike setbufsize getbufsize seterrobj geterrobj
    set_datetimeparse_function set_typeDict set_string_function set_legacy_print_mode
    _set_madvise_hugepage _set_numpy_warn_if_no_mem_policy add_docstring""".split()
)
#: What a file of a package may call although it is not harmless: Equinox's `filter_jit` draws a
#: mark by which it knows its own errors.
MARKS = frozenset([("posix.urandom", os.path.join("equinox", "_jit.py"))])

#: Types of what stands in an owner's place in functions that were made with pybind11.
_NO_OWNERS = ("PyCapsule", "pybind11_detail_function")
_NOT_BELOW = ("numpy.random", "scipy.io")

#: Not for the user's own code: those that answer by what a copy is not, and warnings. A package
#: may use them: they happen once per trace there, as all that cannot be seen.
_OF_PACKAGES = frozenset(
    [f"builtins.{name}" for name in FORBIDDEN - {"print", "input", "open", "breakpoint"}]
    + ["_warnings.warn", "_warnings.warn_explicit", "_warnings._filters_mutated"]
)


def key_of(function: Any) -> tuple[Any, str]:
    """What the verdict on a C function depends on: its module or its owner's type, and its name."""
    owner: Any = function.__self__
    kind = type(owner)
    if owner is None or issubclass(kind, ModuleType) or kind.__name__.startswith(_NO_OWNERS):
        return function.__module__, function.__name__
    return (owner if issubclass(kind, type) else kind), function.__name__


def name_of(key: tuple[Any, str]) -> str:
    """A C function as `module.name`, or `module.type.name` by the type that defines it."""
    place, name = key
    if not isinstance(place, type):
        return f"{place}.{name}"
    for cls in (*inspect.getmro(place), *inspect.getmro(type(place))):
        if name in vars(cls):
            return f"{cls.__module__}.{cls.__qualname__}.{name}"
    return f"{place.__module__}.{place.__qualname__}.{name}"


def is_harmless(key: tuple[Any, str], of_package: bool) -> bool:
    """Whether a C function, by `key_of`, only computes.

    Args:
        of_package: it is called by an installed package, not by the user's own code.
    """
    full = name_of(key)
    if full in _OF_PACKAGES:
        return of_package
    if full in _ALSO:
        return True
    module = full.rpartition(".")[0]
    if full in _NOT or module.startswith(_NOT_BELOW):
        return False
    top = full.partition(".")[0]
    if top in _PACKAGES:
        return key[1] not in _NOT_NAMES
    return top in _MODULES or module in _TYPES
