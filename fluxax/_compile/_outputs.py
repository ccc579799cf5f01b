"""What a function returned, as a recipe: this call's arrays, the caller's own objects, new ones.

An object of the caller's comes back as that very object of this call. Containers, dataclasses and
plain instances that the function made are made anew at every call. Of anything else nobody can
say how to make another, so the function runs uncompiled.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fluxax import _tree
from fluxax._compile._boxes import attributes, blank_of, items_of
from fluxax._compile._content import digest
from fluxax._compile._forms import Form, Slot, form_of
from fluxax._compile._poison import Poison
from fluxax._compile._reads import is_user_class, is_user_file
from fluxax._compile._spec import Box, Is, Part, Sidestep, key_of
from fluxax._jax import WRAPPERS

#: Makes a part of a result: from the arrays of a call, what it got of the caller's objects, and
#: what was made for the call already, by number.
Maker = Callable[[Any, Any, dict[int, Any]], Any]


class Recipe:
    """How to make what a function returned, at every call.

    Args:
        leaf: puts an array among the program's outputs, and says which one it is.
        original: the box of what a value is the copy of, or is itself, if it is the caller's.
        numpy: whether NumPy arrays that the function made come back as such.
    """

    def __init__(
        self, leaf: Callable[[Any], int], original: Callable[[Any], Box | None], numpy: bool
    ):
        self.leaf, self.original, self.numpy = leaf, original, numpy
        self.returned: list[Box] = []  # objects of the caller's
        self.tokens: list[Any] = []  # what it says, in words that can be compared
        self._above: list[Any] = []
        self._seen: dict[int, tuple[Any, int]] = {}  # by id: what is a part already, which one

    def of(self, value: Any) -> Maker:
        """The maker of a value.

        Raises:
            Sidestep: for a value that cannot be made.
        """
        if any(value is v for v in self._above):
            raise Sidestep("it returns something that contains itself")
        if id(value) in self._seen and not _is_constant(value):  # one thing in two places
            number = self._seen[id(value)][1]
            self.tokens.append(("again", number))
            return lambda outs, own, made: made[number]
        number = len(self._seen)
        self._seen[id(value)] = value, number
        maker = self._new(value)

        def remembered(outs: Any, own: Any, made: dict[int, Any]) -> Any:
            new = made[number] = maker(outs, own, made)
            return new

        return remembered

    def _new(self, value: Any) -> Maker:
        """The maker of a value that is no part yet."""
        box = self.original(value)
        if box is None and type(value) is np.ndarray and self.numpy:
            return self._numpy(value)
        if _tree.is_array(value) or isinstance(value, jax.Array):
            index = self.leaf(value)
            self.tokens.append(("output", index))
            return lambda outs, own, made: outs[index]
        if box is not None:
            self.returned.append(box)
            place = len(self.returned) - 1
            self.tokens.append(("the caller's", box.number))
            return lambda outs, own, made: own[place]
        if isinstance(value, type) and is_user_class(value) and not _stands_in_module(value):
            raise Sidestep(f"it returns the class {value.__name__}, which it makes")
        if _is_constant(value):
            self.tokens.append(("constant", key_of(value)))
            return lambda outs, own, made: value
        if isinstance(value, Poison):
            raise Sidestep("it returns something that cannot be compared between calls")
        self._above.append(value)
        self.tokens.append((Is(type(value)), tuple(_names_in(value))))
        maker = self._container(value)
        self._above.pop()
        return maker

    def _numpy(self, value: np.ndarray) -> Maker:
        """An array of NumPy's that the function made of nothing traced."""
        if value.dtype.hasobject:
            raise _not_made(np.ndarray)
        kept = value.copy()
        self.tokens.append(("NumPy's", digest(kept)))
        return lambda outs, own, made: kept.copy()

    def _container(self, value: Any) -> Maker:
        cls: Any = type(value)
        if cls in (list, tuple):
            parts = [self.of(v) for v in value]
            return lambda outs, own, made: cls([p(outs, own, made) for p in parts])
        if cls is dict:
            return self._dict(value)
        form = form_of(cls)
        if form is not None and form.base not in _VALUES and _is_plain(cls):
            return self._tuple(value) if form.base is tuple else self._instance(value, form)
        if _tree.kind_of(value) is _tree.PYTREE and not is_user_class(cls):
            leaves = [self.of(v) for _, v in _tree.PYTREE.parts(value)]
            structure = jax.tree.structure(value, is_leaf=lambda v: v is not value)
            return lambda outs, own, made: structure.unflatten([p(outs, own, made) for p in leaves])
        raise _not_made(cls)

    def _dict(self, value: dict[Any, Any]) -> Maker:
        if not all(map(_is_constant, value)):
            raise Sidestep("it returns a dict whose keys cannot be compared between calls")
        parts = [(k, self.of(v)) for k, v in value.items()]
        return lambda outs, own, made: {k: p(outs, own, made) for k, p in parts}

    def _tuple(self, value: Any) -> Maker:
        cls: Any = type(value)
        if attributes(value):
            raise _not_made(cls)
        parts = [self.of(v) for v in tuple.__iter__(value)]
        return lambda outs, own, made: tuple.__new__(cls, [p(outs, own, made) for p in parts])

    def _instance(self, value: Any, form: Form) -> Maker:
        """An instance by what it holds; no constructor runs."""
        cls = type(value)
        most = value.maxlen if form.base is collections.deque else None
        names = list(value.names) if cls is _tree.NamedList else None
        found = {k.name if type(k) is Part else k: v for k, v in attributes(value).items()}
        items = self._items(value, form.base)
        held = [(k, self.of(v)) for k, v in found.items() if not isinstance(k, Slot)]
        slots = [(k.descriptor, self.of(v)) for k, v in found.items() if isinstance(k, Slot)]
        own_dict = form.has_dict and value.__dict__ is value  # class AttrDict

        def make(outs: Any, own: Any, made: Any) -> Any:
            filling = () if items is None else items(outs, own, made)
            if names is not None:
                return _tree.NamedList(filling, names)
            new = blank_of(cls, most)
            if filling:
                _FILLS[form.base](new, filling)
            if own_dict:
                object.__setattr__(new, "__dict__", new)
            for name, part in held:
                new.__dict__[name] = part(outs, own, made)
            for descriptor, part in slots:
                descriptor.__set__(new, part(outs, own, made))
            return new

        return make

    def _items(self, value: Any, base: type) -> Maker | None:
        if base in (dict, collections.OrderedDict):
            return self._dict(items_of(value))
        if base in (list, collections.deque):
            iterate: Any = base.__iter__  # type: ignore[attr-defined]
            parts = [self.of(v) for v in iterate(value)]
            return lambda outs, own, made: [p(outs, own, made) for p in parts]
        if base is set:
            members = tuple(set.__iter__(value))
            if not all(map(_is_constant, members)):
                raise _not_made(type(value))
            return lambda outs, own, made: members
        return None


def _names_in(value: Any) -> list[Any]:
    """What tells two containers of one class apart beside their parts: keys, names, members."""
    found = [k.name if type(k) is Part else str(k) for k in attributes(value)]
    if isinstance(value, dict):
        found += map(key_of, items_of(value))
    elif isinstance(value, (list, tuple, collections.deque)):
        found.append(len(value))
    elif isinstance(value, set):
        found += sorted(repr(key_of(v)) for v in set.__iter__(value))
    return found


def _fill_ordered(new: Any, items: Any) -> None:
    for key, part in items.items():
        collections.OrderedDict.__setitem__(new, key, part)


_FILLS: dict[type, Callable[[Any, Any], None]] = {
    list: list.extend,
    collections.deque: collections.deque.extend,
    dict: dict.update,
    collections.OrderedDict: _fill_ordered,
    set: set.update,
}

_VALUES = (str, bytes, int, float, complex, frozenset, collections.defaultdict)
_ATOMS = (
    str, bytes, bool, int, float, complex, type(None), type(Ellipsis), type(NotImplemented),
    range, slice, types.BuiltinFunctionType, types.ModuleType, datetime.date, datetime.time,
    datetime.datetime, datetime.timedelta, decimal.Decimal, fractions.Fraction,
    pathlib.PurePosixPath, pathlib.PureWindowsPath,
)  # fmt: skip


def _is_constant(value: Any) -> bool:
    """Whether one value may serve all calls: it cannot be changed, and holds nothing of a call."""
    if type(value) in (tuple, frozenset):
        return all(map(_is_constant, value))
    if isinstance(value, WRAPPERS):
        return _is_constant(getattr(value, "__wrapped__", None))
    if isinstance(value, types.FunctionType):  # of a package: the user's are copies, or made here
        return not is_user_file(value.__code__.co_filename)
    return type(value) in _ATOMS or isinstance(value, (np.generic, np.dtype, type, enum.Enum))


def _stands_in_module(cls: type) -> bool:
    """Whether a class is what its module has under its name, and not made by a function."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return found is cls


def _is_plain(cls: type) -> bool:
    """Whether instances can be made without their class noticing: no `__new__`, no `__del__`."""
    for base in cls.__mro__:
        own = vars(base)
        if "__del__" in own:
            return False
        generated = hasattr(base, "_fields") or base.__module__ in ("builtins", "types", "typing")
        if "__new__" in own and not generated and base is not _tree.NamedList:
            return base in (collections.OrderedDict, collections.deque)
    return True


def _not_made(cls: type) -> Sidestep:
    return Sidestep(f"it returns a {cls.__name__}, which cannot be made anew at each call")
