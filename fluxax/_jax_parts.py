"""Each private part of JAX: what needs it, what happens without it, and whether it holds.

On a JAX that was tried (`_jax.was_tried`) nothing is tested. On another one all parts are, at the
first compile, each by its behaviour, in milliseconds; what needs a part that does not hold does
without it, runs uncompiled, or is refused. `python -m fluxax` shows the table.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax import _jax
from fluxax._errors import warn

REFUSED, UNCOMPILED, LESS = "refused", "uncompiled", "less"


class Part(NamedTuple):
    """A private part of JAX."""

    name: str
    what: str  # it is
    needs: str  # who leans on it
    without: str  # what happens if it is missing or changed
    how: str  # the same as one of the three words above
    test: Callable[[], Any]  # raises, or gives something false, if the part does not hold


_X = np.array([1.0, 2.0], np.float32)


def _arrays() -> bool:
    return {type(jnp.asarray(_X)), type(jax.device_put(_X))} == {_jax.ArrayImpl}


def _traces() -> bool:
    seen: list[bool] = []

    def f(x: Any) -> Any:
        outer = _jax.running_trace()
        jax.vmap(lambda v: seen.append(_jax.running_trace() == outer) or v)(x)
        seen.extend((_jax.running_trace() == outer, _jax.running_trace() != _jax.no_trace()))
        return x

    jax.make_jaxpr(f)(_X)
    jax.vjp(f, _X)
    return seen == [False, True, True] * 2 and _jax.running_trace() == _jax.no_trace()


def _statics() -> bool:
    f: Any = jax.jit(lambda x, n, k: x * n * k, static_argnums=1, static_argnames="k")
    state = f.__getstate__()
    return (list(state["static_argnums"]), list(state["static_argnames"])) == ([1], ["k"])


def _settings() -> bool:
    before = _jax._trace_context()
    with jax.enable_x64(not jax.config.jax_enable_x64):  # pyright: ignore[reportAttributeAccessIssue]
        other = _jax._trace_context()
    return other != before and _jax._trace_context() == before and isinstance(hash(before), int)


def _example() -> Any:
    return jax.make_jaxpr(lambda x: (y := x[1:2] + 1, y * 3))(_X)


def _evaluation() -> bool:  # nothing is compiled: one trace is as the other
    closed = _example()
    again = jax.make_jaxpr(lambda x: _jax.eval_jaxpr(closed.jaxpr, closed.consts, x))(_X)
    return str(again) == str(closed)


def _cut() -> bool:
    jaxpr = _example().jaxpr
    starts = [e.params["start_indices"] for e in jaxpr.eqns if e.primitive.name == "slice"]
    middle = jaxpr.eqns[-1].invars[0]
    part = _jax.cut(jaxpr, [middle], jaxpr.eqns[-1:], jaxpr.outvars[1:])
    found = jax.make_jaxpr(lambda x: _jax.eval_jaxpr(part, [], x))(_X[:1])
    return starts == [(1,)] and str(found) == str(jax.make_jaxpr(lambda x: [x * 3])(_X[:1]))


def _forgetting() -> bool:
    traces: list[int] = []
    helper = jax.jit(lambda x: traces.append(1) or x)
    jax.make_jaxpr(lambda x: helper(x))(_X)
    _jax._clear_all_caches()
    jax.make_jaxpr(lambda x: helper(x))(_X)
    return len(traces) == 2


def _aliases() -> bool:
    array: Any = jnp.asarray(_X)
    make: Any = _jax.ArrayImpl
    again = make(array.aval, array.sharding, array._arrays, committed=False, _skip_checks=True)
    same = again.unsafe_buffer_pointer() == array.unsafe_buffer_pointer()
    return same and again is not array and np.array_equal(np.asarray(again), _X)


def _values() -> bool:
    seen: list[Any] = []

    def see(value: Any) -> Any:
        shown = value.to_concrete_value()
        while isinstance(shown, _jax.Tracer):
            shown = shown.to_concrete_value()
        seen.append(shown)
        return value

    jax.vjp(lambda x: jax.vjp(see, see(x))[0], 2.0)
    jax.make_jaxpr(see)(1.0)
    return seen == [2.0, 2.0, None]


def _tracers() -> bool:
    seen: list[bool] = []

    def see(value: Any) -> Any:
        trace = _jax._trace_object()
        weakref.ref(trace)
        seen.append(value._trace is trace and trace.parent_trace is around)
        return value

    around = _jax._trace_object()
    jax.vjp(see, 2.0)
    _jax._trace_context_of_thread.set_trace(around)
    return seen == [True] and _jax._trace_object() is around


def _misses() -> bool:
    made: Any = jax.jit(lambda x: x)
    kept = callable(made.__getstate__()["cache_miss"]) and callable(made._cache_miss)
    made._clear_cache()
    return kept and made._cache_size() == 0


def _ufuncs() -> bool:
    plain = lambda a, b: a + b
    return _jax.inner_function(jnp.frompyfunc(plain, 2, 1)) is plain


def _shapes(atoms: Any) -> list[tuple[int, ...]]:
    return [v.aval.shape for v in atoms]


def _equation(f: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
    """The last equation of a program, with the shapes around it and in the programs in it."""
    closed = jax.make_jaxpr(f)(*(jax.ShapeDtypeStruct(s, np.float32) for s in shapes))
    eqn = closed.jaxpr.eqns[-1]
    inner = [(_shapes(j.invars), _shapes(j.outvars)) for j in _jax.jaxprs_in_params(eqn.params)]
    return _shapes(eqn.invars), _shapes(eqn.outvars), inner


def _calls() -> bool:
    found = _equation(jax.jit(lambda a, b: (b + 1, a * b.sum())), (1,), (2,))
    return found == ([(1,), (2,)], [(2,), (1,)], [([(1,), (2,)], [(2,), (1,)])])


def _conds() -> bool:
    branch = lambda a, b: (b, a)
    *found, inner = _equation(
        lambda i, a, b: lax.cond(i > 0, branch, lambda a, b: (b * 2, a * 3), a, b), (), (1,), (2,)
    )
    return found == [[(), (1,), (2,)], [(2,), (1,)]] and inner == [([(1,), (2,)], [(2,), (1,)])] * 2


def _scans() -> bool:
    def loop(k: Any, c: Any, xs: Any) -> Any:
        return lax.scan(lambda c, x: (c + k.sum() + x.sum(), x * 2), c, xs)

    found = _equation(loop, (1,), (2,), (5, 3))
    return found == ([(1,), (2,), (5, 3)], [(2,), (5, 3)], [([(1,), (2,), (3,)], [(2,), (3,)])])


PARTS = [
    Part(
        "arrays",
        "jax._src.array.ArrayImpl, the class of arrays",
        "programs, updates",
        "an error",
        REFUSED,
        _arrays,
    ),
    Part(
        "traces",
        "get_opaque_trace_state, which trace is running",
        "layers that write their state",
        "an error",
        REFUSED,
        _traces,
    ),
    Part(
        "settings",
        "trace_context, the settings a program depends on",
        "compiled functions",
        "they run uncompiled",
        UNCOMPILED,
        _settings,
    ),
    Part(
        "evaluation",
        "eval_jaxpr, which runs a traced program",
        "compiled functions",
        "they run uncompiled",
        UNCOMPILED,
        _evaluation,
    ),
    Part(
        "cut",
        "parts of a jaxpr, evaluated alone",
        "the rules' arithmetic on single numbers, done together",
        "it is done leaf by leaf",
        LESS,
        _cut,
    ),
    Part(
        "forget",
        "clear_all_caches, which forgets traces",
        "methods that read data",
        "compiled programs are forgotten too",
        LESS,
        _forgetting,
    ),
    Part("alias", "arrays that share memory", "gradient(f, x, x)", "a copy", LESS, _aliases),
    Part(
        "values",
        "to_concrete_value, the number behind a tracer",
        "uncompiled functions that ask for numbers",
        "an error where one asks",
        LESS,
        _values,
    ),
    Part(
        "tracers",
        "unsafe_get_current_trace and trace_ctx, the running trace itself",
        "Ctrl-C in JAX; uncompiled functions that store values where nobody looks",
        "JAX may not survive the one, and its tracers stay in the other",
        LESS,
        _tracers,
    ),
    Part(
        "misses",
        "what a jit function calls where C does not know what to do",
        "states whose memory a step takes over",
        "nothing is taken over",
        LESS,
        _misses,
    ),
    Part(
        "ufuncs",
        "the function in a jnp.ufunc",
        "functions that use the user's own ufunc",
        "they run uncompiled",
        LESS,
        _ufuncs,
    ),
    Part(
        "statics",
        "__getstate__ of a jit function, which tells its static arguments",
        "functions that use the user's own jit functions",
        "they run uncompiled",
        LESS,
        _statics,
    ),
    Part("calls", "operands of a jit", "None in gradients, numbers", "fewer of both", LESS, _calls),
    Part("cond", "operands of a cond", "None in gradients, numbers", "fewer of both", LESS, _conds),
    Part("scan", "operands of a scan", "None in gradients, numbers", "fewer of both", LESS, _scans),
]


def failure(part: Part) -> str | None:
    """What is wrong with a part, `None` if it holds; to be called where nothing is traced."""
    try:
        return None if part.test() else "it has changed"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def all_failures() -> dict[str, str]:
    """By name: what is wrong with the parts that do not hold. Tests them all, in a new thread."""
    found: dict[str, str] = {}

    def look() -> None:
        for part in PARTS:
            wrong = failure(part)
            if wrong is not None:
                found[part.name] = wrong

    with contextlib.ExitStack() as stack:
        thread = threading.Thread(target=look)
        stack.callback(thread.join)
        thread.start()
    return found


@cache
def _sentences() -> dict[str, str]:
    """By name: a sentence about each part that does not hold on a JAX that was not tried."""
    by_name = {part.name: part for part in PARTS}
    return {
        name: f"fluxax leans on a private part of JAX that JAX {jax.__version__} does not have as "
        f"it was: {by_name[name].what} ({wrong}). {by_name[name].needs} need it. fluxax was tried "
        f"with JAX {_jax.tried_versions()}: install one of these, or see `python -m fluxax`."
        for name, wrong in all_failures().items()
    }


_jax.failed.find = _sentences
_warned: set[str] = set()


def look() -> None:
    """Before something is compiled: warn, once, of a JAX that was not tried.

    Raises:
        RuntimeError: if a part is missing without which nothing works.
    """
    if _jax.was_tried():
        return
    broken = _sentences()
    for part in PARTS:
        if part.how == REFUSED and part.name in broken:
            raise RuntimeError(broken[part.name])
    if jax.__version__ not in _warned:
        _warned.add(jax.__version__)
        lost = [f"{p.needs}: {p.without}" for p in PARTS if p.name in broken]
        what = f"Some private parts of it have changed ({'; '.join(lost)})." if lost else ""
        warn(
            f"fluxax was tried with JAX {_jax.tried_versions()}, not with {jax.__version__}. "
            f"{what or 'The private parts of it that fluxax leans on are as they were.'} "
            "`python -m fluxax` shows them."
        )


def no_compiling() -> str | None:
    """Why nothing can be compiled with this JAX, if so."""
    look()
    if _jax.was_tried():
        return None
    broken = _sentences()
    found = [p for p in PARTS if p.how == UNCOMPILED and p.name in broken]
    return f"{found[0].what} is not as it was in JAX {jax.__version__}" if found else None
