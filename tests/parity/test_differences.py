"""Every row of docs/differences.md has its test, and every such test its row."""

from __future__ import annotations

from tests.parity.differences import rows, shown


def test_every_row_has_one_test_and_every_test_a_row() -> None:
    assert sorted(shown()) == sorted(rows())


def test_every_row_is_complete() -> None:
    for name, cells in rows().items():
        assert len(cells) == 4, f"{name} has {len(cells)} cells"
        assert all(cells), f"{name} has an empty cell"
