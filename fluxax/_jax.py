"""Everything private of JAX that fluxax leans on, in one place.

What has a public address is taken from there, unless importing it costs too much; what can be told
from how JAX behaves is. The rest is looked up so that importing fluxax survives its absence.
`_jax_parts` says of each private part what needs it, what happens without it, and whether it holds;
`docs/design/capture.md` says what each is for.
"""

from __future__ import annotations

import copyreg
import importlib
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _find(module: str, name: str) -> Any:
    """What stands under a name in a module, `None` if it does not."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


Tracer: Any = _find("jax.core", "Tracer")
ShapedArray: Any = _find("jax.core", "ShapedArray")
eval_jaxpr: Any = _find("jax.core", "eval_jaxpr")
_trace_context: Any = _find("jax._src.config", "trace_context")
_clear_all_caches: Any = _find("jax._src.util", "clear_all_caches")

#: In public it is `jax.extend.core.get_opaque_trace_state`, and importing that takes 40 ms.
_trace_state: Any = _find("jax._src.core", "get_opaque_trace_state")

#: The trace itself, which knows the one around it.
_trace_object: Any = _find("jax._src.core", "unsafe_get_current_trace")

_trace_context_of_thread: Any = _find("jax._src.core", "trace_ctx")

#: Makes JAX look at the setting of its compilation cache once more.
reset_cache: Any = _find("jax.experimental.compilation_cache.compilation_cache", "reset_cache")

#: The class of concrete arrays; `type(x) is ArrayImpl` is how generated guards know one.
ArrayImpl: type = _find("jax._src.array", "ArrayImpl") or type(jnp.zeros(()))

#: The class of functions that `jax.jit` returns.
JitFunction: type = type(jax.jit(lambda: None))

#: Functions that are objects around a function: one in a model is the same one in a copy of it.
WRAPPERS: tuple[type, ...] = (JitFunction, jax.custom_jvp, jax.custom_vjp, jnp.ufunc)


def jaxprs_in_params(params: Any) -> Iterator[Any]:
    """The programs among the parameters of an equation, alone or in a tuple."""
    for value in params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(inner, "jaxpr", inner)  # a closed one may be another class
            if hasattr(inner, "eqns"):
                yield inner


def current_trace() -> Any:
    """The JAX trace that is running in this thread, to be compared with `==`.

    Raises:
        RuntimeError: if this JAX does not tell.
    """
    try:
        return running_trace()
    except Exception:
        raise RuntimeError(no_part("traces")) from None


def running_trace() -> Any:
    """What JAX says of it."""
    return (_trace_state or _find("jax.extend.core", "get_opaque_trace_state"))()


@cache
def no_trace() -> Any:
    """What `running_trace` gives where nothing is traced: a new thread traces nothing."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(running_trace()))
    thread.start()
    thread.join()
    return found[0]


def forget_traces() -> None:
    """Forget what was traced, but not what is compiled, if JAX can.

    A `jax.jit` function or the body of a scan that reads a global keeps, in JAX, the value that the
    global had at its first trace.
    """
    if holds("forget"):
        _clear_all_caches()
    else:
        jax.clear_caches()


def beside(host: Any, like: Any) -> Any:
    """A NumPy array on the device of another array, as firmly there as that one; compiles nothing.

    JAX compiles anew where a committed array comes in an uncommitted one's place.
    """
    firm = type(like) is ArrayImpl and like.committed
    return jax.device_put(host, like.sharding if firm else None)


def alias(array: Any) -> Any:
    """Another array object that has the same memory; a copy where JAX makes none."""
    if isinstance(array, np.ndarray):
        return array.view()
    if type(array) is not ArrayImpl or not holds("alias"):
        return jnp.copy(array)
    where, firm = array.sharding, array.committed
    make: Any = ArrayImpl
    return make(array.aval, where, array._arrays, committed=firm, _skip_checks=True)


def weak(array: Any) -> Any:
    """The same numbers with a weak type, as `jnp.full(3, 1.0)` has one: it gives way to others.

    Raises:
        ValueError: for a dtype that no array with a weak type can have.
    """
    kind = {"f": 0.0, "i": 0, "c": 0j}.get(np.dtype(array.dtype).kind)
    with jax.enable_x64(np.dtype(array.dtype).name in ("float64", "int64", "complex128")):
        made = None if kind is None else jnp.full(array.shape, kind).at[...].set(array)
    if made is None or (made.dtype, made.weak_type) != (array.dtype, True):
        raise ValueError(f"JAX {jax.__version__} makes no {array.dtype} array with a weak type.")
    return beside(made, array)


def tracing() -> bool:
    """Whether some JAX transformation is tracing in this thread."""
    return current_trace() != no_trace()


def is_tracer(value: Any) -> bool:
    """Whether a value stands for an array in a JAX trace."""
    return isinstance(value, Tracer)


def is_key(array: Any) -> bool:
    """Whether an array holds JAX random keys."""
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def _reduce_by_name(function: Any) -> Any:
    """Pickle what wraps a function by its name, as Python does with plain functions.

    Without this `pickle` and `copy.deepcopy` refuse every model with `jnp.tanh`, `jax.nn.relu` or
    `jnp.add` in it: they look at the function inside, which is not what stands under the name.
    """
    found: Any = sys.modules.get(getattr(function, "__module__", ""))
    name: Any = getattr(function, "__qualname__", None) or getattr(function, "__name__", "")
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is function else function.__reduce_ex__(2)


for _cls in WRAPPERS:
    copyreg.pickle(_cls, _reduce_by_name)


def trace_object() -> Any:
    """The trace that is running in this thread, itself; `None` if this JAX does not give it."""
    return _trace_object() if _trace_object is not None and holds("tracers") else None


class undisturbed:
    """A context after which the running trace is the one before, though Ctrl-C came between.

    JAX notes which trace runs at every operation; an interrupt in there leaves another one for good
    (JAX 0.12: none), and then no operation of this thread works any more. One that comes while C
    compares things of JAX's arrives as a ValueError with its traceback for a text: it is put right.
    """

    def __enter__(self) -> None:
        self.before = trace_object()
        self.watching = jax.debug_nans.get_local(), jax.debug_infs.get_local()

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if kind is None:
            return
        jax.debug_nans.set_local(self.watching[0])  # JAX turns them off in places
        jax.debug_infs.set_local(self.watching[1])
        if self.before is not None and trace_object() is not self.before:
            _trace_context_of_thread.set_trace(self.before)
        if kind is ValueError and str(error).rstrip().endswith("KeyboardInterrupt:"):
            raise KeyboardInterrupt from error


def traces_around() -> list[Any]:
    """The trace that is running in this thread, and those around it, as far as JAX tells."""
    found, trace = [], trace_object()
    while trace is not None:
        found.append(trace)
        trace = getattr(trace, "parent_trace", None)
    return found


def detached(value: Any, around: list[Any]) -> Any:
    """What a tracer stands for, seen from some traces that are still running.

    One of theirs stays as it is: it carries a derivative of a function that has not ended.
    """
    while isinstance(value, Tracer) and not any(_trace_of(value) is t for t in around):
        inner = getattr(value, "primal", None)
        if inner is None:
            inner = value.to_concrete_value()
        if inner is None:
            break
        value = inner
    return value


def _trace_of(tracer: Any) -> Any:
    return getattr(tracer, "_trace", None)


def trace_settings() -> Any:
    """Every JAX setting that a traced program depends on, as one hashable.

    Where JAX does not tell, no two are equal: no program is used again.
    """
    return _trace_context() if holds("settings") else object()


def inner_function(f: Any) -> Any:
    """The function that a `jnp.ufunc` is made of, or that anything else says it wraps."""
    return getattr(f, "_func", None) or getattr(f, "__wrapped__", None)


def jitted_like(function: Any, f: Any) -> Any:
    """A `jax.jit` of a function with the static arguments of another one.

    Others of its options say where and how it runs, which is the outer program's choice.
    """
    numbers, names = statics(f)
    return jax.jit(function, static_argnums=numbers, static_argnames=names)


_statics: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def statics(f: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which arguments of a jit function are static: their positions and their names."""
    found = _statics.get(f)
    if found is None:
        state = f.__getstate__()  # what pickle would ask for
        found = tuple(state["static_argnums"]), tuple(state["static_argnames"])
        _statics[f] = found
    return found


def cut(jaxpr: Any, invars: list[Any], eqns: list[Any], outvars: list[Any]) -> Any:
    """A part of a jaxpr, for `eval_jaxpr`: some of its equations, between other variables."""
    info = jaxpr.debug_info.with_unknown_names()
    return jaxpr.replace(invars=invars, eqns=eqns, outvars=outvars, debug_info=info)


def concrete(value: Any) -> Any:
    """The number or array behind a tracer of an uncompiled run; other values as they are.

    Raises:
        RuntimeError: if this JAX does not tell.
    """
    while isinstance(value, Tracer):
        if not holds("values"):
            raise RuntimeError(no_part("values"))
        inner = value.to_concrete_value()
        if inner is None:
            return value
        value = inner
    return value


class _Showing(threading.local):
    """Whether a function of the user's runs uncompiled in this thread."""

    shown = False

    @property
    def now(self) -> bool:
        return self.shown

    @now.setter
    def now(self, value: bool) -> None:
        if value:
            _show_values()
        self.shown = value


showing = _Showing()


@cache
def _show_values() -> None:
    """Let tracers of uncompiled gradients answer with their values, in our runs only.

    `float(loss)`, `print(loss)` and `f"{loss:.3f}"` inside an objective fail, or show a tracer,
    in `jax.grad`, although the value is there; no way without a patch was found.
    """
    classes: set[Any] = set()
    see = lambda x: classes.add(type(x)) or x
    jax.vjp(see, 1.0)
    jax.jvp(see, (1.0,), (1.0,))
    for cls in classes:
        for name, use in _ANSWERS.items():
            _with_value(cls, name, use)


_ANSWERS: dict[str, Any] = {
    "__float__": float,
    "__int__": int,
    "__complex__": complex,
    "__repr__": repr,
    "__str__": str,
    "__format__": format,
    "tolist": lambda v: v.tolist(),
}


def _with_value(cls: Any, name: str, use: Any) -> None:
    original = getattr(cls, name)

    def method(self: Any, *args: Any) -> Any:
        value = concrete(self) if showing.shown else self
        return original(self, *args) if value is self else use(value, *args)

    setattr(cls, name, method)


# --- versions -----------------------------------------------------------------------------

#: The first and the last version of JAX with which every private part was tried.
FIRST_TRIED, LAST_TRIED = (0, 10), (0, 12)


def was_tried() -> bool:
    """Whether this JAX is one of those that fluxax was tried with."""
    major, minor = jax.__version__.split(".")[:2]
    return FIRST_TRIED <= (int(major), int(minor)) <= LAST_TRIED


def tried_versions() -> str:
    """The versions that fluxax was tried with, in words."""
    return " to ".join(".".join(map(str, v)) for v in (FIRST_TRIED, LAST_TRIED))


class _Failed:
    """What `_jax_parts` found out about a JAX that was not tried."""

    find: Any = None  # gives, by part, a sentence about it if it doesn't hold


failed = _Failed()


def holds(part: str) -> bool:
    """Whether a private part of JAX is as it was; `_jax_parts` lists them."""
    return was_tried() or part not in failed.find()


def no_part(part: str) -> str:
    """The sentence about a private part that doesn't hold."""
    return failed.find()[part]
