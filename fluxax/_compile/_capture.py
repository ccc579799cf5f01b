"""What a function reads from outside, and what its arguments are made of.

`Capture` walks from the arguments, then from the function: closure cells, defaults,
the globals its code names, bound objects, containers, and the same for every function
of the user's that it meets. The result is a tree of specs, a flat list of arrays, and
a key that is equal exactly when the same program may run.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import enum
import fractions
import functools
import operator
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._poison import FORBIDDEN, may_be_unsteady
from fluxax._compile._reads import Reads, is_user_class, is_user_file, is_user_function, reads_of
from fluxax._compile._spec import Again, Arr, Box, Const, How, Is, Num, Opaque, Sidestep, Spec, Tied
from fluxax._jax import ArrayImpl, JitFunction, Tracer
from fluxax._module import Module, static_key

_SAME = (
    str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), slice, range, complex,
    np.dtype, decimal.Decimal, fractions.Fraction, datetime.date, datetime.timedelta,
    pathlib.PurePath, re.Pattern,
)  # fmt: skip
_IDENTICAL = (types.BuiltinFunctionType, np.ufunc, enum.Enum, type(jax.numpy.float32))
_WRAPPERS = (JitFunction, functools._lru_cache_wrapper)
_UNSEEN_METHODS = frozenset(
    "__init__ __new__ __post_init__ __init_subclass__ __repr__ __str__ __del__ __reduce__ "
    "__reduce_ex__ __getstate__ __setstate__ __getnewargs__ __copy__ __deepcopy__ __class_getitem__ "
    "__set_name__ __sizeof__ __dir__ __format__".split()
)

_MOST_BYTES = 1 << 20
_TYPE_QUESTIONS = frozenset(("type()", "hasattr()", "isinstance()", "isscalar"))

#: What a number has been seen to do: it may become an input, or it must stay a constant.
INPUT, FIXED = "input", "fixed"


class Restart(Exception):
    """The walk met code that names more attributes than it knew of; walk again."""


class Capture:
    """One walk.

    Args:
        numbers: what is known of the numbers, by label.
        names: the attribute names that reached code mentions.
    """

    def __init__(self, numbers: dict[str, Any], names: set[str]):
        self.numbers, self.names = numbers, names
        self.arrays: list[Any] = []
        self.values: list[Any] = []  # numbers that are inputs
        self.labels: list[str] = []  # of arrays
        self.constants: dict[str, Any] = {}  # numbers that are not
        self.tokens: list[Any] = []
        self.trainable: list[bool] = []  # by array
        self._array_index: dict[int, int] = {}
        self._boxes: dict[tuple[int, str], Box | Opaque] = {}
        self._phase = "argument"  # the function's own copy of an argument has no derivative
        self._globals: set[tuple[int, str, str]] = set()
        self._count = 0
        self._grown = False
        self.fixed_codes: set[int] = set()  # code objects that may run as they are
        self.fixed_boxes: list[Box] = []  # and what they could write to
        self._inside = 0  # > 0 below a Module
        self._train = True  # whether arrays here may be trained
        self._whole = 0  # > 0 in an argument: every attribute counts
        self._real = False  # numbers here are arguments to differentiate
        self.real: dict[int, Num] = {}

    # -- the two roots

    def arguments(
        self, args: tuple[Any, ...], differentiated: tuple[bool, ...], ints: dict[int, bool]
    ) -> list[Spec]:
        """The specs of the arguments; `ints` says which top-level ints count as real numbers."""
        found = []
        self._whole += 1
        for i, arg in enumerate(args):
            self._real = self._train = differentiated[i]
            label = "model" if i == 0 and isinstance(arg, Module) else f"argument {i}"
            if type(arg) is int and differentiated[i] and ints.get(i, True):
                found.append(self._real_input(arg, label))
            else:
                found.append(self.take(arg, label))
        self._whole -= 1
        self._real, self._train = False, False
        return found

    def function(self, f: Any) -> Spec:
        """The spec of the function itself."""
        self._train, self._phase = False, "captured"
        found = self.take(f, "f")
        if self._grown:
            raise Restart
        return found

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.tokens)

    # -- one value

    def take(self, value: Any, label: str) -> Spec:
        """The spec of any value."""
        cls = type(value)
        if cls is ArrayImpl or cls is np.ndarray or isinstance(value, (jax.Array, np.ndarray)):
            return self._array(value, label)
        if cls in (int, float) or isinstance(value, np.generic):
            return self._number(value, label)
        if cls in _EXACT or isinstance(value, _SAME):
            return self._const(value, label, identical=False)
        if isinstance(value, _IDENTICAL) and not _bound(value):
            return self._const(value, label, identical=True)
        found = self._boxes.get((id(value), self._phase))
        if found is not None:
            self.tokens.append((label, "again", found.number))
            return Again(value, label, found.number)
        taker = _TAKERS.get(cls) or _taker(value)
        return taker(self, value, label)

    def _array(self, value: Any, label: str) -> Spec:
        if isinstance(value, Tracer):
            raise Sidestep(f"`{label}` belongs to another JAX transformation that is running")
        numpy = not isinstance(value, jax.Array)
        if numpy and (
            value.dtype.hasobject or value.dtype.kind in "SUVMm" or type(value) is not np.ndarray
        ):
            return self._opaque(value, label)
        if self._fixed:
            return self._fixed_array(value, label, numpy)
        index = self._array_index.get(id(value))
        if index is not None:
            self.trainable[index] |= self._train
            self.tokens.append((label, "tied", index, self._train))
            return Tied(value, label, index)
        index = self._array_index[id(value)] = len(self.arrays)
        self.arrays.append(value)
        self.labels.append(label)
        self.trainable.append(self._train)
        weak = False if numpy else value.aval.weak_type
        self.tokens.append((label, "array", numpy, value.shape, value.dtype, weak, self._train))
        return Arr(value, label, index, numpy, bool(self._inside))

    def _fixed_array(self, value: Any, label: str, numpy: bool) -> Spec:
        """An array that is reached only through a class: a constant, NumPy's by content."""
        if not numpy:
            return self._const(value, label, identical=True)
        if value.nbytes > _MOST_BYTES:
            raise Sidestep(
                f"a method reads the NumPy array `{label}`; make it a jnp array or an attribute"
            )
        box = self.box(value, label, boxes.ARRAY, value.shape, value.dtype, value.tobytes())
        box.checks.append(("same_array({v}, {k})", value.copy()))
        return box

    def _number(self, value: Any, label: str) -> Spec:
        if self._real and isinstance(value, (float, np.floating)):
            return self._real_input(value, label)
        if isinstance(value, np.generic) and value.dtype.kind not in "biufc":
            return self._const(value, label, identical=False)
        if self.promotes and self.numbers.get(label) == INPUT and _fits(value):
            return self._input(value, label)
        self.tokens.append((label, "number", static_key(value)))
        if not self._fixed and not isinstance(value, (bool, np.bool_)):
            self.constants[label] = value
        return Num(value, label, None)

    def _real_input(self, value: Any, label: str) -> Num:
        """A number to differentiate by."""
        spec = self._input(value, label)
        spec.real = True
        self.real[len(self.values) - 1] = spec
        return spec

    def _input(self, value: Any, label: str) -> Num:
        self.tokens.append((label, "input", type(value)))
        self.values.append(value)
        return Num(value, label, len(self.values) - 1)

    def _const(self, value: Any, label: str, *, identical: bool) -> Const:
        self.tokens.append((label, "value", Is(value) if identical else static_key(value)))
        return Const(value, label, identical)

    def _opaque(self, value: Any, label: str) -> Opaque:
        if self._fixed:
            raise Sidestep(f"a method names `{label}`, which cannot be compared between calls")
        self._count += 1
        self.tokens.append((label, "opaque", Is(type(value))))
        spec = self._boxes[id(value), self._phase] = Opaque(value, label, self._count)
        return spec

    def box(self, value: Any, label: str, how: How, *token: Any) -> Box:
        """Start a box: its type is checked and it can be referred to from below."""
        self._count += 1
        spec = self._boxes[id(value), self._phase] = Box(value, label, self._count, how)
        if self._fixed and how.now is not None:
            self.fixed_boxes.append(spec)
        self.tokens.append((label, how.name, Is(type(value)), *token))
        spec.checks.append(("type({v}) is {k}", type(value)))
        return spec

    @property
    def _fixed(self) -> bool:
        """Whether the walk is below a class: what is found runs as it is, and is constant."""
        return self._phase == "fixed"

    @property
    def promotes(self) -> bool:
        """Whether numbers may become inputs: not where code asks for their type."""
        return not self._fixed and self.names.isdisjoint(_TYPE_QUESTIONS)

    def mention(self, reads: Reads) -> None:
        """Note the attribute names that reached code uses, and questions it asks."""
        asked = {"type", "hasattr", *(("isinstance",) if self._fixed else ())} & set(reads.globals)
        names = reads.names | {f"{name}()" for name in asked}
        if not names <= self.names:
            self.names |= names
            self._grown = True

    # -- functions

    def take_function(self, f: types.FunctionType, label: str) -> Spec:
        if not is_user_function(f):
            return self._const(f, label, identical=True)
        code = f.__code__
        reads = reads_of(code)
        self.mention(reads)
        if self._fixed:
            self._fixed_function(f, reads)
        box = self.box(f, label, boxes.FUNCTION, Is(code))
        box.checks.append(("{v}.__code__ is {k}", code))
        for i, cell in enumerate(f.__closure__ or ()):
            spec = self._cell(cell, code.co_freevars[i])
            box.parts.append((f"{{v}}.__closure__[{i}]", ("cell", i), spec))
        self._values_of(
            box,
            f.__defaults__ or (),
            "{v}.__defaults__",
            "default",
            _default_names(code, len(f.__defaults__ or ())),
        )
        box.checks.append(("len({v}.__defaults__ or ()) == {k}", len(f.__defaults__ or ())))
        for name, value in (f.__kwdefaults__ or {}).items():
            box.parts.append(
                (f"{{v}}.__kwdefaults__[{name!r}]", ("kw", name), self.take(value, name))
            )
        for name, value in f.__dict__.items():
            part = self.take(value, f"{f.__name__}.{name}")
            box.parts.append((f"{{v}}.__dict__[{name!r}]", ("attr", name), part))
        box.checks.append(("len({v}.__dict__) == {k}", len(f.__dict__)))
        self._read_globals(box, f, reads.globals)
        return box

    def _fixed_function(self, f: types.FunctionType, reads: Reads) -> None:
        """A function that will run as it is must not do what the trace could not take back."""
        self.fixed_codes |= reads.codes
        code = f.__code__
        where = f"`{code.co_name}` ({code.co_filename}:{code.co_firstlineno})"
        if reads.writes_globals:
            raise Sidestep(f"{where} assigns the global `{reads.writes_globals}`")
        for name in reads.globals:
            value = f.__globals__.get(name)
            if (value is None and name in FORBIDDEN) or (
                value is not None and may_be_unsteady(value, reads.names)
            ):
                raise Sidestep(f"{where} may use `{name}`")

    def _read_globals(self, box: Box, f: types.FunctionType, names: tuple[str, ...]) -> None:
        space = f.__globals__
        for name in names:
            if (id(space), name, self._phase) in self._globals:
                continue
            self._globals.add((id(space), name, self._phase))
            if name in space:
                part = self.take(space[name], name)
                box.parts.append((f"{{v}}.__globals__[{name!r}]", ("global", name), part))
            else:
                self.tokens.append((name, "no global"))
                box.checks.append((f"{name!r} not in {{v}}.__globals__", None))

    def _cell(self, cell: types.CellType, name: str) -> Spec:
        found = self._boxes.get((id(cell), self._phase))
        if found is not None:
            self.tokens.append((name, "again", found.number))
            return Again(cell, name, found.number)
        try:
            content = cell.cell_contents
        except ValueError:
            box = self.box(cell, name, boxes.EMPTY_CELL)
            box.checks.append(("is_empty({v})", None))
            return box
        box = self.box(cell, name, boxes.CELL)
        box.parts.append(("{v}.cell_contents", "content", self.take(content, name)))
        return box

    def _values_of(self, box: Box, values: Any, reader: str, key: str, names: list[str]) -> None:
        for i, value in enumerate(values):
            box.parts.append((f"{reader}[{i}]", (key, i), self.take(value, names[i])))

    def take_method(self, m: types.MethodType, label: str) -> Spec:
        box = self.box(m, label, boxes.METHOD)
        box.parts.append(("{v}.__self__", "self", self.take(m.__self__, f"{label}.__self__")))
        box.parts.append(("{v}.__func__", "func", self.take(m.__func__, label)))
        return box

    def take_builtin_method(self, m: Any, label: str) -> Spec:
        owner = m.__self__
        box = self.box(m, label, boxes.BUILTIN_METHOD, m.__name__)
        box.checks.append(("{v}.__name__ == {k}", m.__name__))
        box.parts.append(("{v}.__self__", "self", self.take(owner, label)))
        return box

    def take_partial(self, p: functools.partial[Any], label: str) -> Spec:
        box = self.box(p, label, boxes.PARTIAL, len(p.args), tuple(p.keywords))
        box.checks.append(("len({v}.args) == {k}", len(p.args)))
        box.checks.append(("tuple({v}.keywords) == {k}", tuple(p.keywords)))
        box.parts.append(("{v}.func", "func", self.take(p.func, label)))
        for i, value in enumerate(p.args):
            box.parts.append(
                (f"{{v}}.args[{i}]", ("arg", i), self.take(value, f"{label}.args[{i}]"))
            )
        for name, value in p.keywords.items():
            box.parts.append((f"{{v}}.keywords[{name!r}]", ("kw", name), self.take(value, name)))
        return box

    def take_wrapper(self, w: Any, label: str) -> Spec:
        """A `jax.jit` or `lru_cache` of the user's: the function inside is what runs."""
        inner = getattr(w, "__wrapped__", None)
        if self._fixed and is_user_function(inner) and not isinstance(w, JitFunction):
            raise Sidestep(f"a method calls `{label}`, which remembers its results")
        if not is_user_function(inner) and not isinstance(
            inner, (types.MethodType, functools.partial)
        ):
            return self._const(w, label, identical=True)
        box = self.box(w, label, boxes.WRAPPER)
        box.parts.append(("{v}.__wrapped__", "wrapped", self.take(inner, label)))
        return box

    # -- containers

    def take_list(self, xs: list[Any], label: str) -> Spec:
        named = isinstance(xs, _tree.NamedList)
        names = tuple(xs.names) if named else ()
        box = self.box(xs, label, boxes.LIST, len(xs), names)
        box.checks.append(("len({v}) == {k}", len(xs)))
        if named:
            box.checks.append(("tuple({v}.names) == {k}", names))
        return self._items(box, xs, label)

    def take_tuple(self, xs: tuple[Any, ...], label: str) -> Spec:
        box = self.box(xs, label, boxes.TUPLE, len(xs))
        box.checks.append(("len({v}) == {k}", len(xs)))
        return self._items(box, xs, label)

    def take_deque(self, xs: Any, label: str) -> Spec:
        box = self.box(xs, label, boxes.DEQUE, len(xs), xs.maxlen)
        box.checks.append(("len({v}) == {k}", len(xs)))
        return self._items(box, xs, label)

    def _items(self, box: Box, xs: Any, label: str) -> Box:
        for i, x in enumerate(xs):
            read = (
                f"item({{v}}, {i})" if type(xs) is _tree.NamedList else f"{{v}}[{i}]"
            )  # NamedList's own is Python
            box.parts.append((read, i, self.take(x, f"{label}[{i}]")))
        return box

    def take_dict(self, d: dict[Any, Any], label: str) -> Spec:
        keys = tuple(d)
        if not all(
            isinstance(k, (str, int, float, tuple, enum.Enum, type(None), type)) for k in keys
        ):
            return self._opaque(d, label)
        box = self.box(d, label, boxes.DICT, static_key(keys))
        box.checks.append(("same(tuple({v}), {k})", keys))
        for i, (k, x) in enumerate(d.items()):
            if type(k) is str:
                box.parts.append((f"{{v}}[{k!r}]", k, self.take(x, f"{label}[{k!r}]")))
            else:
                box.parts.append((f"{{v}}[tuple({{v}})[{i}]]", k, self.take(x, f"{label}[{k!r}]")))
        return box

    def take_set(self, s: Any, label: str) -> Spec:
        if not all(isinstance(x, (str, int, float, bytes, enum.Enum, type(None))) for x in s):
            return self._opaque(s, label)
        content = tuple((type(x), x) for x in s)
        box = self.box(s, label, boxes.SET if isinstance(s, set) else boxes.FROZENSET, content)
        box.checks.append(("tuple((type(x), x) for x in {v}) == {k}", content))
        return box

    # -- objects, classes, modules

    def take_object(self, obj: Any, label: str) -> Spec:
        """An instance: all attributes of a model or an argument, else those that code mentions."""
        cls = type(obj)
        whole = isinstance(obj, Module) or self._whole > 0 or _tree.kind_of(obj) is not None
        attributes = getattr(obj, "__dict__", None)
        if attributes is None or any(type(k) is not str for k in attributes):
            return self._opaque(obj, label)
        names = [n for n in attributes if whole or n in self.names]
        box = self.box(obj, label, boxes.OBJECT, tuple(names), whole, len(attributes))
        box.checks.append(("len({v}.__dict__) == {k}", len(attributes)))
        self._class_of(box, cls)
        module = isinstance(obj, Module)
        self._inside += module
        kept, chosen = self._train, cls.trainable if module else None
        for name in names:
            self._train = kept and (chosen is None or name in chosen)
            self._attribute(box, name, attributes[name], label, module)
        self._train = kept
        self._inside -= module
        return box

    def _attribute(self, box: Box, name: str, value: Any, label: str, module: bool) -> None:
        real, self._real = self._real, False  # numbers of objects are settings, not variables
        part = self.take(value, f"{label}.{name}")
        self._real = real
        box.parts.append((f"{{v}}.__dict__[{name!r}]", name, part))

    def take_slots(self, obj: Any, label: str, slots: list[str]) -> Spec:
        names = [n for n in slots if hasattr(obj, n)]
        absent = [n for n in slots if n not in names]
        box = self.box(obj, label, boxes.SLOTS, tuple(names))
        box.checks += [(f"not hasattr({{v}}, {n!r})", None) for n in absent]
        self._class_of(box, type(obj))
        for name in names:
            box.parts.append(
                (f"{{v}}.{name}", name, self.take(getattr(obj, name), f"{label}.{name}"))
            )
        return box

    def _class_of(self, box: Box, cls: type) -> None:
        """What the methods of a user's class read; they are reached through the instance."""
        for base in cls.__mro__:
            if base is object or (id(base), "fixed") in self._boxes or not is_user_class(base):
                continue
            self._class(box, base, constructed=False)
        if type(cls) is not type and is_user_class(type(cls)):
            self._class_of(box, type(cls))

    def _class(self, box: Box, cls: type, *, constructed: bool) -> None:
        kept, self._phase = self._phase, "fixed"
        try:
            self._class_parts(box, cls, constructed)
        finally:
            self._phase = kept

    def _class_parts(self, box: Box, cls: type, constructed: bool) -> None:
        inner = self.box(cls, cls.__name__, boxes.CLASS, len(vars(cls)), Is(cls), *map(Is, cls.__mro__))
        inner.checks = [("len({v}.__dict__) == {k}", len(vars(cls))), ("{v}.__mro__ is {k}", cls.__mro__)]
        box.parts.append(("{k}", ("class", cls), inner))
        for name, value in vars(cls).items():
            function = function_in(value)
            if isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                continue  # of a slot
            if function is None:
                if name in self.names and not name.startswith("__"):
                    part = self.take(value, f"{cls.__name__}.{name}")
                    inner.parts.append((f"{{v}}.__dict__[{name!r}]", name, part))
                continue
            wanted = name in self.names or (name.startswith("__") and name not in _UNSEEN_METHODS)
            if (wanted or constructed) and is_user_function(function):
                reader = f"function_in({{v}}.__dict__[{name!r}])"
                inner.parts.append(
                    (reader, ("method", name), self.take(function, f"{cls.__name__}.{name}"))
                )

    def take_class(self, cls: type, label: str) -> Spec:
        """A class that code names: its constructor may run, its attributes may be read."""
        spec = self._const(cls, label, identical=True)
        if not is_user_class(cls):
            return spec
        box = self.box(cls, label, boxes.CLASS_VALUE)
        box.checks.append(("{v} is {k}", cls))
        self._class_of(box, cls)
        for base in cls.__mro__:
            if base is not object and is_user_class(base):
                self._boxes.pop((id(base), "fixed"), None)  # again, now with its constructor
                self._class(box, base, constructed=True)
        return box

    def take_module(self, module: types.ModuleType, label: str) -> Spec:
        """A module: a package's is constant, of the user's own the attributes that code mentions."""
        if not is_user_module(module):
            return self._const(module, label, identical=True)
        names = [n for n in vars(module) if n in self.names]
        absent = frozenset(self.names) - set(names)
        box = self.box(module, label, boxes.PYMODULE, Is(module), tuple(names))
        box.checks.append(("{v} is {k}", module))
        box.checks.append(("{k}.isdisjoint({v}.__dict__)", absent))
        for name in names:
            part = self.take(vars(module)[name], f"{label}.{name}")
            box.parts.append((f"{{v}}.__dict__[{name!r}]", name, part))
        return box

    def take_pytree(self, value: Any, label: str) -> Spec:
        """A registered pytree that is no Module: its children, and its definition as a constant."""
        structure = jax.tree.structure(value, is_leaf=lambda v: v is not value)
        try:
            box = self.box(value, label, boxes.PYTREE, structure)
        except TypeError:
            return self._opaque(value, label)
        box.checks.append(("structure({v}) == {k}", structure))
        for i, (key, part) in enumerate(_tree.PYTREE.parts(value)):
            box.parts.append((f"children({{v}})[{i}]", i, self.take(part, f"{label}{key}")))
        return box

    def take_getter(self, getter: Any, label: str) -> Spec:
        """`attrgetter` and its like: a constant that reads the attributes it was made for."""
        words = {w for arg in getter.__reduce__()[1] if isinstance(arg, str) for w in arg.split(".")}
        if not words <= self.names:
            self.names |= words
            self._grown = True
        return self._const(getter, label, identical=True)

    def take_rule(self, f: Any, label: str) -> Spec:
        """A `custom_jvp` or `custom_vjp`: JAX runs a user's rule after the trace, on no copies."""
        if is_user_function(getattr(f, "fun", None)):
            return self._opaque(f, label)
        return self._const(f, label, identical=True)

    def take_opaque(self, value: Any, label: str) -> Spec:
        return self._opaque(value, label)


_EXACT = frozenset((str, bytes, bool, type(None)))


def _bound(value: Any) -> bool:
    """Whether a builtin function is a method bound to some object."""
    owner = getattr(value, "__self__", None)
    return owner is not None and not isinstance(owner, (types.ModuleType, type))


def _fits(value: Any) -> bool:
    """Whether a number may be an input: an int must fit in 32 bits."""
    return not isinstance(value, int) or -(2**31) <= value < 2**31


def _default_names(code: types.CodeType, count: int) -> list[str]:
    """The names of the last `count` positional parameters."""
    return list(code.co_varnames[code.co_argcount - count : code.co_argcount])


def function_in(value: Any) -> Any:
    """The plain function inside what stands in a class body, or `None`."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property):
        return value.func
    return value if isinstance(value, types.FunctionType) else None


def is_user_module(module: types.ModuleType) -> bool:
    """Whether a module is the user's own, not an installed package's or Python's."""
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ == "__main__" or module.__spec__ is None
    return is_user_file(file)


def _pure_python(cls: type) -> bool:
    """Whether instances of a class are a dict of attributes and nothing hidden in C."""
    return all(base is object or base.__flags__ & (1 << 9) for base in cls.__mro__)


_CLOSED_PACKAGES = frozenset(
    "logging tqdm threading io queue random multiprocessing subprocess".split()
)
_NAMESPACES = (types.SimpleNamespace,)

Taker = Callable[[Capture, Any, str], Spec]

_TAKERS: dict[type, Taker] = {
    types.FunctionType: Capture.take_function,
    types.MethodType: Capture.take_method,
    types.BuiltinMethodType: Capture.take_builtin_method,
    functools.partial: Capture.take_partial,
    jax.custom_jvp: Capture.take_rule,
    jax.custom_vjp: Capture.take_rule,
    operator.attrgetter: Capture.take_getter,
    operator.itemgetter: Capture.take_getter,
    operator.methodcaller: Capture.take_getter,
    list: Capture.take_list,
    tuple: Capture.take_tuple,
    dict: Capture.take_dict,
    set: Capture.take_set,
    frozenset: Capture.take_set,
    collections.deque: Capture.take_deque,
    types.ModuleType: Capture.take_module,
}


def _taker(value: Any) -> Taker:
    """How to take a value whose exact type is not in the table."""
    cls = type(value)
    for base in (*_WRAPPERS,):
        if isinstance(value, base):
            return Capture.take_wrapper
    if isinstance(value, type):
        return Capture.take_class
    for base in (list, tuple, dict, types.ModuleType):
        if isinstance(value, base):
            return _TAKERS[base]
    if isinstance(value, _NAMESPACES):
        return Capture.take_object
    if cls.__module__.partition(".")[0] in _CLOSED_PACKAGES or cls.__module__ == builtins.__name__:
        return Capture.take_opaque
    if not _pure_python(cls):
        return Capture.take_pytree if _tree.kind_of(value) is _tree.PYTREE else Capture.take_opaque
    slots = [n for base in cls.__mro__ for n in _slots(base)]
    if slots and not isinstance(value, Module):
        if hasattr(value, "__dict__"):
            return Capture.take_opaque
        return lambda capture, v, label: capture.take_slots(v, label, slots)
    return Capture.take_object


def _slots(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [n for n in names if n not in ("__dict__", "__weakref__")]
