"""A save that fails on the disk: told with its numbers, nothing left behind, and the run goes on or stops."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from surestep import Trainer, TrainerCallback
from surestep.errors import CheckpointError, SaveError
from surestep.runtime.disk import disk_error, writing_through
from tests.faults.disk import Fault, FaultyDisk
from tests.small import Points, quick
from tests.unit.checkpoint.stores import names, run_python

FULL = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT}
EVERY_SECOND: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}


def there(folder: Path) -> set[str]:
    return names(folder) - {"train_log.jsonl"}


class Breaks(TrainerCallback):
    """Has the disk fail from some steps on, and work again from others on; counts what it hears."""

    def __init__(self, disk: FaultyDisk, steps: set[int], error: int = errno.ENOSPC) -> None:
        self.disk, self.steps, self.error = disk, steps, error
        # Operations of a save that succeed: by default it fails in the middle of its first file.
        self.first = 5
        self.saved: list[int] = []
        self.ended = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        broken = state.global_step in self.steps
        begins = len(self.disk.operations) + self.first
        self.disk.fault = Fault(begins, self.error, lasting=True) if broken else None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved.append(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended = True


def broken(folder: Path, steps: set[int], error: int = errno.ENOSPC, **settings: Any) -> tuple[Trainer, Breaks]:
    """A trainer of 10 steps whose disk is broken at the saves of some steps."""
    disk = FaultyDisk()
    breaks = Breaks(disk, steps, error)
    trainer = quick(folder, **{**EVERY_SECOND, "callbacks": [breaks], **settings})
    return trainer, breaks


def train(trainer: Trainer, breaks: Breaks, **how: Any) -> Any:
    with writing_through(breaks.disk):
        return trainer.train(**how)


@pytest.mark.parametrize("error", FULL)
def test_training_goes_on_and_the_next_save_tries_again(
    tmp_path: Path, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = quick(tmp_path / "whole", **EVERY_SECOND)
    whole.train()
    trainer, breaks = broken(tmp_path / "run", {4, 6}, FULL[error])
    train(trainer, breaks)
    assert torch.equal(trainer.model.layer.weight, whole.model.layer.weight)
    assert trainer.state.log_history[-1]["train_loss"] == whole.state.log_history[-1]["train_loss"]
    assert breaks.saved == [2, 8, 10]
    assert there(tmp_path / "run") == {f"checkpoint-{step}" for step in (2, 8, 10)}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert told[0].startswith(
        f"Step 4: '{tmp_path / 'run' / 'checkpoint-4'}' could not be saved: [Errno {FULL[error]}]"
    )
    assert "It takes about" in told[0]
    assert "GiB are free there" in told[0]
    assert "Training goes on" in told[0]
    assert "2 of 5 saves failed, those of step 4, 6." in caplog.text


def test_a_save_that_failed_is_not_tried_again_by_the_end_of_its_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, breaks = broken(tmp_path, {5}, save_steps=5)
    train(trainer, breaks)
    assert caplog.text.count("could not be saved") == 1
    assert "1 of 2 saves failed" in caplog.text


def test_nothing_is_left_of_a_save_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = []

    class Looks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            left.append(there(tmp_path))

    trainer, breaks = broken(tmp_path, {4})
    trainer.add_callback(Looks())
    train(trainer, breaks)
    assert left[4] == {"checkpoint-2"}
    assert "Nothing of it is left behind" in caplog.text
    assert "Make room" in caplog.text


def test_a_run_whose_last_save_failed_does_not_end_as_a_success(tmp_path: Path) -> None:
    trainer, breaks = broken(tmp_path, {10})
    with pytest.raises(SaveError, match=r"last checkpoint is not saved\. Step 10: .*No space left.*save_model"):
        train(trainer, breaks)
    assert breaks.ended
    assert trainer.train_output is not None
    assert trainer.train_output.global_step == 10
    # What the message says to do.
    trainer.save_model(str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "model.safetensors").is_file()
    # And what remains is fit to go on from.
    again = quick(tmp_path, **EVERY_SECOND)
    again.train(resume_from_checkpoint=True)
    assert torch.equal(again.model.layer.weight, trainer.model.layer.weight)


def test_the_steps_in_ones_own_hands_end_with_it_as_well(tmp_path: Path) -> None:
    trainer, breaks = broken(tmp_path, {10})
    taken = []
    with pytest.raises(SaveError), writing_through(breaks.disk), trainer.steps() as steps:
        taken = [state.global_step for state in steps]
    assert taken == list(range(1, 11))


def test_stop_ends_the_run_at_the_save_that_failed(tmp_path: Path) -> None:
    trainer, breaks = broken(tmp_path, {4}, on_save_error="stop")
    with pytest.raises(SaveError, match=r"Step 4: .*checkpoint-4.*No space left.*on_save_error=\"stop\"") as caught:
        train(trainer, breaks)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, OSError)
    assert trainer.state.global_step == 4
    assert there(tmp_path) == {"checkpoint-2"}


@pytest.mark.parametrize("error", [ValueError("a bug"), CheckpointError("a value that cannot be stored")])
def test_what_is_not_the_disks_fault_is_an_error_at_once(tmp_path: Path, error: Exception) -> None:
    class Fails(Trainer):
        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            raise error

    with pytest.raises(type(error), match=str(error)):
        quick(tmp_path, Fails, **EVERY_SECOND).train()
    assert there(tmp_path) == set()


WRITERS = {
    "torch": "torch.save({'a': torch.zeros(10_000)}, path)",
    "safetensors": "save_file({'a': torch.zeros(10_000)}, path)",
    "tokenizers": "Tokenizer(WordLevel({f'word{n}': n for n in range(10_000)}, unk_token='word0')).save(path)",
}
# With a limit on the size of files, in a process of its own: these libraries put a new file in the place of what they
# are told to write to, so that a device such as /dev/full is no place for them.
LIMITED = """
import resource, torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from surestep.runtime.disk import disk_error
path = {path!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    {write}
except BaseException as error:
    print(type(error).__name__, disk_error(error).errno)
"""


@pytest.mark.parametrize("writer", WRITERS)
def test_errors_of_libraries_are_known_for_what_they_are(tmp_path: Path, writer: str) -> None:
    finished = run_python(LIMITED.format(path=str(tmp_path / "file"), write=WRITERS[writer]))
    kind, number = finished.stdout.split()
    assert kind != "OSError"
    assert int(number) in {errno.EFBIG, errno.EIO}


def test_an_error_that_says_nothing_of_the_disk_is_not_taken_for_one() -> None:
    assert disk_error(RuntimeError("size mismatch")) is None


# The best model


def scored(folder: Path, steps: set[int], **settings: Any) -> tuple[Trainer, Breaks]:
    scores = [0.1, 0.2, 0.9, 0.3, 0.2]

    def figures(_: Any) -> dict[str, float]:
        step = trainer.state.global_step
        return {"score": scores[step // 2 - 1] if step else 0.0}

    evaluated = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "score"}
    trainer, breaks = broken(
        folder,
        steps,
        **{**evaluated, "greater_is_better": True, "eval_dataset": Points(4), "compute_metrics": figures, **settings},
    )
    return trainer, breaks


def test_the_best_that_was_saved_is_loaded_where_the_best_was_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, breaks = scored(tmp_path, {6}, load_best_model_at_end=True, save_total_limit=1, track_best=["score"])
    # Behind the model and the state, which names the new best by then.
    breaks.first = 40
    train(trainer, breaks)
    assert "could not be saved" in caplog.text
    assert "model.safetensors'" not in caplog.text
    assert trainer.state.best_global_step == 6
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-4")
    assert "The best model (step 6, 0.9) could not be saved" in caplog.text
    assert (tmp_path / "best.json").read_text().count("null") == 1


def test_a_summary_that_cannot_be_written_is_told_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, breaks = scored(tmp_path, set(), track_best=["score"])

    class Full(FaultyDisk):
        def write(self, path: Path, parts: Any) -> None:
            if path.parent == tmp_path and "best" in path.name:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            super().write(path, parts)

    breaks.disk = Full()
    train(trainer, breaks)
    assert "best.json' could not be written" in caplog.text
    stopped, breaks = scored(tmp_path / "stop", set(), track_best=["score"], on_save_error="stop")
    tmp_path = tmp_path / "stop"
    breaks.disk = Full()
    with pytest.raises(SaveError, match=r"best\.json"):
        train(stopped, breaks)


# Files beside the checkpoints


@pytest.mark.parametrize("write", ["save_state", "save_metrics", "create_model_card"])
def test_a_file_of_the_output_folder_is_the_old_or_the_new_one(tmp_path: Path, write: str) -> None:
    trainer = quick(tmp_path)
    more = {"save_metrics": ("train", {"loss": 1.0})}.get(write, ())
    getattr(trainer, write)(*more)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer.state.global_step = 99
    for at in range(20):
        disk = FaultyDisk(Fault(at, errno.ENOSPC))
        failed = None
        with writing_through(disk):
            try:
                getattr(trainer, write)(*more)
            except OSError as error:
                failed = str(error)
        if not disk.hit:
            break
        assert failed is not None
        assert "No space left" in failed
        assert str(tmp_path) in failed
        after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert after.keys() == before.keys()
        assert all(after[name] == before[name] or b"99" in after[name] for name in before)
    assert at > 3
