"""surestep run and surestep plan: a job, the same again, changed, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import DIGITS, EXAMPLES, SMALL, Ended, results

Run = Callable[..., Ended]


def test_the_demo_trains_and_is_shown_when_run_again(surestep: Run, here: Run, tmp_path: Path) -> None:
    first = surestep("run", DIGITS, *SMALL)
    assert first.code == 0, first.err
    folder = tmp_path / "runs" / "digits"
    found = results(folder)
    assert (found["steps"], found["epochs"], found["resumed_from_step"]) == (160, 4, 0)
    assert found["scores"]["test"]["metrics"]["accuracy"] > 0.85
    assert sum(map(sum, found["scores"]["test"]["confusion"])) == found["scores"]["test"]["samples"] == 269
    per_class = found["scores"]["test"]["per_class"]
    assert list(per_class) == found["labels"]
    assert sum(figures["f1"] for figures in per_class.values()) / 10 == pytest.approx(
        found["scores"]["test"]["metrics"]["macro_f1"]
    )
    assert (folder / "model" / "model.safetensors").is_file()
    assert f"{found['scores']['test']['metrics']['accuracy']:.4f}" in first.out
    assert "true class (rows), predicted class (columns)" in first.out
    assert "Written to runs/digits: " in first.out
    assert "\x1b" not in first.out + first.err

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    again = here("run", DIGITS, *SMALL)
    assert again.code == 0
    assert "This run is complete." in again.err
    assert first.out.endswith(again.out)
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())

    assert "runs/digits (holds a complete run)" in here("plan", DIGITS, *SMALL).out

    changed = here("run", DIGITS, *SMALL, "arguments.learning_rate=1e-4")
    assert changed.code == 2
    assert "arguments.learning_rate: 0.01 there, 0.0001 now" in changed.err
    assert results(folder) == found

    fresh = here("run", DIGITS, *SMALL, "arguments.num_train_epochs=1", "--fresh")
    assert fresh.code == 0
    assert "was moved to runs/digits.old-1" in fresh.err
    assert results(tmp_path / "runs" / "digits.old-1") == found
    assert results(folder)["steps"] == 40


def test_the_demo_keeps_its_promise(here: Run, tmp_path: Path) -> None:
    assert here("run", DIGITS).code == 0
    found = results(tmp_path / "runs" / "digits")
    assert found["scores"]["test"]["metrics"]["accuracy"] >= 0.97
    assert found["best_metric"] == found["scores"]["validation"]["metrics"]["accuracy"]


def test_changes_may_be_accepted(here: Run, tmp_path: Path) -> None:
    assert here("run", DIGITS, *SMALL, "arguments.num_train_epochs=1").code == 0
    longer = here("run", DIGITS, *SMALL, "arguments.num_train_epochs=2", "--accept-changes")
    assert longer.code == 0, longer.err
    assert "warning: The run goes on although it was begun otherwise" in longer.err
    assert "arguments.num_train_epochs: 1 there, 2 now" in longer.err
    found = results(tmp_path / "runs" / "digits")
    assert (found["steps"], found["resumed_from_step"]) == (80, 40)
    assert "This run is complete." in here("run", DIGITS, *SMALL, "arguments.num_train_epochs=2").err


def test_texts_are_trained_from_a_file_beside_the_job(here: Run, tmp_path: Path) -> None:
    done = here("run", EXAMPLES / "messages.yaml", "arguments.num_train_epochs=6")
    assert done.code == 0, done.err
    found = results(tmp_path / "runs" / "messages")
    assert found["labels"] == ["advert", "delivery", "personal"]
    assert found["scores"]["test"]["metrics"]["macro_f1"] > 0.8
    card = json.loads((tmp_path / "runs" / "messages" / "model" / "classifier.json").read_text())
    assert card["inputs"]["words"][:2] == ["[PAD]", "[UNK]"]


def test_a_run_that_saved_nothing_says_so_and_begins(here: Run, tmp_path: Path) -> None:
    assert here("run", EXAMPLES / "messages.yaml", "arguments.num_train_epochs=1").code == 0
    folder = tmp_path / "runs" / "messages"
    (folder / "results.json").unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    again = here("run", EXAMPLES / "messages.yaml", "arguments.num_train_epochs=1")
    assert again.code == 0
    assert "ended before its first checkpoint: starting from the beginning" in again.err


def test_metrics_batch_by_batch_are_those_of_the_whole(here: Run, tmp_path: Path) -> None:
    for name, by_batch in (("whole", "false"), ("parts", "true")):
        given = ("arguments.num_train_epochs=2", "arguments.per_device_eval_batch_size=7", f"output_dir={name}")
        done = here("run", EXAMPLES / "messages.yaml", f"arguments.batch_eval_metrics={by_batch}", *given)
        assert done.code == 0, done.err
    assert results(tmp_path / "whole")["scores"] == results(tmp_path / "parts")["scores"]


def test_a_data_file_that_changed_is_noticed(here: Run, tmp_path: Path) -> None:
    rows = (EXAMPLES / "messages.csv").read_text()
    (tmp_path / "messages.csv").write_text(rows)
    (tmp_path / "messages.yaml").write_text((EXAMPLES / "messages.yaml").read_text())
    assert here("run", "messages.yaml", "arguments.num_train_epochs=1").code == 0
    (tmp_path / "messages.csv").write_text(rows + "One more row,personal\n")
    refused = here("run", "messages.yaml", "arguments.num_train_epochs=1")
    assert refused.code == 2
    assert "data: the files have changed" in refused.err


def test_rows_that_are_trained_and_judged_on_are_warned_of(here: Run, tmp_path: Path) -> None:
    rows = (EXAMPLES / "messages.csv").read_text().splitlines()
    (tmp_path / "messages.csv").write_text("\n".join([*rows, *rows[1:]]) + "\n")
    (tmp_path / "messages.yaml").write_text((EXAMPLES / "messages.yaml").read_text())
    done = here("run", "messages.yaml", "arguments.num_train_epochs=1")
    assert "warning: " in done.err
    assert "validation rows are also in the training data" in done.err


MISTAKES = [
    ("model.widht=3", "model: unknown key 'widht': did you mean 'width'?"),
    ("arguments.learning_rat=3", "Did you mean learning_rate?"),
    ("arguments.learning_rate=-1", "arguments: learning_rate"),
    ("arguments.per_device_train_batch_size=0", "per_device_train_batch_size"),
    ("data.validation=null", "data.validation is not given"),
    ("arguments.metric_for_best_model=acuracy", "did you mean 'accuracy'?"),
    ("data.image=picture", "sklearn:digits has no column 'picture'"),
    ("data.source=sklearn:iris", "sklearn:iris"),
    ("data.source=nothere.csv", "error: data.source: "),
    ("data.source=nothere.csv", "nothere.csv does not exist"),
    ("learning_rate=1e-3", "unknown key 'learning_rate': write arguments.learning_rate."),
    ("validation=0.2", "unknown key 'validation': write data.validation."),
    ("arguments.optim=adamw", "Did you mean 'adamw_torch'? Write one of: adamw_torch"),
    ("arguments.do_train=false", "a job always trains"),
    ("model.num_stages=9", "write at most 4"),
    ("model=x", "model: unknown name 'x'"),
    ("no_equals_sign", "is not of the form section.key=value"),
    ("arguments.fp16=yes", "fp16"),
]


@pytest.mark.parametrize(("override", "said"), MISTAKES, ids=[f"{override} {said}" for override, said in MISTAKES])
def test_what_cannot_be_run_is_said_and_nothing_is_written(here: Run, tmp_path: Path, override: str, said: str) -> None:
    refused = here("run", DIGITS, override)
    assert refused.code == 2
    assert refused.err.startswith("error: ")
    assert said in refused.err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_ends_without_a_traceback(surestep: Run, tmp_path: Path) -> None:
    refused = surestep("run", DIGITS, "arguments.learning_rate=-1")
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.startswith("error: arguments: learning_rate")
    assert "Traceback" not in refused.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_left_alone(here: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    refused = here("run", DIGITS, "output_dir=thesis")
    assert refused.code == 2
    assert "'chapter1.txt' among them" in refused.err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_the_plan_tells_what_would_be_and_writes_nothing(surestep: Run, here: Run, tmp_path: Path) -> None:
    shown = surestep("run", DIGITS, "arguments.gradient_accumulation_steps=3", "--dry-run")
    assert shown.code == 0, shown.err
    assert list(tmp_path.iterdir()) == []
    assert "\x1b" not in shown.out + shown.err
    for text in (
        "train 1,258, validation 270, test 269",
        "430,954 parameters",
        "96 samples a step (3 x 32 on a device)",
        "14 an epoch, 12 epochs, 168 in total",
        "schedule cosine",
        "step 1: 0,",
        "runs/digits (would begin)",
        "weights 1.6 MiB",
        "activations of 32 samples",
        "parameter groups",
        "0.05",
    ):
        assert text in shown.out
    assert here("plan", DIGITS, "arguments.gradient_accumulation_steps=3").out == shown.out
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_as_strict_as_the_run(here: Run, tmp_path: Path) -> None:
    refused = here("run", DIGITS, "arguments.learning_rate=-1", "--dry-run")
    assert refused.code == 2
    assert "learning_rate" in refused.err
    assert list(tmp_path.iterdir()) == []
