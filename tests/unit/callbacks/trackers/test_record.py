import logging

import numpy as np
import pytest
import torch

from surestep.callbacks.trackers.entries import Entry, history, number
from surestep.callbacks.trackers.record import Record, Sent, Stored, Values, everything_up_to, read_record, record_path


def entry(step, **values):
    return Entry(step, values or {"loss": 1.0})


def has(known, whole):
    lacking = known.lacking(whole)
    assert lacking in (None, whole)
    return lacking is None


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = Record("run", "mine").after(entry(3)).after(entry(3)).after(entry(4)).after(entry(4))
    assert (record.step, record.count) == (4, 2)
    record.write(tmp_path / "new", "wandb")
    assert read_record(tmp_path / "new", "wandb") == record
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["tracker_wandb.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "x", "more": 1}', "{}"])
def test_a_record_that_cannot_be_read_is_named(tmp_path, caplog, content):
    record_path(tmp_path, "wandb").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert read_record(tmp_path, "wandb") is None
    assert "tracker_wandb.json' cannot be read" in caplog.text


def test_no_record_is_none(tmp_path, caplog):
    assert read_record(tmp_path, "wandb") is None
    assert caplog.text == ""


def test_sent_is_everything_up_to_the_record():
    sent = Sent(Record("run", step=3, count=2))
    assert [has(sent, entry(step)) for step in (1, 2, 3, 3, 3, 4, 5)] == [True, True, True, True, False, False, False]
    assert all(has(Sent(everything_up_to(Record("run"), 3)), entry(3)) for _ in range(5))


def test_stored_is_what_was_read_back():
    points = [(1, "train/loss"), (1, "train/epoch"), (2, "eval/loss"), (4, "train/loss")]
    stored = Stored(points, Record("run", step=9, count=1))
    assert has(stored, entry(1, loss=1.0, epoch=0.1))
    assert not has(stored, entry(1, eval_loss=1.0, epoch=0.1))
    assert has(stored, entry(2, eval_loss=1.0, epoch=0.2))
    assert not has(stored, entry(3, loss=1.0))
    assert not has(stored, entry(4, loss=1.0, grad_norm=1.0))
    assert has(stored, entry(8, train_runtime=1.0, epoch=1))
    assert not has(stored, entry(10, train_runtime=1.0, epoch=1))


def test_of_values_only_those_that_are_not_there_are_lacking():
    points = [(1, "train/loss"), (1, "epoch"), (1, "epoch"), (2, "train/loss")]
    given = {"loss": "train/loss", "eval_loss": "eval/loss", "epoch": "epoch"}
    known = Values(points, lambda whole: {name: given[name] for name in whole.values if name in given})

    assert known.lacking(entry(1, loss=1.0, epoch=0.1, note="x")) is None
    assert known.lacking(entry(1, eval_loss=2.0, epoch=0.1)) == entry(1, eval_loss=2.0)
    assert known.lacking(entry(2, loss=1.0, epoch=0.2)) == entry(2, epoch=0.2)
    assert known.lacking(entry(3, loss=1.0, epoch=0.3)) == entry(3, loss=1.0, epoch=0.3)


def test_history_is_the_log_of_the_state():
    found = history([{"loss": 1.0, "epoch": 0.5, "step": 1}, {"eval_loss": 2.0, "step": 2}])
    assert [(item.step, dict(item.values), item.epoch, item.replayed) for item in found] == [
        (1, {"loss": 1.0, "epoch": 0.5}, 0.5, True),
        (2, {"eval_loss": 2.0}, None, True),
    ]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1, 1),
        (0.5, 0.5),
        (True, True),
        (np.float32(0.5), 0.5),
        (np.array([2]), 2),
        (torch.tensor(3.0), 3.0),
        (torch.tensor([4]), 4),
        (torch.ones(2), None),
        (np.ones(2), None),
        ("5", None),
        ([6], None),
        (None, None),
    ],
)
def test_numbers(value, found):
    assert number(value) == found
