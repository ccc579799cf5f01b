"""What objects, classes and modules are made of: their attributes, and what methods read."""

from __future__ import annotations

import types
from typing import Any

import jax

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._reads import (
    function_in,
    is_user_class,
    is_user_function,
    is_user_module,
)
from fluxax._compile._spec import Box, Is, Spec
from fluxax._compile._walk import Walk
from fluxax._module import Module

_UNSEEN_METHODS = frozenset(
    "__init__ __new__ __post_init__ __init_subclass__ __repr__ __str__ __del__ __reduce__ "
    "__reduce_ex__ __getstate__ __setstate__ __getnewargs__ __copy__ __deepcopy__ "
    "__class_getitem__ __set_name__ __sizeof__ __dir__ __format__".split()
)


class Objects(Walk):
    """The part of a walk that takes objects, classes and modules."""

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
        inner = self.box(
            cls, cls.__name__, boxes.CLASS, len(vars(cls)), Is(cls), *map(Is, cls.__mro__)
        )
        inner.checks = [
            ("len({v}.__dict__) == {k}", len(vars(cls))),
            ("{v}.__mro__ is {k}", cls.__mro__),
        ]
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
        """A module: a package's is constant; of the user's own, the attributes that code names."""
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
        words = {
            w for arg in getter.__reduce__()[1] if isinstance(arg, str) for w in arg.split(".")
        }
        if not words <= self.names:
            self.names |= words
            self._grown = True
        return self._const(getter, label, identical=True)
