"""Overrides written for older versions of the original work as they are; those that nothing calls are refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surestep import Trainer
from surestep.errors import NotServedError, UnknownArgumentError
from tests.small import Line, Points, line, quick


def weights(trainer: Trainer) -> Tensor:
    trainer.train()
    return trainer.model.layer.weight.detach()


class OldStep(Trainer):
    def training_step(self, model: Any, inputs: Any) -> Tensor:  # type: ignore[override]
        return super().training_step(model, inputs)


class OldLoss(Trainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:  # type: ignore[override]
        return super().compute_loss(model, inputs, return_outputs)


class OldLog(Trainer):
    def log(self, logs: dict[str, float]) -> None:  # type: ignore[override]
        super().log(logs)


class OldBatches(Trainer):
    def get_batch_samples(self, epoch_iterator: Any, num_batches: int) -> Any:  # type: ignore[override]
        return super().get_batch_samples(epoch_iterator, num_batches, torch.device("cpu"))


class OldSampler(Trainer):
    def _get_train_sampler(self) -> Any:  # type: ignore[override]
        return super()._get_train_sampler()


class OldScheduler(Trainer):
    def create_scheduler(self, num_training_steps: int) -> Any:  # type: ignore[override]
        return super().create_scheduler(num_training_steps)


class OldServing(Trainer):
    def _maybe_log_save_evaluate(  # type: ignore[override]
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, epoch: Any, ignore_keys_for_eval: Any
    ) -> None:
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, 0.0)


class OldServingWithTime(Trainer):
    def _maybe_log_save_evaluate(  # type: ignore[override]
        self,
        tr_loss: Any,
        grad_norm: Any,
        model: Any,
        trial: Any,
        epoch: Any,
        ignore_keys_for_eval: Any,
        start_time: Any,
    ) -> None:
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time)


class OldSaving(Trainer):
    def save_model(self, output_dir: str | None = None) -> None:  # type: ignore[override]
        super().save_model(output_dir)


class OpenEnded(Trainer):
    def training_step(self, *args: Any) -> Tensor:
        assert len(args) == 3
        return super().training_step(*args)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        assert "num_items_in_batch" in kwargs
        return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, *args: Any, **kwargs: Any) -> None:
        super().log(*args, **kwargs)


class RenamedStep(Trainer):
    def training_step(self, model: Any, inputs: Any, items: Any = None) -> Tensor:  # type: ignore[override]
        self.items = items
        return super().training_step(model, inputs, items)


def older(*arguments: Any, **settings: Any) -> Trainer:
    """Make a trainer of an older form: it says so, once for each override."""
    with pytest.warns(FutureWarning, match="is an older form: write "):
        return quick(*arguments, **settings)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (OldStep, older), (OldLoss, older), (OldLog, older), (OldBatches, older), (OldSampler, older),
        (OldScheduler, older), (OldServing, older), (OldServingWithTime, older), (OldSaving, older),
        (OpenEnded, quick), (RenamedStep, quick),
    ],
)  # fmt: skip
def test_an_older_form_trains_to_the_same_weights(tmp_path: Path, kind: type[Trainer], make: Any) -> None:
    settings: dict[str, Any] = {
        "gradient_accumulation_steps": 2, "learning_rate": 0.1, "logging_steps": 1, "save_strategy": "epoch",
        "eval_dataset": Points(4), "eval_strategy": "epoch", "num_train_epochs": 2,
    }  # fmt: skip
    plain = quick(tmp_path / "plain", **settings)
    other = make(tmp_path / "older", kind, **settings)

    assert torch.equal(weights(plain), weights(other))
    assert [list(entry) for entry in plain.state.log_history] == [list(entry) for entry in other.state.log_history]
    assert (tmp_path / "older" / "checkpoint-6" / "model.safetensors").exists()


class Counting(Line):
    """Divides by the count, where it is given one."""

    def forward(self, x: Tensor, labels: Tensor | None = None, num_items_in_batch: Any = None, **_: Any) -> Any:
        outputs = super().forward(x, labels)
        if labels is not None and num_items_in_batch is not None:
            outputs["loss"] = outputs["loss"] * labels.numel() / num_items_in_batch
        return outputs


def counting() -> nn.Module:
    torch.manual_seed(0)
    return Counting()


@pytest.mark.parametrize("model", [line, counting], ids=["plain", "counting"])
def test_a_loss_that_never_sees_the_count_is_a_mean_over_its_micro_batch(tmp_path: Path, model: Any) -> None:
    # Equal micro-batches, so that the mean over a step is the same whether it is counted or divided.
    settings = {"gradient_accumulation_steps": 5, "learning_rate": 0.1, "optim": "sgd", "max_grad_norm": 0}
    one = quick(
        tmp_path / "one", model=model(), per_device_train_batch_size=20, optim="sgd", learning_rate=0.1, max_grad_norm=0
    )
    split = older(tmp_path / "older", OldLoss, model=model(), **settings)

    torch.testing.assert_close(weights(split), weights(one))


def test_the_renamed_count_arrives(tmp_path: Path) -> None:
    trainer = quick(tmp_path, RenamedStep, model=counting())
    trainer.train()

    assert int(trainer.items) == 4


def test_an_older_loss_is_called_by_subclasses_in_todays_way_too(tmp_path: Path) -> None:
    class Older(OldLoss):
        def prediction_step(self, model: Any, inputs: Any, *_: Any) -> Any:
            loss = self.compute_loss(model, inputs, False, 3)
            loss_again, _ = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=3)
            assert loss == loss_again
            return loss, None, None

    assert older(tmp_path, Older, eval_dataset=Points(4)).evaluate()["eval_loss"] > 0


def test_a_declaration_of_the_subclass_stands(tmp_path: Path) -> None:
    class Declares(OldLoss):
        loss_is_scaled_for_ga = True

    assert older(tmp_path, Declares).loss_is_scaled_for_ga is True
    assert older(tmp_path, OldLoss).loss_is_scaled_for_ga is False
    assert Trainer.loss_is_scaled_for_ga is None


def test_a_wrong_call_is_not_swallowed(tmp_path: Path) -> None:
    trainer = older(tmp_path, OldLoss)

    with pytest.raises(TypeError, match="no_such"):
        trainer.compute_loss(trainer.model, {}, no_such=1)


# Overrides that nothing calls


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("_run_epoch", r"with trainer\.steps\(\) as steps"),
        ("_clip_grad_norm", "on_pre_optimizer_step"),
        ("_get_learning_rate", "override log"),
        ("_wrap_model", "wrap the model before"),
        ("_rotate_checkpoints", "save_total_limit"),
        ("get_tp_size", "not served yet"),
    ],
)
def test_an_override_that_would_be_bypassed_is_refused(tmp_path: Path, name: str, instead: str) -> None:
    base = type("Mixin", (), {name: lambda self, *_, **__: None})
    kind = type("Mine", (base, Trainer), {})

    with pytest.raises(NotServedError, match=rf"Mixin overrides {name}, which nothing calls.*{instead}"):
        quick(tmp_path, kind)


def test_every_method_of_the_original_is_called_or_refused() -> None:
    """Nothing of the original can be overridden in vain."""
    import inspect

    import transformers

    from surestep.trainer.older_names import UNCALLED
    from tests.contract.test_calls import CALLS, ELSEWHERE

    methods = {name for name, value in vars(transformers.Trainer).items() if inspect.isfunction(value)}
    private = {name for name in methods if name.startswith("_") and not name.startswith("__")}
    # Called, but not in the run of test_calls.
    called = {"_load_rng_state", "_load_scaler", "_load_optimizer_and_scheduler", "_remove_unused_columns"}
    called |= {"_tune_save_checkpoint"}
    # Of distributed training and uploads, and reached only through what is refused already.
    behind = {
        "_defer_fsdp_gradient_reduction", "_sync_replicated_trainable_parameters", "_mixed_mesh_grad_norm",
        "_has_mixed_mesh_grads", "_finish_current_push", "_push_from_checkpoint",
    }  # fmt: skip

    assert private - set(CALLS) - set(ELSEWHERE) - set(UNCALLED) - called - behind == set()


# Older arguments of the constructor


def test_a_tokenizer_is_the_processing_class_with_a_warning(tmp_path: Path) -> None:
    tokenizer = object()
    with pytest.warns(FutureWarning, match=r"Trainer\(tokenizer=.*write processing_class=") as caught:
        trainer = Trainer(line(), quick(tmp_path).args, tokenizer=tokenizer)

    assert trainer.processing_class is tokenizer
    assert caught[0].filename == __file__


def test_no_tokenizer_is_no_processing_class(tmp_path: Path) -> None:
    args = quick(tmp_path).args
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert Trainer(line(), args, tokenizer=None, processing_class="own").processing_class == "own"


def test_both_names_at_once_are_refused(tmp_path: Path) -> None:
    given = pytest.warns(FutureWarning, match="write processing_class")
    with (
        given,
        pytest.raises(UnknownArgumentError, match=r"got tokenizer and processing_class\. Pass processing_class alone"),
    ):
        Trainer(line(), quick(tmp_path).args, tokenizer=1, processing_class=2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("train_datset", "Did you mean train_dataset?"), ("metrics_fn", ""), ("eval_datasets", "eval_dataset")],
)
def test_an_argument_that_never_was_is_refused(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(UnknownArgumentError) as caught:
        Trainer(line(), quick(tmp_path).args, **{name: 1})

    assert f"Trainer takes no argument '{name}'." in str(caught.value)
    assert hint in str(caught.value)
