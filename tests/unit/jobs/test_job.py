"""Declared jobs: what is filled in, and what each mistake is answered with."""

from __future__ import annotations

from typing import Any

import pytest

from surestep.errors import JobError
from surestep.jobs.job import make_job

LEAST = {"task": "image_classification", "data": "sklearn:digits"}
TEXT = {"task": "text_classification", "data": "x.csv"}


def test_what_is_left_out_is_filled_in() -> None:
    job = make_job(LEAST, "digits")
    assert (job.name, job.output_dir) == ("digits", "runs/digits")
    assert job.task.name == "image_classification"
    assert job.data.source == "sklearn:digits"
    assert job.model.name == "residual_network"
    assert job.metrics == ["accuracy", "macro_f1"]
    assert job.arguments == {}
    assert (job.input_setting, job.input_column) == ("image", "image")
    assert make_job(TEXT, "x").model.name == "text_encoder"


def test_names_and_folders_follow_what_is_declared() -> None:
    assert make_job({**LEAST, "name": "mine"}, "x").output_dir == "runs/mine"
    assert make_job({**LEAST, "output_dir": "here"}, "x").output_dir == "here"
    job = make_job({**LEAST, "arguments": {"output_dir": "there", "seed": 1}}, "x")
    assert (job.output_dir, job.arguments) == ("there", {"seed": 1})
    with pytest.raises(JobError, match=r"output_dir is 'here' and arguments\.output_dir is 'there'"):
        make_job({**LEAST, "output_dir": "here", "arguments": {"output_dir": "there"}}, "x")


def test_a_model_without_a_name_is_the_first_of_its_task() -> None:
    job = make_job({**LEAST, "model": {"width": 16}}, "x")
    assert (job.model.name, job.model.model_dump()["width"]) == ("residual_network", 16)


def test_the_column_of_the_task_may_be_renamed() -> None:
    assert make_job({**TEXT, "data": {"source": "x.csv", "text": "message"}}, "x").input_column == "message"


MISTAKES = [
    ({"argumnets": {}}, "unknown key 'argumnets': did you mean 'arguments'?"),
    ({"data": {"source": "x", "lable": "y"}}, "data: unknown key 'lable': did you mean 'label'?"),
    ({"model": {"widht": 3}}, "model: unknown key 'widht': did you mean 'width'?"),
    (
        {"task": {"name": "image_classification", "image-sise": 3}},
        "task: unknown key 'image-sise': did you mean 'image_size'?",
    ),
    ({"model": {"x": 1, "y": 2}}, "model: unknown key 'x': it can be 'blocks_per_stage', 'dropout', 'name',"),
    ({"task": "image_clasification"}, "task: unknown name 'image_clasification': did you mean 'image_classification'?"),
    ({"task": {}}, "task: the key 'name' must be given; found {} (dict)."),
    ({"model": "resnet"}, "model: unknown name 'resnet': "),
    ({"model": "text_encoder"}, "model.name='text_encoder' does not serve the task image_classification"),
    ({"model": {"width": "32"}}, "model.width: found '32' (str). Input should be a valid integer."),
    ({"model": {"width": 12}}, "model: width=12 is no multiple of 8"),
    ({"model": {"dropout": 1.0}}, "model.dropout: found 1.0 (float). Input should be less than 1."),
    ({"model": {"num_stages": 0}}, "model.num_stages: found 0 (int)."),
    ({"model": {"num_stages": True}}, "model.num_stages: found True (bool)."),
    (
        {"model": {"name": "vision_transformer", "dim": 30}},
        "model: dim=30 cannot be divided among num_heads=4: write dim=32",
    ),
    ({"model": {"name": "pretrained"}}, "model.path: this must be given."),
    ({"data": {}}, "data.source: this must be given."),
    ({"data": 3}, "data: found 3 (int). Write keys and values."),
    ({"data": {"source": "x", "validation": 15}}, "data.validation: found 15 (int). Write a fraction between 0 and 1"),
    ({"data": {"source": "x", "test": True}}, "data.test: found True (bool). Write a fraction between 0 and 1"),
    (
        {"data": {"source": "x", "text": "y"}},
        "data.text is not read by the task image_classification; write data.image",
    ),
    ({"data": {"source": "x", "label_names": "ab"}}, "data.label_names: found 'ab' (str)."),
    ({"metrics": ["acuracy"]}, "metrics: unknown metric 'acuracy': did you mean 'accuracy'?"),
    ({"metrics": []}, "metrics: found [] (list)."),
    ({"metrics": [3]}, "metrics[0]: found 3 (int)."),
    ({"arguments": ["x"]}, "arguments: found ['x'] (list). Write keys and values."),
    ({"name": "a/b"}, "name: found 'a/b' (str)."),
    ({"name": ""}, "name: found '' (str)."),
]


@pytest.mark.parametrize(("changes", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_mistakes_are_answered_with_their_place_and_what_to_write(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as caught:
        make_job({**LEAST, **changes}, "x")
    assert said in str(caught.value)


def test_all_mistakes_of_a_job_are_told_at_once() -> None:
    with pytest.raises(JobError) as caught:
        make_job({"data": {"source": "x", "validation": 2}, "model": {"width": 0}, "task": "image_classification"}, "x")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["data.validation", "model.width"]


@pytest.mark.parametrize("missing", ["task", "data"])
def test_task_and_data_must_be_given(missing: str) -> None:
    with pytest.raises(JobError) as caught:
        make_job({key: value for key, value in LEAST.items() if key != missing}, "x")
    assert str(caught.value) == f"{missing}: this must be given."
