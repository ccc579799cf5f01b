"""What a function reaches, for uncompiled runs: values in there are replaced, in place."""

from __future__ import annotations

import collections
import functools
import gc
import itertools
import types
import weakref
from collections.abc import Callable, Container, Iterable
from typing import Any

import numpy as np

from fluxax._compile._reads import (
    is_user_class,
    is_user_function,
    is_user_module,
    reads_of,
)
from fluxax._instances import slots_of, space_of
from fluxax._jax import ArrayImpl, Tracer
from fluxax._module import Module

#: Gives what is to stand in the place of a value; the value itself where it stays.
New = Callable[[Any], Any]

_ATOMS = frozenset(
    (int, float, complex, bool, str, bytes, type(None), ArrayImpl, np.float32, np.float64, np.int64)
)


def replace_reached(
    root: Any, new: New, *, own: bool = False, apart: Container[int] = ()
) -> list[Any]:
    """Put `new(value)` in the place of everything that a function reaches.

    Args:
        own: whether only the user's own functions and objects, containers and Modules are entered.
        apart: ids of cells whose content stays as it is.

    Returns:
        All that it reaches.
    """
    seen: dict[int, Any] = {}
    stack: list[Any] = [root]
    reach = Reach(new, own, apart)
    while stack:
        value = stack.pop()
        if type(value) not in _ATOMS and id(value) not in seen:
            seen[id(value)] = value
            stack.extend(reach.parts(value))
    return list(seen.values())


class Reach:
    """Replaces what stands right inside a value, and gives the parts to look at next."""

    def __init__(self, new: New, own: bool = False, apart: Container[int] = ()):
        self.new, self.own, self.apart = new, own, apart
        self.touched: list[Any] = getattr(new, "touched", [])
        self._puts = 0

    def parts(self, value: Any) -> Iterable[Any]:
        """Replace what stands right inside a value; what to look at next."""
        before = self._puts
        found = self._parts(value)
        if self._puts != before:
            self.touched.append(value)
        return found

    def _parts(self, value: Any) -> Iterable[Any]:
        cls = type(value)  # not `isinstance`: a mock says that it is what it stands for
        if issubclass(cls, (ArrayImpl, np.ndarray, Tracer)):
            return self._numbers(value)
        if self.own and _is_foreign(value):
            return ()
        for kind, method in _KINDS:
            if issubclass(cls, kind):
                return method(self, value)
        return [cls, *self._attributes(value)]

    def _put(self, item: Any, put: Callable[[Any], None]) -> Any:
        """What stands in a place from now on."""
        if type(item) in _ATOMS and type(item) is not ArrayImpl:
            return item
        now = self.new(item)
        if now is not item:
            put(now)
            self._puts += 1
        return now

    def _numbers(self, value: Any) -> Iterable[Any]:
        if type(value) is not np.ndarray or value.dtype != object or not value.flags.writeable:
            return ()
        flat = value.reshape(-1) if value.flags.c_contiguous else value.flat
        return [
            self._put(item, functools.partial(flat.__setitem__, i)) for i, item in enumerate(flat)
        ]

    def _dict(self, value: dict[Any, Any]) -> Iterable[Any]:
        found = []
        for key, item in list(dict.items(value)):
            if type(item) not in _ATOMS or type(item) is ArrayImpl:
                found.append(self._put(item, functools.partial(dict.__setitem__, value, key)))
        kept = [k for k in dict.keys(value) if type(k) not in _ATOMS]
        others = {id(k): other for k in kept if (other := self.new(k)) is not k}
        if others:
            _rename(value, others)
            self._puts += 1
        return [*kept, *found, *self._attributes(value)]

    def _list(self, value: Any) -> Iterable[Any]:
        base: Any = list if isinstance(value, list) else collections.deque
        found = [
            self._put(item, functools.partial(base.__setitem__, value, i))
            for i, item in enumerate(base.__iter__(value))
            if type(item) not in _ATOMS or type(item) is ArrayImpl
        ]
        return [*found, *self._attributes(value)]

    def _set(self, value: Any) -> Iterable[Any]:
        found = [v for v in set.__iter__(value) if type(v) not in _ATOMS]
        for old in found:
            now = self.new(old)
            if now is not old:
                set.discard(value, old)
                set.add(value, now)
                self._puts += 1
        return [*found, *self._attributes(value)]

    def _fixed(self, value: Any) -> Iterable[Any]:
        return [*fixed_parts(value), *self._attributes(value)]

    def _partial(self, value: Any) -> Iterable[Any]:
        f, args, words, space = value.func, value.args, value.keywords, space_of(value)
        now = self.new(f), self.new(args), {k: self.new(v) for k, v in words.items()}
        same = all(now[2][k] is v for k, v in words.items())
        if now[0] is not f or now[1] is not args or not same:
            value.__setstate__((*now, space or {}))
            self._puts += 1
        return [now[0], now[1], *now[2].values(), *self._attributes(value)]

    def _attributes(self, value: Any) -> Iterable[Any]:
        if type(value) in _PLAIN:
            return ()
        found = []
        for member in slots_of(value):
            try:
                item = member.__get__(value)
            except AttributeError:  # not set
                continue
            found.append(self._put(item, functools.partial(member.__set__, value)))
        space = space_of(value)
        return found if space is None else [*found, space]

    def _class(self, cls: type) -> Iterable[Any]:
        if not is_user_class(cls):
            return ()
        found: list[Any] = [*cls.__bases__, type(cls)]
        for name, item in list(vars(cls).items()):
            if type(item) not in _NOT_DATA:
                found.append(self._put(item, functools.partial(type.__setattr__, cls, name)))
        return found

    def _module(self, module: types.ModuleType) -> Iterable[Any]:
        """Nothing of a module is looked at but what code names."""
        del module
        return ()

    def _named(self, module: types.ModuleType, names: frozenset[str]) -> Iterable[Any]:
        """What code that names a module reads of it; of an installed package nothing."""
        space = vars(module)
        found = names & space.keys() if is_user_module(module) else ()
        return [
            self._put(space[n], functools.partial(space.__setitem__, n))
            for n in found
            if not isinstance(space[n], types.ModuleType)
        ]

    def _function(self, f: types.FunctionType) -> Iterable[Any]:
        found = [self._put(f.__defaults__, functools.partial(setattr, f, "__defaults__"))]
        found += [f.__dict__, f.__kwdefaults__]
        for cell in f.__closure__ or ():
            if id(cell) not in self.apart:
                found.append(cell)
        if not is_user_function(f):
            return found
        reads, space = reads_of(f.__code__), f.__globals__
        for name in reads.globals:
            if name in space:
                found.append(self._put(space[name], functools.partial(space.__setitem__, name)))
        modules = [v for v in found if isinstance(v, types.ModuleType)]
        modules += [
            v for v in map(_content, f.__closure__ or ()) if isinstance(v, types.ModuleType)
        ]
        return [*found, *(v for module in modules for v in self._named(module, reads.names))]

    def _cell(self, cell: types.CellType) -> Iterable[Any]:
        if id(cell) in self.apart:
            return ()
        try:
            item = cell.cell_contents
        except ValueError:  # an empty cell
            return ()
        return [self._put(item, functools.partial(setattr, cell, "cell_contents"))]

    def _wrapped(self, value: Any) -> Iterable[Any]:
        return [value.__func__]

    def _property(self, value: property) -> Iterable[Any]:
        return [value.fget, value.fset, value.fdel]

    def _error(self, value: BaseException) -> Iterable[Any]:
        args = self._put(value.args, functools.partial(setattr, value, "args"))
        return [args, value.__cause__, value.__context__, *self._attributes(value)]

    def _hidden(self, value: Any) -> Iterable[Any]:
        """What C keeps to itself: the list of an iterator, the cells of a suspended generator."""
        return gc.get_referents(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _rename(value: dict[Any, Any], others: dict[int, Any]) -> None:
    """Put other keys in the place of some, in the order that there is."""
    base: Any = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
    items = list(dict.items(value))
    base.clear(value)
    for key, item in items:
        base.__setitem__(value, others.get(id(key), key), item)


def _is_foreign(value: Any) -> bool:
    """Whether a value belongs to an installed package; a Module of ours does not count."""
    cls = type(value)
    if cls is types.FunctionType:
        return not is_user_function(value)
    plain = (*_CONTAINERS, types.MethodType, types.CellType, functools.partial, Module, type)
    return not issubclass(cls, plain) and not is_user_class(cls)


_CONTAINERS = (dict, list, collections.deque, tuple, set, frozenset)
_PLAIN = frozenset(_CONTAINERS)
_NOT_DATA = (types.MemberDescriptorType, types.GetSetDescriptorType, str)
_ITERATORS = tuple(
    {
        *map(
            type, (iter([]), iter(()), iter({}), iter({}.items()), iter({}.values()), iter(set()))
        ),
        *map(type, ({}.keys(), {}.values(), {}.items(), types.MappingProxyType({}))),
        *(map, filter, zip, enumerate, reversed, types.GeneratorType, types.CoroutineType),
        *(itertools.cycle, itertools.chain, itertools.islice, itertools.repeat),
        *(type(functools.lru_cache(len)), types.AsyncGeneratorType),
    }
)
_FIXED = (tuple, frozenset, types.MethodType, types.BuiltinMethodType, weakref.ref)
_KINDS: list[tuple[Any, Any]] = [
    (dict, Reach._dict),
    ((list, collections.deque), Reach._list),
    (_FIXED, Reach._fixed),
    (types.FunctionType, Reach._function),
    (types.CellType, Reach._cell),
    (set, Reach._set),
    (functools.partial, Reach._partial),
    (type, Reach._class),
    (types.ModuleType, Reach._module),
    ((staticmethod, classmethod), Reach._wrapped),
    (property, Reach._property),
    (BaseException, Reach._error),
    (_ITERATORS, Reach._hidden),
    (types.CodeType, lambda *_: ()),
]


# --- values that cannot be changed in place -------------------------------------------------


def fixed_parts(value: Any) -> list[Any]:
    """The parts of a value that has to be made anew where one of them is replaced."""
    if isinstance(value, tuple):
        return list(tuple.__iter__(value))
    if isinstance(value, frozenset):
        return list(frozenset.__iter__(value))
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, weakref.ref):
        return [] if (target := value()) is None or type(value) is not weakref.ref else [target]
    own = getattr(value, "__self__", None)
    return [] if own is None or isinstance(own, types.ModuleType) else [own]


def _made_of(value: Any, parts: list[Any]) -> Any:
    """A value like another, of other parts."""
    if isinstance(value, tuple):
        return _with_attributes(tuple.__new__(type(value), parts), value)
    if isinstance(value, frozenset):
        return _with_attributes(frozenset.__new__(type(value), parts), value)
    if isinstance(value, types.MethodType):
        return types.MethodType(parts[1], parts[0])
    if isinstance(value, weakref.ref):
        return weakref.ref(parts[0], value.__callback__)
    return getattr(parts[0], value.__name__)


def _with_attributes(new: Any, old: Any) -> Any:
    space = space_of(old)
    if space is not None:
        new.__dict__.update(space)
    return new


class Swap:
    """Says what stands for a value: another one by its identity, or what a function makes of it.

    A tuple, frozenset or method with something replaced in it is made anew; `back` leads from
    what was made to what it stands for.

    Args:
        by: what stands for a value, by its id.
        leaf: what else is to be replaced; gives the value itself where it stays.
    """

    def __init__(self, by: dict[int, Any], leaf: New | None = None):
        self.by, self.leaf = by, leaf
        self.back: dict[int, Any] = {}
        self.touched: list[Any] = []  # in which something was replaced
        self._kept: list[Any] = []  # what was made and what for, so that their ids stay theirs

    def __call__(self, value: Any) -> Any:
        if id(value) in self.by:
            return self.by[id(value)]
        if issubclass(type(value), _FIXED):
            return self._fixed(value)
        return value if self.leaf is None else self.leaf(value)

    def _fixed(self, root: Any) -> Any:
        done: dict[int, Any] = {}
        stack = [root]
        while stack:  # without recursion: data may be nested deeper than Python calls
            value = stack[-1]
            below = [p for p in fixed_parts(value) if issubclass(type(p), _FIXED)]
            missing = [p for p in below if id(p) not in done and id(p) not in self.by]
            if missing:
                stack += missing
                continue
            stack.pop()
            if id(value) not in done:
                done[id(value)] = self._anew(value, done)
        return done[id(root)]

    def _anew(self, value: Any, done: dict[int, Any]) -> Any:
        parts = fixed_parts(value)
        new = [done[id(p)] if id(p) in done else self._of(p) for p in parts]
        if all(a is b for a, b in zip(parts, new, strict=True)):
            return value
        made = _made_of(value, new)
        self.by[id(value)], self.back[id(made)] = made, value
        self._kept += [value, made]
        return made

    def _of(self, value: Any) -> Any:
        if id(value) in self.by:
            return self.by[id(value)]
        return value if self.leaf is None else self.leaf(value)
