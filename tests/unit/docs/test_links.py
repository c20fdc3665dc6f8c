"""Links between pages lead somewhere, and every page is found from the first one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    page for below in (".", "docs", "docs/adr", "tests") for page in (ROOT / below).glob("*.md")
]
PAGES += (ROOT / "tests").glob("*/*.md")


def prose(page: Path) -> str:
    """The page without what stands in fences."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """How GitHub names the page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """What the page links to within the repository: a file, and a heading in it or nothing."""
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", prose(page)):
        yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = [(file, anchor) for file, anchor in links(page) if not file.exists()]
    lost += [
        (file, anchor) for file, anchor in links(page) if anchor and anchor not in anchors(file)
    ]
    assert lost == []


def test_every_page_of_the_documentation_is_linked_from_the_first() -> None:
    linked = {file for file, _ in links(ROOT / "README.md")}
    linked |= {file for file, _ in links(ROOT / "docs" / "adr" / "README.md")}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - linked == set()
