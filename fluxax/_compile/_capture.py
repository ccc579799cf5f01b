"""What a function reads from outside, and what its arguments are made of.

`Capture` walks from the arguments, then from the function: closure cells, defaults,
the globals its code names, bound objects, containers, and the same for every function
of the user's that it meets. The result is a tree of specs, a flat list of arrays, and
a key that is equal exactly when the same program may run.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import enum
import fractions
import functools
import operator
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._capture_functions import Functions
from fluxax._compile._capture_objects import Objects
from fluxax._compile._spec import Again, Box, Spec
from fluxax._implicit._params import Live, Params
from fluxax._implicit._styles import check_alone
from fluxax._jax import ArrayImpl, JitFunction
from fluxax._module import Module, static_key

_EXACT = frozenset((str, bytes, bool, type(None)))
_SAME = (
    str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), slice, range, complex,
    np.dtype, decimal.Decimal, fractions.Fraction, datetime.date, datetime.timedelta,
    pathlib.PurePath, re.Pattern,
)  # fmt: skip
_IDENTICAL = (types.BuiltinFunctionType, np.ufunc, enum.Enum, type(jax.numpy.float32))
_WRAPPERS = (JitFunction, functools._lru_cache_wrapper)


class Restart(Exception):
    """The walk met code that names more attributes than it knew of; walk again."""


class Capture(Functions, Objects):
    """One walk."""

    # -- the two roots

    def arguments(
        self, args: tuple[Any, ...], differentiated: tuple[bool, ...], ints: dict[int, bool]
    ) -> list[Spec]:
        """The specs of the arguments; `ints` says which top-level ints count as real numbers."""
        found = []
        self._whole += 1
        outside = bool(args) and isinstance(args[0], Live)  # parameters that the function reads
        for i, arg in enumerate(args):
            self._real = self._train = differentiated[i]
            if isinstance(arg, Params):
                check_alone(args)
            label = root_label(arg) if i == 0 else f"argument {i - outside}"
            if type(arg) is int and differentiated[i] and ints.get(i, True):
                found.append(self._real_input(arg, label))
            else:
                found.append(self.take(arg, label))
        self._whole -= 1
        self._real, self._train = False, False
        return found

    def function(self, f: Any) -> Spec:
        """The spec of the function itself."""
        self._train, self._phase = False, "captured"
        found = self.take(f, "f")
        if self._grown:
            raise Restart
        return found

    # -- one value

    def take(self, value: Any, label: str) -> Spec:
        """The spec of any value."""
        cls = type(value)
        if cls is ArrayImpl or cls is np.ndarray or isinstance(value, (jax.Array, np.ndarray)):
            return self._array(value, label)
        if cls in (int, float) or isinstance(value, np.generic):
            return self._number(value, label)
        if cls in _EXACT or isinstance(value, _SAME):
            return self._const(value, label, identical=False)
        if isinstance(value, _IDENTICAL) and not _bound(value):
            return self._const(value, label, identical=True)
        found = self._boxes.get((id(value), self._phase))
        if found is not None:
            self.tokens.append((label, "again", found.number))
            return Again(value, label, found.number)
        taker = _TAKERS.get(cls) or _taker(value)
        return taker(self, value, label)

    # -- containers

    def take_list(self, xs: list[Any], label: str) -> Spec:
        named = isinstance(xs, _tree.NamedList)
        names = tuple(xs.names) if named else ()
        box = self.box(xs, label, boxes.LIST, len(xs), names)
        box.checks.append(("len({v}) == {k}", len(xs)))
        if named:
            box.checks.append(("{v}.names == {k}", type(xs.names)(names)))
        return self._items(box, xs, label)

    def take_tuple(self, xs: tuple[Any, ...], label: str) -> Spec:
        box = self.box(xs, label, boxes.TUPLE, len(xs))
        box.checks.append(("len({v}) == {k}", len(xs)))
        return self._items(box, xs, label)

    def take_deque(self, xs: Any, label: str) -> Spec:
        box = self.box(xs, label, boxes.DEQUE, len(xs), xs.maxlen)
        box.checks.append(("len({v}) == {k}", len(xs)))
        return self._items(box, xs, label)

    def _items(self, box: Box, xs: Any, label: str) -> Box:
        for i, x in enumerate(xs):
            read = (
                f"item({{v}}, {i})" if type(xs) is _tree.NamedList else f"{{v}}[{i}]"
            )  # NamedList's own is Python
            box.parts.append((read, i, self.take(x, f"{label}[{i}]")))
        return box

    def take_dict(self, d: dict[Any, Any], label: str) -> Spec:
        keys = tuple(d)
        if not all(
            isinstance(k, (str, int, float, tuple, enum.Enum, type(None), type)) for k in keys
        ):
            return self._opaque(d, label)
        box = self.box(d, label, boxes.DICT, static_key(keys))
        box.checks.append(("same(tuple({v}), {k})", keys))
        for i, (k, x) in enumerate(d.items()):
            if type(k) is str:
                box.parts.append((f"{{v}}[{k!r}]", k, self.take(x, f"{label}[{k!r}]")))
            else:
                box.parts.append((f"{{v}}[tuple({{v}})[{i}]]", k, self.take(x, f"{label}[{k!r}]")))
        return box

    def take_set(self, s: Any, label: str) -> Spec:
        if not all(isinstance(x, (str, int, float, bytes, enum.Enum, type(None))) for x in s):
            return self._opaque(s, label)
        content = tuple((type(x), x) for x in s)
        box = self.box(s, label, boxes.SET if isinstance(s, set) else boxes.FROZENSET, content)
        box.checks.append(("tuple((type(x), x) for x in {v}) == {k}", content))
        return box

    def take_opaque(self, value: Any, label: str) -> Spec:
        return self._opaque(value, label)


def root_label(arg: Any) -> str:
    """What the first argument is called for a reader."""
    if isinstance(arg, Live):
        return "parameters"
    return "model" if isinstance(arg, Module) else "argument 0"


def _bound(value: Any) -> bool:
    """Whether a builtin function is a method bound to some object."""
    owner = getattr(value, "__self__", None)
    return owner is not None and not isinstance(owner, (types.ModuleType, type))


def _pure_python(cls: type) -> bool:
    """Whether instances of a class are a dict of attributes and nothing hidden in C."""
    return all(base is object or base.__flags__ & (1 << 9) for base in cls.__mro__)


_CLOSED_PACKAGES = frozenset(
    "logging tqdm threading io queue random multiprocessing subprocess".split()
)
_NAMESPACES = (types.SimpleNamespace,)

Taker = Callable[[Capture, Any, str], Spec]

_TAKERS: dict[type, Taker] = {
    types.FunctionType: Capture.take_function,
    types.MethodType: Capture.take_method,
    types.BuiltinMethodType: Capture.take_builtin_method,
    functools.partial: Capture.take_partial,
    jax.custom_jvp: Capture.take_rule,
    jax.custom_vjp: Capture.take_rule,
    np.ufunc: Capture.take_numpy_function,
    type(np.mean): Capture.take_numpy_function,
    jnp.ufunc: Capture.take_numpy_function,
    operator.attrgetter: Capture.take_getter,
    operator.itemgetter: Capture.take_getter,
    operator.methodcaller: Capture.take_getter,
    list: Capture.take_list,
    tuple: Capture.take_tuple,
    dict: Capture.take_dict,
    set: Capture.take_set,
    frozenset: Capture.take_set,
    collections.deque: Capture.take_deque,
    types.ModuleType: Capture.take_module,
    Params: Capture.take_pytree,
}


def _taker(value: Any) -> Taker:
    """How to take a value whose exact type is not in the table."""
    cls = type(value)
    for base in (*_WRAPPERS,):
        if isinstance(value, base):
            return Capture.take_wrapper
    if isinstance(value, type):
        return Capture.take_class
    for base in (list, tuple, dict, types.ModuleType):
        if isinstance(value, base):
            return _TAKERS[base]
    if isinstance(value, _NAMESPACES):
        return Capture.take_object
    if cls.__module__.partition(".")[0] in _CLOSED_PACKAGES or cls.__module__ == builtins.__name__:
        return Capture.take_opaque
    if not _pure_python(cls):
        return Capture.take_pytree if _tree.kind_of(value) is _tree.PYTREE else Capture.take_opaque
    slots = [n for base in cls.__mro__ for n in _slots(base)]
    if slots and not isinstance(value, Module):
        if hasattr(value, "__dict__"):
            return Capture.take_opaque
        return lambda capture, v, label: capture.take_slots(v, label, slots)
    return Capture.take_object


def _slots(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [n for n in names if n not in ("__dict__", "__weakref__")]
