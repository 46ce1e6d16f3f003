"""Each event comes when it should, with what it should, and each request is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from surestep import Trainer, TrainerCallback
from surestep.training.callback import EVENTS
from tests.small import Points, quick


class Diary(TrainerCallback):
    """Notes every event with the step, the epoch and the keywords."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int, float | None, dict[str, Any]]] = []

    def names(self, *without: str) -> list[str]:
        return [name for name, *_ in self.notes if name not in without]

    def of(self, event: str) -> list[tuple[int, float | None, dict[str, Any]]]:
        return [rest for name, *rest in self.notes if name == event]  # type: ignore[misc]


def _noting(event: str) -> Any:
    def method(self: Diary, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.notes.append((event, state.global_step, state.epoch, kwargs))

    return method


for _event in EVENTS:
    setattr(Diary, _event, _noting(_event))

SETTINGS: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "logging_steps": 2,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "per_device_eval_batch_size": 4,
}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Diary, Trainer]:
    """5 micro-batches an epoch, so steps of 2, 2 and 1; two epochs; an evaluation has two batches."""
    diary = Diary()
    trainer = quick(tmp_path, callbacks=[diary], eval_dataset=Points(8), **SETTINGS)
    trainer.train()
    return diary, trainer


def epoch_of(number: int) -> list[str]:
    """The events of an epoch of steps 1 to 3 or 4 to 6, with logs at the even ones."""
    step = ["on_pre_optimizer_step", "on_optimizer_step", "on_step_end"]
    whole, ragged = ["on_step_begin", "on_substep_end", *step], ["on_step_begin", *step]
    log = ["on_log"]
    first, second, third = [[], log, []] if number == 0 else [log, [], log]
    served = [*["on_prediction_step"] * 2, "on_log", "on_evaluate", "on_save"]
    return ["on_epoch_begin", *whole, *first, *whole, *second, *ragged, *third, "on_epoch_end", *served]


def test_every_event_in_its_place(run: tuple[Diary, Trainer]) -> None:
    diary, _ = run

    assert diary.names() == [
        "on_init_end", "on_train_begin", *epoch_of(0), *epoch_of(1), "on_log", "on_train_end",
    ]  # fmt: skip


def test_the_state_at_each_event(run: tuple[Diary, Trainer]) -> None:
    diary, _ = run

    assert [(step, epoch) for step, epoch, _ in diary.of("on_step_begin")] == [
        (0, 0), (1, 0.4), (2, 0.8), (3, 1.0), (4, 1.4), (5, 1.8),
    ]  # fmt: skip
    assert [(step, epoch) for step, epoch, _ in diary.of("on_step_end")] == [
        (1, 0.4), (2, 0.8), (3, 1.0), (4, 1.4), (5, 1.8), (6, 2.0),
    ]  # fmt: skip
    # Neither counted yet.
    for event in ("on_pre_optimizer_step", "on_optimizer_step"):
        assert [step for step, *_ in diary.of(event)] == [0, 1, 2, 3, 4, 5]
    for event in ("on_epoch_end", "on_evaluate", "on_save"):
        assert [step for step, *_ in diary.of(event)] == [3, 6]


def test_the_keywords_at_each_event(run: tuple[Diary, Trainer]) -> None:
    diary, trainer = run
    always = {"model", "processing_class", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader"}
    more = {"on_log": {"logs"}, "on_evaluate": {"metrics"}, "on_predict": {"metrics"}}
    for event, _, _, keywords in diary.notes:
        assert keywords.keys() == always | more.get(event, set()), event
        assert keywords["model"] is trainer.model
        if event != "on_init_end":
            assert keywords["optimizer"] is trainer.optimizer
            assert keywords["lr_scheduler"] is trainer.lr_scheduler
            assert len(keywords["train_dataloader"]) == 5
    assert len(diary.of("on_evaluate")[0][2]["eval_dataloader"]) == 2


def test_what_is_logged_and_measured(run: tuple[Diary, Trainer]) -> None:
    diary, trainer = run

    logs = [keywords["logs"] for _, _, keywords in diary.of("on_log")]
    # The printer takes total_flos out of what it prints.
    assert [next(iter(entry)) for entry in logs] == ["loss", "eval_loss", "loss", "loss", "eval_loss", "train_runtime"]
    metrics = [keywords["metrics"] for _, _, keywords in diary.of("on_evaluate")]
    assert [entry["eval_loss"] for entry in metrics] == [
        entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry
    ]


def test_a_prediction_is_told_and_not_logged(tmp_path: Path) -> None:
    diary = Diary()
    trainer = quick(tmp_path, callbacks=[diary], per_device_eval_batch_size=4)
    trainer.predict(Points(10))

    assert diary.names() == ["on_init_end", *["on_prediction_step"] * 3, "on_predict"]
    assert "test_loss" in diary.of("on_predict")[0][2]["metrics"]


def test_gradients_are_clipped_and_there_at_both_events_of_the_optimizer(tmp_path: Path) -> None:
    norms = []

    class Looks(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            norms.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))

        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            assert all(parameter.grad is not None for parameter in model.parameters())

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            assert all(parameter.grad is None for parameter in model.parameters())

    quick(tmp_path, callbacks=[Looks], max_grad_norm=0.01).train()

    assert norms == pytest.approx([0.01] * 5, rel=1e-3)


def test_a_checkpoint_is_complete_when_it_is_told(tmp_path: Path) -> None:
    seen = []

    class Looks(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            seen.append({path.name for path in folder.iterdir()} >= {"model.safetensors", "trainer_state.json"})

    quick(tmp_path, callbacks=[Looks], save_strategy="steps", save_steps=2).train()

    assert seen == [True, True, True]


def test_training_has_ended_with_the_best_model(tmp_path: Path) -> None:
    at_end = []

    class Looks(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            at_end.append(model.layer.weight.detach().clone())

    class Worse(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step:
                with torch.no_grad():
                    model.layer.weight.fill_(100.0)

    trainer = quick(
        tmp_path,
        callbacks=[Looks(), Worse()],
        eval_dataset=Points(8),
        load_best_model_at_end=True,
        **SETTINGS,
    )
    trainer.train()

    assert trainer.state.best_global_step == 3
    assert at_end[0].abs().max() < 50
    assert torch.equal(at_end[0], trainer.model.layer.weight)


# Requests


def asking(flag: str, event: str = "on_step_end", at: int = 2, value: Any = True) -> TrainerCallback:
    def method(self: Any, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step == at:
            setattr(control, flag, value)
        return control

    return type("Asking", (TrainerCallback,), {event: method})()


def test_a_log_on_request(tmp_path: Path) -> None:
    trainer = quick(tmp_path, callbacks=[asking("should_log")])
    trainer.train()

    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [2]


def test_an_evaluation_and_a_checkpoint_on_request(tmp_path: Path) -> None:
    callbacks = [asking("should_evaluate"), asking("should_save", at=3)]
    trainer = quick(tmp_path, callbacks=callbacks, eval_dataset=Points(4))
    trainer.train()

    assert [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry] == [2]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.parametrize("event", ["on_step_end", "on_pre_optimizer_step", "on_optimizer_step", "on_epoch_begin"])
def test_a_stop_on_request(tmp_path: Path, event: str) -> None:
    at = 0 if event == "on_epoch_begin" else 2
    trainer = quick(tmp_path, callbacks=[asking("should_training_stop", event, at)], num_train_epochs=3)
    trainer.train()

    # A step that has begun is ended; from inside the third step the stop comes after it.
    assert trainer.state.global_step == {"on_step_end": 2, "on_epoch_begin": 1}.get(event, 3)


def test_an_epoch_left_on_request_goes_on_with_the_next(tmp_path: Path) -> None:
    diary = Diary()
    trainer = quick(tmp_path, callbacks=[asking("should_epoch_stop"), diary], num_train_epochs=2)
    trainer.train()

    assert [epoch for _, epoch, _ in diary.of("on_epoch_end")] == [0.4, 2.0]
    assert trainer.state.global_step == 7


def test_a_step_broken_off_between_micro_batches(tmp_path: Path) -> None:
    diary = Diary()
    callbacks = [asking("should_training_stop", "on_substep_end", at=1), diary]
    trainer = quick(tmp_path, callbacks=callbacks, gradient_accumulation_steps=2)
    trainer.train()

    assert trainer.state.global_step == 1
    assert diary.names()[-5:] == ["on_step_begin", "on_substep_end", "on_epoch_end", "on_log", "on_train_end"]


def test_an_epoch_left_within_its_first_step_goes_on_with_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callbacks = [asking("should_epoch_stop", "on_substep_end", at=0)]
    trainer = quick(tmp_path, callbacks=callbacks, gradient_accumulation_steps=2, num_train_epochs=2, max_time="60s")
    trainer.train()

    # Every first step of an epoch is broken off, for the count stays at 0; no data is missed.
    assert trainer.state.global_step == 0
    assert "not a single batch" not in caplog.text


def test_a_served_request_is_not_served_again(tmp_path: Path) -> None:
    trainer = quick(tmp_path, callbacks=[asking("should_log", at=5)], num_train_epochs=2)
    trainer.train()

    # Step 5 ends the first epoch: what was served after the step is not served again after the epoch.
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [5]


def test_a_log_without_a_step_since_the_last_one_is_left_out(tmp_path: Path) -> None:
    callbacks = [asking("should_log", at=5), asking("should_log", "on_epoch_end", at=5)]
    trainer = quick(tmp_path, callbacks=callbacks)
    trainer.train()

    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [5]


def test_callbacks_are_called_after_the_flow_and_before_the_progress(tmp_path: Path) -> None:
    class First(TrainerCallback):
        """Given by the user."""

    names = quick(tmp_path, callbacks=[First]).callback_handler.callback_list.splitlines()

    assert names[0] == "DefaultFlowCallback"
    assert names.index("First") == len(names) - 2


def test_callbacks_are_added_and_removed_through_the_trainer(tmp_path: Path) -> None:
    trainer, diary = quick(tmp_path), Diary()
    trainer.add_callback(diary)
    assert trainer.pop_callback(Diary) is diary
    trainer.add_callback(Diary)
    trainer.remove_callback(Diary)
    trainer.add_callback(diary)
    trainer.train()

    assert diary.names()[0] == "on_train_begin"
    assert diary.names().count("on_step_end") == 5


def test_a_callback_without_the_flow_decides_alone(tmp_path: Path) -> None:
    from surestep import DefaultFlowCallback

    trainer = quick(tmp_path, callbacks=[asking("should_log")], logging_steps=1)
    trainer.remove_callback(DefaultFlowCallback)
    trainer.train()

    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [2]


def test_an_error_in_a_callback_reaches_the_caller_and_what_is_held_is_given_back(tmp_path: Path) -> None:
    closed = []

    class Breaks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise KeyError("mine")

        def close(self) -> None:
            closed.append(True)

    trainer = quick(tmp_path, callbacks=[Breaks])
    with pytest.raises(KeyError, match="mine"):
        trainer.train()

    assert closed == [True]
    assert not trainer.is_in_train


def test_the_optimizer_given_is_the_one_told(tmp_path: Path) -> None:
    from tests.small import line

    model, diary = line(), Diary()
    optimizer = SGD(model.parameters(), lr=0.1)
    quick(tmp_path, model=model, optimizers=(optimizer, None), callbacks=[diary])

    assert diary.of("on_init_end")[0][2]["optimizer"] is optimizer
