"""A run with a remote folder: what is there, what happens when it cannot be reached, and going on from it alone."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from tests.small import Points, quick
from tests.unit.checkpoint.remote_stores import URL, Faulty, remote, whole

from surestep import Trainer
from surestep.callbacks.trackers.jsonl import read_log
from surestep.errors import ArgumentError, CheckpointError, SaveError

SAVES = {"save_strategy": "steps", "save_steps": 1, "save_remote": URL, "logging_steps": 1, "max_steps": 5}


@pytest.fixture(autouse=True)
def _clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, logger="surestep")
    Faulty.reset()
    yield
    Faulty.reset()


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(first: Trainer, second: Trainer) -> bool:
    one, two = weights(first), weights(second)
    return all(torch.equal(one[name], two[name]) for name in one)


def timeless(path: Path) -> list[dict[str, Any]]:
    clock = ("runtime", "per_second")
    entries = read_log(path)
    return [{k: v for k, v in one.items() if k != "time" and not k.endswith(clock)} for one in entries]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let the store refuse operations whose text holds all of some words, so many times; return what it refused."""

    def begin(*words: str, times: int = 1000) -> list[str]:
        refused: list[str] = []

        def do(self: Faulty, name: str, path: str) -> None:
            text = f"{name} {path}"
            if all(word in text for word in words) and len(refused) < times:
                refused.append(text)
                raise PermissionError(13, "Access denied")

        monkeypatch.setattr(Faulty, "_do", do)
        return refused

    return begin


def test_every_checkpoint_is_there_with_the_log_and_the_record(tmp_path: Path) -> None:
    trainer = quick(tmp_path, **SAVES, save_total_limit=2)
    trainer.train()
    assert whole(remote()) == ["checkpoint-4", "checkpoint-5"]
    assert {kept.step for kept in remote().own(trainer._store.run)} == {4, 5}
    state = json.loads(remote().folder.read("checkpoint-5/trainer_state.json"))
    assert state["global_step"] == 5
    # The whole log at the end, and with each checkpoint as far as it was then.
    log = (tmp_path / "train_log.jsonl").read_bytes()
    assert remote().folder.read("train_log.jsonl") == log
    assert log.startswith(remote().folder.read("checkpoint-4/train_log.jsonl"))
    assert remote().folder.read(".surestep-run.json") == (tmp_path / ".surestep-run.json").read_bytes()


@pytest.mark.parametrize("step", [1, 3])
def test_a_run_goes_on_from_its_remote_folder_alone(tmp_path: Path, step: int) -> None:
    alone = quick(tmp_path / "alone", **{**SAVES, "save_remote": None}, seed=3)
    alone.train()
    first = quick(tmp_path / "first", **SAVES, seed=3)
    with first.steps() as steps:
        for state in steps:
            if state.global_step == step:
                break
    shutil.rmtree(tmp_path / "first")

    second = quick(tmp_path / "second", **SAVES, seed=3)
    second.train(resume_from_checkpoint="auto")

    assert second.resume_report is not None
    assert second.resume_report.step == step
    assert second.resume_report.exact
    assert second._store.run == first._store.run
    assert same(second, alone)
    assert second.state.log_history[-2]["loss"] == alone.state.log_history[-2]["loss"]
    assert timeless(tmp_path / "second" / "train_log.jsonl") == timeless(tmp_path / "alone" / "train_log.jsonl")
    assert whole(remote()) == [f"checkpoint-{number}" for number in range(1, 6)]


def test_a_complete_run_is_known_from_its_remote_folder_alone(tmp_path: Path) -> None:
    first = quick(tmp_path / "first", **SAVES)
    output = first.train()
    second = quick(tmp_path / "second", **SAVES)
    # Times included: nothing is measured a second time.
    assert second.train(resume_from_checkpoint="auto") == output
    assert second.resume_report is not None
    assert second.resume_report.complete
    assert same(first, second)


def test_the_newest_of_both_places_is_taken(tmp_path: Path) -> None:
    quick(tmp_path / "first", **SAVES).train()
    # An older checkpoint of the same run here, as on a machine that was away for a while.
    shutil.rmtree(tmp_path / "first" / "checkpoint-5")
    shutil.rmtree(tmp_path / "first" / "checkpoint-4")
    trainer = quick(tmp_path / "first", **{**SAVES, "max_steps": 7})
    trainer.train(resume_from_checkpoint="auto")
    assert trainer.resume_report is not None
    assert trainer.resume_report.step == 5
    assert trainer.state.global_step == 7

    # And the other way round: nothing is fetched where the newest is here.
    remote().remove("checkpoint-7")
    again = quick(tmp_path / "first", **{**SAVES, "max_steps": 8})
    again.train(resume_from_checkpoint="auto")
    assert again.resume_report is not None
    assert again.resume_report.step == 7
    # What was missing there is sent with the next one.
    assert whole(remote())[-2:] == ["checkpoint-7", "checkpoint-8"]


def test_damaged_and_incomplete_ones_are_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quick(tmp_path / "first", **SAVES).train()
    folder = remote().folder
    folder.remove("checkpoint-5/manifest.json")
    content = folder.read("checkpoint-4/model.safetensors")
    folder.write("checkpoint-4/model.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    folder.remove("checkpoint-3/optimizer.safetensors")
    shutil.rmtree(tmp_path / "first")

    trainer = quick(tmp_path / "second", **SAVES)
    trainer.train(resume_from_checkpoint="auto")

    assert trainer.resume_report is not None
    assert trainer.resume_report.step == 2
    for words in (
        "checkpoint-5' is passed over: it is incomplete",
        "checkpoint-4' is passed over: model.safetensors is damaged",
        "checkpoint-3' is passed over: optimizer.safetensors is missing",
    ):
        assert words in caplog.text
    assert whole(remote()) == [f"checkpoint-{number}" for number in range(1, 6)]
    assert not list((tmp_path / "second").glob(".staging-*"))


def test_a_store_that_does_not_answer_is_no_reason_to_begin_anew(
    tmp_path: Path, broken: Callable[..., list[str]]
) -> None:
    quick(tmp_path / "first", **SAVES).train()
    for words in (("list",), ("read", "model.safetensors"), ("read", "manifest")):
        broken(*words)
        trainer = quick(tmp_path / "second", **SAVES)
        with pytest.raises(CheckpointError, match=r"cannot be read: .*Access denied.*resume_from_checkpoint"):
            trainer.train(resume_from_checkpoint="auto")
        assert trainer.state.global_step == 0
        assert not list((tmp_path / "second").glob("*checkpoint-*"))


def test_no_room_for_what_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surestep.checkpoint import space

    quick(tmp_path / "first", **SAVES).train()
    trainer = quick(tmp_path / "second", **SAVES)
    monkeypatch.setattr(space, "room_at", lambda folder: space.Room(10, None))
    with pytest.raises(CheckpointError, match=r"cannot be fetched to .*second.*not enough room.*Make room"):
        trainer.train(resume_from_checkpoint="auto")


# By name.


@pytest.mark.parametrize("setting", [True, False], ids=["to train", "in the arguments"])
def test_a_checkpoint_that_is_named(tmp_path: Path, setting: bool) -> None:
    alone = quick(tmp_path / "first", **SAVES)
    alone.train()
    settings = {**SAVES, "save_remote": None}
    url = f"{URL}/checkpoint-2"
    trainer = quick(tmp_path / "second", **settings, **({} if setting else {"resume_from_checkpoint": url}))
    trainer.train(resume_from_checkpoint=url if setting else None)
    assert trainer.resume_report is not None
    assert trainer.resume_report.step == 2
    assert same(trainer, alone)
    assert (tmp_path / "second" / "checkpoint-2" / "manifest.json").is_file()
    # A second time it is here.
    Faulty.operations.clear()
    quick(tmp_path / "second", **settings).train(resume_from_checkpoint=url)
    assert not [line for line in Faulty.operations if "model.safetensors" in line]


def test_the_url_of_a_run_and_what_is_no_checkpoint(tmp_path: Path) -> None:
    quick(tmp_path / "first", **SAVES).train()
    remote().folder.remove("checkpoint-5/manifest.json")
    settings = {**SAVES, "save_remote": None}
    trainer = quick(tmp_path / "second", **settings)
    trainer.train(resume_from_checkpoint=URL)
    assert trainer.resume_report is not None
    assert trainer.resume_report.step == 4
    for url, words in (
        (f"{URL}/checkpoint-5", "cannot be resumed from: it is incomplete"),
        (f"{URL}/checkpoint-9", "cannot be resumed from: it is incomplete"),
        ("faulty://elsewhere", "no whole checkpoint is there"),
    ):
        with pytest.raises(CheckpointError, match=words):
            quick(tmp_path / "third", **settings).train(resume_from_checkpoint=url)


def test_another_checkpoint_of_the_same_step_is_not_replaced(tmp_path: Path) -> None:
    quick(tmp_path / "first", **SAVES).train()
    quick(tmp_path / "second", **{**SAVES, "save_remote": None}, seed=9).train()
    trainer = quick(tmp_path / "second", **{**SAVES, "save_remote": None})
    with pytest.raises(CheckpointError, match="is another checkpoint of that step"):
        trainer.train(resume_from_checkpoint=f"{URL}/checkpoint-2")


# When it cannot be sent.


def test_a_checkpoint_that_could_not_be_sent_is_sent_with_the_next(
    tmp_path: Path, broken: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    refused = broken("checkpoint-2/model.safetensors", times=1)
    trainer = quick(tmp_path, **SAVES)
    trainer.train()
    assert refused
    assert "Step 2: " in caplog.text
    assert "could not be sent: 'faulty://bucket/run/checkpoint-2/model.safetensors': PermissionError" in caplog.text
    assert whole(remote()) == [f"checkpoint-{number}" for number in range(1, 6)]


def test_a_last_one_that_is_not_there_is_an_error_and_sent_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., list[str]]
) -> None:
    broken("checkpoint-5", "put")
    trainer = quick(tmp_path, **SAVES)
    with pytest.raises(SaveError, match=r"last checkpoint is not in 'faulty://bucket/run'.*checkpoint-5"):
        trainer.train()
    assert trainer.train_output is not None
    assert whole(remote()) == [f"checkpoint-{number}" for number in range(1, 5)]

    monkeypatch.undo()
    again = quick(tmp_path, **SAVES)
    again.train(resume_from_checkpoint="auto")
    assert again.resume_report is not None
    assert again.resume_report.complete
    assert whole(remote())[-1] == "checkpoint-5"


def test_it_stops_where_it_is_told_to(tmp_path: Path, broken: Callable[..., list[str]]) -> None:
    broken("checkpoint-2", "put")
    trainer = quick(tmp_path, **SAVES, on_save_error="stop")
    with pytest.raises(SaveError, match="could not be sent"):
        trainer.train()
    assert trainer.state.global_step == 2
    assert (tmp_path / "checkpoint-2").is_dir()


def test_a_folder_that_cannot_be_written_to_is_told_at_the_start(
    tmp_path: Path, broken: Callable[..., list[str]]
) -> None:
    broken("put")
    trainer = quick(tmp_path, **SAVES)
    with pytest.raises(SaveError, match=r"No checkpoint can be sent to save_remote: .*Access denied"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_numbers_are_those_of_a_run_without_it(tmp_path: Path, broken: Callable[..., list[str]]) -> None:
    alone = quick(tmp_path / "alone", **{**SAVES, "save_remote": None})
    alone.train()
    broken("put", "optimizer", times=3)
    trainer = quick(tmp_path / "sent", **SAVES)
    trainer.train()
    assert same(alone, trainer)


# What stays there.


def test_checkpoints_of_another_run_stay_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quick(tmp_path / "first", **{**SAVES, "max_steps": 9}).train()
    second = quick(tmp_path / "second", **{**SAVES, "max_steps": 3}, save_total_limit=1)
    second.train()
    assert "holds checkpoints of another run, up to checkpoint-9" in caplog.text
    assert [kept.step for kept in remote().own(second._store.run)] == [3]
    # Those of step 1 and 2 were replaced, as in a folder of this machine.
    assert whole(remote()) == ["checkpoint-3", *(f"checkpoint-{number}" for number in range(4, 10))]
    # It is the run begun last that is taken up.
    third = quick(tmp_path / "third", **{**SAVES, "max_steps": 4})
    third.train(resume_from_checkpoint="auto")
    assert third.resume_report is not None
    assert third.resume_report.step == 3


def test_what_a_run_that_died_left_is_cleared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quick(tmp_path / "first", **SAVES).train()
    remote().folder.remove("checkpoint-3/manifest.json")
    trainer = quick(tmp_path / "first", **{**SAVES, "max_steps": 6})
    trainer.train(resume_from_checkpoint="auto")
    assert "checkpoint-3' was never complete: it is removed" in caplog.text
    assert whole(remote()) == remote().names() == [f"checkpoint-{number}" for number in (1, 2, 4, 5, 6)]


def evaluated(folder: Path, **settings: Any) -> Trainer:
    def figures(_: Any) -> dict[str, float]:
        return {"score": [0.0, 0.1, 0.9, 0.2, 0.3, 0.4][trainer.state.global_step]}

    best = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "score", "greater_is_better": True}
    trainer = quick(
        folder,
        **{**SAVES, **best, "load_best_model_at_end": True, "save_total_limit": 1, **settings},
        eval_dataset=Points(4),
        compute_metrics=figures,
    )
    return trainer


@pytest.mark.parametrize("tracked", [None, ["score:min"]])
def test_the_best_model_comes_along(tmp_path: Path, tracked: list[str] | None) -> None:
    alone = evaluated(tmp_path / "alone", save_remote=None, track_best=tracked)
    alone.train()
    first = evaluated(tmp_path / "first", track_best=tracked)
    with first.steps() as steps:
        for state in steps:
            if state.global_step == 4:
                break
    shutil.rmtree(tmp_path / "first")

    second = evaluated(tmp_path / "second", track_best=tracked)
    second.train(resume_from_checkpoint="auto")

    assert second.resume_report is not None
    assert second.state.best_model_checkpoint == str(tmp_path / "second" / "checkpoint-2")
    assert same(second, alone)
    expected = ["checkpoint-1", "checkpoint-2"] if tracked else ["checkpoint-2"]
    assert sorted(path.name for path in (tmp_path / "alone").glob("checkpoint-*")) == expected
    assert sorted(path.name for path in (tmp_path / "second").glob("checkpoint-*")) == expected
    assert whole(remote()) == expected


# Arguments.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"save_remote": "bucket/run"}, "it must be a URL such as 's3://bucket/run'"),
        ({"save_remote": "s3://me:hidden@bucket/run"}, r"s3://\*\*\*@bucket/run'.*a URL without a password"),
        ({"resume_from_checkpoint": "s3://me:hidden@bucket/run"}, "a URL without a password"),
        ({"save_remote": URL, "save_strategy": "no"}, 'save_strategy="no" writes none'),
    ],
)
def test_what_cannot_be_right(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        quick(tmp_path, **{"save_strategy": "steps", **settings})
    assert "hidden" not in str(caught.value)


def test_a_remote_output_dir_is_told_what_to_write() -> None:
    from tests.small import arguments

    with pytest.raises(ArgumentError, match=r"save_remote='s3://bucket/run'"):
        arguments("s3://bucket/run")  # type: ignore[arg-type]


def test_a_model_is_saved_to_a_folder_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="save_model writes to a folder of this machine"):
        quick(tmp_path).save_model("s3://bucket/model")


def test_nothing_of_fsspec_is_loaded_without_a_url(tmp_path: Path) -> None:
    from tests.unit.checkpoint.stores import run_python

    script = f"""
import sys
from pathlib import Path
import torch
before = set(sys.modules)
from tests.small import quick
quick(Path({str(tmp_path)!r}), save_strategy="steps", save_steps=2).train(resume_from_checkpoint="auto")
more = {{name.partition(".")[0] for name in set(sys.modules) - before}}
assert "fsspec" not in more, more
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr


def test_a_folder_of_this_machine_behind_a_url(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    trainer = quick(tmp_path / "run", **{**SAVES, "save_remote": url}, save_total_limit=1)
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "bucket").iterdir()) == [
        ".surestep-run.json",
        "checkpoint-5",
        "train_log.jsonl",
    ]
    assert fsspec.filesystem("file").exists(f"{tmp_path}/bucket/checkpoint-5/manifest.json")
