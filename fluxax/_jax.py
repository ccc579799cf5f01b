"""Everything private of JAX that fluxax leans on, in one place.

`docs/design/capture.md` says what each is needed for; `tests/test_jax_private.py`
checks each by its behaviour, so a JAX version that changes one says so there.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any

import jax
import numpy as np
from jax._src import core as _core

Tracer: Any = jax.core.Tracer
eval_jaxpr: Any = jax.core.eval_jaxpr

#: The class of concrete arrays; `type(x) is ArrayImpl` is how generated guards know one.
ArrayImpl: type = type(jax.device_put(np.zeros((), np.float32)))

#: The class of functions that `jax.jit` returns.
JitFunction: type = type(jax.jit(lambda: None))


def current_trace() -> Any:
    """The JAX trace that is running in this thread; compared by identity only."""
    return _core.unsafe_get_current_trace()


def tracing() -> bool:
    """Whether some JAX transformation is tracing in this thread."""
    return not _core.trace_state_clean()


def is_tracer(value: Any) -> bool:
    """Whether a value stands for an array in a JAX trace."""
    return isinstance(value, Tracer)


def is_key(array: Any) -> bool:
    """Whether an array holds JAX random keys."""
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _reduce_jit(function: Any) -> Any:
    """Pickle a `jax.jit` function by its name, as Python does with plain functions.

    Without this `pickle` refuses every model with `jnp.tanh` in it: it looks at the
    function inside, which is not what stands under the name.
    """
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return function.__qualname__ if found is function else function.__reduce__()


copyreg.pickle(JitFunction, _reduce_jit)  # type: ignore[arg-type]  # a C type
