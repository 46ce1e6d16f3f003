"""An override of an extension point has its way: optimizer and schedule, evaluation, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from surestep import Trainer, TrainOutput
from surestep.errors import ArgumentError
from surestep.metrics.prediction import EvalLoopOutput
from tests.small import Line, Points, line, quick

# Optimizer and schedule


def test_an_optimizer_that_is_only_returned_is_used(tmp_path: Path) -> None:
    class Returns(Trainer):
        def create_optimizer(self) -> Any:  # type: ignore[override]
            return torch.optim.SGD(self.model.parameters(), lr=0.25)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

    trainer = quick(tmp_path, Returns, logging_steps=1)
    trainer.train()

    assert type(trainer.optimizer) is torch.optim.SGD
    assert type(trainer.lr_scheduler) is torch.optim.lr_scheduler.ConstantLR
    assert {entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry} == {0.25}


def test_an_optimizer_that_is_only_set_is_used(tmp_path: Path) -> None:
    class Sets(Trainer):
        def create_optimizer(self, model: Any = None) -> None:  # type: ignore[override]
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.25)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> None:
            self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

    trainer = quick(tmp_path, Sets)
    trainer.train()

    assert type(trainer.optimizer) is torch.optim.SGD
    assert type(trainer.lr_scheduler) is torch.optim.lr_scheduler.ConstantLR


def test_both_at_once(tmp_path: Path) -> None:
    class Both(Trainer):
        def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, lambda step: num_training_steps - step
            )

    trainer = quick(tmp_path, Both, logging_steps=1)
    trainer.train()

    assert [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry] == [5, 4, 3, 2, 1]


def test_an_optimizer_that_is_nowhere_is_told(tmp_path: Path) -> None:
    class Forgets(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            return None

    with pytest.raises(ArgumentError, match=r"create_optimizer neither set self\.optimizer nor returned an optimizer"):
        quick(tmp_path, Forgets).train()


def test_the_names_that_decay_are_those_of_the_override(tmp_path: Path) -> None:
    class Biases(Trainer):
        def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
            return ["layer.bias"]

    trainer = quick(tmp_path, Biases, weight_decay=0.3)
    decayed, plain = trainer.create_optimizer().param_groups

    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert decayed["params"][0] is trainer.model.layer.bias
    assert plain["params"][0] is trainer.model.layer.weight


def test_the_class_of_the_optimizer_is_that_of_the_override(tmp_path: Path) -> None:
    class Chosen(Trainer):
        @staticmethod
        def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> Any:
            assert isinstance(model, Line)
            return torch.optim.SGD, {"lr": 0.125, "momentum": 0.5}

    trainer = quick(tmp_path, Chosen)
    trainer.train()

    assert type(trainer.optimizer) is torch.optim.SGD
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.5


# Evaluation


def test_evaluate_replaced(tmp_path: Path) -> None:
    class Own(Trainer):
        def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
            metrics = {f"{metric_key_prefix}_own": float(self.state.global_step)}
            self.log(dict(metrics))
            return metrics

    trainer = quick(
        tmp_path,
        Own,
        eval_dataset=Points(4),
        eval_strategy="epoch",
        num_train_epochs=2,
        metric_for_best_model="own",
        greater_is_better=True,
    )
    trainer.train()

    assert [entry["eval_own"] for entry in trainer.state.log_history if "eval_own" in entry] == [5.0, 10.0]
    assert trainer.state.best_metric == 10.0


def test_evaluation_loop_replaced(tmp_path: Path) -> None:
    class Own(Trainer):
        def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
            prefix = kwargs["metric_key_prefix"]
            return EvalLoopOutput([description], None, {f"{prefix}_own": 1.0}, 3)

    trainer = quick(tmp_path, Own, eval_dataset=Points(4))

    assert trainer.evaluate()["eval_own"] == 1.0
    assert trainer.predict(Points(4)).predictions == ["Prediction"]


def test_prediction_step_replaced(tmp_path: Path) -> None:
    class Own(Trainer):
        def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
            assert not model.training
            return torch.tensor(3.0), inputs["x"], inputs["labels"]

    trainer = quick(tmp_path, Own, eval_dataset=Points(4))

    assert trainer.evaluate()["eval_loss"] == 3.0
    assert trainer.predict(Points(4)).predictions.tolist() == Points(4).x.tolist()


def test_metrics_as_a_method(tmp_path: Path) -> None:
    class Own(Trainer):
        def compute_metrics(self, prediction: Any) -> dict[str, float]:
            return {"count": float(len(prediction.predictions)) + self.state.global_step}

    trainer = quick(tmp_path, Own, eval_dataset=Points(4))
    assert trainer.evaluate()["eval_count"] == 4.0

    handed = quick(tmp_path, Own, eval_dataset=Points(4), compute_metrics=lambda _: {"handed": 1.0})
    assert "eval_handed" in handed.evaluate()


def test_the_best_is_what_the_override_says(tmp_path: Path) -> None:
    class Always(Trainer):
        def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:
            self.state.best_global_step = self.state.global_step
            return True

    trainer = quick(
        tmp_path,
        Always,
        eval_dataset=Points(4),
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="best",
        metric_for_best_model="loss",
    )
    trainer.train()

    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-10",
        "checkpoint-15",
        "checkpoint-5",
    ]


def test_serving_requests_replaced(tmp_path: Path) -> None:
    seen = []

    class Own(Trainer):
        def _maybe_log_save_evaluate(
            self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, epoch: Any, ignore_keys_for_eval: Any,
            start_time: Any, learning_rate: Any = None,
        ) -> None:  # fmt: skip
            seen.append(
                (self.control.should_log, float(tr_loss) > 0, float(grad_norm) > 0, model, epoch, learning_rate)
            )

    trainer = quick(tmp_path, Own, logging_steps=2, learning_rate=0.5)
    trainer.train()

    assert [asked for asked, *_ in seen] == [False, True, False, True, False, False]
    assert seen[0][1:] == (True, True, trainer.model_wrapped, 0, 0.5)
    assert [entry for entry in trainer.state.log_history if "loss" in entry] == []


def test_log_gains_and_loses_figures(tmp_path: Path) -> None:
    class Own(Trainer):
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            logs.pop("grad_norm", None)
            super().log({**logs, "more": 1.0}, start_time)

    trainer = quick(tmp_path, Own, logging_steps=5)
    trainer.train()

    assert all(entry["more"] == 1.0 and "grad_norm" not in entry for entry in trainer.state.log_history)


# Saving


def test_a_model_is_saved_as_the_override_does(tmp_path: Path) -> None:
    class Own(Trainer):
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            assert output_dir is not None
            Path(output_dir, "own.txt").write_text("own", encoding="utf-8")

    trainer = quick(tmp_path, Own, save_strategy="epoch")
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))

    assert (tmp_path / "checkpoint-5" / "own.txt").exists()
    assert (tmp_path / "final" / "own.txt").exists()
    assert (tmp_path / "final" / "model.safetensors").exists()


def test_what_an_override_of_save_checkpoint_writes_belongs_to_the_checkpoint(tmp_path: Path) -> None:
    class Own(Trainer):
        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "before.txt").write_text("before", encoding="utf-8")
            super()._save_checkpoint(model, trial)
            (folder / "after.txt").write_text("after", encoding="utf-8")

    trainer = quick(tmp_path, Own, save_strategy="epoch")
    trainer.train()

    names = {path.name for path in (tmp_path / "checkpoint-5").iterdir()}
    assert {"before.txt", "after.txt", "model.safetensors", "trainer_state.json"} <= names
    assert trainer._store.verify(tmp_path / "checkpoint-5") == []
    (tmp_path / "checkpoint-5" / "after.txt").write_text("changed", encoding="utf-8")
    assert trainer._store.verify(tmp_path / "checkpoint-5") != []


def test_save_model_replaced(tmp_path: Path) -> None:
    class Own(Trainer):
        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            assert output_dir is not None
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            Path(output_dir, "own.txt").write_text(str(_internal_call), encoding="utf-8")

    quick(tmp_path, Own, save_strategy="epoch", save_only_model=True).train()

    assert (tmp_path / "checkpoint-5" / "own.txt").read_text(encoding="utf-8") == "True"
    assert not (tmp_path / "checkpoint-5" / "model.safetensors").exists()


def test_a_checkpoint_is_loaded_as_the_override_does(tmp_path: Path) -> None:
    quick(tmp_path, save_strategy="epoch").train()

    class Zeros(Trainer):
        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            assert Path(resume_from_checkpoint).name == "checkpoint-5"
            with torch.no_grad():
                self.model.layer.weight.zero_()

    trainer = quick(tmp_path, Zeros, max_steps=5)
    trainer.train(resume_from_checkpoint=True)

    assert trainer.state.global_step == 5
    assert trainer.model.layer.weight.abs().max() == 0


def test_the_best_model_is_loaded_as_the_override_does(tmp_path: Path) -> None:
    class Ones(Trainer):
        def _load_best_model(self) -> None:
            assert self.state.best_model_checkpoint is not None
            with torch.no_grad():
                self.model.layer.weight.fill_(1.0)

    trainer = quick(
        tmp_path,
        Ones,
        eval_dataset=Points(4),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    trainer.train()

    assert (trainer.model.layer.weight == 1.0).all()


def test_the_loop_replaced(tmp_path: Path) -> None:
    class Own(Trainer):
        def _inner_training_loop(self, batch_size: Any = None, args: Any = None, **given: Any) -> Any:
            return TrainOutput(batch_size, 0.5, given)

    output = quick(tmp_path, Own).train(ignore_keys_for_eval=["hidden"])

    assert output.global_step == 4
    assert output.metrics == {"resume_from_checkpoint": None, "trial": None, "ignore_keys_for_eval": ["hidden"]}


def test_the_loop_wrapped(tmp_path: Path) -> None:
    class Wrapped(Trainer):
        def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
            output = super()._inner_training_loop(*args, **kwargs)
            return output._replace(metrics={**output.metrics, "wrapped": 1.0})

    assert quick(tmp_path, Wrapped).train().metrics["wrapped"] == 1.0


def test_a_model_is_made_as_the_override_does(tmp_path: Path) -> None:
    class Own(Trainer):
        def call_model_init(self, trial: Any = None) -> nn.Module:
            return line(seed=9)

    trainer = quick(tmp_path, Own, model_init=lambda: line(seed=1))
    assert torch.equal(trainer.model.layer.weight, line(seed=9).layer.weight)


def test_a_model_is_placed_as_the_override_does(tmp_path: Path) -> None:
    class Double(Trainer):
        def _move_model_to_device(self, model: Any, device: Any) -> None:
            model.double()

    assert quick(tmp_path, Double).model.layer.weight.dtype == torch.float64
