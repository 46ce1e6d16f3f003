"""Job files in three languages, and overrides."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from surestep.errors import JobError
from surestep.jobs.reading import apply_override, parse_yaml, read_declaration, read_job

YAML = """
task: image_classification
data: {source: "sklearn:digits", validation: 0.15}
arguments:
  learning_rate: 1e-3
  eval_strategy: no
"""
TOML = """
task = "image_classification"
data = {source = "sklearn:digits", validation = 0.15}
[arguments]
learning_rate = 1e-3
eval_strategy = "no"
"""
CONTENT = {
    "task": "image_classification",
    "data": {"source": "sklearn:digits", "validation": 0.15},
    "arguments": {"learning_rate": 1e-3, "eval_strategy": "no"},
}
FILES = {"job.yaml": YAML, "job.yml": YAML, "job.toml": TOML, "job.json": json.dumps(CONTENT)}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_language_declares_the_same_job(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    assert read_declaration(tmp_path / name) == CONTENT
    assert read_job(tmp_path / name).name == "job"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0.1", 0.1),
        (".5", 0.5),
        ("2.", 2.0),
        ("1_000", 1000),
        ("0x10", 16),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("'1'", "1"),
        ("1e", "1e"),
    ],
)
def test_plain_words_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(parse_yaml(".nan"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("job.yaml", b"a: 1\nb:\n  c: 1\n  c: 2\n", "line 3: the key 'c' is written twice"),
        ("job.json", b'{"a": {"c": 1, "c": 2}}', "the key 'c' is written twice"),
        ("job.toml", b"a = 1\na = 2\n", "cannot be read"),
        ("job.yaml", b"a: [1\n", "cannot be read"),
        ("job.yaml", b"a: !!python/object:os.system {}\n", "cannot be read"),
        ("job.json", b"{", "cannot be read"),
        (
            "job.yaml",
            b"- 1\n",
            "holds a list. A job is a mapping with the keys task and data, and any of name, ",
        ),
        ("job.yaml", b"", "is empty. A job is a mapping"),
        ("job.yaml", "name: é".encode("latin-1"), "is not UTF-8 text (byte 6)"),
        ("job.txt", b"", "a job file ends in .yaml, .yml, .json, .toml"),
    ],
)
def test_files_that_are_no_job_say_why(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError) as caught:
        read_declaration(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(YAML)
    for name in ("digit.yaml", "digits.yml"):
        with pytest.raises(JobError, match=rf"{name} does not exist; did you mean 'digits\.yaml'\?"):
            read_declaration(tmp_path / name)
    # Only the ending is the same.
    with pytest.raises(JobError, match=r"run\.yaml does not exist\."):
        read_declaration(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.validation=0.2", {"data": {"source": "x", "validation": 0.2}, "model": {"dim": 3}}),
        ("data=y", {"data": "y", "model": {"dim": 3}}),
        ("model.dim=4", {"data": "x", "model": {"dim": 4}}),
        ("arguments.eval_strategy=no", {"data": "x", "model": {"dim": 3}, "arguments": {"eval_strategy": "no"}}),
        ("metrics=[accuracy]", {"data": "x", "model": {"dim": 3}, "metrics": ["accuracy"]}),
        ("name=a=b", {"data": "x", "model": {"dim": 3}, "name": "a=b"}),
    ],
)
def test_overrides_set_one_value(override: str, expected: dict[str, Any]) -> None:
    declared: dict[str, Any] = {"data": "x", "model": {"dim": 3}}
    apply_override(declared, override)
    assert declared == expected


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data", "is not of the form section.key=value"),
        ("=3", "is not of the form"),
        ("a..b=3", "is not of the form"),
        ("model.dim.x=3", "'model.dim' is 3 and has no keys"),
        ("name.x=3", "'name' is 'mine' and has no keys"),
        ("model=[1", "is not YAML"),
    ],
)
def test_overrides_that_cannot_be_are_refused(override: str, said: str) -> None:
    with pytest.raises(JobError, match=r"the override|the value of the override") as caught:
        apply_override({"model": {"dim": 3}, "name": "mine"}, override)
    assert said in str(caught.value)


def test_overrides_are_as_strict_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(YAML)
    with pytest.raises(JobError, match=r"model: unknown key 'widht': did you mean 'width'"):
        read_job(tmp_path / "job.yaml", ["model.widht=8"])
    with pytest.raises(JobError, match=r"model\.width: found 'wide' \(str\)"):
        read_job(tmp_path / "job.yaml", ["model.width=wide"])
    assert read_job(tmp_path / "job.yaml", ["model.width=8"]).model.model_dump()["width"] == 8
