"""Random object graphs as text: what builds one, reads it, writes to it and changes it.

A graph is some nodes that hold numbers and each other, in whatever cycles. `N` is the list of its
nodes; `H` holds them all, as `H.n0`, `H.n1` and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

CLASSES = """
class Plain:
    pass
class Default:
    a = b = c = 0.5
class Slots:
    __slots__ = ("a", "b", "c")
@dataclasses.dataclass
class Data:
    a: typing.Any = 0.5
    b: typing.Any = 0.5
    c: typing.Any = 0.5
class AttrDict(dict):
    def __init__(self):
        self.__dict__ = self
class Dict(dict):
    pass
class List(list):
    pass
class Part(fx.Module):
    pass
class Property:
    def __init__(self): self._all = {}
    def __getattr__(self, name):
        try: return self.__dict__["_all"][name]
        except KeyError: raise AttributeError(name)
    def __setattr__(self, name, v): self.__dict__.setdefault("_all", {})[name] = v
"""

#: How a node is made, for each kind that has attributes, items by name, or elements.
ATTRIBUTES = {
    "Plain()": True,
    "Default()": True,
    "Slots()": False,  # without a `__dict__`
    "Data()": True,
    "types.SimpleNamespace()": True,
    "AttrDict()": True,
    "Dict()": True,
    "List()": True,
    "Part()": True,
    "Property()": False,
}
ITEMS = ["{}", "Dict()", "AttrDict()", "collections.OrderedDict()", "collections.UserDict()"]
ELEMENTS = ["[]", "List()", "collections.deque()"]
TUPLE = "tuple"

NUMBERS = st.sampled_from(["0.5", "1.0", "2.0", "3.5", "-1.5", "2"])
OTHER_NUMBERS = st.sampled_from(
    ["np.float32(1.5)", "jnp.float32(2.5)", "None", "True", "np.full(1, 3.0)[0]"]
)


class Node(NamedTuple):
    """A node: how it is made, whether by attributes, items or elements, and what it holds."""

    kind: str
    by: str  # "attribute", "item", "element"
    parts: tuple[Any, ...]  # texts of numbers, or places of nodes


class Graph(NamedTuple):
    """A graph, and what is done to it."""

    nodes: tuple[Node, ...]
    build: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    changes: tuple[list[str], ...]  # before each call but the first

    def __repr__(self) -> str:
        names = ("build", "reads", "writes", "changes")
        return "\n".join(f"{n}: {getattr(self, n)}" for n in names)


def _place(node: Node, i: int) -> str:
    """How the part `i` of a node is written to, after the node's name."""
    if node.by == "attribute":
        return f".{'abc'[i]}"
    return f'["{"abc"[i]}"]' if node.by == "item" else f"[{i}]"


def _readings(node: Node, i: int) -> list[str]:
    """Ways to read the part `i` of the node `{}`."""
    name = "abc"[i]
    if node.by == "attribute":
        ways = [f"{{}}.{name}", f'getattr({{}}, "{name}")', f"getattr({{}}, NAMES[{i}])"]
        return [*ways, f'vars({{}})["{name}"]'] if ATTRIBUTES[node.kind] else ways
    if node.by == "item":
        found = [f'{{}}["{name}"]', f'{{}}.get("{name}", 0.25)', f"{{}}[NAMES[{i}]]"]
        return [*found, f'dict({{}})["{name}"]', f"list({{}}.values())[{i}]"]
    return [f"{{}}[{i}]", f"[*{{}}][{i}]", f"list({{}})[{i}]", f"[v for v in {{}}][{i}]"]


@st.composite
def nodes(draw: Callable[..., Any]) -> tuple[Node, ...]:
    """Two to five nodes."""
    count = draw(st.integers(2, 5))
    found = []
    for at in range(count):
        by = draw(st.sampled_from(["attribute", "attribute", "item", "element", TUPLE]))
        of = {"attribute": list(ATTRIBUTES), "item": ITEMS, "element": ELEMENTS, TUPLE: [TUPLE]}[by]
        kind = draw(st.sampled_from(of))
        last = at - 1 if by == TUPLE else count - 1  # a tuple holds what is there before it
        part = st.one_of(NUMBERS, NUMBERS, st.integers(0, last)) if last >= 0 else NUMBERS
        part = NUMBERS if kind == "Part()" else part  # a cycle among Modules is refused
        parts = draw(st.lists(part, min_size=1, max_size=3))
        found.append(Node(kind, "element" if by == TUPLE else by, tuple(parts)))
    return tuple(found)


def build(found: tuple[Node, ...]) -> str:
    """The text that makes the nodes, and then gives them their parts."""
    value = lambda part: part if isinstance(part, str) else f"N[{part}]"
    lines = ["N = []"]
    for node in found:
        inside = "".join(f"{value(part)}, " for part in node.parts)
        lines.append(f"N.append({f'({inside})' if node.kind == TUPLE else node.kind})")
    for at, node in enumerate(found):
        for i, part in enumerate(node.parts if node.kind != TUPLE else ()):
            lines.append(
                f"N[{at}].append({value(part)})"
                if node.by == "element"
                else f"N[{at}]{_place(node, i)} = {value(part)}"
            )
    return "\n".join(lines)


_USES = ["{}", "{}", "2.0 * {}", "(2.0 if {} > 1.0 else 1.0)", "float(str({}))", "sum([{}])"]
_WHOLE = {
    "attribute": [
        'hasattr({}, "b") + len(dir({})) * 0.0',
        'getattr({}, "c", 0.25)',
        "sum(getattr({}, n, 0.25) for n in NAMES)",
    ],
    "item": ["len({}) * 1.0", 'max({}.get("a", 0.5), 1.0)', "sum({}.values())"],
    "element": ["len({}) * 1.0", "sum(v for v in {} if type(v) is float)", "sum({})"],
}


@st.composite
def paths(draw: Callable[..., Any], found: tuple[Node, ...]) -> tuple[str, Any, int]:
    """A way from `H` to a node or a number, as text, what is there, and the last node before."""
    last = at = draw(st.integers(0, len(found) - 1))
    text = f"H.n{at}"
    for _ in range(draw(st.integers(1, 4))):
        node, last = found[at], at
        i = draw(st.integers(0, len(node.parts) - 1))
        text = draw(st.sampled_from(_readings(node, i))).format(text)
        at = node.parts[i]
        if isinstance(at, str):
            break
    return text, at, last


@st.composite
def reads(draw: Callable[..., Any], found: tuple[Node, ...]) -> tuple[str, int]:
    """A statement that adds a number of the graph to `t`, and the node that it is read from."""
    text, at, last = draw(paths(found))
    uses = _USES if isinstance(at, str) else _WHOLE[found[at].by]
    read = draw(st.sampled_from(uses)).replace("{}", text)
    return _guarded(draw, f"t = t + {read}"), last if isinstance(at, str) else at


def _guarded(draw: Callable[..., Any], statement: str) -> str:
    """A statement that may fail, mostly inside a `try`."""
    if draw(st.integers(0, 3)) == 0:
        return statement
    errors = "(AttributeError, LookupError, TypeError, ValueError)"
    return f"try:\n    {statement}\nexcept {errors}:\n    t = t + 8.0"


@st.composite
def writes(draw: Callable[..., Any], found: tuple[Node, ...]) -> str:
    """A statement of the objective that changes the graph."""
    at = draw(st.integers(0, len(found) - 1))
    node, name = found[at], f"H.n{at}"
    value = draw(st.sampled_from(["x", "x * 2.0", "1.5", "jnp.sum(x)"]))
    place = name + _place(node, draw(st.integers(0, len(node.parts) - 1)))
    options = [f"{place} = {value}", f"{place} = {place} + 1.0", f"{place} += 1.0"]
    if node.by == "item":
        options += [
            f'{name}["new"] = {value}',
            f'{name}.pop("c", None)',
            f'{name}.setdefault("n", 0.0)',
        ]
    if node.by == "element":
        options += [f"{name}.append({value})", f"{name}.append({value})", f"{name}.pop()"]
    if node.by == "attribute":
        options += [f"setattr({name}, NAMES[0], {value})", f'vars({name})["new"] = {value}']
    return _guarded(draw, draw(st.sampled_from(options)))


@st.composite
def changes(draw: Callable[..., Any], found: tuple[Node, ...], read: list[int]) -> str:
    """A statement that changes the graph between two calls, mostly one of the nodes read."""
    at = draw(st.one_of(st.sampled_from(read), st.integers(0, len(found) - 1)))
    node, name = found[at], f"N[{at}]"
    value = draw(st.one_of(NUMBERS, NUMBERS, OTHER_NUMBERS))
    other = f"N[{draw(st.integers(0, len(found) - 1))}]"
    place = name + _place(node, draw(st.integers(0, len(node.parts) - 1)))
    options = [f"{place} = {value}"] * 6 + [f"del {place}"]
    options += [f"H.n{at} = {other}", f"H.n{at} = copy.copy({name})"]
    if node.kind != "Part()":
        options.append(f"{place} = {other}")
    if node.by == "element":
        options += [
            f"{name}.append({value})",
            f"{name}.pop()",
            f"{name}.reverse()",
            f"{name}.clear()",
        ]
    elif node.kind in ATTRIBUTES:
        options += [f"type({name}).c = {value}", f"type({name}).a = {value}"]
    return draw(st.sampled_from(options))


@st.composite
def graphs(draw: Callable[..., Any], written: bool) -> Graph:
    """A graph with what is read, written and changed."""
    found = draw(nodes())
    texts, read = zip(*draw(st.lists(reads(found), min_size=1, max_size=4)), strict=True)
    lines = draw(st.lists(writes(found), min_size=1, max_size=2)) if written else []
    changed = [draw(st.lists(changes(found, list(read)), min_size=1, max_size=3)) for _ in range(5)]
    return Graph(found, build(found), texts, tuple(lines), tuple(changed))
