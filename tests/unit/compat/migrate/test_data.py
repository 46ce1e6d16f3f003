"""YAML and JSON: keys and values change where they stand, and nothing else."""

from __future__ import annotations

import json

import pytest
import yaml

from surestep.compat.migrate.data import migrate_json, migrate_yaml
from surestep.errors import MigrationError

YAML = """\
# a job
model: mine
arguments:   # of the trainer
  output_dir: out   # where
  evaluation_strategy: steps  # how often

  # about the device
  no_cuda: true
  overwrite_output_dir: yes   # goes, with what is said of it
  lr_scheduler: 'cosine_w_restarts'
  sharded_ddp:
    - simple
  dispatch_batches: null
  save_steps: -1
flow: {per_gpu_train_batch_size: 4, "no_cuda": true, adafactor: false}
other:
  label_smoothing: 0.1
"""
TODAY = """\
# a job
model: mine
arguments:   # of the trainer
  output_dir: out   # where
  eval_strategy: steps  # how often

  # about the device
  use_cpu: true
  lr_scheduler_type: cosine_with_restarts
  sharded_ddp:
    - simple
  save_strategy: 'no'
flow: {per_device_train_batch_size: 4, "use_cpu": true}
other:
  label_smoothing: 0.1
"""


def test_yaml_keeps_its_comments_and_its_order() -> None:
    migration = migrate_yaml(YAML, "job.yaml")

    assert migration.after == TODAY
    assert [note.line for note in migration.done] == [5, 8, 9, 10, 13, 14, 15, 15, 15]
    assert [(note.line, note.text.split()[0]) for note in migration.left] == [
        (11, "sharded_ddp=['simple']"),
        (17, "label_smoothing"),
    ]


def test_twice_is_once() -> None:
    once = migrate_yaml(YAML, "job.yaml").after
    assert not migrate_yaml(once, "job.yaml").changed


def test_a_value_that_is_an_alias_of_another_is_left() -> None:
    text = "output_dir: &name steps\nevaluation_strategy: *name\n"
    migration = migrate_yaml(text, "job.yaml")

    assert not migration.changed
    assert "alias (*)" in migration.left[0].text


def test_an_item_of_a_list_is_not_taken_apart() -> None:
    text = "runs:\n  - overwrite_output_dir: true\n    no_cuda: false\n    output_dir: out\n"
    migration = migrate_yaml(text, "runs.yaml")

    assert migration.after == "runs:\n  - overwrite_output_dir: true\n    output_dir: out\n"
    assert "by hand" in migration.left[0].text


def test_two_documents_and_a_file_of_nothing() -> None:
    migration = migrate_yaml("output_dir: a\nno_cuda: true\n---\noutput_dir: b\nno_cuda: true\n", "two.yaml")
    assert migration.after.count("use_cpu: true") == 2
    assert not migrate_yaml("# nothing\n", "empty.yaml").changed


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"no_cuda": True, "output_dir": "out"}, {"use_cpu": True, "output_dir": "out"}),
        ({"output_dir": "out", "no_cuda": False}, {"output_dir": "out"}),
        ({"no_cuda": False, "overwrite_output_dir": True}, {}),
        ({"output_dir": "o", "adafactor": True, "no_cuda": False}, {"output_dir": "o", "optim": "adafactor"}),
        ({"run_name": "ä\t{}", "fsdp_min_num_params": 5}, {"run_name": "ä\t{}", "fsdp_config": {"min_num_params": 5}}),
    ],
    ids=str,
)  # fmt: skip
def test_json_stays_json(given: object, expected: object, indent: str | int | None) -> None:
    migration = migrate_json(json.dumps(given, indent=indent), "settings.json")

    assert json.loads(migration.after) == expected
    assert not migrate_json(migration.after, "settings.json").changed


def test_what_a_program_reads_is_what_was_meant() -> None:
    assert yaml.safe_load(migrate_yaml(YAML, "").after)["arguments"]["save_strategy"] == "no"


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x: {"])
def test_what_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(MigrationError, match=r"'bad\.yaml' is no YAML: "):
        migrate_yaml(text, "bad.yaml")


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(MigrationError, match=r"'bad\.json' is no JSON: .*line 1"):
        migrate_json("{'no_cuda': true}", "bad.json")
