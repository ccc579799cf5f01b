"""What the C library does with memory that a program has given back."""

from __future__ import annotations

import ctypes
import os

#: `mallopt`'s numbers in glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = 1 << 30  # bytes


def keep_memory() -> bool:
    """Keep memory that programs give back, up to 1 GB of it, for the next one; whether it worked.

    XLA asks for the memory of a program at every call. From 32 MB on glibc gets such memory from
    the system and gives it back each time, so every page of it is mapped and zeroed anew: 80 of
    the 190 ms of a step of a small GPT. All threads get memory from one place, since the other
    places hold 64 MB at most.

    With `FLUXAX_KEEP_MEMORY=1` fluxax does this when it is imported, where the C library is glibc
    and the environment has no settings of its own (`MALLOC_…_`, `GLIBC_TUNABLES`). It is off by
    default: a step of a net of two small layers took 171 µs with it and 67 without, since threads
    wait for the one place. It works fully only before JAX has started its threads.

    Example:
        >>> import fluxax as fx
        >>> fx.kernels.keep_memory() in (True, False)
        True
    """
    if not _glibc():
        return False
    library = ctypes.CDLL(None)
    settings = {_MMAP_THRESHOLD: _KEPT, _TRIM_THRESHOLD: _KEPT, _ARENA_MAX: 1}
    done = [library.mallopt(name, value) == 1 for name, value in settings.items()]
    return all(done)


def _glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):  # other systems, other libraries
        return False


def wanted(environment: os._Environ[str] | dict[str, str]) -> bool:
    """Whether memory is to be kept: asked for, and nobody has said how."""
    if environment.get("FLUXAX_KEEP_MEMORY", "0") in ("", "0"):
        return False
    own = any(name.startswith("MALLOC_") for name in environment)
    return not own and "glibc.malloc" not in environment.get("GLIBC_TUNABLES", "")


if wanted(os.environ):
    keep_memory()
