"""What a program is made of, as lists that can be compared.

Two traces of one function are the same program if they do the same operations in the same order
on the same operands. Names of variables do not count, nor do the objects that JAX makes anew in
every trace: functions among the parameters count by their code and by what they close over.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fluxax._compile._reads import is_core, is_user_file
from fluxax._jax import Tracer, is_key
from fluxax._primitives import inside

_NUMBER = "number"  # how the tokens of single numbers begin
_WHOLE = 1 << 20  # bytes of a constant that are all looked at; of larger ones as many, spread
_DEEP = 12  # how deep objects among the parameters are looked into


class Content(NamedTuple):
    """A traced program and what is done with its outputs.

    Attributes:
        tokens: constants, operations and outputs, in their order.
        eqns: by token: the operation that it is of, if any.
        returned: what becomes of the outputs.
    """

    tokens: list[Any]
    eqns: list[Any]
    returned: list[Any]


def content_of(closed: Any, returned: list[Any]) -> Content:
    """The content of a closed jaxpr."""
    reader = _Reader()
    tokens, eqns = reader.program(closed)
    return Content(tokens, eqns, returned)


def difference(old: Content, new: Content) -> tuple[str, Any] | None:
    """What two contents differ in, in words, and the operation at hand, if any."""
    if old.tokens == new.tokens:
        pairs = zip(old.returned, new.returned, strict=False)
        if len(old.returned) == len(new.returned) and all(_same(a, b) for a, b in pairs):
            return None
        return "what it returns", None
    at = next(
        (i for i, (a, b) in enumerate(zip(old.tokens, new.tokens, strict=False)) if a != b),
        min(len(old.tokens), len(new.tokens)),
    )
    if max(at + 1, len(old.tokens)) > len(new.tokens):
        return "it has fewer operations", None
    eqn = new.eqns[at]
    if eqn is None:
        return "a constant is another", _first_use(new, at)
    name, values = eqn.primitive.name, _leaf(old.tokens[at], new.tokens[at])
    return f"`{name}` {'has ' + values if values else 'is another operation'}", eqn


def _leaf(a: Any, b: Any) -> str:
    """The numbers in which two tokens differ, if that is all."""
    if type(a) is type(b) is tuple and len(a) == len(b):
        if a[:1] == b[:1] == (_NUMBER,):
            return f"{b[1]} where it had {a[1]}"
        return next((_leaf(x, y) for x, y in zip(a, b, strict=True) if x != y), "")
    return ""


def alike(old: Content, new: Content) -> bool:
    """Whether two contents have the same operations in another order, or on other operands."""
    return sorted(map(_loose, old.tokens)) == sorted(map(_loose, new.tokens))


def _loose(token: Any) -> str:
    return repr((token[0], token[2:])) if token[0] == "operation" else repr(token[:1])


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:
        return a is b


def place_of_operation(eqn: Any) -> str:
    """The user's line that an operation comes from, if JAX says so."""
    trace = getattr(getattr(eqn, "source_info", None), "traceback", None)
    for frame in getattr(trace, "frames", None) or ():
        if is_user_file(frame.file_name) and frame.file_name[:1] != "<":
            return f"{frame.file_name}:{frame.line_num}"
    return ""


def _first_use(content: Content, at: int) -> Any:
    """The first operation that has the constant of a token among its operands."""
    name = content.tokens[at][1] if at < len(content.tokens) else None
    for token, eqn in zip(content.tokens, content.eqns, strict=True):
        if eqn is not None and name in token[1]:
            return eqn
    return None


class _Reader:
    """Reads programs; variables get numbers in the order in which they come."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}  # of objects, by id: cycles end
        self.alive: list[Any] = []

    def program(self, closed: Any) -> tuple[list[Any], list[Any]]:
        jaxpr = getattr(closed, "jaxpr", closed)
        numbers: dict[Any, int] = {}
        for var in (*jaxpr.constvars, *jaxpr.invars):
            numbers[var] = len(numbers)
        tokens: list[Any] = [("inputs", tuple(_aval(v) for v in jaxpr.invars))]
        eqns: list[Any] = [None]
        for var, const in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=False):
            tokens.append(("constant", numbers[var], self.of(const)))
            eqns.append(None)
        for eqn in jaxpr.eqns:
            operands = tuple([self._atom(v, numbers) for v in eqn.invars])
            for var in eqn.outvars:
                numbers[var] = len(numbers)
            parameters = tuple([(k, self.of(v)) for k, v in eqn.params.items()])
            outs = tuple([_aval(v) for v in eqn.outvars])
            tokens.append(("operation", operands, eqn.primitive.name, outs, parameters))
            eqns.append(eqn)
        tokens.append(("outputs", tuple([self._atom(v, numbers) for v in jaxpr.outvars])))
        eqns.append(None)
        return tokens, eqns

    def _atom(self, atom: Any, numbers: dict[Any, int]) -> Any:
        if hasattr(atom, "val"):  # a literal
            return "literal", _aval(atom), self.of(atom.val)
        return numbers.get(atom, -1)

    def of(self, value: Any, depth: int = _DEEP) -> Any:
        """The token of a parameter."""
        cls = type(value)
        if cls in _ATOMS:
            return value
        if cls in (bool, int):  # True and 1 are equal
            return cls, value
        if isinstance(value, (int, float, complex, np.generic)):  # JAX has classes of its own
            return cls, digest(np.asarray(value))
        if isinstance(value, np.dtype):
            return value
        if isinstance(value, enum.Enum):
            return cls, value.name
        if isinstance(value, (type, types.BuiltinFunctionType, types.CodeType)):
            return value
        if isinstance(value, Tracer):
            return "traced", _aval(value)
        if isinstance(value, (jax.Array, np.ndarray)):
            return digest(value)
        if depth == 0 or isinstance(value, (weakref.ref, types.ModuleType)):
            return cls
        if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
            return _inner(value)
        if cls in _FLAT:
            return cls, *[self.of(v, depth - 1) for v in value]
        return self._object(value, cls, depth - 1)

    def _object(self, value: Any, cls: type, depth: int) -> Any:
        """Something with parts, once: the second time it is known by its number."""
        if id(value) in self.seen:
            return "again", self.seen[id(value)]
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        if isinstance(value, dict):
            return cls, tuple([(self.of(k, depth), self.of(v, depth)) for k, v in value.items()])
        if isinstance(value, (set, frozenset)):
            return cls, tuple(sorted(repr(self.of(v, depth)) for v in value))
        if isinstance(value, (tuple, list)):
            return cls, tuple([self.of(v, depth) for v in value])
        parts = _PARTS[cls](value) if cls in _PARTS else _parts_of(value, cls)
        if parts is None:
            return value if _known_by_value(cls) else cls
        return cls, tuple([(k, self.of(v, depth)) for k, v in parts.items()])


_inners: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _inner(closed: Any) -> Any:
    """The token of a program inside; JAX has the same one in every trace, as for `jnp.where`."""
    read = lambda: ("program", tuple(_Reader().program(closed)[0]))
    if getattr(closed, "consts", ()):  # what it holds may be written to
        return read()
    try:
        found = _inners.get(closed)
        if found is None:
            found = _inners[closed] = read()
        return found
    except TypeError:  # another JAX, whose programs cannot be kept so: slower
        return read()


def _parts_of(value: Any, cls: type) -> dict[str, Any] | None:
    """What an object is made of; of JAX's own, a function that it wraps, or nothing."""
    if cls.__module__.startswith("jax"):
        wrapped = getattr(value, "f", None) if hasattr(value, "transforms") else None
        return None if wrapped is None else {"function": wrapped}
    return _attributes(value) or None


def _attributes(value: Any) -> dict[str, Any]:
    """What stands in the dict and the slots of an object; no method of it runs."""
    found = dict(getattr(value, "__dict__", None) or {})
    for cls in type(value).__mro__:
        for name, slot in vars(cls).items():
            if type(slot) is types.MemberDescriptorType and name[:2] != "__":
                try:
                    found[name] = slot.__get__(value)
                except AttributeError:
                    continue
    return found


def _function(f: types.FunctionType) -> dict[str, Any]:
    cells = [_content(cell) for cell in f.__closure__ or ()]
    if is_core(f.__code__.co_filename):  # JAX keeps traces and results there, too
        cells = [c for c in cells if callable(c) or type(c) in _PLAIN or hasattr(c, "transforms")]
    return {"code": f.__code__, "cells": cells, "defaults": f.__defaults__ or ()}


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


_PARTS: dict[type, Callable[[Any], dict[str, Any]]] = {
    types.FunctionType: _function,
    types.MethodType: lambda m: {"self": m.__self__, "function": m.__func__},
    functools.partial: lambda p: {"function": p.func, "args": p.args, "keywords": p.keywords},
    functools._lru_cache_wrapper: lambda w: {"function": w.__wrapped__},
}

_ATOMS = frozenset((type(None), str, bytes, type(Ellipsis), range))
_PLAIN = _ATOMS | {bool, int, float}
_FLAT = frozenset((tuple, list))


def _known_by_value(cls: type) -> bool:
    """Whether objects of a class without attributes compare, and are hashed, by what they are."""
    return cls.__eq__ is not object.__eq__ and cls.__hash__ not in (None, object.__hash__)


def _aval(atom: Any) -> Any:
    aval = getattr(atom, "aval", None)
    weak = getattr(aval, "weak_type", False)
    return getattr(aval, "shape", None), getattr(aval, "dtype", None), weak


def remembers(closed: Any) -> bool:
    """Whether JAX may remember the trace of a function of the user's that a program has inside.

    Then another trace of it would be the old one, with the values that it read then.
    """
    for eqn in getattr(closed, "jaxpr", closed).eqns:
        for inner in inside(eqn):
            about = getattr(getattr(inner, "debug_info", None), "func_src_info", None)
            file = about.rpartition(" at ")[2].rpartition(":")[0] if about else ""
            if is_user_file(file) or remembers(inner):
                return True
    return False


def digest(array: Any) -> Any:
    """An array by its bits: all of them up to a megabyte, as many spread over a larger one."""
    if isinstance(array, Tracer):
        return "traced", _aval(array)
    dtype, shape = array.dtype, array.shape
    weak = bool(getattr(getattr(array, "aval", None), "weak_type", False))
    if isinstance(array, jax.Array) and is_key(array):
        array = jax.random.key_data(array)
    flat = np.asarray(array).reshape(-1)
    if flat.size == 1:
        return _NUMBER, repr(flat[0].item()), str(dtype), shape, weak, flat.tobytes()
    if flat.nbytes > _WHOLE:
        flat = flat[:: flat.nbytes // _WHOLE + 1]
    bits = hashlib.blake2b(np.ascontiguousarray(flat).tobytes(), digest_size=16).digest()
    return str(dtype), shape, weak, bits
