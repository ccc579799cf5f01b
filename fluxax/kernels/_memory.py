"""What the C library does with memory that a program has given back."""

from __future__ import annotations

import ctypes
import functools
import os

#: `mallopt`'s numbers in glibc's <malloc.h>, and what they are set to, in bytes.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: 1 << 30, _TOP_PAD: 1 << 26}


def keep_memory() -> bool:
    """Keep memory that programs give back, up to 1 GB of it, for the next one; whether it worked.

    XLA asks for the memory of a program's intermediate results at every call. glibc gets large
    blocks from the system and gives them back each time, so every page is mapped and zeroed anew:
    80 of the 190 ms of a step of a small GPT.

    fluxax does this when it first compiles for a CPU, where the C library is glibc and the
    environment has no settings of its own (`MALLOC_…_`, `GLIBC_TUNABLES`);
    `FLUXAX_KEEP_MEMORY=0` says not to. What the process has held at its peak stays with it, up
    to 1 GB. docs/design/cpu.md has the measurements.

    Example:
        >>> import fluxax as fx
        >>> fx.kernels.keep_memory() in (True, False)
        True
    """
    if not _glibc():
        return False
    library = ctypes.CDLL(None)
    done = [library.mallopt(name, value) == 1 for name, value in _SETTINGS.items()]
    return all(done)


def _glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):  # other systems, other libraries
        return False


def wanted(environment: os._Environ[str] | dict[str, str]) -> bool:
    """Whether memory is to be kept: nobody has said no, and nobody has said how."""
    if environment.get("FLUXAX_KEEP_MEMORY", "1") in ("", "0"):
        return False
    own = any(name.startswith("MALLOC_") for name in environment)
    return not own and "glibc.malloc" not in environment.get("GLIBC_TUNABLES", "")


@functools.cache
def keep_once() -> bool:
    """Keep memory from now on, if that is wanted."""
    return wanted(os.environ) and keep_memory()
