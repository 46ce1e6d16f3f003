"""The smallest and largest label of a table, read in its own columns and not row by row."""

from __future__ import annotations

from typing import Any

from surestep.optional import require

_ROWS = 100_000


def label_range(dataset: Any, column: str, ignored: int = -100) -> tuple[int, int] | None:
    """Return the smallest and the largest whole number in a column of a `datasets.Dataset`, those of lists as well.

    Labels that are `ignored` do not count. None where the column holds anything else, or no label, and where a
    transform makes the samples: what it makes of the column is not known.
    """
    if getattr(dataset, "format", {}).get("type") == "custom" or column not in dataset.column_names:
        return None
    pc = require("pyarrow.compute", "reading the columns of a table")
    types = require("pyarrow.types", "reading the columns of a table")
    found: list[tuple[int, int]] = []
    # Through the arrow format, for rows may be selected and shuffled over the table beneath.
    for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=_ROWS):
        values = table.column(0)
        while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
            values = pc.list_flatten(values)
        if not types.is_integer(values.type):
            return None
        bounds = pc.min_max(pc.filter(values, pc.not_equal(values, ignored))).as_py()
        if bounds["min"] is not None:
            found.append((bounds["min"], bounds["max"]))
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None
