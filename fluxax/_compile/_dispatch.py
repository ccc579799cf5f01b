"""Programs as `jax.jit` functions whose slow path is ours.

A `jax.jit` function runs in C once it has run. Whenever it cannot, it calls a Python function of
JAX's, its *cache miss*: at the first call, after `jax.clear_caches()`, under another setting of
JAX's. Two things go wrong there, and both are mended by standing in front of that function.

- An interrupt can come between the program and the return of its results. If the program had taken
  over memory of its arguments, these would be gone. So it gets copies of them there.
- If it raises, C remembers that call as one to be left to Python, for good, and caches in between
  remember half of it. So after a failure everything is made anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fluxax._between import at_rest, readers, wait
from fluxax._jax import beside, is_key, undisturbed
from fluxax.kernels import not_taken


class ShapeMiss(Exception):
    """The program was called with arrays of other shapes or types than it was traced for."""


def no_leaks() -> Any:
    """A context for our own traces, in which JAX does not look for tracers that outlive them.

    We keep some to compare them; `jax_check_tracer_leaks` would call that an error. What the user's
    function stores is found in another way, and does not stay a tracer.
    """
    return jax.check_tracer_leaks(False)


def jitted(
    function: Callable[..., Any],
    name: str,
    *,
    donated: tuple[int, ...] = (),
    options: dict[str, Any] | None = None,
) -> Any:
    """A function compiled at its first call; after one that failed, as if there had been none.

    Args:
        function: what is traced, again whenever JAX forgets it.
        name: what profiles and logs call the program.
        donated: which arguments the program takes over.
        options: XLA's; none if it can't compile the program with these.
    """
    slow = _Slow(function, name, donated, options)
    made: Any = slow.make()
    kind: Any = type(made)
    try:
        state = made.__getstate__()
        call = kind.__new__(kind)
        call.__setstate__({**state, "cache_miss": slow})
        call.__dict__.update(made.__dict__)
    except (AttributeError, TypeError, KeyError):  # another JAX: slower, but nothing is taken over
        return _named(function, name, options, ())
    slow.inside, slow.call = made._cache_miss, weakref.ref(call)
    return call


def weakly(method: Any) -> Callable[..., Any]:
    """A function that does as a method, and does not keep its object alive."""
    weak = weakref.WeakMethod(method)
    return lambda *inputs: weak()(*inputs)  # pyright: ignore[reportOptionalCall]


class Donating:
    """A method as a program that takes over the memory of some of its arguments.

    Not where JAX looks at the results of every call in Python and may raise, as `jax_debug_nans`
    has it: what such a call was given must still be there afterwards.

    Args:
        method: what is traced; its object, which has this one, is not kept alive.
        donated: which arguments are taken over.
        watched: what is traced instead where JAX looks on; it may give more for it to see.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        name: str,
        donated: tuple[int, ...],
        options: dict[str, Any] | None,
        watched: Callable[..., Any] | None = None,
    ):
        self.call = jitted(weakly(method), name, donated=donated, options=options)
        look = weakly(watched or method)
        self._make = lambda: jitted(look, name, options=options)
        self._watched: Any = None

    def trace(self, *arguments: Any) -> None:
        """Trace it and compile nothing; the first call goes on from there.

        Args:
            arguments: those of the first call, or what has their shapes and types.
        """
        with undisturbed(), no_leaks():
            self.call.trace(*arguments)

    @property
    def watched(self) -> Any:
        """The same, with nothing taken over."""
        self._watched = self._watched or looked_at(self._make())
        return self._watched


def watching() -> bool:
    """Whether JAX looks at results for NaN or infinities."""
    return _nans.value or _infs.value


_nans: Any = jax.debug_nans
_infs: Any = jax.debug_infs


def looked_at(call: Any) -> Callable[..., Any]:
    """A program run by JAX's Python code, which looks at what comes out.

    From C, JAX calls a hook for that, which is gone for good in a thread that has ever left a
    `jax.debug_nans(False)`, as JAX itself does here and there.
    """
    if not isinstance(getattr(call, "_cache_miss", None), _Slow):
        return call

    def look(*arguments: Any) -> Any:
        with undisturbed():
            return call._cache_miss(*arguments)[0]

    return look


class _Slow:
    """What runs when C does not know what to do with a call."""

    def __init__(self, function: Any, name: str, donated: tuple[int, ...], options: Any):
        self.function, self.name, self.donated = function, name, donated
        self.options = options
        self.inside: Any = None  # JAX's own function for that; `None` after a failure
        self.call: Any = None
        self.count = 0  # how often this has run since C began to remember

    def make(self) -> Any:
        return _named(self.function, self.name, self.options, self.donated)

    def __call__(self, *arguments: Any) -> Any:
        call = self.call()
        self.count += 1
        if self.count > call._cache_size():  # C knows this call, as one to be left to Python
            self.forget()
        try:
            result = at_rest(self._run, arguments)
        except ShapeMiss:  # the program is good, for others than these
            self.count -= 1
            raise
        except jax.errors.JaxRuntimeError as error:
            self.forget(entirely=True)
            if self.options is None or not not_taken(error):
                raise
            self.options = None
            return self(*arguments)
        except BaseException:
            self.forget(entirely=True)
            raise
        if readers:
            wait()
        return result

    def _run(self, arguments: tuple[Any, ...]) -> Any:
        self.inside = self.inside or self.make()._cache_miss
        kept = [
            jax.tree.map(duplicate, x) if i in self.donated else x for i, x in enumerate(arguments)
        ]
        with undisturbed(), no_leaks():
            return self.inside(*kept)

    def forget(self, *, entirely: bool = False) -> None:
        """Let C begin again; `entirely`: JAX too."""
        if entirely:
            self.inside = None
        self.count = 0
        self.call()._clear_cache()


def _named(function: Any, name: str, options: Any, donated: tuple[int, ...]) -> Any:
    def program(*inputs: Any) -> Any:
        with undisturbed():  # under `jax_disable_jit` this is all that runs
            return function(*inputs)

    program.__name__ = program.__qualname__ = name
    return jax.jit(program, donate_argnums=donated, compiler_options=options)


def duplicate(array: Any) -> Any:
    """A copy of an array, by way of the host, which compiles nothing."""
    if is_key(array):
        data = duplicate(jax.random.key_data(array))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    return beside(np.array(array), array)
