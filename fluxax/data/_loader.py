"""DataLoader: batches of data, in a new order each epoch, from any position."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fluxax._errors import hinted, short, warn
from fluxax.data._gather import is_array
from fluxax.data._observations import count, parts
from fluxax.data._options import (
    HABITS,
    checked_collate,
    checked_state,
    flag,
    integer,
    seconds,
    whole,
)
from fluxax.data._order import Plan, Seed, following, new_seed, permutation
from fluxax.data._pass import Pass, in_this_process
from fluxax.data._pieces import Pieces, gatherable
from fluxax.data._processes import Pool
from fluxax.data._reader import Reader
from fluxax.data._threads import Hands, Make
from fluxax.data._worker import refuse_in_import


class DataLoader:
    """Batches of data, again and again.

    Each `for` over it is one epoch. With `shuffle=True` each epoch has its own
    order, which is a function of the seed and the epoch's number alone. Two
    loops may run over one loader at once.

    NumPy data gives fresh NumPy arrays and JAX data gives JAX arrays; a tuple
    gives tuples (`(X,)` gives 1-tuples), a named tuple named tuples, a dict
    dicts. Whole batches are gathered at once. Items of a data set (a list, a
    PyTorch or Hugging Face data set) are read one by one and collated.

    Args:
        data: an array (`np.memmap` too); a tuple, named tuple or dict of data;
            or anything with `__len__` and `__getitem__`.
        batchsize: at least 1, or -1 for single observations without a batch
            axis. More than there are warns and uses all.
        shuffle: draw a new order for every epoch.
        partial: keep a last batch that is shorter.
        axis: along which the observations stand; `axis=-1` for batch-last data.
        collate: `None` stacks items as `batch` does; a function gets the list
            of observations; `False` gives that list; `True` stacks arrays from it, too.
        rng: what fixes the order: an int, a `numpy.random.Generator` or a JAX
            key; `None` follows `fx.seed`.
        workers: how many threads make batches ahead of time, 0 for none. The
            data set is then read from several threads at once.
        processes: the workers are processes, for data sets and `collate`
            functions that are busy in Python. Plain arrays stay in threads.
        prefetch: how many batches each worker makes ahead of time.
        timeout: seconds to wait for a batch from the workers, `None` for ever.

    Raises:
        ValueError: for parts that differ in length, and for options out of range.
        TypeError: for data that cannot be indexed.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> loader = fx.DataLoader((np.zeros((5, 3), "float32"), np.arange(5)), batchsize=2)
        >>> loader
        3-element DataLoader((f32[5,3], i64[5]), batchsize=2)
        >>> for x, y in loader:
        ...     print(x.shape, y)
        (2, 3) [0 1]
        (2, 3) [2 3]
        (1, 3) [4]

    Departs from Flux: the first axis is the default, and batches are always
    fresh memory. Departs from PyTorch: the position can be saved in mid-epoch.
    """

    @hinted("DataLoader", **HABITS)
    def __init__(
        self,
        data: Any,
        batchsize: int = 1,
        *,
        shuffle: bool = False,
        partial: bool = True,
        axis: int = 0,
        collate: Any = None,
        rng: Any = None,
        workers: int = 0,
        processes: bool = False,
        prefetch: int = 2,
        timeout: float | None = None,
    ) -> None:
        self.data = data
        self.batchsize = whole("batchsize", batchsize, 1, or_single=True)
        self.shuffle = flag("shuffle", shuffle)
        self.partial = flag("partial", partial)
        self.axis = integer("axis", axis)
        self.collate = checked_collate(collate, self.batchsize)
        self.workers = whole("workers", workers, 0)
        self.prefetch = whole("prefetch", prefetch, 1)
        self.timeout = seconds(timeout)
        self.processes = flag("processes", processes)
        self._pool: Pool | None = None
        self._seed = new_seed(rng)
        self._epoch = 0  # of the next pass
        self._resume: int | None = None  # where the next pass begins
        # Seed, epoch, observations received in it; None between passes.
        self._received: tuple[int, int, int] | None = None
        n = self._count()
        if 0 < n < self.batchsize:
            warn(_too_large(n, self.batchsize))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._plan(None, 0))

    def __iter__(self) -> Pass:
        """Begin an epoch, or go on where `load_state_dict` said."""
        self._renew()
        seed, epoch, begin = self._seed.value, self._epoch, self._resume or 0
        order = permutation(self._count(), seed, epoch) if self.shuffle else None
        plan = self._plan(order, begin, seed, epoch)
        make, hands = self._workforce(plan)
        self._epoch, self._resume = epoch + 1, None
        return Pass(make, plan, functools.partial(self._keep, seed, epoch), hands)

    def _workforce(self, plan: Plan) -> tuple[Make, Hands | None]:
        """What makes the batches of a plan, and who asks for them ahead of time."""
        reader = Reader(self.data, self.axis, self.collate, plan.single)
        if not self.workers:
            return in_this_process(reader, plan), None
        if not (self.processes and self.runs_user_code):  # arrays are gathered best where they are
            ahead = self.workers * self.prefetch
            return in_this_process(reader, plan), Hands(self.workers, ahead, self.timeout)
        refuse_in_import()
        if self._pool is None or len(self._pool) != self.workers:
            self._pool = Pool(self.workers)
        return self._pool.maker(reader, plan), self._pool.hands(self.prefetch, self.timeout)

    def close(self) -> None:
        """End the worker processes, if there are any; the next loop starts new ones."""
        if self._pool is not None:
            self._pool.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    def __repr__(self) -> str:
        options = [f"batchsize={self.batchsize}"]
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value is not default and value != default:
                options.append(f"{name}={getattr(value, '__name__', repr(value))}")
        return f"{len(self)}-element DataLoader({_describe(self.data)}, {', '.join(options)})"

    def state_dict(self) -> dict[str, Any]:
        """The position: what the user has received, whatever was read ahead.

        A plain dict that JSON can hold. Restored into a loader over the same
        data, it makes the next loop go on behind the last batch received, and
        later loops give the epochs that would have followed. After the last
        batch but before the end of the loop, what remains is nothing; after
        the end of the loop, the next epoch.

        Example:
            >>> import fluxax as fx
            >>> import numpy as np
            >>> loader = fx.DataLoader(np.arange(6), batchsize=2, shuffle=True, rng=0)
            >>> epoch = iter(loader)
            >>> _ = next(epoch)
            >>> saved = loader.state_dict()
            >>> other = fx.DataLoader(np.arange(6), batchsize=2, shuffle=True)
            >>> other.load_state_dict(saved)
            >>> [x.tolist() for x in other] == [x.tolist() for x in epoch]
            True
        """
        if self._received is None:
            self._renew()
        seed, epoch, position = self._received or (self._seed.value, self._epoch, 0)
        return {
            "seed": seed,
            "epoch": epoch,
            "position": position,
            "numobs": self._count(),
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the position and the seed that `state_dict` gave; loops that run go on as before.

        Raises:
            ValueError: for a position that does not fit the data or the options of this loader.
            TypeError: for what is no position.
        """
        seed, epoch, position = checked_state(state, self._count(), self.shuffle)
        self._seed = Seed(seed)
        self._epoch, self._resume = epoch, position
        self._received = seed, epoch, position

    @property
    def follows(self) -> int | None:
        """Internal: its number among the loaders made since `fx.seed`; `None` if it is pinned."""
        self._renew()
        return self._seed.number if self._seed.root is not None else None

    def follow(self, number: int) -> None:
        """Internal: take a new seed when `fx.seed` is called, as the loader of that number."""
        self._seed = following(self._seed.value, number)

    @property
    def runs_user_code(self) -> bool:
        """Internal: whether iterating calls anything but NumPy and JAX (a data set, a function)."""
        return callable(self.collate) or any(not is_array(part) for _, part in parts(self.data))

    @property
    def owns_batches(self) -> bool:
        """Internal: whether nobody else holds the memory of the batches that it gives."""
        if callable(self.collate):
            return False
        stacked = self.batchsize != -1 and self.collate is not False
        return stacked or all(is_array(part) for _, part in parts(self.data))

    def arrays(self) -> Any | None:
        """Internal: the data, if it is NumPy and JAX arrays alone and batches are gathered."""
        plain = all(isinstance(part, (np.ndarray, jax.Array)) for _, part in parts(self.data))
        return self.data if plain and self.collate is None else None

    def pieces_source(self) -> Pieces | None:
        """Internal: a new pass as places in the arrays; `None` if batches are not gathered so.

        Like `iter(loader)`, it begins an epoch or goes on where `load_state_dict` said.
        """
        if self.arrays() is None or not gatherable(self.data, self.axis):
            return None
        return Pieces(self.data, iter(self))

    def _count(self) -> int:
        return count(self.data, self.axis, "DataLoader")

    def _renew(self) -> None:
        seed = self._seed.renewed()
        if seed is not self._seed:
            self._seed, self._epoch = seed, 0

    def _keep(self, seed: int, epoch: int, position: int | None) -> None:
        if position is not None:
            self._received = seed, epoch, position
        elif self._received is not None and self._received[:2] == (seed, epoch):
            self._received = None

    def _plan(self, order: np.ndarray | None, begin: int, seed: int = 0, epoch: int = 0) -> Plan:
        n = self._count()
        single = self.batchsize == -1
        size = 1 if single else max(min(self.batchsize, n), 1)
        end = n if self.partial else begin + (n - begin) // size * size
        return Plan(order, begin, end, size, single, seed, epoch)


@hinted("eachobs", **HABITS)
def eachobs(
    data: Any,
    axis: int = 0,
    *,
    batchsize: int = -1,
    shuffle: bool = False,
    partial: bool = True,
    rng: Any = None,
) -> DataLoader:
    """The observations of `data` one by one, without a batch axis: a `DataLoader(batchsize=-1)`.

    Args:
        axis: along which the observations stand.
        batchsize, shuffle, partial, rng: as for `DataLoader`.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> for x in fx.eachobs(np.array([[1, 2, 3], [4, 5, 6]]), axis=1):
        ...     print(x)
        [1 4]
        [2 5]
        [3 6]
    """
    return DataLoader(data, batchsize, axis=axis, shuffle=shuffle, partial=partial, rng=rng)


def _too_large(n: int, batchsize: int) -> str:
    return (
        f"DataLoader expects a batchsize of at most {n}, the number of observations, "
        f"got {batchsize}. It uses all {n} in one batch."
    )


_DEFAULTS = {
    "shuffle": False,
    "partial": True,
    "axis": 0,
    "collate": None,
    "workers": 0,
    "processes": False,
}


def _describe(data: Any) -> str:
    if isinstance(data, tuple):
        names = getattr(data, "_fields", None)
        texts = [_describe(part) for part in data]
        if names:
            fields = ", ".join(f"{n}={t}" for n, t in zip(names, texts, strict=True))
            return f"{type(data).__name__}({fields})"
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{k!r}: {_describe(v)}" for k, v in data.items()) + "}"
    return short(data) if is_array(data) else f"{type(data).__name__} of {len(data)}"
