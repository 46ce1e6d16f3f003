"""The best model and the best of further metrics: NaN never wins, ties keep the earlier, and nothing is forgotten."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.small import Points, quick

from surestep import EarlyStoppingCallback, Trainer
from surestep.errors import ArgumentError, CheckpointError
from surestep.trainer import best as module
from surestep.trainer.best import Best, Bests

NAN = math.nan
EVALUATES: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": Points(4)}
SCORES = {"score": [0.5, 0.9, NAN, 0.9, 0.2], "wer": [0.8, 0.7, NAN, 0.1, 0.1]}


def scripted(folder: Path | str, scores: dict[str, list[float]] | None = None, **settings: Any) -> Trainer:
    """A trainer whose evaluations after step N give the N-th of each list; what is tried before step 1 gives zeros."""
    lists = SCORES if scores is None else scores

    def figures(_: Any) -> dict[str, float]:
        step = trainer.state.global_step
        return {name: values[step - 1] if step else 0.0 for name, values in lists.items()}

    trainer = quick(folder, **{**EVALUATES, "compute_metrics": figures, **settings})
    return trainer


def weights(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["layer.weight"]


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def summary(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "best.json").read_text())
    return {
        name: (best["value"], best["step"], best["checkpoint"] and Path(best["checkpoint"]).name)
        for name, best in found.items()
    }


BOTH = {"score": (0.9, 2, "checkpoint-2"), "wer": (0.1, 4, "checkpoint-4")}


@pytest.mark.parametrize(
    "settings",
    [
        {"save_strategy": "steps", "save_steps": 100},
        {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1},
        {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "save_only_model": True},
        {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "loss"},
        {"save_strategy": "best"},
    ],
    ids=["seldom", "limit", "weights", "with the best model", "best"],
)
def test_each_metric_keeps_its_own_best_whatever_else_is_saved(tmp_path: Path, settings: dict[str, Any]) -> None:
    seen: dict[int, torch.Tensor] = {}

    class Watching(Trainer):
        def evaluate(self, *args: Any, **given: Any) -> dict[str, float]:
            seen[self.state.global_step] = self.model.layer.weight.detach().clone()
            return super().evaluate(*args, **given)

    trainer = scripted(tmp_path, kind=Watching, track_best=["score:max", "wer"], **settings)
    trainer.train()

    assert summary(tmp_path) == BOTH
    for step in (2, 4):
        assert torch.equal(weights(tmp_path / f"checkpoint-{step}"), seen[step])


def test_without_checkpoints_values_and_steps_are_kept(tmp_path: Path) -> None:
    scripted(tmp_path, track_best=["score:max", "wer"], save_strategy="no").train()

    assert summary(tmp_path) == {"score": (0.9, 2, None), "wer": (0.1, 4, None)}
    assert folders(tmp_path) == []


def test_a_limit_keeps_the_newest_and_every_best(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    scripted(tmp_path, track_best=["score:max", "wer"], **settings).train()

    assert folders(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_bests_go_on_after_a_resume(tmp_path: Path) -> None:
    settings = {"track_best": ["score:max", "wer"], "save_strategy": "steps", "save_steps": 3}
    first = scripted(tmp_path / "one", **settings)
    first.args.max_steps = 3
    first.train()
    assert folders(tmp_path / "one") == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    # The run's folder moves as a whole.
    (tmp_path / "one").rename(tmp_path / "two")
    scripted(tmp_path / "two", **settings).train(resume_from_checkpoint=True)

    assert summary(tmp_path / "two") == BOTH
    # A tie with what was best before the resume, and a NaN as the first thing after it.
    scores = {"score": [0.5, 0.9, NAN, 0.9, 0.9], "wer": [0.8, 0.1, NAN, 0.1, NAN]}
    part = scripted(tmp_path / "three", scores, **settings)
    part.train(resume_from_checkpoint=str(tmp_path / "two" / "checkpoint-2"))
    assert summary(tmp_path / "three") == {"score": (0.9, 2, "checkpoint-2"), "wer": (0.7, 2, "checkpoint-2")} | {
        "wer": (0.1, 4, "checkpoint-4")
    }


def test_a_best_checkpoint_that_is_gone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bests = Bests({"wer": False})
    bests.by_name["wer"] = Best(False, 0.3, 2, str(tmp_path / "run" / "checkpoint-2"))
    (folder := tmp_path / "run" / "checkpoint-4").mkdir(parents=True)
    bests.write(folder)
    again = Bests({"wer": False, "score": True})
    with caplog.at_level(logging.WARNING, logger="surestep"):
        again.read(folder)

    assert "The checkpoint of the best 'wer'" in caplog.text
    assert again.by_name == {"wer": Best(False, 0.3, 2, None), "score": Best(True)}


def test_a_direction_that_was_changed_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bests = Bests({"score": False})
    bests.take({"eval_score": 0.2}, 1)
    bests.write(tmp_path)
    again = Bests({"score": True})
    with caplog.at_level(logging.WARNING, logger="surestep"):
        again.read(tmp_path)

    assert again.by_name == {"score": Best(True)}
    assert "'score' grew better the other way" in caplog.text


def test_a_file_that_holds_no_bests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"wer": {"worth": 1}}')
    with pytest.raises(CheckpointError, match=r"does not hold the bests of a run.*leave track_best out"):
        Bests({"wer": False}).read(tmp_path)


def test_each_set_has_its_own_figures(tmp_path: Path) -> None:
    def figures(prediction: Any) -> dict[str, float]:
        return {"error": float(len(prediction.predictions) + trainer.state.global_step)}

    sets = {"de": Points(4), "fr": Points(6)}
    trainer = quick(
        tmp_path,
        **{**EVALUATES, "eval_dataset": sets},
        compute_metrics=figures,
        track_best=["de_error", "eval_fr_error:max"],
        metric_for_best_model="fr_loss",
    )
    trainer.train()

    assert summary(tmp_path) == {"de_error": (5.0, 1, None), "eval_fr_error": (11.0, 5, None)}


def test_a_figure_that_one_evaluation_lacks_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bests = Bests({"now_and_then": True})
    with caplog.at_level(logging.WARNING, logger="surestep"):
        assert [
            bests.take(figures, step) for step, figures in enumerate([{"eval_loss": 1.0}, {"eval_now_and_then": 2.0}])
        ]
    assert bests.by_name["now_and_then"].step == 1
    assert "has no 'eval_now_and_then', which track_best asks for" in caplog.text


@pytest.mark.parametrize(
    ("values", "greater", "step"),
    [
        ([NAN, 0.1, 0.3, 0.3], True, 2),
        ([0.3, 0.3, NAN], False, 0),
        ([NAN, NAN], True, None),
        ([-math.inf, -math.inf, 0.0], True, 2),
        ([math.inf, 1.0, -math.inf], False, 2),
        ([math.inf], False, 0),
    ],
)
def test_nan_never_wins_and_ties_keep_the_earlier(values: list[float], greater: bool, step: int | None) -> None:
    bests = Bests({"x": greater})
    for number, value in enumerate(values):
        bests.take({"eval_x": value}, number)
    assert bests.by_name["x"].step == step


def test_the_summary_is_one_line_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = scripted(tmp_path, track_best=["score:max", "wer"], save_strategy="best")
    with caplog.at_level(logging.INFO, logger="surestep"):
        trainer.train()
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Best: ")]
    assert lines == ["Best: score 0.9 at step 2 (checkpoint-2); wer 0.1 at step 4 (checkpoint-4)."]


def test_nothing_is_written_where_nothing_is_tracked(tmp_path: Path) -> None:
    scripted(tmp_path, save_strategy="epoch", metric_for_best_model="score", greater_is_better=True).train()
    assert not list(tmp_path.rglob("best.json"))


# The best model itself


def patient(**more: Any) -> EarlyStoppingCallback:
    return EarlyStoppingCallback(**{"early_stopping_patience": 2, **more})


WAITING = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"mode": "max", "patience": 0}}


@pytest.mark.parametrize(("stops", "schedule"), [(False, {}), (True, {}), (True, WAITING)])
def test_ties_and_nan_keep_the_earlier_best_after_a_resume_too(
    tmp_path: Path, stops: bool, schedule: dict[str, Any]
) -> None:
    # Of patience two: a tie at step 3 and NaN at step 4 are two evaluations without progress.
    scores = {"score": [0.5, 0.9, 0.9, NAN, 0.9]}
    settings: dict[str, Any] = {
        "metric_for_best_model": "score",
        "greater_is_better": True,
        "load_best_model_at_end": True,
        "save_strategy": "steps",
        "save_steps": 1,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        **schedule,
    }

    def run(folder: Path, **more: Any) -> Trainer:
        callbacks = [patient()] if stops else []
        return scripted(folder, scores, callbacks=callbacks, **{**settings, **more})

    whole = run(tmp_path / "whole")
    whole.train()
    part = run(tmp_path / "part", max_steps=3)
    part.train()
    part = run(tmp_path / "part")
    part.train(resume_from_checkpoint=True)

    for trainer in (whole, part):
        assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.9, 2)
        assert trainer.state.global_step == (4 if stops else 5)
        assert Path(str(trainer.state.best_model_checkpoint)).name == "checkpoint-2"
    assert torch.equal(whole.model.layer.weight, part.model.layer.weight)
    assert torch.equal(part.model.layer.weight.cpu(), weights(tmp_path / "part" / "checkpoint-2"))
    rates = [entry["learning_rate"] for entry in whole.state.log_history if "learning_rate" in entry]
    assert rates == [entry["learning_rate"] for entry in part.state.log_history if "learning_rate" in entry]


@pytest.mark.parametrize("output", ["out", "./out", "out/", "../run/out"])
def test_folders_are_named_as_the_output_folder_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    schedule = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer = scripted(output, metric_for_best_model="score", greater_is_better=True, **schedule)
    trainer.train()

    assert trainer._get_output_dir(None) == output
    assert trainer.state.best_model_checkpoint == f"{output.removesuffix('/')}/checkpoint-2"
    assert (tmp_path / "run" / "out" / "checkpoint-2").is_dir()


def test_the_best_is_loaded_with_a_limit_of_one_and_weights_alone(tmp_path: Path) -> None:
    trainer = scripted(
        tmp_path,
        {"score": [0.1, 0.9, 0.3, 0.2, 0.1]},
        metric_for_best_model="score",
        greater_is_better=True,
        load_best_model_at_end=True,
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
    )
    trainer.train()

    assert folders(tmp_path) == ["checkpoint-2"]
    assert torch.equal(trainer.model.layer.weight.cpu(), weights(tmp_path / "checkpoint-2"))


def test_no_best_to_load_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = scripted(
        tmp_path,
        {"score": [NAN] * 5},
        metric_for_best_model="score",
        greater_is_better=True,
        load_best_model_at_end=True,
        save_strategy="epoch",
    )
    with caplog.at_level(logging.WARNING, logger="surestep"):
        trainer.train()
    assert "there is no best checkpoint to load" in caplog.text


# Directions


class Objects(Trainer):
    """A trainer whose metrics say of themselves which way is better."""

    def _metric_objects(self) -> dict[str, Any]:
        class Falling:
            higher_is_better = False

        return {"score": Falling()}


@pytest.mark.parametrize(
    ("settings", "greater", "guessed"),
    [
        ({"metric_for_best_model": "f1"}, True, None),
        ({"metric_for_best_model": "eval_wer"}, False, None),
        ({"metric_for_best_model": "oddity"}, True, "greater_is_better=True or False"),
        ({"metric_for_best_model": "oddity", "greater_is_better": False}, False, None),
        ({"metric_for_best_model": "score", "kind": Objects}, False, None),
        ({"metric_for_best_model": "score", "kind": Objects, "greater_is_better": True}, True, None),
        ({"track_best": ["oddity"]}, True, 'track_best=["oddity:max"] or ["oddity:min"]'),
        ({"track_best": ["oddity:min"]}, False, None),
        ({"track_best": ["accuracy"]}, True, None),
        ({"track_best": ["perplexity"]}, False, None),
        ({"track_best": ["score"], "kind": Objects}, False, None),
        ({"track_best": ["oddity"], "metric_for_best_model": "oddity", "greater_is_better": False}, False, None),
    ],
)
def test_the_direction_is_known_declared_or_an_announced_guess(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    greater: bool,
    guessed: str | None,
) -> None:
    module._announce_guess.cache_clear()
    names = ["f1", "wer", "oddity", "score", "accuracy", "perplexity"]
    trainer = scripted(tmp_path, {name: [0.2, 0.1, 0.3, 0.2, 0.2] for name in names}, **settings)
    with caplog.at_level(logging.INFO, logger="surestep"):
        trainer.train()
        trainer.train()

    if "track_best" in settings:
        (best,) = summary(tmp_path).values()
        assert best[1] == (3 if greater else 2)
    else:
        assert trainer.args.greater_is_better is greater
        assert trainer.state.best_metric == (0.3 if greater else 0.1)
    lines = [record.getMessage() for record in caplog.records if "which is a guess" in record.getMessage()]
    assert [guessed in line for line in lines] == ([] if guessed is None else [True])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["wer:down"], r'track_best has "wer:down"\. Write "wer:min" or "wer:max"'),
        (["wer", "eval_wer:min"], r'track_best has "wer" more than once'),
        ([""], r"track_best has an empty name"),
        ("wer", r"list of strings"),
    ],
)
def test_entries_that_say_nothing_are_refused(tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        scripted(tmp_path, track_best=entries)


def test_tracking_needs_evaluations(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"track_best=\['wer'\] needs evaluations"):
        quick(tmp_path, track_best=["wer"])
