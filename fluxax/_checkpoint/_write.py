"""Writing a file so that its name stands for the old contents or the new, never for half."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: what a killed save leaves behind stays there
    fcntl = None


def replace(path: Path, pieces: Iterable[Any]) -> None:
    """Write the pieces beside a `target`, sync them, rename them over it, sync the folder.

    Raises:
        OSError: with the system's reason; the file is as it was, and nothing is left behind.
    """
    try:
        clean(path.parent, _literal(path.name))
        with _temporary(path) as (file, name):
            for piece in pieces:
                _write(file, piece)
            os.fsync(file)
            os.replace(name, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "Make room, or save" if error.errno in _FULL else "Save"
        raise OSError(
            error.errno,
            f"save could not write the checkpoint: {reason}. What stood there is as it was. "
            f"{hint} to another folder",
            str(path),
        ) from None


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SORTS = {
    stat.S_IFDIR: "the folder",
    stat.S_IFIFO: "the pipe",
    stat.S_IFSOCK: "the socket",
    stat.S_IFCHR: "the device",
    stat.S_IFBLK: "the device",
}


def target(path: Path) -> Path:
    """The file to replace: the one that links lead to, not the link.

    Raises:
        OSError: where something stands that is no regular file, such as a pipe or a device, which
            root could replace too; where links lead in a circle, or no folder is.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        real = Path(os.path.realpath(path))
        if not real.parent.is_dir():
            raise FileNotFoundError(
                f"save expects a folder that is there, got {str(path)!r}. "
                f"Make {str(real.parent)!r} first."
            ) from None
        return real
    except OSError as error:
        if error.errno != errno.ELOOP:  # not to be looked at: writing says why
            return Path(os.path.realpath(path))
        raise OSError(
            f"save expects the path of a file, got the link {str(path)!r}, which leads to itself. "
            "Remove it, or choose another name."
        ) from None
    if not stat.S_ISREG(mode):
        sort = _SORTS.get(stat.S_IFMT(mode), "a special file")
        error = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise error(
            f"save expects the path of a file, got {sort} {str(path)!r}. Choose another name."
        )
    return Path(os.path.realpath(path))


def _write(file: int, piece: Any) -> None:
    """Write all of a piece, however little the system takes at a time."""
    rest = memoryview(piece).cast("B")
    while rest:
        rest = rest[os.write(file, rest[: 1 << 30]) :]


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[int, Path]]:
    """A new file in the same folder, locked while it is open and gone afterwards."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        opened: list[int] = []
        try:
            opened.append(os.open(name, flags, 0o666))
            if _locked(opened[0]) and name.exists():
                with contextlib.suppress(OSError):
                    os.chmod(name, stat.S_IMODE(path.stat().st_mode))
                yield opened[0], name
                return
        finally:
            try:
                _drop(opened, name)
            finally:  # once more, if a Ctrl-C came just there
                _drop(opened, name)


def _drop(opened: list[int], name: Path) -> None:
    """Remove a file and close it; may be called again."""
    with contextlib.suppress(OSError):
        name.unlink()
    while opened:
        os.close(opened.pop())


def _locked(file: int) -> bool:
    """Lock a file for as long as it is open here; false if somebody else has."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def clean(folder: Path, name: str = "*") -> None:
    """Remove what saves to a name left behind when they were killed: nobody locks it."""
    if fcntl is None:
        return
    for left in folder.glob(f".{name}.*.tmp"):
        with contextlib.suppress(OSError):
            file = os.open(left, os.O_WRONLY)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(file)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _sync_folder(folder: Path) -> None:
    """Let the rename survive a power cut, where the system can."""
    if os.name == "posix":
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
