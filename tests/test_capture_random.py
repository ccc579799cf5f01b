"""Random object graphs, read, written and changed at random: six calls agree with plain Python.

The graph of the plain run and that of the engine are made by the same text. What a function does
to its graph is done once: in the end the two graphs are alike, part by part.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture_random import CLASSES, Graph, graphs
from capture_table import cell_module, shared_programs
from capture_table_places import PLACES, Place
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

import fluxax as fx

#: Places in which the argument `x` can be written into the graph.
WITH_X = (
    "global closure fresh default attribute nested method callable prompt wrapped partial compiled"
).split()
WITH_X += ["bound method", "method's global", "class method", "installed project"]


@pytest.fixture(autouse=True, scope="module")
def programs() -> Iterator[None]:
    with shared_programs():
        yield


def _holder(graph: Graph) -> str:
    names = ", ".join(f"n{i}=N[{i}]" for i in range(len(graph.nodes)))
    return (
        f'{CLASSES}\nNAMES = ["a", "b", "c"]\n{graph.build}\n'
        f"made = types.SimpleNamespace({names})\n"
    )


def _body(graph: Graph) -> str:
    """The objective: reads and writes in turn, then the sum."""
    lines = ["t = 0.0"]
    for i, read in enumerate(graph.reads):
        lines.append(read)
        lines += graph.writes[i : i + 1]
    return "\n".join([*lines, *graph.writes[len(graph.reads) :], "t"])


def _called(call: Any) -> Any:
    try:
        return float(call())
    except Exception as error:
        return type(error).__name__


def _change(module: Any, text: str) -> None:
    """Change a graph; what fails changes nothing, in both runs."""
    try:
        exec(text, {**vars(module), "H": module.made})
    except Exception as error:
        note(f"{text}: {type(error).__name__}")


def _alike(value: Any, seen: dict[int, int]) -> Any:
    """What a value is made of, so that two of them can be compared; objects by when they came."""
    if value is None or type(value) in (int, float, bool, str):
        return type(value).__name__, value
    if isinstance(value, jax.core.Tracer):
        return "tracer", str(value)
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return "array", float(value)
    if id(value) in seen:
        return "again", seen[id(value)]
    seen[id(value)] = len(seen)
    parts: dict[Any, Any] = dict(getattr(value, "__dict__", {}))
    parts |= {n: getattr(value, n) for n in getattr(value, "__slots__", ()) if hasattr(value, n)}
    if isinstance(value, dict) and parts is not value:
        parts |= {("item", n): v for n, v in value.items()}
    elif isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        parts |= dict(enumerate(value))
    return type(value).__name__, [(n, _alike(v, seen)) for n, v in parts.items()]


def _six_calls(graph: Graph, place: Place, ours: bool) -> tuple[list[Any], Any]:
    """What six calls give, and the graph after them."""
    x, found = jnp.float32(2.0), []
    with cell_module(_holder(graph), _body(graph), place) as module:
        module.put(module.made)
        for changes in ([], *graph.changes):
            for change in changes:
                _change(module, change)
            if not ours:
                found.append(_called(lambda: module.objective()(x)))
            elif place.way == "compiled":
                found.append(_called(lambda: fx.compiled(module.objective())(x)))
            else:
                found.append(_called(lambda: fx.withgradient(module.objective(), x)[0]))
        return found, _alike([module.made, module.N], {})


def check(graph: Graph, place: Place) -> None:
    """Compiled and uncompiled, the numbers and the graph are those of plain Python."""
    note(_body(graph))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, left = _six_calls(graph, place, ours=False)
        fx.clear_cache()
        got, ours = _six_calls(graph, place, ours=True)
        note(f"{fx.explain()}")
        with fx.eager():
            eager, eagers = _six_calls(graph, place, ours=True)
    for name, numbers, state in (("uncompiled", eager, eagers), ("compiled", got, ours)):
        for i, (a, b) in enumerate(zip(numbers, want, strict=True)):
            same = a == b if isinstance(a, str) or isinstance(b, str) else np.isclose(a, b, 1e-5)
            assert same, f"{name}, call {i + 1}: got {numbers}, wanted {want}"
        assert state == left, f"{name}: {state} is left, not {left}"


#: A failure is shown as it is found, or, where there is time, made small first.
QUICK: dict[str, Any] = {"report_multiple_bugs": False, "phases": [Phase.generate]}
SLOW: dict[str, Any] = {**QUICK, "phases": [Phase.generate, Phase.shrink]}

places = st.sampled_from([PLACES[name] for name in WITH_X])


@pytest.mark.part
@settings(max_examples=15, **QUICK)
@given(graphs(written=False), places)
def test_some_graphs_that_are_read(graph: Graph, place: Place) -> None:
    check(graph, place)


@pytest.mark.part
@settings(max_examples=10, **QUICK)
@given(graphs(written=True), places)
def test_some_graphs_that_are_written(graph: Graph, place: Place) -> None:
    check(graph, place)


@pytest.mark.slow
@settings(max_examples=40, **SLOW)
@given(graphs(written=False), places)
def test_graphs_that_are_read(graph: Graph, place: Place) -> None:
    check(graph, place)


@pytest.mark.slow
@settings(max_examples=40, **SLOW)
@given(graphs(written=True), places)
def test_graphs_that_are_written(graph: Graph, place: Place) -> None:
    check(graph, place)


def test_the_comparison_sees_what_differs() -> None:
    """Order, sharing, types and what is written are all seen."""
    shared: list[Any] = [1.0]
    space = types.SimpleNamespace
    for one, other in (
        ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}),
        ([shared, shared], [[1.0], [1.0]]),
        (space(a=1.0), space(a=1)),
        ([1.0], [1.0, 2.0]),
        ([jnp.float32(1.0)], [1.0]),
    ):
        assert _alike(one, {}) == _alike(one, {})
        assert _alike(one, {}) != _alike(other, {})
