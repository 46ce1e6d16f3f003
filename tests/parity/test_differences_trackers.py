"""What trackers get otherwise than from the original, on purpose: both sides.

Those that need a client are skipped where it is not installed; `make test-trackers` runs them.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import transformers

import surestep
from tests.parity.differences import shows
from tests.parity.models import Net, Points

SIDES = [transformers, surestep]
ARGUMENTS: dict[str, Any] = {"logging_steps": 1, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}


def train(side: Any, folder: Path, *, report_to: str = "none", callbacks: Any = (), **more: Any) -> Any:
    """Train in `folder` and return the trainer."""
    resume = more.pop("resume", None)
    quiet = {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 4}
    args = side.TrainingArguments(**{**quiet, **ARGUMENTS, "output_dir": str(folder), "report_to": report_to, **more})
    trainer = side.Trainer(Net(), args, train_dataset=Points(20), callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def scalars(folder: Path) -> list[list[int]]:
    """Return the steps of the loss in each folder that TensorBoard was given."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folders = sorted({file.parent for file in folder.rglob("events.out.tfevents.*")})
    return [
        [event.step for event in accumulator.EventAccumulator(str(found)).Reload().Scalars("train/loss")]
        for found in folders
    ]


@shows("K1")
def test_a_resumed_run_goes_on_in_its_run_with_every_step_once(tmp_path: Path) -> None:
    steps = {}
    for side in SIDES:
        folder = tmp_path / side.__name__
        board = folder / "board"
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(board)
        try:
            train(side, folder, report_to="tensorboard")
            _wait_for_the_next_second()
            train(side, folder, report_to="tensorboard", resume=str(folder / "checkpoint-2"))
        finally:
            del os.environ["TENSORBOARD_LOGGING_DIR"]
        steps[side] = scalars(board)
    assert steps[transformers] == [[1, 2, 3, 4, 5, 6, 3, 4, 5, 6]]
    assert steps[surestep] == [[1, 2, 3, 4, 5, 6]]


def _wait_for_the_next_second() -> None:
    """Files of events are read in the order of their names, which have the second of their making."""
    import time

    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.05)


class FullDisk:
    """A writer of TensorBoard that cannot write."""

    def add_scalar(self, *_: Any) -> None:
        raise OSError(28, "No space left on device")

    def add_text(self, *_: Any) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@shows("K2")
def test_a_tracker_that_fails_does_not_stop_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = transformers.integrations.TensorBoardCallback(FullDisk())
    with pytest.raises(OSError, match="No space left"):
        train(transformers, tmp_path / "theirs", callbacks=[theirs])
    ours = train(surestep, tmp_path / "ours", callbacks=[surestep.TensorBoardCallback(FullDisk())])
    assert ours.state.global_step == 6
    assert "tensorboard was not sent: 7 entries of the log, of steps 1 to 6." in caplog.text
    with pytest.raises(surestep.SurestepError, match="No space left"):
        train(surestep, tmp_path / "strict", callbacks=[surestep.TensorBoardCallback(FullDisk(), strict=True)])


@shows("K3")
def test_steps_are_steps_and_not_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dvclive", reason="needs dvclive: make test-trackers")
    steps = {}
    for side in SIDES:
        (tmp_path / side.__name__).mkdir()
        monkeypatch.chdir(tmp_path / side.__name__)
        train(side, Path("out"), report_to="dvclive", logging_steps=2)
        table = Path("dvclive/plots/metrics/loss.tsv").read_text().splitlines()[1:]
        steps[side] = [int(line.split("\t")[0]) for line in table]
    assert steps == {transformers: [0, 1, 2], surestep: [2, 4, 6]}


@shows("K4")
def test_keywords_of_dvclive_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dvclive", reason="needs dvclive: make test-trackers")
    monkeypatch.chdir(tmp_path)
    train(transformers, Path("theirs"), callbacks=[transformers.integrations.DVCLiveCallback(dir="mine")])
    assert not Path("mine").exists()
    train(surestep, Path("ours"), callbacks=[surestep.DVCLiveCallback(dir="mine")])
    assert Path("mine/metrics.json").exists()


def mlflow_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: make test-trackers")
    folder.mkdir()
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
    return mlflow


# The client leaves databases to the garbage collector, and uses what SQLAlchemy is about to drop.
quiet_mlflow = pytest.mark.filterwarnings("ignore")


@quiet_mlflow
@shows("K5")
def test_an_evaluation_after_the_training_is_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {}
    for side in SIDES:
        mlflow = mlflow_runs(tmp_path / side.__name__, monkeypatch)
        train(side, Path("out"), report_to="mlflow").evaluate(Points(4))
        if mlflow.active_run() is not None:
            mlflow.end_run()
        counts[side] = len(mlflow.search_runs(output_format="list"))
    assert counts == {transformers: 2, surestep: 1}


@quiet_mlflow
@shows("K6")
def test_checkpoints_are_logged_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MLFLOW_LOG_ARTIFACTS", "1")
    mlflow = mlflow_runs(tmp_path / "ours", monkeypatch)
    train(surestep, Path("out"), report_to="mlflow", max_steps=2)
    [found] = mlflow.search_runs(output_format="list")
    files = [file.path for file in mlflow.MlflowClient().list_artifacts(found.info.run_id, "checkpoint-2")]
    assert "checkpoint-2/model.safetensors" in files
    assert mlflow.search_logged_models(output_format="list") == []
    wrapped: list[Any] = []
    monkeypatch.setattr(
        importlib.import_module("mlflow.pyfunc"), "log_model", lambda name, **about: wrapped.append((name, about))
    )
    train(transformers, Path("theirs"), report_to="mlflow", max_steps=2)
    [(name, about)] = wrapped
    assert (name, type(about["python_model"])) == ("checkpoint-2", mlflow.pyfunc.PythonModel)


@shows("K7")
def test_project_is_the_project_of_wandb_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb: make test-trackers")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    projects = {}
    for side in SIDES:
        train(side, tmp_path / side.__name__, report_to="wandb", project="mine")
        projects[side] = wandb.run.project
        wandb.finish()
    assert projects == {transformers: "huggingface", surestep: "mine"}


@shows("K8")
def test_a_place_that_is_named_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codecarbon = pytest.importorskip("codecarbon", reason="needs codecarbon: make test-trackers")
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "FRA")
    asked: list[str] = []
    from codecarbon.external import geography

    def get(url: str, **_: Any) -> None:
        asked.append(url)
        raise geography.requests.exceptions.ConnectionError

    monkeypatch.setattr(geography.requests, "get", get)
    counts = {}
    for side in SIDES:
        asked.clear()
        train(side, tmp_path / side.__name__, report_to="codecarbon")
        counts[side] = bool(asked)
    assert codecarbon.__name__ == "codecarbon"
    assert counts == {transformers: True, surestep: False}


@quiet_mlflow
@shows("K9")
def test_clients_send_home_nothing_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs mlflow: make test-trackers")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    transformers.integrations.MLflowCallback()
    assert "MLFLOW_DISABLE_TELEMETRY" not in os.environ
    surestep.MLflowCallback()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    surestep.MLflowCallback()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
