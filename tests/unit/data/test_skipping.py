"""What is told while data is read again up to a position."""

from __future__ import annotations

import logging

import pytest

from surestep.data.skipping import skipping


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="surestep")


@pytest.mark.parametrize(
    ("samples", "batches", "what"),
    [
        (0, 1, "1 batch:"),
        (1, 0, "1 sample:"),
        (1, 2, "1 sample and 2 batches:"),
        (12_000, 1_000, "12,000 samples and 1,000 batches:"),
    ],
)
def test_how_much_and_why(samples: int, batches: int, what: str, caplog: pytest.LogCaptureFixture) -> None:
    because = "shuffling by a buffer loses its place"
    with skipping(samples, batches, because):
        pass
    said = caplog.messages[0].replace(", since", ":")
    assert said == f"The training data is read again from its beginning: {what} {because}."


def test_without_a_reason_it_says_what_is_not_read_again(caplog: pytest.LogCaptureFixture) -> None:
    with skipping(0, 3, None):
        pass
    assert "3 batches; a map-style dataset, or one that tells its position, is not." in caplog.text
