"""Reading one batch: all that a worker needs to know, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fluxax.data._batch import batch
from fluxax.data._gather import Where, is_array
from fluxax.data._observations import map_parts, read
from fluxax.data._place import Place, indices_of, now


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one batch.

    Args:
        collate: as for the loader.
        single: read one observation without a batch axis.
    """

    data: Any
    axis: int
    collate: Any
    single: bool

    def __call__(self, where: Where, place: Place) -> Any:
        outer, now.place = now.place, place
        try:
            return self._read(where, place)
        except StopIteration as error:  # it would end the pass without a word
            raise RuntimeError(
                "DataLoader expects observations, got StopIteration from the data "
                "set or from collate."
            ) from error
        finally:
            now.place = outer

    def _read(self, where: Where, place: Place) -> Any:
        if self.single:
            return map_parts(lambda part: read(part, where, self.axis, place), self.data)
        if self.collate is None:
            return map_parts(lambda part: self._part(part, where, place), self.data)
        rows = self._rows(where, place)
        if self.collate is False:
            return rows
        if self.collate is True:
            return batch(rows, self.axis)
        place.among(indices_of(where))
        return self.collate(rows)

    def _part(self, part: Any, where: Where, place: Place) -> Any:
        taken = read(part, where, self.axis, place)
        return taken if is_array(part) else batch(taken, self.axis)

    def _rows(self, where: Where, place: Place) -> list[Any]:
        if not isinstance(self.data, (tuple, Mapping)) and not is_array(self.data):
            return read(self.data, where, self.axis, place)
        one = partial(read, axis=self.axis, place=place)
        return [map_parts(lambda part: one(part, i), self.data) for i in indices_of(where)]
