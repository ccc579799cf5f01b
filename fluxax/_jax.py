"""Everything private of JAX that fluxax leans on, in one place.

`docs/design/capture.md` says what each is needed for; `tests/test_jax_private.py`
checks each by its behaviour, so a JAX version that changes one says so there.
"""

from __future__ import annotations

import copyreg
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import config as _config
from jax._src import core as _core
from jax._src import util as _util
from jax._src.array import ArrayImpl as _ArrayImpl
from jax._src.interpreters import ad as _ad
from jax._src.lax import lax as _lax

Tracer: Any = _core.Tracer
eval_jaxpr: Any = _core.eval_jaxpr
jaxprs_in_params: Any = _core.jaxprs_in_params

#: Forget what was traced, but not what is compiled: a `jax.jit` function or the body of a scan
#: that reads a global keeps, in JAX, the value that the global had at its first trace.
forget_traces: Any = _util.clear_all_caches

#: The class of concrete arrays; `type(x) is ArrayImpl` is how generated guards know one.
ArrayImpl: type = _ArrayImpl

#: The class of functions that `jax.jit` returns.
JitFunction: type = type(jax.jit(lambda: None))

#: Functions that are objects around a function: one in a model is the same one in a copy of it.
WRAPPERS: tuple[type, ...] = (JitFunction, jax.custom_jvp, jax.custom_vjp, jnp.ufunc)


def current_trace() -> Any:
    """The JAX trace that is running in this thread; compared by identity only."""
    return _core.unsafe_get_current_trace()


def beside(host: Any, like: Any) -> Any:
    """A NumPy array on the device of another array, as firmly there as that one; compiles nothing.

    JAX compiles anew where a committed array comes in an uncommitted one's place.
    """
    firm = type(like) is ArrayImpl and like.committed
    return jax.device_put(host, like.sharding if firm else None)


def alias(array: Any) -> Any:
    """Another array object that has the same memory."""
    if isinstance(array, np.ndarray):
        return array.view()
    if type(array) is not ArrayImpl:
        return jnp.copy(array)
    where, firm = array.sharding, array.committed
    return _ArrayImpl(array.aval, where, array._arrays, committed=firm, _skip_checks=True)


def weak(array: Any) -> Any:
    """The same numbers with a weak type, as `jnp.full(3, 1.0)` has one: it gives way to others."""
    return _lax._convert_element_type(array, weak_type=True)


def tracing() -> bool:
    """Whether some JAX transformation is tracing in this thread."""
    return not _core.trace_state_clean()


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


def traces_around() -> list[Any]:
    """The trace that is running in this thread, and those around it."""
    found, trace = [], current_trace()
    while trace is not None:
        found.append(trace)
        trace = getattr(trace, "parent_trace", None)
    return found


def detached(value: Any, around: list[Any]) -> Any:
    """What a tracer stands for, seen from some traces that are still running.

    One of theirs stays as it is: it carries a derivative of a function that has not ended.
    """
    while isinstance(value, Tracer) and not any(value._trace is t for t in around):
        inner = getattr(value, "primal", None)
        if inner is None:
            inner = value.to_concrete_value()
        if inner is None:
            break
        value = inner
    return value


def trace_settings() -> Any:
    """Every JAX setting that a traced program depends on, as one hashable."""
    return _config.trace_context()


def concrete(value: Any) -> Any:
    """The number or array behind a tracer of an uncompiled run; other values as they are."""
    while isinstance(value, Tracer):
        inner = value.to_concrete_value()
        if inner is None:
            return value
        value = inner
    return value


class _Showing(threading.local):
    now: bool = False


showing = _Showing()  # set while a function of the user's runs uncompiled in this thread


def _with_value(cls: Any, name: str, use: Any) -> None:
    """Let a tracer of an uncompiled gradient answer with its value, in our runs only.

    `float(loss)`, `print(loss)` and `f"{loss:.3f}"` inside an objective fail, or show a tracer,
    in `jax.grad`, although the value is there; no way without a patch was found.
    """
    original = getattr(cls, name)

    def method(self: Any, *args: Any) -> Any:
        value = concrete(self) if showing.now else self
        return original(self, *args) if value is self else use(value, *args)

    setattr(cls, name, method)


for _cls in (_ad.LinearizeTracer, _ad.JVPTracer):
    for _name, _use in {
        "__float__": float,
        "__int__": int,
        "__complex__": complex,
        "__repr__": repr,
        "__str__": str,
        "__format__": format,
        "tolist": lambda v: v.tolist(),
    }.items():
        _with_value(_cls, _name, _use)
