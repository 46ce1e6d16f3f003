"""An override point that answers differently has its way."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from surestep import Trainer
from tests.small import Line, Points, line, quick

# Steps and their order


def test_training_step_replaced(tmp_path: Path) -> None:
    class Fixed(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            return torch.tensor(2.5)

    trainer = quick(tmp_path, Fixed, optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0)
    before = trainer.model.layer.weight.detach().clone()
    output = trainer.train()

    torch.testing.assert_close(trainer.model.layer.weight, before - 0.5)
    assert output.training_loss == 2.5


def test_compute_loss_decides_what_is_minimised(tmp_path: Path) -> None:
    class Weights(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            loss = model.layer.weight.square().sum()
            return (loss, {"logits": inputs["x"]}) if return_outputs else loss

    trainer = quick(tmp_path, Weights, optim="sgd", learning_rate=0.5, lr_scheduler_type="constant", max_grad_norm=0)
    trainer.train()

    # The gradient of w^2 is 2 w, so that a rate of a half ends at zero in one step.
    assert trainer.model.layer.weight.abs().max() == 0
    assert trainer.predict(Points(4)).predictions.shape == (4, 3)


def test_prepared_inputs_are_what_the_model_gets(tmp_path: Path) -> None:
    class Doubled(Trainer):
        def _prepare_inputs(self, inputs: Any) -> Any:
            inputs = super()._prepare_inputs(inputs)
            return {**inputs, "x": inputs["x"] * 2}

    predictions = quick(tmp_path, Doubled).predict(Points(4)).predictions
    expected = line()(Points(4).x * 2)["logits"]

    torch.testing.assert_close(torch.tensor(predictions), expected.detach())


def test_get_batch_samples_decides_what_a_step_is_made_of(tmp_path: Path) -> None:
    sizes = []

    class Single(Trainer):
        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
            batches, _ = super().get_batch_samples(epoch_iterator, 1, device)
            return batches, 7

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
            sizes.append((num_items_in_batch, self.current_gradient_accumulation_steps))
            return super().training_step(model, inputs, num_items_in_batch)

    quick(tmp_path, Single, gradient_accumulation_steps=2).train()

    # Three steps were planned for five batches; each is of one batch now.
    assert sizes == [(7, 1)] * 3


def test_the_loss_context_is_entered_around_the_loss(tmp_path: Path) -> None:
    order = []

    class Inside(Trainer):
        def compute_loss_context_manager(self) -> Any:
            @contextlib.contextmanager
            def context() -> Any:
                order.append("in")
                yield
                order.append("out")

            return context()

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            order.append("loss")
            return super().compute_loss(*args, **kwargs)

    quick(tmp_path, Inside, max_steps=1).train()

    assert order == ["in", "loss", "out"]


def test_the_autocast_context_is_entered_too(tmp_path: Path) -> None:
    class Low(Trainer):
        def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
            return torch.autocast("cpu", torch.bfloat16)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            assert torch.is_autocast_enabled("cpu")
            return super().compute_loss(model, inputs, return_outputs)

    quick(tmp_path, Low, max_steps=1).train()


def test_floating_point_operations_are_those_of_the_override(tmp_path: Path) -> None:
    class Counted(Trainer):
        def floating_point_ops(self, inputs: Any) -> float:
            return 100 * len(inputs["x"])

    trainer = quick(tmp_path, Counted)
    output = trainer.train()

    assert trainer.state.total_flos == output.metrics["total_flos"] == 2000


def test_tokens_are_counted_by_the_override(tmp_path: Path) -> None:
    class Counted(Trainer):
        def _track_num_input_tokens(self, inputs: Any) -> None:
            super()._track_num_input_tokens(inputs)
            self.state.num_input_tokens_seen += 3

    trainer = quick(tmp_path, Counted)
    trainer.train()

    assert trainer.state.num_input_tokens_seen == 15


def test_store_flos_replaced(tmp_path: Path) -> None:
    class Elsewhere(Trainer):
        def store_flos(self) -> None:
            self.state.total_flos = 42

    trainer = quick(tmp_path, Elsewhere)

    assert trainer.train().metrics["total_flos"] == 42


# Data


def order_of(trainer: Trainer) -> list[float]:
    """Train, and return the first number of every sample in the order of training."""
    seen: list[float] = []
    step = trainer.training_step

    def noting(model: Any, inputs: Any, items: Any = None) -> Tensor:
        seen.extend(inputs["x"][:, 0].tolist())
        return step(model, inputs, items)

    trainer.training_step = noting  # type: ignore[method-assign]
    trainer.train()
    return seen


IN_ORDER = Points().x[:, 0].tolist()


def test_a_sampler_of_the_users_own(tmp_path: Path) -> None:
    class Backwards(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return list(reversed(range(len(train_dataset))))

    assert order_of(quick(tmp_path, Backwards)) == IN_ORDER[::-1]


def test_a_loader_of_the_users_own(tmp_path: Path) -> None:
    class Own(Trainer):
        def get_train_dataloader(self) -> Any:
            return DataLoader(self.train_dataset, batch_size=10)

    trainer = quick(tmp_path, Own)

    assert order_of(trainer) == IN_ORDER
    assert trainer.state.global_step == 2


def test_any_iterable_may_be_the_loader(tmp_path: Path) -> None:
    class Own(Trainer):
        def get_train_dataloader(self) -> Any:
            return [{"x": torch.ones(2, 3), "labels": torch.ones(2, 1)}] * 3

    trainer = quick(tmp_path, Own)
    trainer.train()

    assert trainer.state.global_step == 3


def test_evaluation_loaders_and_samplers_of_the_users_own(tmp_path: Path) -> None:
    class Own(Trainer):
        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            return DataLoader(Points(6), batch_size=2)

        def get_test_dataloader(self, test_dataset: Any) -> Any:
            return DataLoader(Points(3), batch_size=2)

    class Sampled(Trainer):
        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            return [2, 0]

    trainer = quick(tmp_path, Own, eval_dataset=Points(1))
    assert trainer.evaluation_loop(trainer.get_eval_dataloader(), "test").num_samples == 6
    assert len(trainer.predict(Points(1)).predictions) == 3

    sampled = quick(tmp_path, Sampled)
    labels = sampled.predict(Points(4)).label_ids
    torch.testing.assert_close(torch.tensor(labels), Points(4).y[[2, 0]])


def test_signature_columns_of_the_users_own(tmp_path: Path) -> None:
    seen = []

    class Wide(Line):
        def forward(self, x: Tensor, labels: Tensor | None = None, **extra: Tensor) -> Any:
            seen.append(sorted(extra))
            return super().forward(x, labels)

    class More(Points):
        def __getitem__(self, index: int) -> Any:
            return {**super().__getitem__(index), "weight": torch.ones(1), "junk": torch.ones(1)}

    class Chosen(Trainer):
        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            assert self._signature_columns is not None
            self._signature_columns += ["weight"]

    quick(tmp_path, Chosen, model=Wide(), train_dataset=More(), max_steps=1).train()
    assert {tuple(names) for names in seen} <= {("weight",), ("num_items_in_batch", "weight")}

    class All(Trainer):
        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["x", "labels", "junk"]

    seen.clear()
    quick(tmp_path, All, model=Wide(), train_dataset=More(), max_steps=1).train()
    assert all("junk" in names and "weight" not in names for names in seen)


def test_columns_are_kept_if_the_override_says_so(tmp_path: Path) -> None:
    class Kept(Trainer):
        def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
            return lambda samples: {"x": torch.stack([sample["x"] for sample in samples]), "labels": torch.ones(1, 1)}

    trainer = quick(tmp_path, Kept)
    batch = next(iter(trainer.get_train_dataloader()))

    assert batch["labels"].shape == (1, 1)


def test_the_lengths_of_a_run_are_those_of_the_override(tmp_path: Path) -> None:
    class Short(Trainer):
        def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
            epochs, per_epoch, examples, samples, total, batches, _ = super().set_initial_training_values(
                args, dataloader
            )
            return epochs, per_epoch, examples, samples, total, batches, 2

    trainer = quick(tmp_path, Short)
    trainer.train()

    assert trainer.state.global_step == trainer.state.max_steps == 2


def test_the_batch_size_of_a_step_is_that_of_the_override(tmp_path: Path) -> None:
    class Wide(Trainer):
        def get_total_train_batch_size(self, args: Any) -> int:
            return 2 * super().get_total_train_batch_size(args)

        def num_examples(self, dataloader: Any) -> int:
            return 1000

    trainer = quick(tmp_path, Wide)
    _, _, examples, samples, total, _, _ = trainer.set_initial_training_values(
        trainer.args, trainer.get_train_dataloader()
    )

    assert (examples, samples, total) == (1000, 1000, 8)
