"""Instances of the user's classes on which no constructor has run and no finaliser will."""

from __future__ import annotations

import collections
import types
import weakref
from typing import Any


class NoInstance(TypeError):
    """Python makes no instance of a class without its constructor or its finaliser."""


def blank(like: Any) -> Any:
    """An empty instance of an object's class, or of a class.

    No constructor of the user's runs, and no `__del__` when it is let go: a copy is not the thing
    that the finaliser closes. Its type is the class itself.

    Raises:
        NoInstance: if Python makes none, as of a class that C finalises or lays out.
    """
    cls = like if isinstance(like, type) else type(like)
    try:
        return _new(cls) if getattr(cls, "__del__", None) is None else _finalised(cls)
    except (TypeError, IndexError) as error:
        raise NoInstance(f"Python makes no empty {cls.__name__}: {error}.") from None


def alike(old: Any) -> Any:
    """A `blank` with the attributes of an object, those in slots too; items are not copied."""
    new = blank(old)
    for member in slots_of(old):
        try:
            member.__set__(new, member.__get__(old))
        except AttributeError:  # not set
            continue
    space = space_of(old)
    if space is old:  # class AttrDict: self.__dict__ = self
        object.__setattr__(new, "__dict__", new)
    elif space:
        new.__dict__.update(space)
    if isinstance(old, collections.defaultdict):
        new.default_factory = old.default_factory
    return new


def _new(cls: Any) -> Any:
    """What the lowest constructor in C makes: `list.__new__` of a subclass of list, say."""
    for base in cls.__mro__:
        if isinstance(vars(base).get("__new__"), types.BuiltinFunctionType):
            return base.__new__(cls)
    raise TypeError("it has no constructor")


# --- finalisers -----------------------------------------------------------------------------
#
# Python finalises an object at most once. So an instance of another class of the same layout is
# finalised, by a `__del__` that keeps it alive, and then becomes an instance of the user's class.


class _Shape:
    """A class of the layout of another, whose finaliser keeps the instance."""

    def __init__(self, base: type, space: dict[str, Any]):
        self.kept = kept = []
        self.cls: Any = type("Shape", (base,), {**space, "__del__": lambda self: kept.append(self)})
        if getattr(self.cls, "__abstractmethods__", None):
            self.cls.__abstractmethods__ = frozenset()  # nothing is called on it

    def new(self, cls: type) -> Any:
        instance = _new(self.cls)
        del instance  # finalised, and kept
        instance = self.kept.pop()
        instance.__class__ = cls
        return instance


_shapes: weakref.WeakKeyDictionary[type, _Shape] = weakref.WeakKeyDictionary()


def _finalised(cls: type) -> Any:
    shape = _shapes.get(cls)
    if shape is not None:
        return shape.new(cls)
    for shape in _shapes_for(_root(cls)):
        try:
            new = shape.new(cls)
        except TypeError:  # another layout
            continue
        if not issubclass(shape.cls, cls):  # which would keep the user's class alive
            _shapes[cls] = shape
        return new
    raise TypeError("its finaliser cannot be kept away")


def _root(cls: type) -> type:
    """The class of Python that a class has its layout from."""
    base: Any = cls.__base__
    while _is_python(base) and _layout(base) == _layout(cls):
        cls, base = base, base.__base__
    return cls


def _shapes_for(root: type) -> Any:
    """Classes that may have a class's layout: one beside it, and one below if nobody is told."""
    slots = _slots_of(root)
    base: Any = root.__base__
    yield _Shape(base, {} if slots is None else {"__slots__": slots})
    told = next(c for c in root.__mro__ if "__init_subclass__" in vars(c))
    if type(root) is type and (told is object or told.__module__.startswith("fluxax.")):
        yield _Shape(root, {} if root.__dictoffset__ else {"__slots__": ()})


_HEAP, _IMMUTABLE = 1 << 9, 1 << 8


def _is_python(cls: Any) -> bool:
    """Whether a class was made by Python code."""
    return cls is not None and cls.__flags__ & _HEAP and not cls.__flags__ & _IMMUTABLE


def _layout(cls: Any) -> tuple[int, ...]:
    return cls.__basicsize__, cls.__itemsize__, cls.__dictoffset__, cls.__weakrefoffset__


def _slots_of(cls: type) -> list[str] | None:
    """The names of a class's own slots, as they stand in it."""
    if "__slots__" not in vars(cls):
        return None
    special = [name for name in ("__dict__", "__weakref__") if name in vars(cls)]
    return [*special, *(n for n, v in vars(cls).items() if type(v) is types.MemberDescriptorType)]


def slots_of(value: Any) -> list[Any]:
    """What reads and writes each slot that classes of Python gave to an object: descriptors."""
    return [
        member
        for cls in type(value).__mro__
        if _is_python(cls) and "__slots__" in vars(cls)
        for member in vars(cls).values()
        if type(member) is types.MemberDescriptorType
    ]


def space_of(value: Any) -> dict[str, Any] | None:
    """The dict of an object's attributes, past what its class does about reading them."""
    try:
        space = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return space if isinstance(space, dict) else None
