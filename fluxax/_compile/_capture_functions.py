"""What functions, and what wraps or binds them, read from outside: cells, defaults, globals."""

from __future__ import annotations

import builtins
import functools
import types
from typing import Any

import jax.numpy as jnp

from fluxax._compile import _boxes as boxes
from fluxax._compile._poison import FORBIDDEN, imported, may_be_unsteady, may_import
from fluxax._compile._reads import Reads, is_core, is_user_function, reads_of
from fluxax._compile._spec import Again, Arr, Box, How, Opaque, Part, Sidestep, Spec, Tied
from fluxax._compile._walk import Walk
from fluxax._jax import JitFunction, holds, inner_function, statics

#: JAX remembers the trace of a function that is given to one of these.
_REMEMBERING = frozenset(
    """associative_scan checkpoint cond fori_loop jit linear_transpose map pjit remat scan switch
    while_loop""".split()
)


_BUILTINS = dict(vars(builtins))

#: What a function says about itself; looked at if code mentions it.
_ABOUT = frozenset("__annotations__ __doc__ __module__ __name__ __qualname__".split())


class Functions(Walk):
    """The part of a walk that takes functions."""

    def take_function(self, f: types.FunctionType, label: str) -> Spec:
        if not is_user_function(f):
            if not is_core(f.__code__.co_filename):
                self.asks_type(f)
            return self._const(f, label, identical=True)
        code = f.__code__
        reads = reads_of(code)
        self.mention(reads)
        if self._fixed:
            self._fixed_function(f, reads)
        sizes = len(f.__defaults__ or ()), tuple(f.__kwdefaults__ or ()), tuple(f.__dict__)
        box = self.box(f, label, boxes.FUNCTION, code, *sizes)
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
        for name in _ABOUT & self.names:
            part = self.take(getattr(f, name), f"{f.__name__}.{name}")
            box.parts.append((f"{{v}}.{name}", ("about", name), part))
        self._read_globals(box, f, reads.globals)
        return box

    def _fixed_function(self, f: types.FunctionType, reads: Reads) -> None:
        """A function that will run as it is must not do what the trace could not take back."""
        self.fixed_codes |= reads.codes
        self.remembering |= not _REMEMBERING.isdisjoint(reads.names | set(reads.globals))
        code = f.__code__
        where = f"`{code.co_name}` ({code.co_filename}:{code.co_firstlineno})"
        if reads.writes_globals:
            raise Sidestep(f"{where} assigns the global `{reads.writes_globals}`")
        for one in reads.imports:
            if not may_import(one, f.__globals__, reads.names):
                raise Sidestep(f"{where}: {imported(one.name)}")
        if "__globals__" in reads.names:
            raise Sidestep(f"{where} reads `__globals__`")
        for name in reads.globals:
            value = f.__globals__.get(name)
            if (value is None and name in FORBIDDEN) or (
                value is not None and may_be_unsteady(value, reads.names)
            ):
                raise Sidestep(f"{where} may use `{name}`")

    def _read_globals(self, box: Box, f: types.FunctionType, names: tuple[str, ...]) -> None:
        space = f.__globals__
        known = self._globals.get((id(space), self._phase))
        if known is None:
            self._count += 1
            known = Box(space, "globals", self._count, boxes.SPACE, True)
            self._globals[id(space), self._phase] = known
            box.parts.append(("{v}.__globals__", ("space", ""), known))
        else:  # another namespace in this one's place would be another program
            again = Again(space, "globals", known.number, True)
            box.parts.append(("{v}.__globals__", ("space", ""), again))
        self.tokens.append(("globals", "namespace", known.number))
        for name in names:
            if (id(space), name, self._phase) in self._named:
                continue
            self._named.add((id(space), name, self._phase))
            if name in space:
                part = self.take(space[name], name)
                box.parts.append((f"{{v}}.__globals__[{name!r}]", ("global", name), part))
                continue
            self.tokens.append((name, "no global"))
            box.checks.append((f"{name!r} not in {{v}}.__globals__", None))
            value = vars(builtins).get(name)
            if value is not _BUILTINS.get(name):  # put there by somebody
                part = self.take(value, name)
                box.parts.append((f"builtin({name!r})", ("global", name), part))
            elif value is None:
                box.checks.append((f"builtin({name!r}) is None", None))

    def _cell(self, cell: types.CellType, name: str) -> Spec:
        found = self._boxes.get((id(cell), self._phase))
        if found is not None:
            self.tokens.append((name, "again", found.number))
            return Again(cell, name, found.number, self._fixed)
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
        sizes = len(p.args), tuple(p.keywords), tuple(p.__dict__)
        box = self.box(p, label, boxes.PARTIAL, *sizes)
        box.checks.append(("len({v}.args) == {k}", len(p.args)))
        box.checks.append(("tuple({v}.keywords) == {k}", tuple(p.keywords)))
        box.parts.append(("{v}.func", "func", self.take(p.func, label)))
        for i, value in enumerate(p.args):
            box.parts.append(
                (f"{{v}}.args[{i}]", ("arg", i), self.take(value, f"{label}.args[{i}]"))
            )
        for name, value in p.keywords.items():
            box.parts.append((f"{{v}}.keywords[{name!r}]", ("kw", name), self.take(value, name)))
        box.checks.append(("len({v}.__dict__) == {k}", len(p.__dict__)))
        for name, value in p.__dict__.items():
            part = self.take(value, f"{label}.{name}")
            box.parts.append((f"{{v}}.__dict__[{name!r}]", Part("attribute", name), part))
        return box

    def take_wrapper(self, w: Any, label: str) -> Spec:
        """A `jax.jit` or `lru_cache` of the user's: the function inside is what runs."""
        inner = getattr(w, "__wrapped__", None)
        if self._fixed and is_user_function(inner) and not isinstance(w, JitFunction):
            raise Sidestep(f"a method calls `{label}`, which remembers its results")
        self.remembering |= self._fixed
        if not is_user_function(inner) and not isinstance(
            inner, (types.MethodType, functools.partial)
        ):
            return self._const(w, label, identical=True)
        if isinstance(w, JitFunction):
            if not holds("statics"):
                return self._opaque(w, label)
            box = self._wrapper(w, label, boxes.JITTED, statics(w))
            box.checks.append(("statics({v}) == {k}", statics(w)))
            return box
        return self._cached(w, label)

    def _wrapper(self, w: Any, label: str, how: How, *token: Any) -> Box:
        box = self.box(w, label, how, *token)
        box.parts.append(("{v}.__wrapped__", "wrapped", self.take(w.__wrapped__, label)))
        found = boxes.attributes_of_wrapper(w)
        names = [n for n in found if n in self.names or self._fixed]
        self.tokens.append((label, "attributes", tuple(names)))
        box.checks.append(("len({v}.__dict__) == {k}", len(vars(w))))
        for name in names:
            part = self.take(found[name], f"{label}.{name}")
            box.parts.append((f"{{v}}.__dict__[{name!r}]", Part("attribute", name), part))
        return box

    def _cached(self, w: Any, label: str) -> Spec:
        """A `lru_cache` of the user's: a trace asks itself, so it must read nothing of a trace."""
        mark = self.mark()
        box = self._wrapper(w, label, boxes.CACHED)
        box.checks.append(("same_answers({v}, {k})", []))  # what a trace asked it: `guard_for`
        if self.names.isdisjoint(_ABOUT_CACHES) and not _reads_arrays(box):
            return box
        self.back(mark)
        return self._opaque(w, label)

    def take_rule(self, f: Any, label: str) -> Spec:
        """A `custom_jvp` or `custom_vjp`: JAX runs a user's rule after the trace, on no copies."""
        if is_user_function(inner_function(f)):
            return self._opaque(f, label)
        return self._const(f, label, identical=True)

    def take_numpy_function(self, f: Any, label: str) -> Spec:
        """A function of NumPy's or JAX's own kind; one made of a user's may read anything."""
        of_objects = any("O->O" in kind for kind in getattr(f, "types", ())[:1])
        hidden = isinstance(f, jnp.ufunc) and not holds("ufuncs")
        if is_user_function(inner_function(f)) or of_objects or hidden:
            return self._opaque(f, label)
        return self._const(f, label, identical=True)


def _reads_arrays(box: Box) -> bool:
    """Whether a function, or one that it calls, reads arrays or what cannot be compared."""
    parts = [part for _, _, part in box.parts]
    return any(
        _reads_arrays(part) if isinstance(part, Box) else isinstance(part, (Arr, Tied, Opaque))
        for part in parts
    )


_ABOUT_CACHES = frozenset("cache_clear cache_info cache_parameters".split())


def _default_names(code: types.CodeType, count: int) -> list[str]:
    """The names of the last `count` positional parameters."""
    return list(code.co_varnames[code.co_argcount - count : code.co_argcount])
