"""What instances of a class are made of: all that they can hold, or that nobody can say.

An instance is known if its class is written in Python, and so are the classes above it, down to
one of a few builtin ones whose content is known. Then everything in it stands in the builtin's
items, in `__dict__`, or in slots. A class with a part in C may hide anything; its instances are
opaque.
"""

from __future__ import annotations

import collections
import sys
import types
import typing
import weakref
from typing import Any, NamedTuple

from fluxax._compile._reads import is_user_class
from fluxax._module import Module

#: Builtin classes that hold nothing but their items, or nothing at all.
_BASES = (
    list, dict, tuple, set, frozenset, collections.deque, collections.OrderedDict,
    collections.defaultdict, str, bytes, int, float, complex, types.SimpleNamespace,
)  # fmt: skip
_EMPTY = (object, typing.Generic, typing.Protocol)

#: Modules of Python whose instances are plain data.
_PLAIN = frozenset("collections types argparse fractions string dataclasses typing abc".split())
#: Installed packages whose objects act on the world or remember what nobody sees.
_ACTING = frozenset("tqdm wandb mlflow torch tensorflow loguru structlog".split())

_HEAP, _WORD = 1 << 9, 8


class Slot(str):
    """The name of a slot, with the descriptor that reads it whatever the class says."""

    __slots__ = ("descriptor",)
    descriptor: Any

    @classmethod
    def of(cls, name: str, descriptor: Any) -> Slot:
        new = cls(name)
        new.descriptor = descriptor
        return new


class Form(NamedTuple):
    """Where instances of a class keep what they hold."""

    base: type  # the builtin that holds items; `object` if none does
    slots: tuple[Slot, ...]
    has_dict: bool


_forms: weakref.WeakKeyDictionary[type, tuple[Any, Form | None]] = weakref.WeakKeyDictionary()


def form_of(cls: type) -> Form | None:
    """The form of a class's instances; `None` if something of them may stay unseen."""
    reads = cls.__getattribute__  # a class can get another one
    known = _forms.get(cls)
    if known is None or known[0] is not reads:
        known = _forms[cls] = reads, _form(cls)
    return known[1]


def _form(cls: type) -> Form | None:
    base, slots = object, []
    for c in cls.__mro__:
        if c in _BASES:
            base = c if base is object else base
        elif c not in _EMPTY:
            own = [] if c is Module else _own_slots(c)  # its own slot is for its pytree only
            if own is None or ("__getattribute__" in vars(c) and is_user_class(c)):
                return None
            slots += own
    if _is_closed(cls):
        return None
    return Form(base, tuple(slots), bool(cls.__dictoffset__))


def _is_closed(cls: type) -> bool:
    top = cls.__module__.partition(".")[0]
    if cls in _BASES or is_user_class(cls):
        return False
    return top in _ACTING or (top in sys.stdlib_module_names and top not in _PLAIN)


_C_PARTS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
)


def _own_slots(cls: type) -> list[Slot] | None:
    """The slots that a class written in Python adds; `None` for one that has a part in C."""
    slots = []
    for name, value in vars(cls).items():
        if getattr(value, "__objclass__", None) is not cls:
            continue
        if type(value) is types.MemberDescriptorType:
            slots.append(Slot.of(name, value))
        elif isinstance(value, _C_PARTS) and name not in ("__dict__", "__weakref__"):
            return None
    above = cls.__base__
    assert above is not None
    more = cls.__basicsize__ - above.__basicsize__ - _WORD * len(slots)
    # a dict and weak references take a word each, or none at all, by the version of Python
    plain = bool(cls.__flags__ & _HEAP) and more in (0, _WORD, 2 * _WORD)
    return slots if plain else None
