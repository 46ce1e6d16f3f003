"""Searches end each trial with a collection of garbage, which looks at everything that lives."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _short_collections() -> Iterator[None]:
    """Keep what was there before out of these collections."""
    gc.freeze()
    yield
    gc.unfreeze()
