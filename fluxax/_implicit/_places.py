"""Where parameters stand: an owner and a name, so that a new array there is the parameter still.

Owners are held weakly where Python allows it (a Module, an object; not a plain list or dict),
so that a place keeps no dead model alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import GetAttrKey

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import is_tracer
from fluxax._module import Module, run


class Place:
    """One place below an owner, which is held weakly: the part that some keys lead to.

    Args:
        owner: gives the owner, or `None` if it is gone.
        keys: lead from the owner to the array.
        path: where that stood in what `params` was given, for messages.
    """

    __slots__ = ("_hash", "keys", "owner", "path")

    def __init__(self, owner: Callable[[], Any], keys: _tree.Path, path: _tree.Path):
        self.owner, self.keys, self.path = owner, keys, path
        self._hash = hash((id(owner()), keys))

    def get(self) -> Any:
        """What stands there now; `None` if nothing does."""
        at = self.owner()
        for key in self.keys:
            at = dict(_tree.parts(at)).get(key)
        return at

    def put(self, new: Any) -> None:
        """Put a new array there; a NumPy array is written to, so that all its names see it."""
        if not _written(self.get(), new):
            self.hold(new)

    def hold(self, value: Any) -> None:
        """Let another object stand there."""
        _assign(self.owner(), self.keys, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Place):
            return NotImplemented
        same = self._hash == other._hash and self.keys == other.keys
        return self is other or (same and self.owner() is other.owner() is not None)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return _tree.path_string(self.path)


class Attribute(Place):
    """An attribute of a Module: nearly every place, so it has its own fast way."""

    __slots__ = ("name",)

    def __init__(self, owner: Callable[[], Any], keys: _tree.Path, path: _tree.Path):
        super().__init__(owner, keys, path)
        self.name: str = keys[0].name

    def get(self) -> Any:
        owner = self.owner()
        return None if owner is None else owner.__dict__.get(self.name)

    def put(self, new: Any) -> None:
        space = self.owner().__dict__
        if not _written(space[self.name], new):
            space[self.name] = new

    def hold(self, value: Any) -> None:
        self.owner().__dict__[self.name] = value


class Itself(Place):
    """An array that is its own place: a NumPy array that functions name, or a traced array."""

    __slots__ = ("array",)

    def __init__(self, array: Any, path: _tree.Path):
        self.array = array
        super().__init__(lambda: array, (), path)

    def get(self) -> Any:
        return self.array

    def hold(self, value: Any) -> None:
        self.array = value  # for those who name the array itself: see `_compile._stand_in`

    def __str__(self) -> str:
        return _tree.path_string(self.path, "parameters")


def _written(old: Any, new: Any) -> bool:
    if type(old) is np.ndarray and old.flags.writeable:
        old[...] = new
        return True
    return False


def _assign(container: Any, keys: _tree.Path, value: Any) -> Any:
    """Put a value where the keys lead; the container, or another where it cannot be changed."""
    kind = _tree.kind_of(container)
    assert kind is not None
    key, pairs = keys[0], kind.parts(container)
    old = dict(pairs)[key]
    part = value if len(keys) == 1 else _assign(old, keys[1:], value)
    if part is old:
        return container
    if kind.assign is not None:
        kind.assign(container, key, part)
        return container
    return kind.rebuild(container, [part if k == key else v for k, v in pairs])


# --- finding them -------------------------------------------------------------------------

Owner = tuple[Callable[[], Any], int]  # what gives it, and how many keys of the path lead to it


def find_places(
    tree: Any, path: _tree.Path = (), owner: Owner | None = None, _above: tuple[int, ...] = ()
) -> Iterator[Place]:
    """The place of every array below `tree` that is trained, tied ones as often as they stand."""
    if _tree.is_array(tree):
        if _tree.is_inexact(tree):
            yield _place(tree, path, owner)
        return
    kind = _tree.kind_of(tree)
    if kind is None:
        return
    if id(tree) in _above:
        raise _tree.cycle(path)
    owner = _owner(tree, kind, len(path), owner)
    chosen = tree.trainable if isinstance(tree, Module) else None
    for key, part in kind.parts(tree):
        if chosen is None or _tree.key_name(key) in chosen:
            yield from find_places(part, (*path, key), owner, (*_above, id(tree)))


def _owner(tree: Any, kind: _tree.Kind, depth: int, above: Owner | None) -> Owner | None:
    """The nearest container that can be changed: weakly held if there is one, else strongly."""
    if kind.assign is None:
        return above
    try:
        return weakref.ref(tree), depth
    except TypeError:
        weak = above is not None and isinstance(above[0], weakref.ref)
        return above if weak else (lambda: tree, depth)


def _place(array: Any, path: _tree.Path, owner: Owner | None) -> Place:
    if owner is None or (type(array) is np.ndarray and not isinstance(owner[0], weakref.ref)):
        fixed = type(array) is not np.ndarray or not array.flags.writeable
        if fixed and not is_tracer(array) and run.trace is None:
            raise TypeError(
                f"params expects arrays that can be changed in place, got {short(array)} at "
                f"{_tree.path_string(path)}: nobody would see its new value. Keep it in a Module, "
                "a dict or a list that the loss reads, or make it a NumPy array that may be "
                "written to."
            )
        return Itself(array, path)
    get, depth = owner
    keys = path[depth:]
    plain = len(keys) == 1 and isinstance(keys[0], GetAttrKey) and isinstance(get(), Module)
    return (Attribute if plain else Place)(get, keys, path)


def is_numbers(value: Any) -> bool:
    """Whether a value holds numbers, but none that `params` could give: ints, or no arrays."""
    if isinstance(value, (int, float, complex, str, np.generic)):
        return True
    if isinstance(value, (np.ndarray, jax.Array)):
        return not _tree.is_inexact(value)
    if isinstance(value, (list, tuple, dict)):
        list(_tree.walk_nodes(value))  # a cycle is an error
        found = [is_numbers(part) for _, part in _tree.parts(value)]
        return bool(found) and all(found)
    return False
