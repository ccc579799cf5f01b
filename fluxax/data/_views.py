"""Data sets made of others, read when they are asked for: chosen, mapped, joined, in windows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fluxax._errors import short
from fluxax.data._observations import count, getobs, like_tuple, places
from fluxax.data._options import checked_collate
from fluxax.data._place import Passed
from fluxax.data._reader import Reader


class View(Sequence[Any]):
    """Something that can be indexed and has a length: a data set, as `DataLoader` takes it."""

    def __init__(self, data: Any, axis: int, length: int) -> None:
        self.data, self.axis, self._length = data, axis, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """One entry; of several (a slice, ints, booleans) the list."""
        found = places(index, len(self), type(self).__name__)
        return self._at(found) if isinstance(found, int) else list(map(self._at, found.tolist()))

    @abstractmethod
    def _at(self, i: int) -> Any: ...


class ObsView(View):
    """Some observations of data, in some order: what `obsview` gives."""

    def __init__(self, data: Any, indices: np.ndarray, axis: int) -> None:
        super().__init__(data, axis, len(indices))
        self.indices = indices

    def _at(self, i: int) -> Any:
        return getobs(self.data, int(self.indices[i]), self.axis)

    def __repr__(self) -> str:
        return f"ObsView of {len(self)} observations of {short(self.data)}"


def obsview(data: Any, indices: Any = None, *, axis: int = 0) -> ObsView:
    """Some observations of data as a data set; nothing is copied before it is read.

    Args:
        data: as for `numobs`.
        indices: a slice, ints or booleans, also several times the same; all if `None`.
        axis: along which the observations stand in arrays.

    Raises:
        IndexError: for an index outside of the data.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> view = fx.obsview(np.arange(4.0), [3, 0])
        >>> view, [float(x) for x in view]
        (ObsView of 2 observations of f64[4], [3.0, 0.0])
    """
    n = count(data, axis, "obsview")
    if isinstance(indices, (int, np.integer)):
        raise TypeError(
            f"obsview expects several indices, got {short(indices)}. "
            f"Write [{indices}], or getobs(data, {indices}) for the observation."
        )
    chosen = places(slice(None) if indices is None else indices, n, "obsview")
    return ObsView(data, np.asarray(chosen), axis)


class MappedData(View):
    """Observations with a function applied to each: what `mapobs` gives."""

    def __init__(self, f: Callable[[Any], Any], data: Any, axis: int) -> None:
        super().__init__(data, axis, count(data, axis, "mapobs"))
        self.f = f

    def _at(self, i: int) -> Any:
        return self.f(getobs(self.data, i, self.axis))

    def __repr__(self) -> str:
        return f"mapobs({getattr(self.f, '__name__', short(self.f))}, {short(self.data)})"


def mapobs(f: Any, data: Any, *, axis: int = 0) -> Any:
    """Apply a function to each observation when it is read.

    Args:
        f: of one observation, as `getobs(data, i)` gives it. A tuple or dict of functions gives
            a tuple or dict of data sets, nested data in which each is read by itself.
        data: as for `numobs`.
        axis: along which the observations stand in arrays.

    Raises:
        TypeError: for what cannot be called.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> squares = fx.mapobs(lambda x: int(x) ** 2, np.arange(5))
        >>> len(squares), squares[3], list(fx.DataLoader(squares, 5))
        (5, 9, [array([ 0,  1,  4,  9, 16])])

    Departs from MLUtils: a function gets one observation at a time, never a batch.
    """
    if isinstance(f, tuple):
        return like_tuple(f, (mapobs(g, data, axis=axis) for g in f))
    if isinstance(f, Mapping):
        return {name: mapobs(g, data, axis=axis) for name, g in f.items()}
    called("mapobs", f)
    return MappedData(f, data, axis)


def called(who: str, f: Any) -> None:
    """Refuse what is no function of an observation."""
    if not callable(f):
        raise TypeError(
            f"{who} expects a function of an observation first, got {short(f)}. "
            f"The order is {who}(f, data)."
        )


class JoinedData(View):
    """Several data sets, one behind the other: what `joinobs` gives."""

    def __init__(self, data: tuple[Any, ...], axis: int) -> None:
        self.ends = np.cumsum([count(part, axis, "joinobs") for part in data])
        super().__init__(data, axis, int(self.ends[-1]))

    def _at(self, i: int) -> Any:
        k = int(np.searchsorted(self.ends, i, side="right"))
        before = int(self.ends[k - 1]) if k else 0
        return getobs(self.data[k], i - before, self.axis)

    def __repr__(self) -> str:
        return f"joinobs({', '.join(map(short, self.data))})"


def joinobs(*data: Any, axis: int = 0) -> JoinedData:
    """Several data sets as one, the observations of one behind those of the other.

    Args:
        data: each as for `numobs`.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: for none.

    Example:
        >>> import fluxax as fx
        >>> both = fx.joinobs(["a", "b"], ["c"])
        >>> len(both), list(both)
        (3, ['a', 'b', 'c'])
    """
    if not data:
        raise ValueError("joinobs expects data to join, got none.")
    return JoinedData(data, axis)


class Windows(View):
    """Windows of adjacent observations: what `slidingwindow` gives."""

    def __init__(self, data: Any, size: int, stride: int, axis: int) -> None:
        n = count(data, axis, "slidingwindow")
        positive("slidingwindow", "size", size, n)
        positive("slidingwindow", "stride", stride)
        super().__init__(data, axis, (n - size) // stride + 1)
        self.size, self.stride = size, stride

    def _at(self, i: int) -> Any:
        start = i * self.stride
        return getobs(self.data, slice(start, start + self.size), self.axis)

    def __repr__(self) -> str:
        return f"slidingwindow({short(self.data)}, size={self.size}, stride={self.stride})"


def slidingwindow(data: Any, size: int, *, stride: int = 1, axis: int = 0) -> Windows:
    """Windows of `size` adjacent observations as a data set: window i begins at i·stride.

    Only whole windows count: there are ⌊(n − size) / stride⌋ + 1 of them.

    Args:
        data: as for `numobs`, in its order.
        size: observations in a window, at most as many as there are.
        stride: from the beginning of one window to that of the next.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: for a size or a stride out of range.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> [window.tolist() for window in fx.slidingwindow(np.arange(7), size=3, stride=2)]
        [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    """
    return Windows(data, size, stride, axis)


class BatchView(View):
    """The batches of data as a sequence: `view[i]` is batch i, read when it is asked for.

    Args:
        data: as for `numobs`.
        batchsize: observations in a batch.
        partial: whether a smaller last batch counts.
        collate: as for `DataLoader`: what makes a batch of observations.
        axis: along which the observations stand in arrays.

    Raises:
        ValueError: for a batch size below 1.

    Example:
        >>> import fluxax as fx
        >>> import numpy as np
        >>> view = fx.BatchView((np.arange(5), list("abcde")), batchsize=2)
        >>> len(view), view[-1]
        (3, (array([4]), ['e']))

    Departs from `DataLoader`: batches can be indexed, and stand in one order.
    """

    def __init__(
        self,
        data: Any,
        batchsize: int = 1,
        *,
        partial: bool = True,
        collate: Any = None,
        axis: int = 0,
    ) -> None:
        self.n = count(data, axis, "BatchView")
        positive("BatchView", "batchsize", batchsize)
        super().__init__(data, axis, -(-self.n // batchsize) if partial else self.n // batchsize)
        self.batchsize, self.partial = batchsize, partial
        self._reader = Reader(data, axis, checked_collate(collate, 1, "BatchView"), False)

    def _at(self, i: int) -> Any:
        start = i * self.batchsize
        return self._reader(np.arange(start, min(start + self.batchsize, self.n)), Passed())

    def __repr__(self) -> str:
        rest = "" if self.partial else ", partial=False"
        return f"BatchView({short(self.data)}, batchsize={self.batchsize}{rest})"


def positive(who: str, name: str, value: Any, most: int | None = None) -> None:
    """Refuse what is no whole number of at least 1, or more than there are observations."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        upto = "of at least 1" if most is None else f"from 1 to {most}, the number of observations"
        raise ValueError(f"{who} expects {name} {upto}, got {short(value)}.")
