"""Tables from files, folders and libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from surestep.errors import DataError, MissingPackageError, NotServedError
from surestep.tasks.data import files as files_module
from surestep.tasks.data.source import fingerprint, open_other, open_source
from surestep.tasks.data.table import Table

RECORDS = [
    {"text": "one, two", "label": 1},
    {"text": 'a "quoted" word\nover lines', "label": 0},
    {"text": "é", "label": 1},
]


def _write_csv(path: Path) -> None:
    path.write_text('\ufefftext,label\n"one, two",1\n"a ""quoted"" word\nover lines",0\né,1\n\n', encoding="utf-8")


def _write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), path)


WRITERS = {
    "csv": _write_csv,
    "tsv": lambda path: path.write_text('text\tlabel\none, two\t1\n"a ""quoted"" word\nover lines"\t0\né\t1\n'),
    "jsonl": lambda path: path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS) + "\n"),
    "json": lambda path: path.write_text(json.dumps(RECORDS)),
    "parquet": _write_parquet,
}


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_every_kind_of_file_holds_the_same_table(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / f"data.{kind}")
    table = open_source(f"data.{kind}", tmp_path)
    assert list(table.columns) == ["text", "label"]
    assert list(table.columns["text"]) == [record["text"] for record in RECORDS]
    assert [int(label) for label in table.columns["label"]] == [1, 0, 1]


def test_json_may_hold_columns_and_lines_may_lack_keys(tmp_path: Path) -> None:
    (tmp_path / "columns.json").write_text('{"a": [1, 2], "b": ["x", "y"]}')
    (tmp_path / "gaps.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert open_source("columns.json", tmp_path).columns == {"a": [1, 2], "b": ["x", "y"]}
    assert open_source("gaps.jsonl", tmp_path).columns == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"", "has no rows"),
        ("x.csv", b"a,b\n", "has no rows"),
        ("x.csv", b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells where the header has 2"),
        ("x.csv", b"a,a\n1,2\n", "the header names 'a' more than once"),
        ("x.csv", b'a,b\n"1,2\n', "line 2: unexpected end of data"),
        ("x.csv", "a,b\nä,1\n".encode("latin-1"), "is not UTF-8 text (byte 4)"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2: this is not JSON"),
        ("x.jsonl", b"[1]\n", "record 1: expected an object"),
        ("x.json", b'{"a": 1}', "expected a list of objects"),
        ("x.json", b'{"a": [1], "b": []}', "different lengths"),
        ("x.json", b"[]", "has no rows"),
        ("x.parquet", b"no parquet", "cannot be read as Parquet"),
        ("x.xlsx", b"", "files of type '.xlsx' are not read"),
    ],
)
def test_files_that_cannot_be_read_say_where(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(name, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert said in str(caught.value)


def _paint(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(path)


def test_a_folder_of_pictures_has_its_classes_as_sub_folders(tmp_path: Path) -> None:
    _paint(tmp_path / "cat" / "1.png", 1)
    _paint(tmp_path / "dog" / "deeper" / "2.JPG", 2)
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    table = open_source(".", tmp_path)
    assert table.columns == {"image": [Path("cat/1.png"), Path("dog/deeper/2.JPG")], "label": ["cat", "dog"]}
    assert table.folder == tmp_path


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no sub-folders"):
        open_source(".", tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="cat holds no pictures"):
        open_source(".", tmp_path)


def test_the_digits_are_pictures_with_named_classes() -> None:
    table = open_source("sklearn:digits", Path())
    assert len(table) == 1797
    assert table.columns["image"][0].shape == (8, 8)
    assert table.columns["image"][0].dtype == np.uint8
    assert max(image.max() for image in table.columns["image"]) == 255
    assert table.class_names["label"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_tables_of_measurements_are_refused_by_name(name: str) -> None:
    with pytest.raises(NotServedError, match=f"sklearn:{name}.*not served.*Served: sklearn:digits"):
        open_source(f"sklearn:{name}", Path())


def test_unknown_sets_are_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        open_source("sklearn:digit", Path())


def test_a_set_of_the_hub_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Couldn't reach 'stanfordnlp/imdb' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"Couldn't reach.*HF_DATASETS_CACHE.*path of a local file"):
        open_source("hf:stanfordnlp/imdb", Path())


def test_a_set_of_the_hub_keeps_class_names_and_encoded_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    pictures = [Image.fromarray(np.full((2, 2), value, dtype=np.uint8)) for value in (7, 9)]
    content = datasets.Dataset.from_dict({"image": pictures, "label": [1, 0]}, features=features)
    asked: list[tuple[object, ...]] = []

    def load(path: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((path, config, split))
        return content

    monkeypatch.setattr(datasets, "load_dataset", load)
    table = open_source("hf:pets:small", Path())
    open_other("split:test", "hf:pets:small", Path())
    assert asked == [("pets", "small", "train"), ("pets", "small", "test")]
    assert table.class_names == {"label": ["cat", "dog"]}
    assert table.columns["image"][0]["bytes"].startswith(b"\x89PNG")


def test_splits_of_the_hub_that_are_absent_or_empty_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(path: str, config: str | None, split: str) -> datasets.Dataset:
        if split == "nope":
            raise ValueError("Unknown split 'nope'. Should be one of ['train'].")
        return datasets.Dataset.from_dict({"text": []})

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"hf:pets has no split 'nope': Unknown split 'nope'. Should be one of \['train'\]"
    ):
        open_other("split:nope", "hf:pets", Path())
    with pytest.raises(DataError, match="hf:pets, split 'train', has no rows"):
        open_source("hf:pets", Path())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lacking(module: str, purpose: str) -> None:
        raise MissingPackageError(f"{purpose} needs {module}")

    monkeypatch.setattr(files_module, "require", lacking)
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(MissingPackageError, match=r"reading .*x.parquet needs pyarrow"):
        open_source("x.parquet", tmp_path)


def test_rows_are_told_apart_by_their_content(tmp_path: Path) -> None:
    _paint(tmp_path / "a.png", 1)
    _paint(tmp_path / "b.png", 1)
    _paint(tmp_path / "c.png", 2)
    values = [Path("a.png"), Path("b.png"), Path("c.png"), np.zeros((2, 3)), np.zeros((3, 2)), "a", b"a", "a"]
    digests = Table({"x": values}, "here", folder=tmp_path).row_digests(["x"])
    assert digests[0] == digests[1]
    assert digests[5] == digests[7]
    assert len(set(digests)) == 5


def test_the_fingerprint_follows_the_content_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    _paint(tmp_path / "pictures" / "cat" / "1.png", 1)
    sources = ["x.csv", "pictures", "sklearn:digits"]
    before = fingerprint(sources, tmp_path)
    assert before == fingerprint(sources, tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,3\n")
    changed = fingerprint(sources, tmp_path)
    _paint(tmp_path / "pictures" / "cat" / "2.png", 1)
    assert len({before, changed, fingerprint(sources, tmp_path)}) == 3
