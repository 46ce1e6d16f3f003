"""Every page of the documentation can be reached: from the navigation, and from the first page."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_in_the_navigation(page: str) -> None:
    assert f": {page}\n" in (ROOT / "mkdocs.yml").read_text("utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index.md"])
def test_a_page_is_on_the_first_page(page: str) -> None:
    assert f"]({page})" in (ROOT / "docs/index.md").read_text("utf-8")
