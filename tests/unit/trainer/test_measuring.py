"""Metrics in a trainer: evaluations that keep nothing, the log of training, intervals, predictions in a folder."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.small import Points, line, quick
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from surestep import Trainer, load_predictions
from surestep.errors import ArgumentError, DataError
from surestep.trainer import measuring

IGNORED = -100


class Sentences(Dataset):
    """Tokens of one width with labels that are partly ignored."""

    def __init__(self, size: int = 23) -> None:
        generator = torch.Generator().manual_seed(3)
        self.tokens = torch.randint(0, 5, (size, 6), generator=generator)
        self.labels = self.tokens.roll(1, 1).masked_fill(torch.rand(size, 6, generator=generator) < 0.4, IGNORED)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.tokens[index], "labels": self.labels[index]}


class Tagger(nn.Module):
    """Names each token; counts how often it is called."""

    main_input_name = "tokens"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(5, 8), nn.Linear(8, 5)
        self.calls = 0

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        self.calls += 1
        logits = self.head(torch.tanh(self.embed(tokens)))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def tagger(folder: Path, kind: type[Trainer] = Trainer, **given: Any) -> Trainer:
    usual = {"model": Tagger(), "train_dataset": Sentences(), "eval_dataset": Sentences(13)}
    return quick(folder, kind, **{**usual, "learning_rate": 0.05, **given})


def figures(metrics: dict[str, float]) -> dict[str, float]:
    clock = ("runtime", "per_second", "preparation_time")
    return {name: value for name, value in metrics.items() if not name.endswith(clock) and name != "epoch"}


NAMES = ["accuracy", "f1", "mcc", "auroc", "perplexity"]


@pytest.fixture(scope="module")
def by_hand() -> dict[str, float]:
    from sklearn.metrics import f1_score, matthews_corrcoef, roc_auc_score

    data, model = Sentences(13), Tagger().double()
    kept = data.labels != IGNORED
    logits = model(data.tokens)["logits"][kept].detach()
    labels, chosen = data.labels[kept], logits.argmax(1)
    loss = float(nn.functional.cross_entropy(logits, labels))
    return {
        "eval_loss": loss,
        "eval_accuracy": float((chosen == labels).double().mean()),
        "eval_f1": f1_score(labels, chosen, average="macro"),
        "eval_mcc": matthews_corrcoef(labels, chosen),
        "eval_auroc": roc_auc_score(labels, logits.softmax(1), multi_class="ovr"),
        "eval_perplexity": np.exp(loss),
    }


@given(size=st.integers(1, 14))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_figure_depends_on_the_batch_size(tmp_path: Path, by_hand: dict[str, float], size: int) -> None:
    trainer = tagger(tmp_path, metrics=NAMES, per_device_eval_batch_size=size)

    assert figures(trainer.evaluate()) == pytest.approx(by_hand, rel=1e-6)


def test_metrics_stand_beside_a_metric_function(tmp_path: Path) -> None:
    trainer = tagger(tmp_path, metrics="accuracy", compute_metrics=lambda given: {"count": len(given.predictions)})
    metrics = trainer.evaluate()

    assert metrics["eval_count"] == 13
    assert 0 < metrics["eval_accuracy"] < 1


def test_each_set_is_measured_apart(tmp_path: Path) -> None:
    sets = {"few": Sentences(4), "many": Sentences(13)}
    metrics = tagger(tmp_path, metrics=["accuracy"], eval_dataset=sets).evaluate()
    alone = tagger(tmp_path, metrics=["accuracy"], eval_dataset=sets["few"]).evaluate()

    assert metrics["eval_few_accuracy"] == alone["eval_accuracy"] != metrics["eval_many_accuracy"]


def test_logits_may_be_preprocessed(tmp_path: Path) -> None:
    config = type("Config", (), {"num_labels": 5})()
    model = Tagger()
    model.config = config
    given = {"metrics": NAMES[:3], "model": model}
    chosen = tagger(tmp_path, **given, preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1))

    assert figures(chosen.evaluate()) == pytest.approx(figures(tagger(tmp_path, **given).evaluate()))


def test_a_regression_is_told_by_its_labels(tmp_path: Path) -> None:
    metrics = quick(tmp_path, metrics="mse", eval_dataset=Points(10)).evaluate()

    assert metrics["eval_mse"] == pytest.approx(metrics["eval_loss"], rel=1e-6)


def test_the_best_model_may_be_told_by_a_metric(tmp_path: Path) -> None:
    trainer = tagger(
        tmp_path, metrics="accuracy", eval_strategy="epoch", save_strategy="best", metric_for_best_model="accuracy",
        num_train_epochs=2,
    )  # fmt: skip
    trainer.train()

    assert trainer.state.best_metric == max(
        entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry
    )


def test_predictions_are_measured_where_there_are_labels(tmp_path: Path) -> None:
    trainer = tagger(tmp_path, metrics="accuracy")
    labelled = trainer.predict(Sentences(13))
    bare = trainer.predict([{"tokens": row} for row in Sentences(5).tokens])

    assert labelled.metrics["test_accuracy"] == trainer.evaluate()["eval_accuracy"]
    assert len(labelled.predictions) == 13
    assert "test_accuracy" not in bare.metrics


def test_the_task_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tagger(tmp_path, metrics="accuracy")
    trainer.evaluate()
    trainer.evaluate()

    assert capsys.readouterr().err.count("Metrics read predictions of shape (8, 6, 5) as multiclass, 5 classes") == 1


# Memory


# Training


def test_training_is_measured_without_a_further_forward(tmp_path: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Notes(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
            seen.append((outputs["logits"].detach(), inputs["labels"]))
            return (loss, outputs) if return_outputs else loss

    f1 = torchmetrics.classification.MulticlassF1Score(5, average="micro")
    trainer = tagger(tmp_path, Notes, train_metrics=["accuracy", f1], logging_steps=2, max_steps=4)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "accuracy" in entry]

    assert trainer.model.calls == len(seen) == 4
    for entry, pairs in zip(logged, (seen[:2], seen[2:]), strict=True):
        right = torch.cat([(logits.argmax(-1) == labels)[labels != IGNORED] for logits, labels in pairs])
        assert entry["accuracy"] == pytest.approx(float(right.double().mean()))
        assert entry["multiclass_f1_score"] == pytest.approx(entry["accuracy"])
        assert {"loss", "learning_rate"} <= entry.keys()


def test_the_metrics_of_evaluation_may_serve_training(tmp_path: Path) -> None:
    trainer = tagger(tmp_path, metrics="accuracy", train_metrics=True, logging_steps=1, max_steps=1)
    trainer.train()

    assert "accuracy" in trainer.state.log_history[0]
    without = tagger(tmp_path, metrics="accuracy", logging_steps=1, max_steps=1)
    without.train()
    assert "accuracy" not in without.state.log_history[0]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_training_is_the_same_with_metrics(tmp_path: Path, accumulation: int) -> None:
    ends = []
    for asked in ({}, {"train_metrics": "accuracy"}):
        trainer = tagger(tmp_path, gradient_accumulation_steps=accumulation, **asked)
        trainer.train()
        ends.append(trainer.model.state_dict())

    torch.testing.assert_close(ends[0], ends[1], rtol=0.0, atol=0.0)


def test_a_loss_outside_the_model_is_measured_too(tmp_path: Path) -> None:
    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten())

    given = {"train_metrics": "accuracy", "logging_steps": 1, "max_steps": 2}
    ours, theirs = tagger(tmp_path, **given), tagger(tmp_path, compute_loss_func=loss, **given)
    ours.train()
    theirs.train()

    assert [entry.get("accuracy") for entry in ours.state.log_history] == pytest.approx(
        [entry.get("accuracy") for entry in theirs.state.log_history]
    )


def test_a_resumed_run_logs_what_the_whole_one_does(tmp_path: Path) -> None:
    given = {
        "train_metrics": ["accuracy", "f1", torchmetrics.classification.MulticlassRecall(5)],
        "logging_steps": 4, "save_strategy": "steps", "save_steps": 2, "max_steps": 4,
    }  # fmt: skip
    whole = tagger(tmp_path, **given)
    whole.train()
    resumed = tagger(tmp_path, **given)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    names = ("accuracy", "f1", "multiclass_recall")

    for name in names:
        assert resumed.state.log_history[0][name] == whole.state.log_history[0][name]


def test_a_compiled_model_is_measured(tmp_path: Path) -> None:
    given = {"train_metrics": "accuracy", "logging_steps": 1, "max_steps": 2}
    plain = tagger(tmp_path, **given)
    plain.train()
    compiled = tagger(tmp_path, torch_compile=True, torch_compile_backend="eager", **given)
    compiled.train()

    assert compiled.state.log_history[1]["accuracy"] == plain.state.log_history[1]["accuracy"]


def test_a_loss_without_the_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            return model.head.weight.square().mean()

    told: list[str] = []
    monkeypatch.setattr(measuring, "warn_once", lambda logger, message: told.append(message))
    tagger(tmp_path, Elsewhere, train_metrics="accuracy", max_steps=1).train()

    assert told == ["train_metrics see nothing: compute_loss does not call the model it is given."]


# Settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": "acuracy"}, "Did you mean 'accuracy'"),
        ({"train_metrics": ["acuracy"]}, "train_metrics has 'acuracy'"),
        ({"train_metrics": True}, r"train_metrics=True measures what metrics names, which is None"),
        ({"metrics_confidence": 0.9}, r"metrics_confidence=0.9 needs metrics, which is None"),
        ({"metrics": "f1", "metrics_confidence": 95}, r"metrics_confidence=95; write a share"),
        ({"metrics": "f1", "prediction_loss_only": True}, "prediction_loss_only=True gives metrics nothing"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused_at_once(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        tagger(tmp_path, **given)


def test_training_has_no_metric_of_all_scores(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="train_metrics has 'auroc', which needs all scores at once"):
        tagger(tmp_path, train_metrics="auroc").train()


def test_the_objects_given_stay_as_they_are(tmp_path: Path) -> None:
    metric = torchmetrics.classification.MulticlassAccuracy(5)
    tagger(tmp_path, metrics=metric, train_metrics=True, max_steps=2).train()

    assert metric.update_count == 0


def test_no_metric_opens_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.metrics.batches import Words, measure
    from tests.unit.metrics.test_spans import config, padded
    from tests.unit.metrics.test_text import REFERENCES, SAID, WANTED

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a metric opens a connection")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    figures(tagger(tmp_path, metrics=[*NAMES, "iou", "precision", "recall"]).evaluate())
    measure(["rouge", "bleu", "squad"], SAID, WANTED, processing_class=Words())
    named = REFERENCES["seqeval"]
    measure("seqeval", padded(named["predicted"], 1), padded(named["actual"], -100), config=config(named["tags"]))
    measure("mse", torch.ones(3, 1), torch.ones(3, 1))


# Samples


def test_a_collator_that_loses_samples_is_found(tmp_path: Path) -> None:
    def loses(samples: list[Any]) -> Any:
        return torch.utils.data.default_collate(samples[:-1] or samples)

    with pytest.raises(DataError, match="has 13 samples, and 11 rows came to the model"):
        tagger(tmp_path, data_collator=loses).evaluate()


@pytest.mark.parametrize("how", ["drop_last", "loader"])
def test_what_is_left_out_on_purpose_is_said(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from surestep.training import evaluation

    class Own(Trainer):
        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            return DataLoader(self.eval_dataset, batch_size=4, sampler=range(8))

    told: list[str] = []
    monkeypatch.setattr(evaluation, "warn_once", lambda logger, message: told.append(message))
    if how == "loader":
        tagger(tmp_path, Own).evaluate()
    else:
        tagger(tmp_path, dataloader_drop_last=True).evaluate()

    assert len(told) == 1
    assert "The evaluation covers 8 of the 13 samples" in told[0]


def test_samples_packed_into_a_row_are_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surestep.training import evaluation

    def pack(samples: list[Any]) -> Any:
        return {name: torch.cat([sample[name] for sample in samples])[None] for name in samples[0]}

    told: list[str] = []
    monkeypatch.setattr(evaluation, "warn_once", lambda logger, message: told.append(message))
    packed = tagger(tmp_path, data_collator=pack, metrics="accuracy").evaluate()

    assert packed["eval_accuracy"] == tagger(tmp_path, metrics="accuracy").evaluate()["eval_accuracy"]
    assert "batches have 2 rows in all" in told[0]


# Predictions in a folder


@pytest.mark.parametrize("grouped", [False, True])
def test_predictions_may_go_to_a_folder(tmp_path: Path, grouped: bool) -> None:
    data = [{"input_ids": row, "labels": row} for row in Sentences(13).tokens]
    strategy = {"train_sampling_strategy": "group_by_length"} if grouped else {}

    class Reads(Tagger):
        main_input_name = "input_ids"

        def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
            return super().forward(input_ids, labels)

    trainer = tagger(tmp_path, model=Reads(), metrics="accuracy", **strategy)
    returned = trainer.predict(data)
    written = trainer.predict(data, output_dir=tmp_path / "out")
    read = load_predictions(tmp_path / "out")

    assert written.predictions is written.label_ids is None
    assert written.metrics["test_accuracy"] == returned.metrics["test_accuracy"]
    np.testing.assert_array_equal(read.predictions, returned.predictions)
    np.testing.assert_array_equal(read.label_ids, returned.label_ids)
    np.testing.assert_array_equal(read.label_ids, Sentences(13).tokens)


def test_a_metric_function_still_sees_what_goes_to_a_folder(tmp_path: Path) -> None:
    trainer = tagger(tmp_path, compute_metrics=lambda given: {"count": len(given.predictions)})
    written = trainer.predict(Sentences(13), output_dir=tmp_path / "out")

    assert written.predictions is None
    assert written.metrics["test_count"] == 13
    # The next evaluation writes nothing.
    trainer.evaluate()
    assert len(load_predictions(tmp_path / "out").predictions) == 13


def test_half_precision_stays_half(tmp_path: Path) -> None:
    def half(logits: Tensor, labels: Any) -> Tensor:
        return logits.half()

    trainer = quick(tmp_path, model=line(), preprocess_logits_for_metrics=half)

    assert trainer.predict(Points(5)).predictions.dtype == np.float16


# Models that write


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
@pytest.mark.parametrize("size", [1, 3, 8])
def test_what_is_generated_is_measured(tmp_path: Path, size: int) -> None:
    from tests.parity.sequences import Collator, Pairs, bart, tokenizer

    from surestep import Seq2SeqTrainer, Seq2SeqTrainingArguments
    from surestep.metrics.text import rouge

    torch.manual_seed(3)
    model = bart()
    model.generation_config.min_length = 4
    args = Seq2SeqTrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none", predict_with_generate=True,
        per_device_eval_batch_size=size, generation_max_length=12,
    )  # fmt: skip
    given = {"data_collator": Collator(model), "processing_class": tokenizer(), "eval_dataset": Pairs(8)}
    trainer = Seq2SeqTrainer(model, args, metrics=["rouge", "bleu", "squad"], **given)
    figures = trainer.evaluate()
    written = trainer.predict(Pairs(8))
    texts = [
        tokenizer().batch_decode(np.where(tokens == IGNORED, 0, tokens), skip_special_tokens=True)
        for tokens in (written.predictions, written.label_ids)
    ]
    one = [rouge(*pair)["1"] for pair in zip(*texts, strict=True)]

    assert figures["eval_rouge1"] == pytest.approx(float(np.mean(one)))
    assert {"eval_rougeLsum", "eval_bleu", "eval_squad_f1"} <= figures.keys()


@pytest.mark.parametrize("size", [1, 5])
def test_the_perplexity_of_a_causal_model_is_that_of_its_loss(tmp_path: Path, size: int) -> None:
    from tests.parity.sequences import Prompts, gpt2

    torch.manual_seed(0)
    data = [{name: torch.tensor(value) for name, value in Prompts()[index].items()} for index in range(11)]
    metrics = quick(
        tmp_path, model=gpt2(), train_dataset=None, eval_dataset=data, metrics=["perplexity", "accuracy"],
        per_device_eval_batch_size=size,
    ).evaluate()  # fmt: skip

    assert metrics["eval_perplexity"] == pytest.approx(np.exp(metrics["eval_loss"]), rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_training_knows_of_the_shift(tmp_path: Path, accumulation: int) -> None:
    from tests.parity.sequences import Prompts, gpt2

    torch.manual_seed(0)
    model = gpt2()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    data = [{name: torch.tensor(value) for name, value in Prompts()[index].items()} for index in range(8)]
    trainer = quick(
        tmp_path, model=model, train_dataset=data, train_metrics="perplexity", logging_steps=1, max_steps=1,
        per_device_train_batch_size=8 // accumulation, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    trainer.train()
    logged = trainer.state.log_history[0]

    assert logged["perplexity"] == pytest.approx(np.exp(logged["loss"]), rel=1e-5)
