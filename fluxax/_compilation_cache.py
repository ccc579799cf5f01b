"""Compiled programs kept on disk, so that the next process starts faster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

from fluxax._errors import short, warn
from fluxax._jax import reset_cache


def compilation_cache(folder: Any) -> None:
    """Keep compiled programs in a folder, and take them from there: JAX's persistent cache.

    JAX's own default keeps only programs that took more than a second to compile; this keeps all.
    Programs are found by their content, the versions of JAX and XLA, and the machine, so a stale
    one is never used. Tracing is not saved, only compiling. The folder is not cleaned up by itself.

    The price, on a CPU: a step whose intermediate results take more than 64 MB runs up to 1.5 times
    as long, since XLA keeps only programs that take their memory as one block, which the system
    zeroes at each call (docs/design/cpu.md). For long runs of such nets leave it off.

    The environment variable `FLUXAX_CACHE=folder` does the same when fluxax is imported.

    Args:
        folder: where to keep them, made if it is not there; `None` turns the cache off.

    Raises:
        TypeError: if it is no path.
        RuntimeError: if this JAX cannot change its cache while it runs.

    Example:
        >>> import fluxax as fx, tempfile
        >>> fx.compilation_cache(tempfile.mkdtemp())
        >>> fx.compilation_cache(None)
    """
    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"compilation_cache expects a folder or None, got {short(folder)}.")
    if reset_cache is None:
        raise RuntimeError(
            f"compilation_cache expects a JAX that can change its cache, got JAX {jax.__version__}."
            " Set JAX_COMPILATION_CACHE_DIR in the environment instead."
        )
    if folder is not None:
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
        folder = str(Path(folder).expanduser().absolute())
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_dir", folder)
    reset_cache()  # JAX looks at the setting once, at the first program


if os.environ.get("FLUXAX_CACHE"):
    try:
        compilation_cache(os.environ["FLUXAX_CACHE"])
    except RuntimeError as error:  # importing fluxax works on every JAX
        warn(str(error))
