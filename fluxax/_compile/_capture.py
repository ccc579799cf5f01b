"""What a function reads from outside, and what its arguments are made of.

`Capture` walks from the arguments, then from the function: closure cells, defaults,
the globals its code names, bound objects, containers, and the same for every function
of the user's that it meets. The result is a tree of specs, a flat list of arrays, and
a key that is equal exactly when the same program may run.
"""

from __future__ import annotations

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
import typing
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._capture_functions import Functions
from fluxax._compile._capture_objects import Objects
from fluxax._compile._forms import form_of
from fluxax._compile._reads import is_user_function
from fluxax._compile._spec import Again, Box, Sidestep, Spec, key_of
from fluxax._compile._walk import FIXED_PHASE
from fluxax._implicit._params import Live, Params
from fluxax._implicit._styles import check_alone
from fluxax._jax import ArrayImpl, JitFunction
from fluxax._module import Module, static_key

_EXACT = frozenset((
    str, bytes, bool, complex, type(None), type(Ellipsis), type(NotImplemented), range,
    decimal.Decimal, fractions.Fraction, datetime.date, datetime.timedelta, datetime.timezone,
    pathlib.PurePosixPath, pathlib.PureWindowsPath, re.Pattern, types.UnionType,
    types.GenericAlias,
))  # fmt: skip
_IDENTICAL = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    types.ClassMethodDescriptorType, np.ufunc, type(jax.numpy.float32), typing.TypeVar,
)  # fmt: skip
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
            if isinstance(arg, Module):
                list(_tree.walk_nodes(arg))  # a cycle is an error with a sentence
            self._real = self._train = differentiated[i]
            if isinstance(arg, Params):
                check_alone(args)
            label = root_label(arg) if i == 0 else f"argument {i - outside}"
            if type(arg) is int and differentiated[i] and ints.get(i, True):
                found.append(self._real_input(arg, label, (label, 0)))
            else:
                found.append(self.take(arg, label))
        self._whole -= 1
        self._real, self._train = False, False
        return found

    def function(self, f: Any) -> Spec:
        """The spec of the function itself."""
        self._train, self._phase = False, "captured"
        found = self.take(f, "f")
        conflicts = self.conflicts()
        self.pinned |= conflicts
        if self._grown or conflicts:
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
        if cls in _EXACT or isinstance(value, np.dtype) or (cls in _PARTED and _whole(value)):
            return self._const(value, label, identical=False)
        if isinstance(value, _IDENTICAL) and not _bound(value):
            return self._const(value, label, identical=True)
        if self._phase != FIXED_PHASE and id(value) in self.pinned:
            kept, self._phase = self._phase, FIXED_PHASE
            try:
                return self.take(value, label)
            finally:
                self._phase = kept
        found = self._boxes.get((id(value), self._phase))
        if found is not None and cls is not types.MethodType:
            self.tokens.append((label, "again", found.number))
            return Again(value, label, found.number, self._fixed)
        return (_TAKERS.get(cls) or _taker(value))(self, value, label)

    # -- containers

    def take_list(self, xs: list[Any], label: str) -> Spec:
        named = type(xs) is _tree.NamedList
        names = tuple(xs.names) if named else ()
        box = self.box(xs, label, boxes.LIST, list.__len__(xs), names)
        box.checks.append((_of(list, xs, "len"), list.__len__(xs)))
        if named:
            box.checks.append(("{v}.names == {k}", type(xs.names)(names)))
        return self._items(box, xs, list, label)

    def take_tuple(self, xs: tuple[Any, ...], label: str) -> Spec:
        box = self.box(xs, label, boxes.TUPLE, tuple.__len__(xs))
        box.checks.append((_of(tuple, xs, "len"), tuple.__len__(xs)))
        self._items(box, xs, tuple, label)
        self._boxes.pop((id(xs), self._phase), None)  # constants may be one tuple, or two alike
        return box

    def take_deque(self, xs: Any, label: str) -> Spec:
        size = collections.deque.__len__(xs)
        box = self.box(xs, label, boxes.DEQUE, size, xs.maxlen)
        box.checks.append((_of(collections.deque, xs, "len"), size))
        box.checks.append(("{v}.maxlen == {k}", xs.maxlen))
        return self._items(box, xs, collections.deque, label)

    def _items(self, box: Box, xs: Any, base: type, label: str) -> Box:
        plain: Any = type(xs) is base
        iterate: Any = base.__iter__  # type: ignore[attr-defined]
        for i, x in enumerate(iterate(xs)):
            read = f"{{v}}[{i}]" if plain else f"{base.__name__}_item({{v}}, {i})"
            box.parts.append((read, i, self.take(x, f"{label}[{i}]")))
        return box

    def take_dict(self, d: dict[Any, Any], label: str) -> Spec:
        keys = tuple(boxes.items_of(d))
        if not self._comparable(keys):
            return self._opaque(d, label)
        plain = type(d) is dict
        box = self.box(d, label, boxes.DICT, tuple(map(key_of, keys)))
        found = "{v}" if plain else "keys({v})"
        box.checks.append((f"same_items({found}, {{k}})", keys))
        for key, x in boxes.items_of(d).items():
            read: Any = ("dict_item({v}, {k})", key)
            if plain and type(key) is str:
                read = f"{{v}}[{key!r}]"
            box.parts.append((read, key, self.take(x, f"{label}[{key!r}]")))
        return box

    def take_set(self, s: Any, label: str) -> Spec:
        base: Any = set if isinstance(s, set) else frozenset
        content = tuple(base.__iter__(s))
        if not self._comparable(content):
            return self._opaque(s, label)
        how = boxes.SET if base is set else boxes.FROZENSET if type(s) is base else boxes.VALUE
        box = self.box(s, label, how, tuple(map(key_of, content)))
        found = "{v}" if type(s) is base else f"{base.__name__}_items({{v}})"
        box.checks.append((f"same_items({found}, {{k}})", content))
        return box

    def take_proxy(self, proxy: Any, label: str) -> Spec:
        """A read-only view of a dict; of anything else it may compute."""
        keys = tuple(proxy)
        if not self._comparable(keys) or type(proxy | {}) is not dict:
            return self._opaque(proxy, label)
        box = self.box(proxy, label, boxes.PROXY, tuple(map(key_of, keys)))
        box.checks.append(("same_items({v}, {k})", keys))
        for key in keys:
            part = self.take(proxy[key], f"{label}[{key!r}]")
            box.parts.append((("{v}[{k}]", key), key, part))
        return box

    def take_weakref(self, ref: Any, label: str) -> Spec:
        if ref() is None:  # for good
            return self._const(ref, label, identical=True)
        box = self.box(ref, label, boxes.WEAKREF)
        box.parts.append(("{v}()", "target", self.take(ref(), f"{label}()")))
        return box

    def _comparable(self, keys: tuple[Any, ...]) -> bool:
        """Whether all keys of a dict, or members of a set, are atoms or single objects.

        Copies look things up by what they are, so a key is never a copy.
        """
        for key in keys:
            if _is_atom(key) or isinstance(key, (type, enum.Enum)):
                continue
            if not isinstance(key, (types.FunctionType, types.BuiltinFunctionType)):
                return False
            if id(key) not in self.pinned and is_user_function(key):
                self.pinned.add(id(key))
                self._grown = True
        return True

    def take_instance(self, value: Any, label: str) -> Spec:
        """An instance of a class written in Python, by what it can hold."""
        form = form_of(type(value))
        if form is None:
            if _tree.kind_of(value) is _tree.PYTREE:
                return self.take_pytree(value, label)
            return self._opaque(value, label)
        if isinstance(value, _tree.Node):
            _tree.node_parts(value)  # made now, if nobody has looked at them yet
        if form.base in (object, types.SimpleNamespace):
            return self.take_object(value, label, form)
        taker = _OF_BASES.get(form.base)
        if taker is None:
            base: Any = form.base
            box = self.box(value, label, boxes.VALUE, static_key(base(value)))
            box.checks.append((f"same({base.__name__}({{v}}), {{k}})", base(value)))
            spec: Spec = box
        else:
            spec = taker(self, value, label)
        if isinstance(spec, Box):
            self.take_beside(spec, value, label, form)
        return spec

    def take_opaque(self, value: Any, label: str) -> Spec:
        return self._opaque(value, label)


class Known:
    """What earlier calls have taught about a function.

    Attributes:
        numbers: whether they may be inputs, by place: a label, and how often it came before.
        names: the attributes that code mentions, or that a trace was seen to read.
        ints: by argument: whether an int to differentiate by counts as a real number.
    """

    def __init__(self) -> None:
        self.numbers: dict[Any, str] = {}
        self.names: set[str] = set()
        self.ints: dict[int, bool] = {}

    def copy(self) -> Known:
        """The same, as of now."""
        new = Known()
        new.numbers, new.names, new.ints = dict(self.numbers), set(self.names), dict(self.ints)
        return new


def walk(
    known: Known, f: Any, args: tuple[Any, ...], differentiated: tuple[bool, ...]
) -> tuple[Capture, list[Spec], Spec]:
    """One walk over a function and its arguments, begun again until no new name turns up.

    Raises:
        Sidestep: if something cannot be compared, or is nested too deeply.
    """
    pinned: set[int] = set()
    while True:
        capture = Capture(known.numbers, known.names, pinned)
        try:
            arguments = capture.arguments(args, differentiated, known.ints)
            return capture, arguments, capture.function(f)
        except Restart:
            continue
        except RecursionError:
            raise Sidestep("what it reads is nested too deeply") from None


def root_label(arg: Any) -> str:
    """What the first argument is called for a reader."""
    if isinstance(arg, Live):
        return "parameters"
    return "model" if isinstance(arg, Module) else "argument 0"


def _bound(value: Any) -> bool:
    """Whether a builtin function is a method bound to some object."""
    owner = getattr(value, "__self__", None)
    return owner is not None and not isinstance(owner, (types.ModuleType, type))


def _of(base: type, xs: Any, name: str) -> str:
    """An expression for a length that asks the builtin, whatever the class of `xs` says."""
    return (
        f"{name}({{v}}) == {{k}}" if type(xs) is base else f"{base.__name__}_{name}({{v}}) == {{k}}"
    )


#: Values made of parts: known if these are.
_PARTED = frozenset((slice, frozenset, datetime.datetime, datetime.time))


def _whole(value: Any) -> bool:
    if isinstance(value, slice):
        return all(type(v) in (int, type(None)) for v in (value.start, value.stop, value.step))
    if isinstance(value, frozenset):
        return all(map(_is_atom, value))
    return value.tzinfo is None or type(value.tzinfo) is datetime.timezone


def _is_atom(value: Any) -> bool:
    """Whether a value is known by its type and content alone."""
    if type(value) is tuple:
        return all(map(_is_atom, value))
    if isinstance(value, np.generic):
        return value.dtype.kind not in "VO"
    return type(value) in _EXACT or type(value) in (int, float)


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
    _tree.NamedList: Capture.take_list,
    Live: Capture.take_list,  # where its arrays stand is no part of it
    tuple: Capture.take_tuple,
    dict: Capture.take_dict,
    set: Capture.take_set,
    frozenset: Capture.take_set,
    collections.deque: Capture.take_deque,
    types.MappingProxyType: Capture.take_proxy,
    weakref.ref: Capture.take_weakref,
    types.ModuleType: Capture.take_module,
    Params: Capture.take_pytree,
}

#: Takers of items, by the builtin below a class of the user's.
_OF_BASES: dict[type, Taker] = {
    list: Capture.take_list,
    tuple: Capture.take_tuple,
    dict: Capture.take_dict,
    collections.OrderedDict: Capture.take_dict,
    collections.defaultdict: Capture.take_dict,
    set: Capture.take_set,
    frozenset: Capture.take_set,
    collections.deque: Capture.take_deque,
}


def _taker(value: Any) -> Taker:
    """How to take a value whose exact type is not in the table."""
    if isinstance(value, _WRAPPERS):
        return Capture.take_wrapper
    if isinstance(value, enum.Enum):
        return Capture.take_enum
    if isinstance(value, type):
        return Capture.take_class
    if isinstance(value, types.ModuleType):
        return Capture.take_module
    return Capture.take_instance
