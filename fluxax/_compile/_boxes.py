"""How each sort of box is copied: one entry a sort."""

from __future__ import annotations

import collections
import functools
import sys
import types
import weakref
from typing import Any

import jax

from fluxax import _instances, _tree
from fluxax._compile._forms import form_of
from fluxax._compile._poison import Poison
from fluxax._compile._spec import How, Part, Sidestep
from fluxax._jax import is_tracer, jitted_like

_BARE = frozenset((list, dict, tuple, set, frozenset, collections.deque, _tree.NamedList))


# --- instances: a builtin's items, attributes, slots ---------------------------------------


def blank(old: Any) -> Any:
    """An instance of an object's class on which no constructor has run."""
    if type(old) is _tree.NamedList:
        return _tree.NamedList(old, old.names)
    return blank_of(type(old), old.maxlen if isinstance(old, collections.deque) else None)


def blank_of(cls: Any, maxlen: int | None = None) -> Any:
    """An instance of a class on which no constructor has run, and no finaliser will."""
    try:
        new = _instances.blank(cls)
    except _instances.NoInstance as error:
        raise Sidestep(str(error)) from None
    if isinstance(new, collections.deque):
        collections.deque.__init__(new, (), maxlen)
    return new


def attributes(value: Any) -> dict[Any, Any]:
    """What stands in an instance's dict and slots; of a container as `Part`s, beside its items."""
    cls = type(value)
    if cls in _BARE:
        return {}
    form = form_of(cls)
    if form is None:
        return dict(vars(value))
    beside = form.base is not object and form.base is not types.SimpleNamespace
    found: dict[Any, Any] = {}
    if form.has_dict and value.__dict__ is not value:
        found.update(value.__dict__)
    for slot in form.slots:
        try:
            found[slot] = slot.descriptor.__get__(value)
        except AttributeError:
            continue
    if form.base is collections.defaultdict:
        found["default_factory"] = value.default_factory
    return {Part("attribute", k): v for k, v in found.items()} if beside else found


def _set_attributes(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    """Attributes that no reached code mentions are poison: reading one shows that it does."""
    form = form_of(type(old))
    if form is None or type(old) in _BARE:
        return
    found = {k.name if type(k) is Part else k: v for k, v in parts.items()}
    held = attributes(old) if form.slots else {}
    if form.has_dict and old.__dict__ is old:
        object.__setattr__(new, "__dict__", new)
    elif form.has_dict:
        space, cls, names = new.__dict__, type(old).__name__, tuple(old.__dict__)
        for name in names:
            if name in found:
                space[name] = found[name]
            else:
                space[name] = Poison(f"{cls}.{name}", (name, *names))
    for slot in form.slots:
        if slot in found:
            slot.descriptor.__set__(new, found[slot])
        elif slot in held:
            slot.descriptor.__set__(new, Poison(f"{type(old).__name__}.{slot}", (str(slot),)))
    if form.base is collections.defaultdict:
        new.default_factory = found["default_factory"]


def _about_instance(value: Any) -> dict[Any, Any]:
    """The class, and which dict holds the attributes."""
    cls = type(value)
    if cls in _BARE:
        return {}
    form = form_of(cls)
    found: dict[Any, Any] = {"__class__": cls}
    if form is not None and form.has_dict and value.__dict__ is not value:
        found["__dict__"] = value.__dict__
    return found


def _of_items(parts: dict[Any, Any]) -> dict[Any, Any]:
    return {k: v for k, v in parts.items() if type(k) is not Part}


def _beside(parts: dict[Any, Any]) -> dict[Any, Any]:
    return {k: v for k, v in parts.items() if type(k) is Part}


def _fill_object(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    _set_attributes(new, old, parts)


def _fill_list(new: list[Any], old: list[Any], parts: dict[Any, Any]) -> None:
    items = _of_items(parts)
    list.__setitem__(new, slice(None), [items[i] for i in range(len(items))])
    _set_attributes(new, old, _beside(parts))


def _fill_deque(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    items = _of_items(parts)
    collections.deque.extend(new, [items[i] for i in range(len(items))])
    _set_attributes(new, old, _beside(parts))


def _fill_dict(new: dict[Any, Any], old: dict[Any, Any], parts: dict[Any, Any]) -> None:
    put: Any = base_of_dict(old)
    for key in items_of(old):
        put.__setitem__(new, key, parts[key])
    _set_attributes(new, old, _beside(parts))


def base_of_dict(d: Any) -> Any:
    return collections.OrderedDict if isinstance(d, collections.OrderedDict) else dict


def items_of(d: Any) -> dict[Any, Any]:
    """The items of a dict of any class, in its order; no method of the user's runs."""
    return dict(base_of_dict(d).items(d))


def _fill_set(new: Any, old: Any, parts: dict[Any, Any]) -> None:
    set.update(new, set.__iter__(old))
    _set_attributes(new, old, parts)


def _build_tuple(old: Any, parts: dict[Any, Any]) -> Any:
    items = _of_items(parts)
    new = tuple.__new__(type(old), [items[i] for i in range(len(items))])
    _set_attributes(new, old, _beside(parts))
    return new


def _build_value(old: Any, parts: dict[Any, Any]) -> Any:
    """A number, a text or a frozen set of a class of the user's, with its attributes."""
    form = form_of(type(old))
    assert form is not None
    base: Any = form.base
    new = base.__new__(type(old), frozenset(old) if base is frozenset else base(old))
    _set_attributes(new, old, parts)
    return new


#: What can be assigned to a function, beside what stands in its dict.
FUNCTION_NAMES = (
    "__code__", "__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__doc__",
    "__module__",
)  # fmt: skip
#: And to a class; its docstring and module stand in its dict.
CLASS_NAMES = ("__name__", "__qualname__", "__bases__")


def _about_function(f: Any) -> dict[Any, Any]:
    found = {name: getattr(f, name) for name in FUNCTION_NAMES}
    return found | {("kw", k): v for k, v in (f.__kwdefaults__ or {}).items()}


def _about_class(cls: type) -> dict[Any, Any]:
    return {name: vars(type)[name].__get__(cls) for name in CLASS_NAMES}


def _about_partial(p: Any) -> dict[Any, Any]:
    found = {"func": p.func, "args": p.args, "keywords": p.keywords}
    return found | {("kw", k): v for k, v in p.keywords.items()}


def _about_array(a: Any) -> dict[Any, Any]:
    """Equal tuples may be two objects, so the parts of a shape count."""
    found = {("shape", i): n for i, n in enumerate(a.shape)}
    return {**found, "dtype": a.dtype, "writeable": a.flags.writeable}


@functools.cache
def _own_names() -> frozenset[str]:
    """What JAX and Python put on jit functions and on `lru_cache`s."""
    jitted, cached = jax.jit(lambda: None), functools.lru_cache(lambda: None)
    return frozenset((*vars(jitted), *vars(cached), "answers"))


def attributes_of_wrapper(w: Any) -> dict[str, Any]:
    """What somebody has put on a `jax.jit` or `lru_cache`."""
    return {k: v for k, v in vars(w).items() if k not in _own_names()}


def _with_attributes(new: Any, old: Any, parts: dict[Any, Any]) -> Any:
    found = {k.name: v for k, v in parts.items() if type(k) is Part}
    for name in attributes_of_wrapper(old):
        label = f"{getattr(old, '__name__', 'f')}.{name}"
        new.__dict__[name] = found[name] if name in found else Poison(label, (name,))
    return new


# --- everything else -----------------------------------------------------------------------


def _fill_module(new: types.ModuleType, old: types.ModuleType, parts: dict[Any, Any]) -> None:
    for name, value in vars(old).items():
        if name == "__getattr__":  # makes attributes at their first use
            new.__dict__[name] = value
        else:
            new.__dict__[name] = Poison(f"{old.__name__}.{name}", (name,))
    new.__dict__.update({k.name if type(k) is Part else k: v for k, v in parts.items()})


def _fill_cell(new: types.CellType, old: Any, parts: dict[Any, Any]) -> None:
    del old
    new.cell_contents = parts["content"]


def _cell_now(cell: types.CellType) -> dict[Any, Any]:
    try:
        return {"content": cell.cell_contents}
    except ValueError:
        return {}


def _build_partial(old: functools.partial[Any], parts: dict[Any, Any]) -> Any:
    args = [parts["arg", i] for i in range(len(old.args))]
    new = functools.partial(parts["func"], *args, **{k: parts["kw", k] for k in old.keywords})
    new.__dict__.update({k.name: v for k, v in parts.items() if type(k) is Part})
    return new


def _cached_like(function: Any, old: Any) -> Any:
    """What a `lru_cache` is in a trace: itself, once a copy of its function has shown no effects.

    Python gives what its function gave when it was called first, whatever it would give now; and
    that call is remembered outside the trace.
    """

    answers: list[Any] = []

    def cached(*args: Any, **kwargs: Any) -> Any:
        hash((args, *kwargs.values()))  # as Python does
        function(*args, **kwargs)
        _check_lasting(old, *args, *kwargs.values())
        watch = sys.getprofile()
        sys.setprofile(None)
        try:
            with jax.ensure_compile_time_eval():
                value = old(*args, **kwargs)
        finally:
            sys.setprofile(watch)
        _check_lasting(old, value)
        answers.append((args, kwargs, value))
        return value

    cached.__dict__.update(__wrapped__=function, answers=answers)
    return cached


def _check_lasting(cached: Any, *parts: Any) -> None:
    for part in parts:
        if not _is_lasting(part):
            kind = type(part).__name__
            raise Sidestep(f"it calls `{cached.__name__}`, which remembers a {kind}")


def _is_lasting(value: Any) -> bool:
    """Whether nobody can change a value, and it is no copy: it is the same inside a trace."""
    if type(value) is tuple:
        return all(map(_is_lasting, value))
    return type(value) in _LASTING or (isinstance(value, jax.Array) and not is_tracer(value))


_LASTING = frozenset((bool, int, float, complex, str, bytes, type(None), type))


def _build_pytree(old: Any, parts: dict[Any, Any]) -> Any:
    structure = jax.tree.structure(old, is_leaf=lambda v: v is not old)
    return structure.unflatten([parts[i] for i in range(len(parts))])


def _list_now(v: Any) -> dict[Any, Any]:
    return {**dict(enumerate(list.__iter__(v))), **attributes(v)}


LIST = How("list", shell=blank, fill=_fill_list, now=_list_now, about=_about_instance)
DEQUE = How(
    "deque",
    shell=blank,
    fill=_fill_deque,
    now=lambda v: {**dict(enumerate(collections.deque.__iter__(v))), **attributes(v)},
    about=_about_instance,
)
DICT = How(
    "dict",
    shell=blank,
    fill=_fill_dict,
    now=lambda v: {**items_of(v), **attributes(v)},
    about=_about_instance,
)
SET = How(
    "set",
    shell=blank,
    fill=_fill_set,
    now=lambda v: {**dict.fromkeys(set.__iter__(v), True), **attributes(v)},
    about=_about_instance,
)
FROZENSET = How("frozenset", build=lambda old, _: old)
TUPLE = How("tuple", build=_build_tuple, now=attributes, about=_about_instance)
VALUE = How("value of a class", build=_build_value, now=attributes, about=_about_instance)
OBJECT = How("object", shell=blank, fill=_fill_object, now=attributes, about=_about_instance)
FUNCTION = How(  # its shell needs the cells: `_rebuild`
    "function", now=lambda f: dict(f.__dict__), about=_about_function
)
SPACE = How("namespace", build=lambda old, _: old)
CELL = How("cell", shell=lambda old: types.CellType(), fill=_fill_cell, now=_cell_now)
EMPTY_CELL = How(
    "empty cell", shell=lambda old: types.CellType(), fill=lambda *_: None, now=_cell_now
)
METHOD = How("method", build=lambda old, p: types.MethodType(p["func"], p["self"]))
BUILTIN_METHOD = How("builtin method", build=lambda old, p: getattr(p["self"], old.__name__))
PARTIAL = How("partial", build=_build_partial, now=lambda p: dict(p.__dict__), about=_about_partial)
PROXY = How(
    "mapping proxy", build=lambda old, parts: types.MappingProxyType({k: parts[k] for k in old})
)
WEAKREF = How("weak reference", build=lambda old, parts: weakref.ref(parts["target"]))
JITTED = How(
    "jit function",
    build=lambda old, p: _with_attributes(jitted_like(p["wrapped"], old), old, p),
    now=attributes_of_wrapper,
)
CACHED = How(
    "cached function",
    build=lambda old, p: _with_attributes(_cached_like(p["wrapped"], old), old, p),
    now=attributes_of_wrapper,
)
CLASS = How("class", build=lambda old, _: old, now=lambda cls: dict(vars(cls)), about=_about_class)
ENUM = How("enum member", build=lambda old, _: old, now=lambda v: dict(vars(v)))
ARRAY = How(
    "NumPy constant",
    build=lambda old, _: old,
    now=lambda a: {a.tobytes(): a},
    about=_about_array,
)
CLASS_VALUE = How("class value", build=lambda old, _: old)
#: What Python itself puts into a module.
OF_PYTHON = ("__builtins__", "__warningregistry__")
PYMODULE = How(
    "module",
    shell=lambda old: types.ModuleType(old.__name__),
    fill=_fill_module,
    now=lambda v: {k: x for k, x in vars(v).items() if k not in OF_PYTHON},
)
PYTREE = How("pytree", build=_build_pytree)


def steady(names: set[str]) -> How:
    """A module that is taken as constant: of what code mentions nothing may be assigned."""

    def now(module: Any) -> dict[Any, Any]:
        space = vars(module)
        found = {k: space[k] for k in sorted(names) if k in space}
        return {k: v for k, v in found.items() if not isinstance(v, types.ModuleType)}

    return How("steady module", now=now)


#: The sorts whose objects are told apart by `is`: two that become one are noticed.
APART = frozenset((LIST, DEQUE, DICT, SET, OBJECT, FUNCTION, VALUE))
