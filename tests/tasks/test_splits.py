"""Cuts of data: the same every time, every class in its proportion, nothing twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surestep.errors import DataError
from surestep.tasks.data.splits import open_splits, stratified
from surestep.tasks.settings import DataSettings


@settings(max_examples=60)
@given(
    ids=st.lists(st.integers(0, 4), min_size=1, max_size=120),
    validation=st.floats(0.05, 0.45),
    test=st.floats(0.05, 0.45),
    seed=st.integers(0, 5),
)
def test_a_cut_takes_every_row_once_and_keeps_proportions(
    ids: list[int], validation: float, test: float, seed: int
) -> None:
    labels = np.array(ids)
    parts = stratified(labels, {"validation": validation, "test": test}, seed)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(ids)))
    assert set(labels[parts["train"]]) == set(ids)
    assert parts == stratified(labels, {"validation": validation, "test": test}, seed)
    for name, share in {"validation": validation, "test": test}.items():
        # The first row of each class is kept for training, which may cost the others a row a class at most.
        assert abs(len(parts[name]) - share * len(ids)) <= 1 + len(set(ids))


def test_large_classes_keep_their_proportion_within_a_row() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    parts = stratified(labels, {"validation": 0.15, "test": 0.15}, 0)
    for name in ("validation", "test"):
        counts = np.bincount(labels[parts[name]])
        assert abs(counts[0] - 135) <= 1
        assert abs(counts[1] - 15) <= 1


def test_another_seed_cuts_otherwise() -> None:
    labels = np.arange(200) % 4
    assert stratified(labels, {"test": 0.2}, 0) != stratified(labels, {"test": 0.2}, 1)


def test_the_cut_of_the_digits_never_changes() -> None:
    splits = open_splits(DataSettings(source="sklearn:digits", validation=0.15, test=0.15), "image", Path())
    assert splits.sizes() == {"train": 1258, "validation": 270, "test": 269}
    assert splits.warnings == ()
    digests = [part.table.row_digests(["image"]) for part in splits.parts.values()]
    assert len(set(digests[0]) & set(digests[2])) == 0


def test_fractions_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(DataError, match="leave nothing to train on"):
        stratified(np.array([0, 1]), {"validation": 0.5, "test": 0.5}, 0)


def _write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path.name


ROWS = [(f"word{i}", "ab"[i % 2]) for i in range(20)]


def test_a_part_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    main = _write(tmp_path / "main.csv", ROWS)
    other = _write(tmp_path / "other.csv", [("new", "a"), ("word3", "b")])
    splits = open_splits(DataSettings(source=main, validation=other, test=0.1), "text", tmp_path)
    assert splits.sizes() == {"train": 18, "validation": 2, "test": 2}
    assert list(splits.parts) == ["train", "validation", "test"]
    assert splits.parts["validation"].label_ids.tolist() == [0, 1]


def test_rows_to_judge_on_that_are_trained_on_are_warned_of(tmp_path: Path) -> None:
    main = _write(tmp_path / "main.csv", ROWS)
    other = _write(tmp_path / "other.csv", [("new", "a"), ("word3", "b")])
    (warning,) = open_splits(DataSettings(source=main, test=other), "text", tmp_path).warnings
    assert "1 of 2 test rows are also in the training data, for example 'word3'" in warning


def test_classes_that_a_part_lacks_are_warned_of(tmp_path: Path) -> None:
    main = _write(tmp_path / "main.csv", [*ROWS, ("rare", "c")])
    warnings = open_splits(DataSettings(source=main, test=0.2), "text", tmp_path).warnings
    assert warnings == ("the test data has no row of 'c'.",)


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        (
            {"source": "main.csv", "label": "lable"},
            "data.label: {}/main.csv has no column 'lable': did you mean 'label'?",
        ),
        ({"source": "main.cvs"}, "{}/main.cvs does not exist; did you mean 'main.csv'?"),
        ({"source": "nowhere/main.csv"}, "{}/nowhere/main.csv does not exist, nor does its folder."),
        ({"source": "main.csv", "test": "strange.csv"}, "the label 'z' (row 0) is not among the classes"),
        ({"source": "main.csv", "test": "empty.csv"}, "{}/empty.csv has no rows."),
        ({"source": "main.csv", "test": "split:test"}, "only hf: sources have named splits"),
        ({"source": "skleam:digits"}, "begins with 'skleam:', did you mean 'sklearn'?"),
        ({"source": "main.csv", "test": 0.001}, "no row of the 20"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, settings_: dict[str, object], said: str) -> None:
    _write(tmp_path / "main.csv", ROWS)
    _write(tmp_path / "strange.csv", [("x", "z")])
    _write(tmp_path / "empty.csv", [])
    with pytest.raises(DataError) as caught:
        open_splits(DataSettings.model_validate(settings_), "text", tmp_path)
    assert said.format(tmp_path) in str(caught.value)
