"""What the loader accepts: its options and its saved positions, checked with a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fluxax._errors import short
from fluxax.data._gather import is_array


def integer(name: str, value: Any) -> int:
    """`value` as a Python int; a second array in its place gets a hint."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        hint = " Several arrays go in one tuple: DataLoader((X, Y))." if is_array(value) else ""
        raise TypeError(f"DataLoader expects an int as {name}, got {short(value)}.{hint}")
    return int(value)


def whole(name: str, value: Any, least: int, or_single: bool = False) -> int:
    """`value` as an int of at least `least`, or -1 where that means single observations."""
    number = integer(name, value)
    if number < least and not (or_single and number == -1):
        extra = ", or -1 for single observations" if or_single else ""
        raise ValueError(f"DataLoader expects {name} of at least {least}{extra}, got {number}.")
    return number


def flag(name: str, value: Any) -> bool:
    """`value`, if it is a boolean."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"DataLoader expects True or False as {name}, got {short(value)}.")
    return bool(value)


def seconds(value: Any) -> float | None:
    """A time above zero, or `None`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"DataLoader expects seconds or None as timeout, got {short(value)}.")
    if not value > 0:
        raise ValueError(f"DataLoader expects a timeout above 0 seconds, got {value}.")
    return value


def checked_collate(collate: Any, batchsize: int, who: str = "DataLoader") -> Any:
    """`collate`, if it is one and there is something to collate."""
    if not (collate is None or isinstance(collate, bool) or callable(collate)):
        raise TypeError(
            f"{who} expects None, True, False or a function as collate, got {short(collate)}."
        )
    if batchsize == -1 and callable(collate):
        raise ValueError(
            "DataLoader expects a batchsize of at least 1 with a collate function, got -1. "
            "Single observations are not collated."
        )
    return collate


_WORKERS = "workers to read ahead. Write workers=4 for threads, and processes=True for processes"
_FRESH = "no such option. Leave it out: batches are always fresh memory, in NumPy arrays"

#: Words of Flux's and PyTorch's loaders, and what to write here.
HABITS = {
    "parallel": f"{_WORKERS}.",
    "num_workers": f"{_WORKERS}.",
    "buffer": f"{_FRESH}.",
    "pin_memory": f"{_FRESH}.",
    "obsdim": "the axis of the observations. Write axis=-1 for the last one.",
    "dims": "the axis of the observations. Write axis=-1 for the last one.",
    "batch_size": "batchsize. Write batchsize=32.",
    "drop_last": "partial. Write partial=False to leave a smaller last batch away.",
    "collate_fn": "collate. Write collate=f.",
    "generator": "rng. Write rng=1, or call fx.seed(1) once.",
    "sampler": "shuffle, or data in the order wanted. Write DataLoader(obsview(data, indices)).",
    "prefetch_factor": "prefetch. Write prefetch=4 for so many batches ahead.",
}

#: What a position of a loader holds.
POSITION = ("seed", "epoch", "position", "numobs", "shuffle")


def checked_state(state: Mapping[str, Any], n: int, shuffle: bool) -> tuple[int, int, int]:
    """Seed, epoch and position of a saved state that fits `n` observations."""
    if not isinstance(state, Mapping) or any(name not in state for name in POSITION):
        got = f"the keys {list(state)}" if isinstance(state, Mapping) else short(state)
        raise TypeError(f"load_state_dict expects what `state_dict` gave, got {got}.")
    if state["numobs"] != n:
        raise ValueError(
            f"load_state_dict expects the position in {n} observations, got one in "
            f"{state['numobs']}. Make the loader over the same data."
        )
    if state["shuffle"] != shuffle:
        raise ValueError(
            f"load_state_dict expects the position of a loader with shuffle={shuffle}, "
            f"got one with shuffle={state['shuffle']}. Make the loader with the same options."
        )
    seed, epoch, position = (integer(name, state[name]) for name in POSITION[:3])
    if seed < 0 or epoch < 0 or not 0 <= position <= n:
        raise ValueError(
            f"load_state_dict expects a seed and an epoch of at least 0 and a position of at most "
            f"{n}, got {seed}, {epoch} and {position}."
        )
    return seed, epoch, position
