"""One XLA program for all tests of a file that ask for the same one."""

from __future__ import annotations

import contextlib
import functools
import unittest.mock
from collections.abc import Iterator
from typing import Any

from jax._src import compiler
from jax._src.interpreters import mlir


@contextlib.contextmanager
def shared_programs() -> Iterator[None]:
    """XLA compiles a program once for all tests that have the same one.

    For tests that differ in how a program is come by, hardly in what is computed; without this
    nearly all of their time is XLA's.
    """
    real, known = compiler.compile_or_get_cached, {}

    def compile_once(
        backend: Any,
        module: Any,
        devices: Any,
        options: Any,
        callbacks: Any,
        *more: Any,
        **named: Any,
    ) -> Any:
        if callbacks:
            return real(backend, module, devices, options, callbacks, *more, **named)
        text = module.operation.get_asm(enable_debug_info=False), options.SerializeAsString()
        if text not in known:
            known[text] = real(backend, module, devices, options, callbacks, *more, **named)
        return known[text]

    with contextlib.ExitStack() as stack:
        patch = unittest.mock.patch.object
        stack.enter_context(patch(compiler, "compile_or_get_cached", compile_once))
        stack.enter_context(patch(mlir, "make_ir_context", functools.cache(mlir.make_ir_context)))
        yield
