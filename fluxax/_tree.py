"""Nested data: what a parameter is, what it is called, how trees are walked and rebuilt.

A *container* is anything with parts: a Module, a Node, a list, tuple, dict,
dataclass or registered JAX pytree. A *leaf* is everything else. `parts` takes a
container apart, `rebuild` puts one together, and every walk in fluxax goes
through these two. Parts are numbered by keys that print as Python would read
them: `.layers`, `[2]`, `['name']`.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import (
    DictKey,
    GetAttrKey,
    SequenceKey,
    default_registry,
    register_pytree_with_keys,
)

from fluxax._between import read_between
from fluxax._instances import alike, blank
from fluxax._jax import Tracer

Path = tuple[Any, ...]


def is_array(value: Any) -> bool:
    """Whether a value is an array leaf: JAX's, NumPy's or a tracer."""
    return isinstance(value, (jax.Array, np.ndarray, Tracer))


def is_inexact(array: Any) -> bool:
    """Whether an array's numbers are floating or complex, so that it can have a gradient."""
    return jnp.issubdtype(array.dtype, np.inexact)


def path_string(path: Path, root: str = "model") -> str:
    """A path as Python would write it.

    >>> path_string((GetAttrKey("layers"), SequenceKey(2), GetAttrKey("weight")))
    'model.layers[2].weight'
    """
    return root + "".join(map(str, path))


class Node:
    """A tree with the attribute names of the object it mirrors: a gradient or a state.

    It is a JAX pytree; parts without anything in them are `None`.

    Example:
        >>> node = Node(weight=1.0, bias=None)
        >>> node.weight, node
        (1.0, Node(weight=1.0, bias=None))
    """

    __slots__ = ("__dict__", "__weakref__", "frozen_mark")
    frozen_mark: bool  # set on nodes of a state tree by `freeze`

    def __init__(self, /, **parts: Any):
        object.__setattr__(self, "frozen_mark", False)
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        pending = self.__dict__.pop("__pending__", None)
        if pending is not None:
            self.__dict__.update(pending())
            return getattr(self, name)
        if name.startswith("__"):
            raise AttributeError(name)
        known = ", ".join(vars(self)) or "none"
        raise AttributeError(f"This Node has no part `{name}`. Its parts are: {known}.")

    @classmethod
    def lazy(cls, make: Callable[[], dict[str, Any]]) -> Node:
        """A Node whose parts are made when somebody first looks at one."""
        node = cls()
        node.__dict__["__pending__"] = make
        return node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and node_parts(self) == node_parts(other)

    def __repr__(self) -> str:
        inside = read_between(lambda: [f"{k}={v!r}" for k, v in node_parts(self).items()])
        return f"Node({', '.join(inside)})"

    def __reduce__(self) -> Any:
        return (_make_node, (node_parts(self), self.frozen_mark))


def node_parts(node: Node) -> dict[str, Any]:
    """The parts of a Node as a dict, made first if nobody has looked yet."""
    pending = node.__dict__.pop("__pending__", None)
    if pending is not None:
        node.__dict__.update(pending())
    return node.__dict__


def _make_node(parts: dict[str, Any], frozen_mark: bool) -> Node:
    node = Node(**parts)
    node.frozen_mark = frozen_mark
    return node


register_pytree_with_keys(
    Node,
    lambda n: ([(GetAttrKey(k), v) for k, v in node_parts(n).items()], tuple(node_parts(n))),
    lambda names, values: Node(**dict(zip(names, values, strict=True))),
)


class NamedList(list[Any]):
    """A list whose items may also be read and set by name.

    Example:
        >>> layers = NamedList([1, 2], ["enc", "dec"])
        >>> layers.enc, layers[1], layers["dec"], layers[1:]
        (1, 2, 2, [2])
    """

    def __init__(self, items: Iterable[Any] = (), names: Iterable[str | None] | None = None):
        super().__init__(items)
        self.names: list[str | None] = [None] * len(self) if names is None else list(names)

    def _at(self, name: str) -> int:
        names = self.__dict__.get("names", ())
        if name in names:
            return names.index(name)
        known = ", ".join(n for n in names if n) or "none"
        raise AttributeError(f"This list has no item `{name}`. Its names are: {known}.")

    def __getattr__(self, name: str) -> Any:
        return self[self._at(name)]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "names":
            object.__setattr__(self, name, value)
        else:
            super().__setitem__(self._at(name), value)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return super().__getitem__(self._at(index))
        if isinstance(index, slice):
            return NamedList(super().__getitem__(index), self.names[index])
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, str):
            index = self._at(index)
        super().__setitem__(index, value)
        if isinstance(index, slice):
            self.names[index] = [None] * len(self.names[index])
            self.names += [None] * (len(self) - len(self.names))

    def __delitem__(self, index: Any) -> None:
        super().__delitem__(index)
        del self.names[index]

    def append(self, item: Any) -> None:
        super().append(item)
        self.names.append(None)

    def extend(self, items: Iterable[Any]) -> None:
        for item in items:
            self.append(item)

    def __iadd__(self, items: Iterable[Any]) -> NamedList:
        self.extend(items)
        return self

    def insert(self, index: Any, item: Any) -> None:
        super().insert(index, item)
        self.names.insert(index, None)

    def pop(self, index: Any = -1) -> Any:
        self.names.pop(index)
        return super().pop(index)

    def clear(self) -> None:
        del self[:]

    def reverse(self) -> None:
        super().reverse()
        self.names.reverse()

    def __reduce__(self) -> Any:
        return (NamedList, (list(self), self.names))


register_pytree_with_keys(
    NamedList,
    lambda xs: ([(SequenceKey(i), x) for i, x in enumerate(xs)], tuple(xs.names)),
    lambda names, xs: NamedList(xs, names),
)


class Kind(NamedTuple):
    """How one kind of container is taken apart and put together."""

    parts: Callable[[Any], list[tuple[Any, Any]]]  # container -> [(key, part)]
    rebuild: Callable[[Any, list[Any]], Any]  # container, new parts -> new container
    assign: Callable[[Any, Any, Any], None] | None  # container, key, part; None: immutable


def _new_dict(old: dict[Any, Any], parts: list[Any]) -> Any:
    new = {} if type(old) is dict else alike(old)  # of its class, with its default factory
    put: Any = OrderedDict if isinstance(old, OrderedDict) else dict
    for key, part in zip(old, parts, strict=True):
        put.__setitem__(new, key, part)
    return new


def _new_tuple(old: Any, parts: list[Any]) -> Any:
    return type(old)(*parts) if hasattr(old, "_fields") else type(old)(parts)


def _new_list(old: list[Any], parts: list[Any]) -> Any:
    if type(old) is NamedList:
        return NamedList(parts, old.names)
    new = [] if type(old) is list else alike(old)
    list.__setitem__(new, slice(None), parts)
    return new


def _new_object(old: Any, parts: list[Any]) -> Any:
    """A copy of an object with other attributes, without calling `__init__`."""
    new = blank(old)
    new.__dict__.update(zip(old.__dict__, parts, strict=True))
    return new


def _new_dataclass(old: Any, parts: list[Any]) -> Any:
    new = alike(old)
    for field, part in zip(_fields(old), parts, strict=True):
        object.__setattr__(new, field, part)
    return new


def _fields(value: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]


def _set_item(owner: Any, key: Any, part: Any) -> None:
    kind: Any = list if isinstance(owner, list) else dict
    kind.__setitem__(owner, key_name(key), part)


def _new_pytree(old: Any, parts: list[Any]) -> Any:
    return jax.tree.flatten(old, is_leaf=lambda v: v is not old)[1].unflatten(parts)


LIST = Kind(lambda v: [(SequenceKey(i), x) for i, x in enumerate(v)], _new_list, _set_item)
TUPLE = Kind(LIST.parts, _new_tuple, None)
NAMED_TUPLE = Kind(
    lambda v: [(GetAttrKey(k), x) for k, x in zip(v._fields, v, strict=True)], _new_tuple, None
)
DICT = Kind(lambda v: [(DictKey(k), x) for k, x in v.items()], _new_dict, _set_item)
NODE = Kind(
    lambda v: [(GetAttrKey(k), x) for k, x in node_parts(v).items()],
    lambda old, parts: Node(**dict(zip(node_parts(old), parts, strict=True))),
    lambda owner, key, part: setattr(owner, key_name(key), part),
)
OBJECT = Kind(
    lambda v: [(GetAttrKey(k), x) for k, x in v.__dict__.items()],
    _new_object,
    lambda owner, key, part: owner.__dict__.__setitem__(key_name(key), part),
)
DATACLASS = Kind(
    lambda v: [(GetAttrKey(k), getattr(v, k)) for k in _fields(v)],
    _new_dataclass,
    lambda owner, key, part: object.__setattr__(owner, key_name(key), part),
)
FROZEN_DATACLASS = DATACLASS._replace(assign=None)
PYTREE = Kind(lambda v: list(default_registry.flatten_one_level_with_keys(v)[0]), _new_pytree, None)

_kinds: dict[type, Kind | None] = {}


def register_kind(cls: type, kind: Kind | None) -> None:
    """Say how instances of a class are taken apart; `None` makes them leaves."""
    _kinds[cls] = kind


def kind_of(value: Any) -> Kind | None:
    """How a value is taken apart, or `None` for a leaf."""
    cls = type(value)
    try:
        return _kinds[cls]
    except KeyError:
        return _kinds.setdefault(cls, _find_kind(cls, value))


def _find_kind(cls: type, value: Any) -> Kind | None:
    if issubclass(cls, (jax.Array, np.ndarray, Tracer, type)) or value is None:
        return None
    for base, kind in ((Node, NODE), (list, LIST), (dict, DICT)):
        if issubclass(cls, base):
            return kind
    if issubclass(cls, tuple):
        return NAMED_TUPLE if hasattr(cls, "_fields") else TUPLE
    registered = default_registry.flatten_one_level(value) is not None
    if dataclasses.is_dataclass(cls):  # one of Equinox is frozen by a __setattr__ of its own
        dataclass: Any = cls
        frozen = registered and dataclass.__setattr__ is not object.__setattr__
        return FROZEN_DATACLASS if frozen or dataclass.__dataclass_params__.frozen else DATACLASS
    return PYTREE if registered else None


def parts(value: Any) -> list[tuple[Any, Any]]:
    """The `(key, part)` pairs of a container; none for a leaf."""
    kind = kind_of(value)
    return [] if kind is None else kind.parts(value)


def key_name(key: Any) -> Any:
    """What a key stands for: an attribute's name, an index, a dict's key."""
    if isinstance(key, GetAttrKey):
        return key.name
    return key.idx if isinstance(key, SequenceKey) else getattr(key, "key", key)


def cycle(path: Path) -> ValueError:
    """The error for a container that contains itself."""
    return ValueError(
        f"A model expects to be a tree, got a cycle at {path_string(path)}. "
        "Keep the reference to the parent outside the model."
    )


def walk_nodes(
    tree: Any, path: Path = (), _above: tuple[int, ...] = ()
) -> Iterator[tuple[Path, Any]]:
    """Every container and leaf of a tree with its path, parents first."""
    yield path, tree
    kind = kind_of(tree)
    if kind is None:
        return
    if id(tree) in _above:
        raise cycle(path)
    for key, part in kind.parts(tree):
        yield from walk_nodes(part, (*path, key), (*_above, id(tree)))


def walk(tree: Any) -> Iterator[tuple[Path, Any]]:
    """Every leaf of a tree with its path, in order; tied leaves as often as they stand there."""
    return ((path, v) for path, v in walk_nodes(tree) if kind_of(v) is None)


def arrays(tree: Any) -> Iterator[tuple[Path, Any]]:
    """Every array of a tree with its path."""
    return ((p, v) for p, v in walk(tree) if is_array(v))


def map_leaves(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """A new tree of the same containers with `f(leaf, *partners)` at each leaf."""
    kind = kind_of(tree)
    if kind is None:
        return f(tree, *others)
    mine = kind.parts(tree)
    partners = [_partners(tree, mine, other) for other in others]
    new = [map_leaves(f, part, *(p[i] for p in partners)) for i, (_, part) in enumerate(mine)]
    return kind.rebuild(tree, new)


def mirror(tree: Any, leaf: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """A tree nested like a model, with Nodes for objects and `leaf(path, value)` at each leaf."""
    kind = kind_of(tree)
    if kind is None:
        return leaf(path, tree)
    pairs = kind.parts(tree)
    new = [mirror(part, leaf, (*path, key)) for key, part in pairs]
    if isinstance(tree, (list, tuple)) or kind is PYTREE:
        return kind.rebuild(tree, new)
    named = dict(zip((key_name(key) for key, _ in pairs), new, strict=True))
    return named if isinstance(tree, dict) else Node(**named)


def _partners(tree: Any, mine: list[tuple[Any, Any]], other: Any) -> list[Any]:
    """What stands in another tree where the parts of this one are; `None` for a missing branch."""
    if other is None:
        return [None] * len(mine)
    theirs = {key_name(k): v for k, v in parts(other)}
    names = [key_name(k) for k, _ in mine]
    if kind_of(other) is None or not set(theirs) <= set(names):
        raise ValueError(
            f"fmap expects trees of one structure, got {type(tree).__name__} "
            f"with the parts {names} and {type(other).__name__} with {list(theirs)}."
        )
    return [theirs.get(n) for n in names]
