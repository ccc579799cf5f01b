"""Straight-line code that reads chosen leaves of a tree of known structure.

`update` reads a model, a state tree and a gradient at every step. Code made for the
structure at hand reads 40 leaves in 2 µs; where anything is of another structure it
answers `None`, and the slow walk, which knows how to complain, decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fluxax import _tree
from fluxax._jax import ArrayImpl


class Gather(NamedTuple):
    """What was made for a tree: `read(tree) -> (leaves, owners) | None`, and the owners' keys."""

    read: Callable[[Any], Any]
    keys: list[Any]
    settable: bool  # whether every leaf can be replaced by `owner[key] = new`


class _Writer:
    def __init__(self, wanted: dict[_tree.Path, Any], check: Callable[[str, str], str]):
        self.wanted, self.check = wanted, check
        self.lines: list[str] = []
        self.space: dict[str, Any] = {
            "ArrayImpl": ArrayImpl,
            "children": _tree.parts,
            "item": list.__getitem__,
        }
        self.found: dict[_tree.Path, tuple[str, str, Any]] = {}
        self.above = {path[:i] for path in wanted for i in range(len(path))}

    def name(self, value: Any) -> str:
        name = f"k{len(self.space)}"
        self.space[name] = value
        return name

    def write(self, value: Any, reader: str, path: _tree.Path, owner: str, key: Any) -> None:
        if path in self.wanted:
            leaf = f"x{len(self.found)}"
            self.lines.append(f"{leaf} = {reader}")
            condition = self.check(leaf, self.name(self.wanted[path]))
            self.lines.append(f"if not ({condition}): return None")
            self.found[path] = (leaf, owner, key)
        elif path in self.above:
            self._container(value, reader, path)

    def _container(self, value: Any, reader: str, path: _tree.Path) -> None:
        v = f"v{len(self.lines)}"
        self.lines.append(f"{v} = {reader}")
        self.lines.append(f"if type({v}) is not {self.name(type(value))}: return None")
        kind = _tree.kind_of(value)
        assert kind is not None
        parts = kind.parts(value)
        where, settable = _reader(kind, v)
        if where is None:  # a registered pytree: through its children
            self.lines.append(f"{v}c = [x for _, x in children({v})]")
            where = f"{v}c"
        elif where != v:
            self.lines.append(f"{v}d = {where}")
            where = f"{v}d"
        self.lines.append(f"if len({where}) != {len(parts)}: return None")
        for i, (part_key, part) in enumerate(parts):
            key = _tree.key_name(part_key)
            index = i if where.endswith("c") or isinstance(value, tuple) else key
            index_name = repr(index) if type(index) in (int, str) else self.name(index)
            owner = where if settable else ""
            read = (
                f"item({where}, {index_name})"
                if type(value) is _tree.NamedList
                else f"{where}[{index_name}]"
            )
            self.write(part, read, (*path, part_key), owner, key)

    def finish(self) -> Gather:
        order = [self.found[path] for path in self.wanted]
        leaves = ", ".join(leaf for leaf, _, _ in order)
        settable = all(owner for _, owner, _ in order)
        owners = ", ".join(owner for _, owner, _ in order) if settable else ""
        self.lines.append(f"return [{leaves}], [{owners}]")
        body = "\n        ".join(self.lines)
        source = (
            f"def read(tree):\n    try:\n        {body}\n"
            "    except (AttributeError, KeyError, IndexError, TypeError):\n        return None\n"
        )
        exec(source, self.space)
        return Gather(self.space["read"], [key for _, _, key in order], settable)


def _reader(kind: _tree.Kind, v: str) -> tuple[str | None, bool]:
    """Where the parts of a container are read from by key, and whether they are assigned there."""
    if kind in (_tree.LIST, _tree.DICT):
        return v, True
    if kind in (_tree.OBJECT, _tree.NODE):
        return f"{v}.__dict__", True
    if kind in (_tree.TUPLE, _tree.NAMED_TUPLE):
        return v, False
    return None, False


def make_gather(
    tree: Any, wanted: dict[_tree.Path, Any], check: Callable[[str, str], str]
) -> Gather:
    """Code for the leaves `wanted` (path -> a constant for the check) of a tree.

    Args:
        tree: a tree of the structure at hand.
        wanted: the paths, in the order in which the leaves are to come.
        check: makes the condition that a leaf must meet from its name and the constant's.
    """
    writer = _Writer(wanted, check)
    writer.write(tree, "tree", (), "", None)
    return writer.finish()


def gradient_gather(grad: Any, present: list[_tree.Path]) -> Gather | None:
    """Code that reads a gradient which has arrays at just these places; `None` if it is too odd."""
    if not all(_plain(grad, path) for path in present):
        return None  # nested alike, but by other keys: a dict for an object
    others = {path for path, v in _tree.walk(grad) if v is None}
    wanted = {**dict.fromkeys(present, True), **dict.fromkeys(others, False)}
    gather = make_gather(grad, wanted, lambda x, there: f"({x} is not None) is {there}")
    count = len(present)

    def read(tree: Any) -> Any:
        got = gather.read(tree)
        return None if got is None else (got[0][:count], [])

    return Gather(read, [], True)


def _plain(grad: Any, path: _tree.Path) -> bool:
    """Whether what stands at a path of a gradient is found there by the same keys."""
    for key in path:
        below = dict(_tree.parts(grad))
        if key not in below:
            return False
        grad = below[key]
    return True
