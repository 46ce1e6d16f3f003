"""Whether the training data follows from the position, as a resumed run needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from surestep.data.probing import read_twice
from surestep.data.reading import Reader
from surestep.trainer.reading import HOW_TO_SEED


def draws_of(reader: Reader) -> Iterator[str]:
    """Yield what is wrong where the first batch is another one when it is read again."""
    found = read_twice(reader)
    if found is None:
        return
    drawn = (
        f"It draws from {', '.join(found.where)}" if found.where else "It keeps a counter, or a generator of its own"
    )
    part = f" in {found.differs}" if found.differs else ""
    yield (
        f"The first batch, read twice, differs{part}: {_makers(reader.loader)} "
        f"does not follow from the position alone, so that a resumed run sees other data. {drawn}. {HOW_TO_SEED}"
    )


def _makers(loader: Any) -> str:
    """Name what makes the batches."""
    collate = getattr(loader, "collate_fn", None)
    parts = [getattr(loader, "dataset", loader), getattr(collate, "data_collator", collate)]
    names = [getattr(one, "__name__", type(one).__name__) for one in parts if one is not None]
    return f"what {' and '.join(names)} give" + ("" if len(names) > 1 else "s")
