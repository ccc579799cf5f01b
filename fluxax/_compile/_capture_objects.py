"""What objects, classes and modules are made of: their attributes, and what methods read."""

from __future__ import annotations

import collections
import enum
import types
from collections.abc import Iterable
from typing import Any

import jax

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._forms import Form, Slot
from fluxax._compile._poison import STEADY
from fluxax._compile._reads import (
    function_in,
    is_user_class,
    is_user_function,
    is_user_module,
)
from fluxax._compile._spec import Box, Const, Is, Part, Sidestep, Spec
from fluxax._compile._walk import FIXED_PHASE, Walk
from fluxax._module import Module, static_key

_UNSEEN_METHODS = frozenset(
    "__init__ __new__ __post_init__ __init_subclass__ __repr__ __str__ __del__ __reduce__ "
    "__reduce_ex__ __getstate__ __setstate__ __getnewargs__ __copy__ __deepcopy__ "
    "__class_getitem__ __set_name__ __sizeof__ __dir__ __format__ __setattr__ __delattr__".split()
)
_SINGLES = (None, True, False, ..., NotImplemented)
_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    type(vars(collections.namedtuple("_", "a"))["a"]),  # of a field of a named tuple
)

#: What a class says about itself, beside what stands in it; looked at if code mentions it.
_ABOUT_CLASSES = frozenset(("__name__", "__qualname__"))

#: Words of code that reads attributes by computed names.
_COMPUTING = frozenset("getattr() vars() dir() __dict__ attrgetter __getattribute__".split())


class Objects(Walk):
    """The part of a walk that takes objects, classes and modules."""

    # -- instances

    def take_object(self, obj: Any, label: str, form: Form) -> Spec:
        """An instance that holds no items: what stands in its dict and its slots."""
        module = isinstance(obj, Module)
        whole = module or self._whole > 0 or _tree.kind_of(obj) is not None or self._asks_all
        found = boxes.attributes(obj)
        if any(not isinstance(k, str) for k in found):
            return self._opaque(obj, label)
        names = [n for n, v in found.items() if whole or n in self.names or _single(v)]
        others = None if whole else frozenset(found) - set(names)
        box = self.box(obj, label, boxes.OBJECT, tuple(names), others)
        self._sizes(box, obj, form, list(found), whole or len(names) == len(found))
        self._class_of(box, type(obj))
        self._inside += module
        kept, chosen = self._train, type(obj).trainable if module else None
        for name in names:
            self._train = kept and (chosen is None or name in chosen)
            self._attribute(box, name, found[name], f"{label}.{name}")
        self._train = kept
        self._inside -= module
        return box

    def take_beside(self, box: Box, obj: Any, label: str, form: Form) -> None:
        """What an instance holds beside its items, all of it."""
        if form.has_dict and obj.__dict__ is obj:
            box.checks.append(("{v}.__dict__ is {v}", None))
        found = boxes.attributes(obj)
        self._sizes(box, obj, form, [k.name for k in found], True)
        self._class_of(box, type(obj))
        for key, value in found.items():
            self._attribute(box, key, value, f"{label}.{key}")
        self.tokens.append((label, "beside", tuple(map(str, found))))

    @property
    def _asks_all(self) -> bool:
        """Whether a stand-in for an attribute that nobody mentions could be told from it."""
        return self._fixed or "is()" in self.names or "type()" in self.names

    def _sizes(self, box: Box, obj: Any, form: Form, found: list[Any], whole: bool) -> None:
        """That no attribute has come or gone, of those that were found."""
        if form.has_dict and obj.__dict__ is not obj:
            size = len(obj.__dict__)
            box.checks.append(("len({v}.__dict__) == {k}", size))
            if not whole:  # one may go while another comes
                box.checks.append(("{v}.__dict__.keys() == {k}", frozenset(obj.__dict__)))
        for slot in form.slots:
            if slot not in found:
                box.checks.append(("no_slot({v}, {k})", slot.descriptor))

    def _attribute(self, box: Box, key: Any, value: Any, label: str) -> None:
        name = key.name if type(key) is Part else key
        real, self._real = self._real, False  # numbers of objects are settings, not variables
        if self._fixed and name not in self.names and type(value) is types.FunctionType:
            part: Spec = self._const(value, label, identical=True)  # the tripwire sees a call
        else:
            part = self.take(value, label)
        self._real = real
        read: Any = f"{{v}}.__dict__[{name!r}]"
        if isinstance(name, Slot):
            read = ("{k}.__get__({v})", name.descriptor)
        elif type(key) is Part and name == "default_factory":
            read = "{v}.default_factory"
        box.parts.append((read, key, part))

    # -- classes

    def _class_of(self, box: Box, cls: type) -> None:
        """What the methods of a user's class read; they are reached through the instance."""
        for base in cls.__mro__:
            if base is object or (id(base), FIXED_PHASE) in self._boxes or not is_user_class(base):
                continue
            self._class(box, base, constructed=False)
        if type(cls) is not type and is_user_class(type(cls)):
            self._class_of(box, type(cls))

    def _class(self, box: Box, cls: type, *, constructed: bool) -> None:
        kept, self._phase = self._phase, FIXED_PHASE
        try:
            self._class_parts(box, cls, constructed)
        finally:
            self._phase = kept

    def _class_parts(self, box: Box, cls: type, constructed: bool) -> None:
        inner = self.box(
            cls, cls.__name__, boxes.CLASS, len(vars(cls)), Is(cls), *map(Is, cls.__mro__)
        )
        inner.checks = [
            ("len({v}.__dict__) == {k}", len(vars(cls))),
            ("{v}.__mro__ is {k}", cls.__mro__),
        ]
        box.parts.append((("{k}", cls), Part("class", cls), inner))
        for name, value in vars(cls).items():
            function = function_in(value)
            if function is not None:
                wanted = name in self.names or (_is_dunder(name) and name not in _UNSEEN_METHODS)
                if not is_user_function(function):
                    self.tokens.append((f"{cls.__name__}.{name}", "value", Is(value)))
                    inner.checks.append((f"{{v}}.__dict__[{name!r}] is {{k}}", value))
                elif wanted or constructed:
                    self._method(inner, cls, name, value)
                elif isinstance(value, property):  # read as an attribute, by any name
                    self._property(inner, cls, name, value)
                else:
                    self.unlooked[id(function.__code__)] = name
            elif not isinstance(value, _DESCRIPTORS) and (
                name in self.names or not _is_dunder(name)
            ):
                self._class_attribute(inner, cls, name, value)

    def _method(self, inner: Box, cls: type, name: str, value: Any) -> None:
        """A method runs as it is; one that another takes the place of is another program."""
        label = f"{cls.__name__}.{name}"
        read: Any = f"function_in({{v}}.__dict__[{name!r}])"
        part = self.take(function_in(value), label)
        inner.parts.append((read, Part("method", name), part))
        self.tokens.append((label, "method", Is(type(value))))
        inner.checks.append((f"type({{v}}.__dict__[{name!r}]) is {{k}}", type(value)))

    def _property(self, inner: Box, cls: type, name: str, value: Any) -> None:
        mark, checks, parts = self.mark(), len(inner.checks), len(inner.parts)
        try:
            self._method(inner, cls, name, value)
        except Sidestep:
            self.back(mark)
            del inner.checks[checks:], inner.parts[parts:]

    def _class_attribute(self, inner: Box, cls: type, name: str, value: Any) -> None:
        """Any name may be computed; what cannot be compared is in the way if code mentions it."""
        mark = self.mark()
        try:
            part = self.take(value, f"{cls.__name__}.{name}")
        except Sidestep:
            if name in self.names:
                raise
            return self.back(mark)
        inner.parts.append((f"{{v}}.__dict__[{name!r}]", Part("attribute", name), part))

    def take_class(self, cls: type, label: str) -> Spec:
        """A class that code names: its constructor may run, its attributes may be read."""
        spec = self._const(cls, label, identical=True)
        if not is_user_class(cls):
            return spec
        box = self.box(cls, label, boxes.CLASS_VALUE)
        box.checks.append(("{v} is {k}", cls))
        for name in _ABOUT_CLASSES & self.names:
            self.tokens.append((f"{label}.{name}", "value", static_key(getattr(cls, name))))
            box.checks.append((f"{{v}}.{name} == {{k}}", getattr(cls, name)))
        self._class_of(box, cls)
        for base in cls.__mro__:
            if base is not object and is_user_class(base):
                self._boxes.pop((id(base), FIXED_PHASE), None)  # again, now with its constructor
                self._class(box, base, constructed=True)
        return box

    def take_enum(self, member: enum.Enum, label: str) -> Spec:
        """An enum's member: there is one of it, so it is never copied."""
        kept, self._phase = self._phase, FIXED_PHASE
        try:
            box = self.box(member, label, boxes.ENUM, Is(member), tuple(vars(member)))
            box.checks.append(("{v} is {k}", member))
            space = vars(member)
            box.checks.append(("len({v}.__dict__) == {k}", len(space)))
            for name, value in space.items():
                if name != "__objclass__":
                    self._attribute(box, name, value, f"{label}.{name}")
            self._class_of(box, type(member))
        finally:
            self._phase = kept
        return box

    # -- modules

    def take_module(self, module: types.ModuleType, label: str) -> Spec:
        """A module: the attributes that code names, wherever it lives."""
        top = module.__name__.partition(".")[0]
        if top in STEADY and not is_user_module(module):
            how = boxes.steady(self.names)
            self.fixed_boxes.append(Box(module, label, 0, how, True))
            return self._const(module, label, identical=True)
        names = [n for n in vars(module) if n in self.names]
        absent = frozenset(self.names) - set(names)
        box = self.box(module, label, boxes.PYMODULE, Is(module), tuple(names))
        box.checks.append(("{v} is {k}", module))
        box.checks.append(("{k}.isdisjoint({v}.__dict__)", absent))
        if is_user_module(module):
            for name in names:
                part = self.take(vars(module)[name], f"{label}.{name}")
                box.parts.append((f"{{v}}.__dict__[{name!r}]", name, part))
        else:
            kept, self._phase = self._phase, FIXED_PHASE  # its own code reads it as it is
            self._module_values(box, module, names, label)
            self._phase = kept
        if self._fixed and self._computes:
            self._module_values(box, module, set(vars(module)) - set(names), label)
        return box

    def _module_values(self, box: Box, module: Any, names: Iterable[str], label: str) -> None:
        """What of a module can be compared; code is known by identity, until it is called."""
        for name in names:
            value = vars(module)[name]
            if isinstance(value, (types.FunctionType, types.ModuleType, type)):
                self.asks_type(value)
                self.tokens.append((f"{label}.{name}", "value", Is(value)))
                box.checks.append((f"{{v}}.__dict__[{name!r}] is {{k}}", value))
                part: Spec = Const(value, f"{label}.{name}", True)
            elif _is_dunder(name):
                continue
            else:
                mark = self.mark()
                try:
                    part = self.take(value, f"{label}.{name}")
                except Sidestep:
                    self.back(mark)
                    continue
            box.parts.append((f"{{v}}.__dict__[{name!r}]", Part("attribute", name), part))

    @property
    def _computes(self) -> bool:
        """Whether code that runs as it is may read attributes by names that it computes."""
        return not _COMPUTING.isdisjoint(self.names)

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
        words = {
            w for arg in getter.__reduce__()[1] if isinstance(arg, str) for w in arg.split(".")
        }
        if not words <= self.names:
            self.names |= words
            self._grown = True
        return self._const(getter, label, identical=True)


def _single(value: Any) -> bool:
    return any(value is v for v in _SINGLES)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
