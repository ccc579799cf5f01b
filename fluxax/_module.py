"""Module: a mutable Python object that is a JAX pytree; train and test mode.

Attributes that hold arrays, directly or inside containers, are the children of
the pytree; everything else travels in the tree's definition and is compared by
content. Nothing is marked: what an attribute holds decides.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from jax.tree_util import GetAttrKey, default_registry, register_pytree_with_keys

from fluxax import _tree
from fluxax._errors import short, warn
from fluxax._jax import WRAPPERS, current_trace, is_tracer
from fluxax._tensors import owned


class _Run(threading.local):
    """What the engine is doing in this thread."""

    training: bool = False  # layers whose mode is automatic are in train mode
    trace: Any = None  # the JAX trace in which a Module may be written to; None outside
    frozen: frozenset[int] = frozenset()  # ids of Modules below a frozen node
    flattened: int = 0  # how many Modules JAX has taken apart


run = _Run()


class Module:
    """A model or a layer: assign in `__init__`, write `__call__`.

    Every subclass is a JAX pytree, mutable, and plain Python: `copy.deepcopy`,
    pickle, `jax.jit`, `jax.vmap`, `jax.grad` and `jax.tree.map` work on it.
    `trainable`, a tuple of attribute names, restricts what is trained; by default
    that is every floating or complex array. A tensor of another library (PyTorch) that is
    assigned becomes an array.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> class Affine(fx.Module):
        ...     def __init__(self, n):
        ...         self.scale = jnp.ones(n)
        ...         self.shift = jnp.zeros(n)
        ...     def __call__(self, x):
        ...         return self.scale * x + self.shift
        >>> Affine(2)(jnp.array([1.0, 2.0]))
        Array([1., 2.], dtype=float32)
    """

    __slots__ = ("__dict__", "__weakref__", "_odd")
    trainable: ClassVar[tuple[str, ...] | None] = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__slots__" in cls.__dict__:
            raise TypeError(
                f"A Module keeps its attributes in a dict; remove __slots__ from {cls.__name__}."
            )
        _tree.register_kind(cls, _tree.OBJECT)
        register_pytree_with_keys(
            cls, _flatten_with_keys, lambda aux, xs: aux.fill(cls, xs), _flatten
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if is_tracer(value) and current_trace() != run.trace and not _may_write(self, name):
            return
        object.__setattr__(self, name, owned(value))

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        new = object.__new__(type(self))
        memo[id(self)] = new
        for _, leaf in _tree.walk(self):
            if isinstance(leaf, WRAPPERS):  # deepcopy would make another function of it
                memo[id(leaf)] = leaf
        new.__dict__.update((k, copy.deepcopy(v, memo)) for k, v in vars(self).items())
        return new

    def __repr__(self) -> str:
        return _printer(self)


def _may_write(module: Module, name: str) -> bool:
    """Whether a traced array may be put on a Module under a trace that is not the engine's.

    Inside an objective (scan, vmap, checkpoint) it is an error: the value would
    not leave that inner trace. Elsewhere (a plain `jax.jit`) a new object may be
    built, but what stands there already stays.
    """
    if run.trace is not None:
        raise ValueError(
            f"{type(module).__name__} expects to write its state `{name}` outside of jax.lax.scan, "
            "vmap, checkpoint and jit, got a value from inside one. "
            "Move the layer out of it, or set it to test mode with fx.testmode."
        )
    old = vars(module).get(name)
    if old is None:
        return True
    if type(module) not in _dropped:
        _dropped.add(type(module))
        warn(
            f"{type(module).__name__} wrote its state `{name}` inside a JAX transformation; the "
            "write is dropped. Use fx.gradient, fx.train, fx.trainstep or fx.compiled to keep it."
        )
    return is_tracer(old)


_dropped: set[type] = set()


def _printer(module: Module) -> str:
    """Plain nested constructors; `_show` replaces this with the full printing."""
    inside = ", ".join(f"{k}={short(v)}" for k, v in vars(module).items())
    return f"{type(module).__name__}({inside})"


def set_printer(printer: Any) -> None:
    """Let a later room say how a Module prints."""
    global _printer
    _printer = printer


# --- the pytree ---------------------------------------------------------------------------


class _Hole:
    """The place of a child in a skeleton."""

    def __repr__(self) -> str:
        return "*"


HOLE = _Hole()


class Static:
    """A value compared by content and type, so that 1, 1.0 and True differ."""

    __slots__ = ("key", "value")

    def __init__(self, value: Any):
        self.value = value
        self.key = static_key(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return repr(self.value)


def static_key(value: Any) -> Any:
    """A hashable that is equal for values of the same type and content."""
    cls = type(value)
    if cls in (list, tuple):
        return (cls, tuple(map(static_key, value)))
    if cls is dict:
        return (cls, tuple((static_key(k), static_key(v)) for k, v in value.items()))
    if cls is float:
        return (cls, value.hex())
    if isinstance(value, np.generic):
        return (cls, value.dtype, value.tobytes())  # of dates: the unit, which `cls` lacks
    if cls is complex:
        return (cls, value.real.hex(), value.imag.hex())
    if cls in (range, slice):
        return (cls, static_key(value.start), static_key(value.stop), static_key(value.step))
    if cls is decimal.Decimal:
        return (cls, value.as_tuple())
    if cls in (datetime.datetime, datetime.time):  # equal in two zones is not the same
        return (cls, repr(value))
    if cls is frozenset:  # in the order in which it will be read
        return (cls, tuple(map(static_key, value)))
    try:
        hash(value)
    except TypeError:
        return (cls, id(value))
    return (cls, value)


class _Skeleton:
    """What of a Module is not children: its attributes with holes where the children stand."""

    __slots__ = ("parts", "paths")

    def __init__(self, parts: tuple[tuple[str, Any], ...], paths: tuple[_tree.Path, ...]):
        self.parts, self.paths = parts, paths

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Skeleton) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.parts)

    def fill(self, cls: type[Module], children: Any) -> Module:
        """A Module of this skeleton with other children; `__init__` is not called."""
        new = object.__new__(cls)
        children = tuple(children)
        rest = iter(children)
        new.__dict__.update((name, _filled(part, rest)) for name, part in self.parts)
        odd = [p for p, c in zip(self.paths, children, strict=True) if not _is_child(c)]
        if odd:  # jax.tree.map may put anything in an array's place; it stays a child
            object.__setattr__(new, "_odd", frozenset(odd))
        return new


class _Branch:
    """A container inside a Module: which kind, an empty specimen, and its parts."""

    __slots__ = ("key", "keys", "parts", "specimen")

    def __init__(self, container: Any, keys: tuple[Any, ...], parts: tuple[Any, ...]):
        kind = _tree.kind_of(container)
        assert kind is not None
        self.specimen = kind.rebuild(container, [None] * len(keys))
        self.keys, self.parts = keys, parts
        names = tuple(container.names) if isinstance(container, _tree.NamedList) else ()
        self.key = (type(container), keys, names, parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Branch) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"{type(self.specimen).__name__}{self.parts!r}"


def _filled(part: Any, rest: Iterator[Any]) -> Any:
    if part is HOLE:
        return next(rest)
    if isinstance(part, Static):
        return part.value
    kind = _tree.kind_of(part.specimen)
    assert kind is not None
    return kind.rebuild(part.specimen, [_filled(p, rest) for p in part.parts])


def _is_child(value: Any) -> bool:
    """Whether a value is one child of the pytree: an array, a Module, some other pytree node."""
    if _tree.is_array(value) or isinstance(value, (Module, _tree.Node)):
        return True
    return _tree.kind_of(value) is _tree.PYTREE or (
        _tree.kind_of(value) is _tree.FROZEN_DATACLASS and _registered(value)
    )


def _registered(value: Any) -> bool:
    return default_registry.flatten_one_level(value) is not None


class _Key:
    """The key path of a child inside a Module's containers, as one JAX key."""

    __slots__ = ("path",)

    def __init__(self, path: _tree.Path):
        self.path = path

    def __str__(self) -> str:
        return "".join(map(str, self.path))

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


def _split(
    value: Any, path: _tree.Path, children: list[tuple[Any, Any]], odd: frozenset[Any]
) -> Any:
    """Put the children below `value` into the list; return the skeleton of the rest."""
    if path in odd or _is_child(value):
        children.append((path[0] if len(path) == 1 else _Key(path), value))
        return HOLE
    kind = _tree.kind_of(value)
    if kind is None:
        return Static(value)
    pairs = kind.parts(value)
    new = tuple(_split(part, (*path, key), children, odd) for key, part in pairs)
    return _Branch(value, tuple(key for key, _ in pairs), new)


_LOOK = 64  # how many Modules are taken apart between two looks for a cycle


def _refuse_cycle(module: Module) -> None:
    """An error for a Module below itself, before JAX runs out of stack: it does not recover."""
    run.flattened += 1
    if run.flattened % _LOOK == 0:
        for _ in _tree.walk_nodes(module):
            pass


def _flatten_with_keys(module: Module) -> tuple[list[tuple[Any, Any]], _Skeleton]:
    _refuse_cycle(module)
    children: list[tuple[Any, Any]] = []
    odd = getattr(module, "_odd", frozenset())
    parts = tuple(
        (name, _split(value, (GetAttrKey(name),), children, odd))
        for name, value in vars(module).items()
    )
    paths = tuple(key.path if isinstance(key, _Key) else (key,) for key, _ in children)
    return children, _Skeleton(parts, paths)


def _flatten(module: Module) -> tuple[list[Any], _Skeleton]:
    children, skeleton = _flatten_with_keys(module)
    return [child for _, child in children], skeleton


# --- train and test mode ------------------------------------------------------------------


class _Restore:
    """What `trainmode` and `testmode` return: a context manager that restores what was."""

    def __init__(self, before: list[tuple[Module, Any]]):
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: Any) -> None:
        for module, active in self._before:
            module.__dict__["active"] = active


def modules(tree: Any) -> Iterator[tuple[_tree.Path, Module]]:
    """Every Module of a tree with its path, parents first."""
    return ((path, m) for path, m in _tree.walk_nodes(tree) if isinstance(m, Module))


def _set_mode(who: str, model: Any, mode: Any, active: bool | None) -> _Restore:
    if mode not in (None, "auto"):
        raise ValueError(f'{who} expects no mode or "auto", got {mode!r}.')
    layers = [m for _, m in modules(model) if "active" in vars(m)]
    before = [(m, m.__dict__["active"]) for m in layers]
    for m in layers:
        m.__dict__["active"] = None if mode == "auto" else active
    return _Restore(before)


def trainmode(model: Any, mode: str | None = None) -> _Restore:
    """Set every layer of a model, or of a part, to train mode until it is set otherwise.

    Args:
        model: any tree of Modules.
        mode: `"auto"` gives the choice back: train mode inside `gradient`,
            `train` and `trainstep`, test mode outside.

    Returns:
        A context manager that restores, when its block ends, what was.

    Example:
        >>> import fluxax as fx
        >>> layer = fx.Dropout(0.5)
        >>> with fx.trainmode(layer):
        ...     layer.active
        True
        >>> layer.active
    """
    return _set_mode("trainmode", model, mode, True)


def testmode(model: Any, mode: str | None = None) -> _Restore:
    """Set every layer of a model, or of a part, to test mode; see `trainmode`."""
    return _set_mode("testmode", model, mode, False)


testmode.__dict__["__test__"] = False  # pytest: not a test


def is_training(layer: Module) -> bool:
    """Whether a layer is in train mode: as set by hand, else inside an objective of ours."""
    active = getattr(layer, "__dict__", {}).get("active")
    return run.training if active is None else active
