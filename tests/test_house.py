"""The rules of the house (CONTRIBUTING.md), as data and one small reader of the source.

Nothing here imports fluxax: the rules are about what the files say.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: From the ground up. A room imports from floors below its own and from its own package.
FLOORS = [
    ["_errors"],
    ["_between", "_random", "_jax", "_tensors", "_instances", "_half", "_integers"],
    ["_jax_parts"],
    ["_primitives", "_draws", "_elementwise"],
    ["_tree", "_compilation_cache", "_stopping", "_softmax"],
    ["_module"],
    ["_parameters"],
    ["_loading", "_put_back", "_remake"],
    ["_implicit"],
    ["_show", "init", "_activations", "_destructure"],
    ["kernels"],
    ["_compile"],
    ["_gradient", "_compiled", "_derivatives"],
    ["optimisers"],
    ["_plans"],
    ["_step"],
    ["_replay"],
    ["_diagnosis"],
    ["_pieces", "_bar"],
    ["_pass"],
    ["_train"],
    ["_evaluate"],
    ["losses", "layers", "data"],
    ["_state_copies"],
    ["_checkpoint", "_devices"],
    ["__main__"],
]

#: Rooms that do not know each other, whichever floor they are on.
STRANGERS = {"optimisers", "losses", "layers", "data"}

#: Public modules; every other file of the package starts with an underscore.
PUBLIC = {"init", "losses", "data", "layers", "optimisers", "kernels", "distributed", "plots"}

#: Optional or slow to import: these may be imported inside a function, and only there.
LATE = {"equinox", "IPython", "matplotlib", "optax", "scipy", "torch", "tqdm"}

#: Names that say nothing about who lives there.
NO_NAMES = {"utils", "misc", "common", "helpers", "base", "core"}

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 40  # its docstring not counted

#: Written in two halves, so that this file does not contain what it looks for.
NOT_SAID = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/tmp/", "ref"),
    ("/opt/", "pypi"),
    ("/opt/", "wheels"),
    ("/etc/", "xdg"),
    (r"(?<!\w)sha", r"red/(?!\w*\.py)"),
    (r"\.lib", r"rary\b"),
    ("py", r"pi\.org"),
    ("python", "hosted"),
    ("npm", r"js\.(org|com)"),
]
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".json", ".cfg", ".ini", ".jl", ".typed"}
NOT_OURS = {".git", ".hypothesis", "out", "dist", "site", "__pycache__"}
NOT_LOOKED_INTO = re.compile(r"_cache$|^\.venv")  # folders of others


class Import(NamedTuple):
    """One import: the module it names, its line, and whether it stands inside a function."""

    target: str
    line: int
    late: bool


def none_of(wrong: Iterable[object]) -> None:
    """Fail with one line for each thing that is wrong."""
    lines = [str(thing) for thing in wrong]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def ours(*suffixes: str) -> list[Path]:
    """The files of the project with one of these suffixes ("" for the Makefile and .ci/run)."""
    return [path for path in every_file() if path.suffix in suffixes]


@functools.cache
def every_file() -> list[Path]:
    """Installed packages and what tools keep are not looked into: they are a hundred times more."""
    found = []
    for folder, inside, files in os.walk(ROOT):
        inside[:] = [d for d in inside if d not in NOT_OURS and not NOT_LOOKED_INTO.search(d)]
        found += [Path(folder, file) for file in files if file not in NOT_OURS]
    return sorted(found)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_files() -> list[Path]:
    return sorted((ROOT / "fluxax").rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in package_files()}


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, relative ones resolved."""
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text("utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in inside)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                yield Import(
                    full if full in MODULES else str(origin), node.lineno, id(node) in inside
                )


def room(module: str) -> str:
    """`optimisers` for `fluxax.optimisers._adam`; empty for the front door."""
    return module.partition(".")[2].partition(".")[0]


def floor(room: str) -> int:
    """How high a room stands; one that no floor knows stands above all."""
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))


def breaches(path: Path) -> Iterator[str]:
    """What is wrong with where a file imports from, a sentence each."""
    here = room(module_name(path))
    for target, line, _ in imports(path):
        there = room(target)
        if target.split(".")[0] != "fluxax" or there == here:
            continue
        if not there:
            yield f"{name(path)}:{line} imports the front door."
        elif {here, there} <= STRANGERS:
            yield f"{name(path)}:{line}: {here} and {there} do not know each other."
        elif floor(there) >= floor(here):
            yield f"{name(path)}:{line}: {here} imports {there}, which is not below it."


def test_every_room_stands_on_a_floor() -> None:
    none_of({room(module) for module in MODULES} - {""} - set().union(*FLOORS))


def test_imports_go_one_way() -> None:
    inside = [path for path in package_files() if module_name(path) != "fluxax"]
    none_of(breach for path in inside for breach in breaches(path))


def test_no_cycle_inside_a_package() -> None:
    graph = {
        module: {i.target for i in imports(path)} & MODULES.keys() - {module}
        for module, path in MODULES.items()
        if module != "fluxax"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        none_of([" → ".join(error.args[1])])


def test_imports_stand_at_the_top_unless_optional_or_slow() -> None:
    wrong = [
        f"{name(path)}:{line} {'inside a function' if late else 'at the top'}: {target}"
        for path in package_files()
        for target, line, late in imports(path)
        if late != (target.split(".")[0] in LATE)
    ]
    none_of(wrong)


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text("utf-8").splitlines()) for path in ours(".py")}
    none_of(f"{k}: {n} lines" for k, n in lengths.items() if n > MOST_LINES_OF_A_FILE)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is None:
        return lines
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


def test_functions_are_short() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}: {length(node)} lines"
        for path in ours(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and length(node) > MOST_LINES_OF_A_FUNCTION
    ]
    none_of(long)


def test_rooms_have_names_that_say_who_lives_there() -> None:
    stems = {name(path): path.stem.strip("_") for path in ours(".py")}
    stems |= {name(path.parent): path.parent.name.strip("_") for path in package_files()}
    none_of(k for k, stem in stems.items() if stem in NO_NAMES)


def test_implementation_files_start_with_an_underscore() -> None:
    rooms = [part for module in MODULES for part in module.split(".")[1:]]
    none_of({part for part in rooms if not part.startswith("_")} - PUBLIC)


def test_no_file_speaks_of_one_machine() -> None:
    pattern = re.compile("|".join(f"{a}{b}" for a, b in NOT_SAID))
    said = [
        f"{name(path)}:{number}: {found.group()}"
        for path in ours(*TEXT, "")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := pattern.search(line))
    ]
    none_of(said)
