"""The capture table: whatever holds a number, however it is read and from where, no wrong answer.

The rows, the ways to read and the places are in `capture_table*.py`; one test for each row.
`python tests/capture_table.py` prints the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from capture_table import (
    TURNS,
    Cell,
    Outcome,
    cells,
    outcome,
    share,
    worth_a_line,
)
from capture_table_holders import HOLDERS
from capture_table_places import PLACES


def check(found: list[Outcome]) -> None:
    """No cell is wrong or refused, and the ordinary ones compile."""
    lines = [str(o) for o in found if worth_a_line(o)]
    if lines:
        pytest.fail(f"{len(lines)} of {len(found)} cells:\n" + "\n".join(lines), pytrace=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOLDERS)
def test_no_number_is_wrong(name: str) -> None:
    check([outcome(cell) for cell in cells(HOLDERS[name], TURNS[1:])])


def compile_mostly(some: Iterable[Cell]) -> None:
    """Of these cells, too, none is wrong; and four in five compile."""
    found = [outcome(cell) for cell in some]
    counts = Counter(o.kind for o in found)
    print(f"{share(counts):.1%} of {len(found)} cells compile: {dict(counts)}")
    check(found)
    assert share(counts) >= 0.8, counts


@pytest.mark.slow
def test_four_reads_in_five_compile() -> None:
    compile_mostly(cell for row in HOLDERS.values() for cell in cells(row, TURNS[:1]))


@pytest.mark.part
def test_a_part_of_the_table() -> None:
    """A cell of each row, for `make quick`."""
    compile_mostly(next(cells(row, TURNS[:1])) for row in HOLDERS.values())


@pytest.mark.slow
def test_a_part_of_the_table_beside_uncompiled_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `FLUXAX_CHECK=all` no program is found to be another than its function."""
    monkeypatch.setenv("FLUXAX_CHECK", "all")
    found = [outcome(c) for row in HOLDERS.values() for c in list(cells(row, TURNS[:1]))[:4:3]]
    check(found)
    stale = [str(o) for o in found if "no longer what the function is" in o.why]
    assert not stale, "\n".join(stale)


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(HOLDERS) >= 120
    assert len(PLACES) >= 30
    assert sum(len(row.reads) for row in HOLDERS.values()) >= 1800
    for row in HOLDERS.values():
        tried = Counter(read for read, _ in {(c.read, c.place.name) for c in cells(row)})
        assert all(tried[read] == (8 if read in row.ordinary else 2) for read in row.reads)
