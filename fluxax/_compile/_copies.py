"""Copies of the arguments of an uncompiled call, and what was written to them.

Only what leads to an array that is replaced is copied. All else a function is given is the
caller's own, so that identities hold and effects happen where they belong.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._reach import Swap
from fluxax._compile._spec import NOTHING
from fluxax._errors import no_numbers
from fluxax._instances import blank, slots_of, space_of
from fluxax._module import Module

#: Where a number stands: the id of its container and its key; `None` for the arguments themselves.
Spot = tuple[int | None, Any]

#: Says of an array whether it is not written to a layer.
Held = Callable[[Any], bool]


class Copies:
    """Copies of arguments in which other arrays stand.

    Args:
        args: the arguments.
        arrays: what stands for an array, by its id. For other NumPy arrays stand JAX's.
        numbers: what stands for a number, by its place.

    Attributes:
        made: the arguments to call the function with.
        back: by the id of what is ours, what it stands for.
    """

    def __init__(self, args: tuple[Any, ...], arrays: dict[int, Any], numbers: dict[Spot, Any]):
        self.numbers, self.new = numbers, dict(arrays)
        self.back: dict[int, Any] = {}
        self._nodes: list[_Copy] = []
        self._fixed: list[Any] = []
        self._held: set[int] = set()
        order = self._to_copy(args)
        for node in order:
            if not _is_fixed(node):
                self.new[id(node)] = _shell(node)
        for node in order:  # parts before wholes
            if _is_fixed(node):
                self.new[id(node)] = _made_of(node, [p for _, p in self._parts(node)])
        for node in order:
            self.back[id(self.new[id(node)])] = node
            if _is_fixed(node):
                self._fixed.append(self.new[id(node)])
            else:
                self._nodes.append(_Copy(node, self.new[id(node)], id(node) in self._held, self))
        self.made = [self.at(None, i, a) for i, a in enumerate(args)]
        self._args = args  # their ids stay theirs

    def at(self, owner: int | None, key: Any, value: Any) -> Any:
        """What stands in a place of the copies."""
        number = self.numbers.get((owner, key), NOTHING)
        if number is not NOTHING:
            self.back[id(number)] = value
            return number
        found = self.new.get(id(value), NOTHING)
        if found is NOTHING and _as_jax(value):
            found = self.new[id(value)] = jnp.asarray(value)
        if found is NOTHING:
            return value
        self.back[id(found)] = value
        return found

    def of(self, originals: frozenset[int]) -> frozenset[int]:
        """Ids of what the function is given for containers given by id."""
        return frozenset(id(self.new[i]) if i in self.new else i for i in originals)

    def write_back(self, swap: Swap, held: Held) -> None:
        """Put what was written to the copies into the originals.

        Args:
            swap: what stands for a value there.
            held: which arrays of layers keep their value.
        """
        for node in self._nodes:
            node.write_back(swap, held)

    def taken(self) -> list[Any]:
        """All that was copied, which is not held here any more."""
        copies = [node.new for node in self._nodes] + self._fixed
        self._nodes, self._fixed, self.made, self.new, self.numbers = [], [], [], {}, {}
        return copies

    def _parts(self, node: Any) -> Iterator[tuple[Any, Any]]:
        return ((key, self.at(id(node), key, part)) for key, part in _parts(node))

    def _to_copy(self, args: tuple[Any, ...]) -> list[Any]:
        """The containers that lead to something that is replaced, parts before wholes."""
        seen: dict[int, Any] = {}
        above: dict[int, list[Any]] = {}
        wanted: dict[int, Any] = {}
        order: list[Any] = []
        stack = [(a, False, isinstance(a, Module)) for a in reversed(args) if _is_node(a)]
        while stack:
            node, done, layer = stack.pop()
            if done:
                order.append(node)
            elif id(node) not in seen:
                seen[id(node)] = node
                if layer:
                    self._held.add(id(node))
                stack.append((node, True, layer))
                for key, part in _parts(node):
                    if (id(node), key) in self.numbers or id(part) in self.new or _as_jax(part):
                        wanted[id(node)] = node
                    elif _is_node(part):
                        above.setdefault(id(part), []).append(node)
                        stack.append((part, False, layer or isinstance(part, Module)))
        rest = list(wanted)
        while rest:
            for node in above.get(rest.pop(), ()):
                if id(node) not in wanted:
                    wanted[id(node)] = node
                    rest.append(id(node))
        return [node for node in order if id(node) in wanted]


def _as_jax(value: Any) -> bool:
    """Whether a function sees a JAX array for a value."""
    return type(value) is np.ndarray and value.dtype.names is None and not no_numbers(value)


def _is_node(value: Any) -> bool:
    return _tree.kind_of(value) is not None


def _is_fixed(node: Any) -> bool:
    """Whether a container has to be made of its parts, all at once."""
    return isinstance(node, tuple) or _is_opaque(node)


def _is_opaque(node: Any) -> bool:
    """Whether only JAX knows how a container is taken apart."""
    if _tree.kind_of(node) is not _tree.PYTREE:
        return False
    inside = {id(p) for _, p in _stored(node)}
    return any(id(part) not in inside for _, part in _tree.parts(node))


class _Slot:
    """The key of a slot among the parts of an object."""

    __slots__ = ("member",)

    def __init__(self, member: Any):
        self.member = member

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Slot) and self.member is other.member

    def __hash__(self) -> int:
        return id(self.member)


_SPACE = _Slot(None)  # the key of the dict of an object's attributes


def _parts(node: Any) -> list[tuple[Any, Any]]:
    """What a container holds, by where it holds it: items, slots, the dict of its attributes."""
    if isinstance(node, _tree.Node):
        _tree.node_parts(node)  # a gradient nobody has looked at makes its parts now
    if isinstance(node, (list, tuple)):
        base: Any = list if isinstance(node, list) else tuple
        found = list(enumerate(base.__iter__(node)))
    elif isinstance(node, dict):
        found = list(_dict_of(node).items(node))
    elif _is_opaque(node):
        return [(i, part) for i, (_, part) in enumerate(_tree.parts(node))]
    else:
        return _attributes(node)
    return found if type(node) in (list, dict, tuple) else found + _attributes(node)


def _attributes(node: Any) -> list[tuple[Any, Any]]:
    found = []
    for member in slots_of(node):
        try:
            found.append((_Slot(member), member.__get__(node)))
        except AttributeError:  # not set
            continue
    space = space_of(node)
    return found if space is None or space is node else [*found, (_SPACE, space)]


def _stored(node: Any) -> list[tuple[Any, Any]]:
    attributes = _attributes(node)
    space = space_of(node) or {}
    return [*attributes, *space.items()]


def _shell(node: Any) -> Any:
    new = blank(node)
    if isinstance(node, collections.defaultdict):
        new.default_factory = node.default_factory
    return new


def _made_of(node: Any, parts: list[Any]) -> Any:
    if not isinstance(node, tuple):
        kind: Any = _tree.kind_of(node)
        return kind.rebuild(node, parts)
    n = tuple.__len__(node)
    new = tuple.__new__(type(node), parts[:n])
    if len(parts) > n:
        new.__dict__.update(parts[-1])
    return new


class _Copy:
    """One copy of something that can be changed, filled, and what was put into it."""

    def __init__(self, old: Any, new: Any, layer: bool, copies: Copies):
        self.old, self.new, self.layer = old, new, layer
        self._fill(copies)
        self.before = _parts(new)

    def _fill(self, copies: Copies) -> None:
        pairs = list(copies._parts(self.old))
        if isinstance(self.old, list):
            items = [v for k, v in pairs if type(k) is int]
            list.__setitem__(self.new, slice(None), items)
        for key, value in pairs:
            if isinstance(key, _Slot):
                _set_attribute(self.new, key, value)
            elif isinstance(self.old, dict):
                _dict_of(self.new).__setitem__(self.new, key, value)
        if space_of(self.old) is self.old:  # class AttrDict: self.__dict__ = self
            object.__setattr__(self.new, "__dict__", self.new)

    def write_back(self, swap: Swap, held: Held) -> None:
        if type(self.new) is not type(self.old):
            self.old.__class__ = type(self.new)
        now = _parts(self.new)
        if len(now) == len(self.before) and all(
            a[1] is b[1] and (a[0] is b[0] or a[0] == b[0])
            for a, b in zip(now, self.before, strict=True)
        ):
            return
        before = {k: v for k, v in self.before if isinstance(k, _Slot)}
        after = {k: v for k, v in now if isinstance(k, _Slot)}
        for key, value in after.items():
            if before.get(key, NOTHING) is not value:
                _set_attribute(self.old, key, swap(value))
        for key in before.keys() - after.keys():
            key.member.__delete__(self.old)
        if isinstance(self.old, list):
            self._write_list([v for k, v in now if type(k) is int], swap, held)
        elif isinstance(self.old, dict):
            pairs = [(k, v) for k, v in self.before if not isinstance(k, _Slot)]
            items = {k: v for k, v in now if not isinstance(k, _Slot)}
            self._write_dict(dict(pairs), items, swap, held)

    def _write_list(self, now: list[Any], swap: Swap, held: Held) -> None:
        was = [v for k, v in self.before if type(k) is int]
        same = len(now) == len(was)
        if same and all(a is b for a, b in zip(now, was, strict=True)):
            return
        new = [swap(v) for v in now]
        if same and len(self.old) == len(new):
            new = [
                old if self._stays(old, v, held) else v
                for old, v in zip(self.old, new, strict=True)
            ]
        list.__setitem__(self.old, slice(None), new)

    def _write_dict(self, was: Any, now: dict[Any, Any], swap: Swap, held: Held) -> None:
        old, base = self.old, _dict_of(self.old)
        for key in [k for k in was if k not in now and k in old]:
            base.__delitem__(old, key)
        for key, value in now.items():
            if was.get(key, NOTHING) is value and dict.__contains__(old, key):
                continue
            new = swap(value)
            if not self._stays(dict.get(old, key), new, held):
                base.__setitem__(old, swap(key), new)
        there = [k for k in base.keys(old) if k in now]
        wanted = [k for k in now if dict.__contains__(old, k)]
        if there != wanted:
            for key in wanted:
                base.__setitem__(old, key, base.pop(old, key))

    def _stays(self, old: Any, new: Any, held: Held) -> bool:
        """Whether an array of a layer keeps its value, since the loss was not finite, or none."""
        arrays = self.layer and _tree.is_array(old) and _tree.is_array(new)
        return arrays and held(old) and held(new)


def _dict_of(value: dict[Any, Any]) -> Any:
    """The class whose methods know how a dict is stored."""
    return collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict


def _set_attribute(owner: Any, key: _Slot, value: Any) -> None:
    if key is _SPACE:
        object.__setattr__(owner, "__dict__", value)
    else:
        key.member.__set__(owner, value)
