"""What a step does otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count
from typing import Any

import accelerate
import pytest
import torch
import transformers
from torch import nn

import surestep
from tests.parity.differences import shows
from tests.parity.harness import both, run
from tests.parity.models import Documents, Net, Points, PointStream, Reviews, Sentences, Tagger, pad
from tests.parity.one_step import aligned, loss_and_norm
from tests.parity.tiny import bert, gpt2

REVIEWS: dict[str, Any] = {"train": lambda: list(Reviews())[:8], "data_collator": pad}
DOCUMENTS: dict[str, Any] = {"train": lambda: list(Documents())[:8], "data_collator": pad}


def calm_bert() -> nn.Module:
    return bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def declared_bert() -> nn.Module:
    model = calm_bert()
    model.accepts_loss_kwargs = True
    return model


def calm_gpt2() -> nn.Module:
    model = gpt2()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@shows("T1")
def test_a_loss_that_ignores_the_item_count_is_divided_for_accumulation() -> None:
    whole = pytest.approx(loss_and_norm(surestep, 8, model=calm_bert, **REVIEWS), rel=1e-5)
    four_times = pytest.approx([4 * value for value in whole.expected], rel=1e-5)
    assert loss_and_norm(transformers, 8, model=calm_bert, **REVIEWS) == whole
    assert loss_and_norm(transformers, 2, model=calm_bert, **REVIEWS) == four_times
    assert loss_and_norm(surestep, 2, model=calm_bert, **REVIEWS) == whole
    assert loss_and_norm(surestep, 2, model=declared_bert, **REVIEWS) == four_times


@shows("T2")
def test_items_are_counted_as_the_loss_counts_them() -> None:
    samples = [sample["input_ids"] for sample in DOCUMENTS["train"]()]
    torch.manual_seed(3)
    model = calm_gpt2().train()
    labels = pad([{"input_ids": tokens, "labels": tokens} for tokens in samples])
    mean = model(**labels).loss.item()
    shifted, everything = sum(len(tokens) - 1 for tokens in samples), sum(len(tokens) for tokens in samples)

    assert loss_and_norm(surestep, 8, model=calm_gpt2, **DOCUMENTS)[0] == pytest.approx(mean, rel=1e-5)
    assert loss_and_norm(surestep, 2, model=calm_gpt2, **DOCUMENTS)[0] == pytest.approx(mean, rel=1e-5)
    for batch in (8, 2):
        theirs = loss_and_norm(transformers, batch, model=calm_gpt2, **DOCUMENTS)[0]
        assert theirs == pytest.approx(mean * shifted / everything, rel=1e-5)
        assert loss_and_norm(surestep, batch, model=aligned(calm_gpt2), **DOCUMENTS)[0] == pytest.approx(
            theirs, rel=1e-5
        )


class Weight(nn.Module):
    """One weight whose gradient is 1 for each micro-batch, divided for accumulation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.weight * x.mean()}


class Ones(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter([{"x": torch.ones(1)}] * 3)


@shows("T3")
def test_the_tail_of_a_stream_makes_a_step() -> None:
    arguments = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 1}
    theirs, ours = both({**arguments, "max_grad_norm": 0}, model=Weight, train=Ones)
    norms = [[entry["grad_norm"] for entry in seen.logs if "grad_norm" in entry] for seen in (theirs, ours)]
    # Of each pass the third micro-batch is lost as a step, and added to the next pass's first one.
    assert norms[0] == [1.0, 2.0, 2.0, 2.0]
    assert norms[1] == [1.0, 1.0, 1.0, 1.0]


@shows("T4")
def test_a_step_broken_off_leaves_no_gradient() -> None:
    def leaving(side: Any) -> list[Any]:
        class Leaves(side.TrainerCallback):
            calls = 0

            def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.calls += 1
                control.should_epoch_stop = self.calls == 2

        return [Leaves()]

    arguments = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    data = {"model": Weight, "train": lambda: [{"x": torch.ones(1)}] * 6, "callbacks": leaving}
    theirs, ours = both({**arguments, "logging_steps": 1, "max_grad_norm": 0}, **data)
    norms = [[entry["grad_norm"] for entry in seen.logs if "grad_norm" in entry] for seen in (theirs, ours)]
    assert norms[0][:3] == [1.0, 1.5, 1.0]
    assert norms[1][:3] == [1.0, 1.0, 1.0]


@shows("T5")
def test_a_layer_in_evaluation_mode_stays_there() -> None:
    def quieting(side: Any) -> list[Any]:
        class Quiets(side.TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                kwargs["model"].drop.eval()

        return [Quiets()]

    class Restless:
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            model.train()
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]

    arguments = {"max_steps": 4, "logging_steps": 1}
    theirs, ours = both(arguments, model=lambda: Net(0.5), callbacks=quieting)
    quiet = run(surestep, arguments, model=lambda: Net(0.0))
    assert ours.losses == quiet.losses
    assert theirs.losses != quiet.losses
    assert theirs.trainer.model.drop.training
    assert not ours.trainer.model.drop.training
    as_there = run(surestep, arguments, model=lambda: Net(0.5), callbacks=quieting, mixin=Restless)
    assert as_there.losses == theirs.losses


@shows("T6")
def test_the_batch_is_left_as_it_is() -> None:
    class Looks:
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
            self.left = sorted(inputs)
            return loss

    arguments = {"max_steps": 1, "label_smoothing_factor": 0.1}
    theirs, ours = both(arguments, model=Tagger, train=Sentences, data_collator=pad, mixin=Looks)
    assert theirs.trainer.left == ["attention_mask", "input_ids"]
    assert ours.trainer.left == ["attention_mask", "input_ids", "labels"]
    assert ours.losses == theirs.losses


@shows("T7")
def test_float16_on_the_cpu_is_float16() -> None:
    dtypes: list[Any] = []

    def watched() -> nn.Module:
        model = Net()
        model.first.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
        return model

    arguments = {"max_steps": 2, "logging_steps": 1, "fp16": True}
    theirs, ours = both(arguments, model=watched)
    assert dtypes == [torch.float32] * 2 + [torch.float16] * 2
    assert theirs.trainer.accelerator.scaler is None
    assert ours.trainer.engine.precision.state_dict()["scale"] > 0
    # Without the setting, both compute in float32.
    assert run(surestep, {**arguments, "fp16": False}, model=watched).losses == theirs.losses


class OnceOnly(PointStream):
    """A stream that is empty when it is read again."""

    def __iter__(self) -> Any:
        points, self.points = self.points, Points(0)
        return (points[index] for index in range(len(points)))


@shows("T17")
@pytest.mark.parametrize(("mode", "rates"), [(None, [1.0, 1.0, 1.0]), ("min", [1.0, 1.0, 0.1])])
def test_a_schedule_goes_the_way_of_its_metric(mode: str | None, rates: list[float]) -> None:
    arguments = {
        "max_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1.0,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "score",
        "greater_is_better": True,
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"patience": 0, "factor": 0.1, **({} if mode is None else {"mode": mode})},
    }

    def observed(side: Any) -> list[float]:
        rising = count()
        seen = run(side, arguments, evaluate=lambda: Points(4), compute_metrics=lambda _: {"score": next(rising)})
        return [entry["learning_rate"] for entry in seen.logs if "learning_rate" in entry]

    assert observed(transformers) == pytest.approx([1.0, 1.0, 0.1])
    assert observed(surestep) == pytest.approx(rates)


@shows("T8")
def test_a_stream_that_ended_for_good_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    arguments, data = {"per_device_train_batch_size": 4, "max_steps": 20}, {"train": lambda: OnceOnly(24)}
    with pytest.raises(ValueError, match="does not contain any data"):
        run(transformers, arguments, **data)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        ours = run(surestep, arguments, **data)
    assert ours.state.global_step == 6
    assert "gave not a single batch" in caplog.text


def schedule_alone(model: nn.Module) -> tuple[None, Any]:
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    return None, torch.optim.lr_scheduler.StepLR(other, step_size=1, gamma=0.5)


@shows("T9")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_a_schedule_without_its_optimizer_is_refused() -> None:
    theirs = run(transformers, {"max_steps": 3}, optimizers=schedule_alone)
    assert theirs.rates == [5e-5, 5e-5]
    with pytest.raises(ValueError, match="a schedule and no optimizer"):
        run(surestep, {"max_steps": 3}, optimizers=schedule_alone)
    assert run(surestep, {"max_steps": 3, "lr_scheduler_type": "constant"}).rates == theirs.rates


@shows("T10")
def test_an_optimizer_that_is_only_returned_is_used() -> None:
    class Returns:
        def create_optimizer(self, model: Any = None) -> Any:
            return torch.optim.SGD(self.model.parameters(), lr=0.1)

    with pytest.raises(AttributeError, match="param_groups"):
        run(transformers, {"max_steps": 2}, mixin=Returns)
    assert isinstance(run(surestep, {"max_steps": 2}, mixin=Returns).trainer.optimizer, torch.optim.SGD)


@shows("T11")
def test_create_optimizer_and_scheduler_is_called() -> None:
    class MakesBoth:
        def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)

    class MakesEach:
        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            return self.optimizer

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
            return self.lr_scheduler

    theirs, ours = both({"max_steps": 2}, mixin=MakesBoth)
    plain = run(transformers, {"max_steps": 2})
    assert torch.equal(theirs.weights["first.weight"], plain.weights["first.weight"])
    assert ours.rates == [0.1]
    each = run(transformers, {"max_steps": 2}, mixin=MakesEach)
    assert torch.equal(ours.weights["first.weight"], each.weights["first.weight"])


@shows("T12")
def test_overrides_of_an_older_form_are_called() -> None:
    class Older:
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
            outputs = model(**inputs)
            return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    arguments = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": 4}
    with pytest.raises(TypeError, match="num_items_in_batch"):
        run(transformers, arguments, mixin=Older)
    with pytest.warns(FutureWarning, match="is an older form: write compute_loss"):
        ours = run(surestep, arguments, mixin=Older)
    assert ours.losses == run(transformers, arguments).losses


@shows("T13")
@pytest.mark.parametrize("name", ["_clip_grad_norm", "_get_learning_rate", "_run_epoch"])
def test_an_override_that_nothing_calls_is_refused(name: str) -> None:
    calls: list[str] = []

    def override(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return getattr(transformers.Trainer, name)(self, *args, **kwargs)

    mixin = type("Overrides", (), {name: override})
    run(transformers, {"max_steps": 1}, mixin=mixin)
    assert calls
    with pytest.raises(NotImplementedError, match=f"overrides {name}, which nothing calls"):
        run(surestep, {"max_steps": 1}, mixin=mixin)


class Unlucky(Net):
    """A loss that is NaN for the batch that holds sample 7."""

    def forward(self, x: Any, labels: Any = None, number: Any = None) -> dict[str, Any]:
        outputs = super().forward(x, labels, number)
        return {**outputs, "loss": outputs["loss"] * (torch.nan if (number == 7).any() else 1.0)}


@shows("T16")
def test_a_step_that_is_not_finite_is_not_made() -> None:
    arguments = {"max_steps": 3, "per_device_train_batch_size": 5, "train_sampling_strategy": "sequential"}
    theirs = run(transformers, arguments, model=Unlucky)
    assert all(weight.isnan().all() for weight in theirs.weights.values())
    with pytest.raises(FloatingPointError, match=r"Step 2 .*the loss is nan in micro-batch 1 of 1"):
        run(surestep, arguments, model=Unlucky)
    skipped = run(surestep, {**arguments, "nonfinite": "skip"}, model=Unlucky)
    assert all(weight.isfinite().all() for weight in skipped.weights.values())
    ignored = run(surestep, {**arguments, "nonfinite": "ignore"}, model=Unlucky)
    assert all(weight.isnan().all() for weight in ignored.weights.values())


class Steep(nn.Module):
    """A loss of which only the gradient overflows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": 1e38 * (self.weight - self.weight.detach()) * x.mean()}


@shows("T18")
def test_the_schedule_waits_for_an_overflow_under_a_fused_optimizer(tmp_path: Any) -> None:
    """The original scales on GPUs alone (T7): shown with the part that counts its steps."""
    model = Steep()
    accelerator = accelerate.Accelerator(cpu=True)
    fused = accelerate.optimizer.AcceleratedOptimizer(
        torch.optim.AdamW(model.parameters(), fused=True), scaler=torch.amp.GradScaler("cpu")
    )
    fused.scaler.scale(model(torch.ones(1))["loss"]).backward()
    fused.step()
    assert accelerator.sync_gradients
    assert model.weight == 1
    assert fused.scaler.get_scale() == 65536 / 2
    assert not fused.step_was_skipped

    settings = {"fp16": True, "optim": "adamw_torch_fused", "max_steps": 3, "logging_steps": 1, "learning_rate": 0.1}
    ours = run(surestep, {**settings, "nonfinite": "ignore"}, model=Steep, train=lambda: [{"x": torch.ones(1)}] * 24)
    assert ours.trainer.model.weight == 1
    assert [entry["learning_rate"] for entry in ours.logs if "learning_rate" in entry] == [0.1] * 3


def optimizer_of_another(_: nn.Module) -> tuple[Any, None]:
    return torch.optim.SGD(Net().parameters(), lr=0.1), None


@shows("T19")
def test_an_optimizer_that_holds_nothing_of_the_model_is_refused(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(3)
    begun = Net().state_dict()
    theirs = run(transformers, {"max_steps": 2}, optimizers=optimizer_of_another)
    assert all(torch.equal(theirs.weights[name], begun[name]) for name in begun)
    args = surestep.TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, save_strategy="no")
    model = Net()
    with pytest.raises(ValueError, match=r"optimizers: The optimizer holds none of the model's parameters"):
        surestep.Trainer(model, args, train_dataset=Points(), optimizers=optimizer_of_another(model)).train()
    # The harness has a compute_loss of its own.
    ours = run(surestep, {"max_steps": 2}, optimizers=optimizer_of_another)
    assert all(torch.equal(ours.weights[name], begun[name]) for name in begun)
    assert "holds none of the model's parameters" in caplog.text
