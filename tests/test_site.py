"""The site's plan and its pages belong together; building it is `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

import fluxax as fx

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

#: Rooms of the package that a page shows as a whole, with all that they export.
ROOMS = ("losses", "optimisers", "data", "layers", "init", "_activations", "kernels")


def planned() -> list[str]:
    plan = (ROOT / "mkdocs.yml").read_text("utf-8")
    return re.findall(r"^ +- .*: (\S+\.md)$", plan, re.MULTILINE)


def shown() -> list[str]:
    """What the reference pages show, in order."""
    pages = [DOCS / page for page in planned() if page.startswith("api/")]
    return re.findall(r"^::: fluxax\.(\w+)$", "\n".join(p.read_text("utf-8") for p in pages), re.M)


def test_every_page_is_planned_once() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(planned()) == sorted(pages)


def test_every_public_name_has_a_place_in_the_reference() -> None:
    front = (ROOT / "fluxax" / "__init__.py").read_text("utf-8")
    names = set(re.findall(r"^from \S+ import \w+ as (\w+)$", front, re.MULTILINE))
    text = "".join(path.read_text("utf-8") for path in (DOCS / "api").glob("*.md"))
    missing = {n for n in names if n not in shown() and f"fx.{n}(" not in text}
    assert missing == set(), "give them a line `::: fluxax.NAME` on a page of docs/api"


def test_nothing_is_shown_twice_or_that_is_not_there() -> None:
    assert sorted(shown()) == sorted(set(shown()))
    assert [name for name in shown() if not hasattr(fx, name)] == []
    assert set(ROOMS) <= set(shown())


def test_links_stay_among_the_pages() -> None:
    link = re.compile(r"\]\((?!\w+:|#)([^)#\s]+\.\w+)")  # not an index in code, then a call
    lost = {
        f"{page.relative_to(DOCS)}: {target}"
        for page in DOCS.rglob("*.md")
        for target in link.findall(page.read_text("utf-8"))
        if not (path := (page.parent / target).resolve()).is_relative_to(DOCS) or not path.exists()
    }
    assert lost == set()
