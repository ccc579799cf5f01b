"""README.md and docs/*.md: every Python block runs, every relative link leads somewhere."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import fluxax as fx

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]

FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:|#")  # https:, mailto:, a place on the same page


def python_blocks(page: Path) -> list[str]:
    """The Python blocks of a page, each at its own line, so that a traceback points there."""
    text = page.read_text("utf-8")
    return [
        "\n" * (text[: block.start("text")].count("\n")) + block["text"]
        for block in FENCE.finditer(text)
        if block["language"] in ("python", "py")
    ]


def broken_links(page: Path) -> list[str]:
    prose = FENCE.sub("", page.read_text("utf-8"))
    targets = [link["target"] for link in LINK.finditer(prose)]
    return [
        target
        for target in targets
        if not ELSEWHERE.match(target) and not (page.parent / target.partition("#")[0]).exists()
    ]


def run(page: Path) -> types.ModuleType:
    """Run a page's blocks in order, in one namespace."""
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # classes of the page can be pickled
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p)], ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def unknown_names(text: str) -> list[str]:
    """What a text calls a name of fluxax, and is none."""
    return sorted({name for name in NAME.findall(text) if _lacks(fx, name.split("."))})


NAME = re.compile(r"\bfx\.([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)?)")


def _lacks(owner: object, names: list[str]) -> bool:
    if not hasattr(owner, names[0]):
        return True
    inner = getattr(owner, names[0])
    return len(names) > 1 and isinstance(inner, types.ModuleType) and not hasattr(inner, names[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_is_named_exists(page: Path) -> None:
    assert unknown_names(page.read_text("utf-8")) == []


def test_a_page_is_read_as_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[here](page.md#a) [gone](gone.md) [far](https://example.org)\n"
        "```text\n[no](link.md)\n```\n```python\na = 1\n```\n\n```python\nb = a + 1\n```\n",
        "utf-8",
    )
    assert broken_links(page) == ["gone.md"]
    assert run(page).b == 2
    assert python_blocks(page)[0].count("\n") == 6
    assert unknown_names("fx.mse, fx.losses.mse(a), `fx.mze`, fx.losses.mze") == [
        "losses.mze",
        "mze",
    ]
