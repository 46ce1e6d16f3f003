"""From a micro-batch to its loss: what is divided by what, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.small import Line, Points, quick
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from surestep import Trainer
from surestep.errors import DataError, ModelError
from surestep.losses.smoothing import LabelSmoother
from surestep.trainer.points import stepping

# Labels that count: 4, 1, 3 and 2 of 4.
TOKENS = torch.tensor([[1, 2, 3, 4], [5, -100, -100, -100], [6, 7, 8, -100], [9, 1, -100, -100]])


class Words(list):
    """Four texts of different length, as a list of samples."""

    def __init__(self) -> None:
        super().__init__({"input_ids": row.clamp(min=0), "labels": row} for row in TOKENS)


class Tagger(nn.Module):
    """Scores each token; its loss is a mean over labels, or a sum divided by the count where it takes one."""

    def __init__(self, counts: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores, self.counts = nn.Embedding(10, 10), counts

    def forward(
        self, input_ids: Tensor, labels: Any = None, num_items_in_batch: Any = None, **_: Any
    ) -> dict[str, Tensor]:
        logits = self.scores(input_ids)
        if labels is None:
            return {"logits": logits}
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        counted = num_items_in_batch if self.counts and num_items_in_batch is not None else (labels != -100).sum()
        return {"loss": total / counted, "logits": logits}


class Closed(Tagger):
    """Takes no count."""

    def forward(self, input_ids: Tensor, labels: Any = None) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(input_ids, labels)


def gradient(folder: Path, model: nn.Module, *, size: int, data: Any = None, **settings: Any) -> Tensor:
    """Train one step over all four texts, in micro-batches of `size`; return what the step took off the weights."""
    before = model.scores.weight.detach().clone()
    usual = {
        "optim": "sgd",
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0,
        "weight_decay": 0,
    }
    trainer = quick(
        folder,
        model=model,
        train_dataset=Words() if data is None else data,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=size,
        gradient_accumulation_steps=4 // size,
        **{**usual, **settings},
    )
    trainer.train()
    return before - model.scores.weight.detach()


def whole(model: nn.Module) -> Tensor:
    """The gradient of the mean over all labels that count, at once."""
    model(input_ids=TOKENS.clamp(min=0), labels=TOKENS)["loss"].backward()
    return model.scores.weight.grad


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_model_that_counts_gives_the_gradient_of_one_big_batch(tmp_path: Path, size: int) -> None:
    torch.testing.assert_close(gradient(tmp_path, Tagger(), size=size), whole(Tagger()))


def test_a_count_that_is_ignored_gives_the_mean_of_the_means(tmp_path: Path) -> None:
    # The original believes the signature, and makes this loss four times too large.
    expected = torch.zeros(10, 10)
    for row in TOKENS:
        model = Tagger()
        model(input_ids=row[None].clamp(min=0), labels=row[None])["loss"].backward()
        expected += model.scores.weight.grad / 4

    torch.testing.assert_close(gradient(tmp_path / "ignores", Tagger(counts=False), size=1), expected)
    torch.testing.assert_close(gradient(tmp_path / "closed", Closed(), size=1), expected)


@pytest.mark.parametrize(
    ("declared", "made", "factor"), [(True, False, 4), (False, True, 1)], ids=["declared to count", "declared not to"]
)
def test_a_declaration_is_believed(tmp_path: Path, declared: bool, made: bool, factor: int) -> None:
    torch.manual_seed(0)
    model = Tagger(counts=made)
    model.accepts_loss_kwargs = declared  # type: ignore[assignment]
    mean_of_means = gradient(tmp_path / "mean", Closed(), size=1)

    torch.testing.assert_close(gradient(tmp_path / "declared", model, size=1), factor * mean_of_means)


class Causal(nn.Module):
    """A model whose loss divides by the count that it is given, after a shift that its class says nothing of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Embedding(10, 10)

    def forward(self, input_ids: Tensor, labels: Any = None, num_items_in_batch: Any = None) -> dict[str, Tensor]:
        logits = self.scores(input_ids)
        if labels is None:
            return {"logits": logits}
        flat = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        how = "mean" if num_items_in_batch is None else "sum"
        loss = nn.functional.cross_entropy(*flat, reduction=how)
        return {"loss": loss if num_items_in_batch is None else loss / num_items_in_batch, "logits": logits}


class CausalRows(Words):
    """Rows whose first label is one."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = TOKENS[index].clamp(min=0)
        return {"input_ids": tokens, "labels": tokens}


def test_a_model_that_declares_its_count_is_asked_of_its_shift_alone(tmp_path: Path) -> None:
    model = Causal()
    model.accepts_loss_kwargs = True  # type: ignore[assignment]
    calls: list[Any] = []
    model.register_forward_pre_hook(lambda *given: calls.append(given[2].get("num_items_in_batch")), with_kwargs=True)
    trainer = quick(tmp_path, model=model, train_dataset=CausalRows(), per_device_train_batch_size=2, max_steps=1)
    trainer.train()

    rows = TOKENS[:2].clamp(min=0)
    assert [None if count is None else int(count) for count in calls] == [None, rows[:, 1:].numel()]


@pytest.mark.parametrize("declared", [None, True, False])
def test_a_count_that_stands_on_nothing_is_said_with_how_to_declare_it(
    tmp_path: Path, declared: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    def loss_of(outputs: Any, labels: Any, num_items_in_batch: Any) -> Tensor:
        flat = outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return nn.functional.cross_entropy(*flat, reduction="sum") / num_items_in_batch

    model = Causal()
    if declared is not None:
        model.shifts_labels = declared  # type: ignore[assignment]
    settings = {"train_dataset": CausalRows(), "per_device_train_batch_size": 2, "max_steps": 1}
    trainer = quick(tmp_path, model=model, compute_loss_func=loss_of, **settings)
    trainer.train()

    assert caplog.text.count("set shifts_labels = True or False on Causal") == (declared is None)


def test_nothing_is_said_of_a_shift_where_a_sample_has_one_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor, labels: Tensor | None = None, **_: Any) -> dict[str, Any]:
            logits = self.layer(x)
            return {"loss": None if labels is None else nn.functional.cross_entropy(logits, labels), "logits": logits}

    rows = [{"x": torch.ones(3), "labels": torch.tensor(0)}] * 4
    quick(tmp_path, model=Classes(), train_dataset=rows, label_smoothing_factor=0.1).train()

    assert "shifts_labels" not in caplog.text


class ClosedCausal(Causal):
    """One that takes no count."""

    def forward(self, input_ids: Tensor, labels: Any = None) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(input_ids, labels)


class Unlabelled(Causal):
    """One that has no loss of its own."""

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(input_ids)


class Broken(Causal):
    """One whose own loss cannot be computed."""

    def forward(self, input_ids: Tensor, labels: Any = None) -> dict[str, Tensor]:  # type: ignore[override]
        if labels is not None:
            raise NotImplementedError
        return super().forward(input_ids)


class OpenCausal(Causal):
    """One that takes any keyword."""

    def forward(self, input_ids: Tensor, labels: Any = None, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward(input_ids, labels, kwargs.get("num_items_in_batch"))


def smoothed(folder: Path, model: Any, **settings: Any) -> Tensor:
    """Train one step over causal rows with label smoothing; return what the step took off the weights."""
    given = {"label_smoothing_factor": 0.2, "remove_unused_columns": False, **settings}
    return gradient(folder, model, size=4, data=CausalRows(), **given)


def smoothed_by_hand(*, shifted: bool) -> Tensor:
    model, tokens = Causal(), TOKENS.clamp(min=0)
    LabelSmoother(0.2)(model(tokens), tokens, shift_labels=shifted).backward()
    return model.scores.weight.grad


@pytest.mark.parametrize("kind", [ClosedCausal, OpenCausal])
def test_smoothing_is_over_what_the_models_own_loss_is_over(
    tmp_path: Path, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.testing.assert_close(smoothed(tmp_path, kind()), smoothed_by_hand(shifted=True))
    assert "shifts_labels" not in caplog.text


@pytest.mark.parametrize("kind", [Unlabelled, Broken])
def test_smoothing_without_a_loss_that_tells_says_once_what_it_takes_and_how_to_declare_it(
    tmp_path: Path, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = smoothed(tmp_path / "told", kind(), num_train_epochs=3, max_steps=1)
    smoothed(tmp_path / "longer", kind(), num_train_epochs=3)
    text = "Label smoothing takes labels as they are, those at the first position too: nothing tells whether"

    torch.testing.assert_close(found, smoothed_by_hand(shifted=False))
    assert caplog.text.count(text) == 2
    assert caplog.text.count(f"set shifts_labels = True or False on {kind.__name__}.") == 2


def test_smoothing_asks_no_model_that_has_declared_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Broken()
    model.shifts_labels = True  # type: ignore[assignment]

    torch.testing.assert_close(smoothed(tmp_path, model), smoothed_by_hand(shifted=True))
    assert "shifts_labels" not in caplog.text


def test_what_a_subclass_says_of_its_loss_is_believed(tmp_path: Path) -> None:
    class Scaled(Trainer):
        loss_is_scaled_for_ga = True

    trainer = quick(tmp_path, Scaled, gradient_accumulation_steps=2)
    trainer.current_gradient_accumulation_steps = 2
    batch = {"x": torch.ones(1, 3), "labels": torch.ones(1, 1)}
    loss = trainer.training_step(trainer.model, batch)

    torch.testing.assert_close(loss, trainer.model(**batch)["loss"].detach())


def test_asking_the_model_leaves_no_trace(tmp_path: Path) -> None:
    class Forgets(Tagger):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, input_ids: Tensor, labels: Any = None, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
            outputs = super().forward(input_ids, labels, **kwargs)
            return {**outputs, "loss": outputs["loss"] * self.drop(torch.ones(1))[0]}

    asked, told = Forgets(), Forgets()
    told.accepts_loss_kwargs = True  # type: ignore[assignment]

    assert torch.equal(gradient(tmp_path / "a", asked, size=2), gradient(tmp_path / "b", told, size=2))


@pytest.mark.parametrize(
    ("batches", "count"),
    [
        ([], None),
        ([{"input_ids": TOKENS}], None),
        ([[TOKENS]], None),
        ([{"labels": TOKENS}], 10),
        ([{"labels": TOKENS[:1]}, {"labels": TOKENS[1:2]}], 5),
    ],
    ids=["nothing", "no labels", "no mapping", "one", "two"],
)
def test_the_items_of_a_step(tmp_path: Path, batches: Any, count: int | None) -> None:
    trainer = quick(tmp_path, model=Tagger())
    trainer._divides_by_items = True
    found = trainer._get_num_items_in_batch(batches, torch.device("cpu"))

    assert (None if found is None else int(found)) == count


def test_nobody_counts_for_a_model_that_takes_no_count(tmp_path: Path) -> None:
    assert quick(tmp_path, model=Closed())._get_num_items_in_batch([{"labels": TOKENS}], torch.device("cpu")) is None


# The loss


def test_a_loss_function_gets_outputs_labels_and_the_count(tmp_path: Path) -> None:
    seen: list[Any] = []

    def loss_of(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        seen.append((sorted(outputs), labels.shape, int(num_items_in_batch)))
        flat = outputs["logits"].flatten(0, 1)
        return nn.functional.cross_entropy(flat, labels.flatten(), reduction="sum") / num_items_in_batch

    found = gradient(tmp_path, Closed(), size=2, compute_loss_func=loss_of)

    assert seen == [(["logits"], (2, 4), 10)] * 2
    torch.testing.assert_close(found, whole(Tagger()))


def test_a_smoothed_loss_is_one_over_the_whole_step(tmp_path: Path) -> None:
    model = Tagger()
    logits = model(input_ids=TOKENS.clamp(min=0))["logits"]
    LabelSmoother(0.2)({"logits": logits}, TOKENS).backward()

    found = gradient(tmp_path, Tagger(), size=1, label_smoothing_factor=0.2)
    torch.testing.assert_close(found, model.scores.weight.grad)


def test_a_multi_label_loss_is_not_smoothed_and_that_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        problem_type="multi_label_classification",
    )  # fmt: skip
    trainer = quick(tmp_path, model=BertForSequenceClassification(config), label_smoothing_factor=0.1)

    assert trainer.label_smoother is None
    assert "a multi-label loss has none" in caplog.text


@pytest.mark.parametrize("form", [tuple, list], ids=["tuple", "list"])
def test_a_model_may_return_its_loss_first(tmp_path: Path, form: Any) -> None:
    class Tuple(Line):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:  # type: ignore[override]
            return form(super().forward(x, labels).values())

    plain, other = quick(tmp_path / "plain"), quick(tmp_path / "tuple", model=Tuple())
    other.model.load_state_dict(plain.model.state_dict())
    plain.train()
    other.train()

    assert torch.equal(plain.model.layer.weight, other.model.layer.weight)


def test_a_model_without_a_loss_is_told(tmp_path: Path) -> None:
    class Silent(Line):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            return super().forward(x)

    with pytest.raises(ModelError, match=r"returned no loss, only the keys logits; it was given x, labels"):
        quick(tmp_path, model=Silent()).train()


def test_the_returned_loss_is_a_share_of_the_step_and_detached(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    batch = {"x": torch.ones(1, 3), "labels": torch.ones(1, 1)}
    one = trainer.training_step(trainer.model, batch)
    trainer.current_gradient_accumulation_steps = 4
    quarter = trainer.training_step(trainer.model, batch)

    assert not one.requires_grad
    torch.testing.assert_close(quarter, one / 4)


# Around the step


def test_an_empty_batch_is_told_with_the_columns_that_were_looked_for(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer._set_signature_columns_if_needed()

    with pytest.raises(
        DataError, match=r"A batch is empty.*Line\.forward does \(x, labels.*remove_unused_columns=False"
    ):
        trainer._prepare_inputs({})


def test_the_cache_is_emptied_every_so_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[int] = []
    trainer = quick(tmp_path, torch_empty_cache_steps=2)
    monkeypatch.setattr(stepping, "empty_cache", lambda device: at.append(trainer.state.global_step))
    trainer.train()

    assert at == [0, 2, 4]


def test_a_step_trains_also_after_somebody_switched_the_model(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer.model.eval()
    trainer.training_step(trainer.model, {"x": torch.ones(1, 3), "labels": torch.ones(1, 1)})

    assert trainer.model.training


def test_an_optimizer_with_modes_is_switched_with_the_model(tmp_path: Path) -> None:
    switched: list[str] = []

    class Modes(torch.optim.SGD):
        def train(self) -> None:
            switched.append("train")

        def eval(self) -> None:
            switched.append("eval")

    class Own(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = Modes(self.model.parameters(), lr=0.1)
            return self.optimizer

    quick(tmp_path, Own, eval_dataset=Points(4), eval_strategy="steps", eval_steps=3).train()

    assert switched == ["train", "eval", "train", "eval"]


# Counting

TINY = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)


def test_floating_point_operations_are_those_of_the_original(tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(str(tmp_path / "theirs"), report_to="none", use_cpu=True)
    theirs = transformers.Trainer(BertForMaskedLM(TINY), arguments)
    ours = quick(tmp_path / "ours", model=BertForMaskedLM(TINY), train_dataset=Words())
    batch = {"input_ids": TOKENS.clamp(min=0)}

    assert ours.floating_point_ops(batch) == theirs.floating_point_ops(batch) > 0
    # Asked again, the weights are not counted again.
    assert ours.floating_point_ops(batch) == theirs.floating_point_ops(batch)
    assert ours.floating_point_ops({"other": 1}) == theirs.floating_point_ops({"other": 1}) == 0
    assert quick(tmp_path / "plain").floating_point_ops(batch) == 0


def test_the_operations_of_a_run_add_up(tmp_path: Path) -> None:
    trainer = quick(tmp_path, model=BertForMaskedLM(TINY), train_dataset=Words(), per_device_train_batch_size=2)
    output = trainer.train()

    whole_set = trainer.floating_point_ops({"input_ids": TOKENS})
    assert trainer.state.total_flos == output.metrics["total_flos"] == whole_set
    assert trainer.current_flos == 0


@pytest.mark.parametrize(("setting", "tokens"), [("all", 16), (True, 16), ("non_padding", 10)])
def test_tokens_are_counted_and_logged(tmp_path: Path, setting: Any, tokens: int) -> None:
    data = [{**row, "attention_mask": (row["labels"] != -100).long()} for row in Words()]

    class Masked(Tagger):
        def forward(self, input_ids: Tensor, labels: Any = None, attention_mask: Any = None) -> Any:  # type: ignore[override]
            return super().forward(input_ids, labels)

    trainer = quick(
        tmp_path,
        model=Masked(),
        train_dataset=data,
        per_device_train_batch_size=2,
        include_num_input_tokens_seen=setting,
        logging_steps=1,
    )
    trainer.train()

    assert trainer.state.num_input_tokens_seen == tokens
    last_step, summary = trainer.state.log_history[-2:]
    assert last_step["num_input_tokens_seen"] == summary["num_input_tokens_seen"] == tokens
    assert last_step["train_tokens_per_second"] > 0


def test_tokens_that_cannot_be_counted_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the batch has no 'input_ids'.*set main_input_name on the model"):
        quick(tmp_path, include_num_input_tokens_seen="all").train()
