"""A folder of checkpoints: the last few, and the best."""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from fluxax._checkpoint._file import Damaged, read_manifest
from fluxax._checkpoint._save import load, write
from fluxax._checkpoint._values import decoded, encoded
from fluxax._checkpoint._write import clean
from fluxax._errors import no_array, short, warn


class Checkpoints:
    """A folder in which the last few checkpoints are kept, and the best one.

    Args:
        folder: where they lie; made if it is not there. Files of `save`, named by their steps.
        keep: how many of the last are kept, at least 1.
        best: `"min"` or `"max"`: also keep the one with the smallest or largest `value`.

    Raises:
        ValueError: for options out of range.
        TypeError: where the folder is no path.
        NotADirectoryError: where a file stands there.

    Example:
        >>> import fluxax as fx, tempfile
        >>> kept = fx.Checkpoints(tempfile.mkdtemp(), keep=2, best="min")
        >>> model = fx.Dense(2, 3)
        >>> for step, value in [(1, 0.5), (2, 0.1), (3, 0.3), (4, 0.2)]:
        ...     kept.save(step, value=value, model=model)
        >>> kept.steps(), kept.best_step()
        ([2, 3, 4], 2)
        >>> sorted(kept.load(model=model))
        ['model', 'step', 'value']
    """

    def __init__(self, folder: Any, *, keep: int = 3, best: str | None = None):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(
                f"Checkpoints expects the path of a folder, got {short(folder)}. "
                'Write fx.Checkpoints("runs/1").'
            )
        if Path(folder).exists() and not Path(folder).is_dir():
            raise NotADirectoryError(f"Checkpoints expects a folder, got the file {str(folder)!r}.")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"Checkpoints expects keep of at least 1, got {short(keep)}.")
        if best not in (None, "min", "max"):
            raise ValueError(f'Checkpoints expects best as "min", "max" or None, got {best!r}.')
        self.folder, self.keep, self.best = Path(folder), keep, best
        self.folder.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        best = "" if self.best is None else f", best={self.best!r}"
        return f"Checkpoints({str(self.folder)!r}, keep={self.keep}{best})"

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"{_step('path', step):08d}.safetensors"

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, in order."""
        names = (re.fullmatch(r"(\d{8,})\.safetensors", name) for name in os.listdir(self.folder))
        return sorted(int(name[1]) for name in names if name)

    def save(self, step: int, *, value: float | None = None, **things: Any) -> None:
        """Save things as the checkpoint of a step, then remove those that are not kept any more.

        Args:
            step: a number of at least 0 that grows: an epoch, a count of steps.
            value: what `best` goes by; needed with it. NaN is never the best.
            things: as for `save`.
        """
        step = _step("save", step)
        if self.best is not None and value is None:
            raise ValueError("Checkpoints.save expects a value to find the best by, got None.")
        if value is not None and (no_array(value) or np.shape(value) != ()):
            raise TypeError(f"Checkpoints.save expects a number as value, got {short(value)}.")
        number = None if value is None else float(value)
        clean(self.folder, "*.safetensors")  # of steps that another run may never come to
        write(self.path(step), {**things, "step": step, "value": number}, value=encoded(number))
        self._remove()

    def _remove(self) -> None:
        steps = self.steps()
        kept = {*steps[-self.keep :], self.best_step()}
        for step in set(steps) - kept:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                self.path(step).unlink()

    def best_step(self) -> int | None:
        """The step with the best value; the earlier of equal ones."""
        sign = {None: 0, "min": 1, "max": -1}[self.best]
        values = {s: v * sign for s in self.steps() if (v := self._value(s)) is not None}
        return min(values, key=lambda step: (values[step], step)) if sign and values else None

    def _value(self, step: int) -> float | None:
        try:
            with self.path(step).open("rb") as file:
                value = decoded(read_manifest(file, self.path(step)).get("value"))
        except (ValueError, OSError):
            return None
        return None if value is None or math.isnan(value) else value

    def load(self, step: int | None = None, *, strict: bool = True, **things: Any) -> Any:
        """Load a checkpoint as `load` does: of a step, or the newest that is whole.

        One that is damaged is passed over with a warning.

        Returns:
            What `load` returns, with `step` and `value`.

        Raises:
            FileNotFoundError: if there is none.
        """
        for found in [_step("load", step)] if step is not None else self.steps()[::-1]:
            try:
                return load(self.path(found), strict=strict, **things)
            except Damaged as error:
                if step is not None:
                    raise
                warn(f"{error} Checkpoints.load takes the one before.")
        raise FileNotFoundError(
            f"Checkpoints.load expects a whole checkpoint in {str(self.folder)!r}, got none."
        )


def _step(who: str, step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
        raise ValueError(f"Checkpoints.{who} expects a step of at least 0, got {short(step)}.")
    return int(step)
