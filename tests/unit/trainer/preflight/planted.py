"""Mistakes that users make, planted on purpose, each with the hint that a preflight gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import torch
from sklearn.metrics import accuracy_score
from tests.small import Line, Points, line
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from surestep import EarlyStoppingCallback, Trainer

mse = nn.functional.mse_loss
Plant = dict[str, Any]


class Rows(list):
    """Samples that are given one by one."""


def rows(size: int = 8, **columns: Callable[[int], Any]) -> Rows:
    return Rows({name: make(index) for name, make in columns.items()} for index in range(size))


def x(_: int) -> Tensor:
    return torch.ones(3)


def y(_: int) -> Tensor:
    return torch.ones(1)


class Computes(nn.Module):
    """A model whose loss is made by a function of the prediction and the labels."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Any], outputs: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, outputs)
        self.loss = loss

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Any]:
        prediction = self.layer(x)
        return {"loss": self.loss(prediction, labels), "logits": prediction}


class OwnGenerator(Points):
    """A set that draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__(8)
        self.generator = np.random.default_rng(1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] + float(self.generator.random())}


class Counts(Points):
    """A set whose samples change with the reading."""

    reads = 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.reads += 1
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] * self.reads}


def drawing_collator() -> Any:
    generator = random.Random(1)

    def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        noise = generator.random()
        return {name: torch.stack([sample[name] for sample in samples]) + noise for name in ("x", "labels")}

    return collate


class Other(nn.Module):
    """A model whose loss hangs on a layer that is not its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.hidden = [nn.Linear(3, 1)]

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Any]:
        return {"loss": mse(self.hidden[0](x), labels)}


class InPlace(Line):
    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = torch.exp(self.layer(x))
        hidden += 1
        return {"loss": mse(hidden.square(), labels)}


class Keeps(Line):
    """Carries its last prediction, graph and all, from batch to batch."""

    last: Any = None

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        prediction = self.layer(x).exp()
        self.last = prediction if self.last is None else self.last * prediction
        return {"loss": mse(self.last, labels)}


class Pairs(Dataset[Any]):
    """A set of inputs and labels without names."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return x(index), y(index)


class First(Line):
    """Returns its prediction in the place of its loss."""

    def forward(self, x: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
        return tuple(super().forward(x, labels).values())[::-1]


class Alone(Trainer):
    """Returns its loss alone, whatever is asked for."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        return model(**inputs)["loss"]


class Forgets(Trainer):
    """Leaves a layer out of what it saves."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        state = {name: value * 0 for name, value in self.model.state_dict().items()}
        super()._save(output_dir, state)


def sizes(**more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, **more
    )


def sentences(token: int = 1, label: Any = 1, width: Callable[[int], int] = lambda index: 4) -> Rows:
    return rows(input_ids=lambda index: torch.full((width(index),), token), labels=lambda index: torch.tensor(label))


def whole(value: Any) -> Callable[[int], Tensor]:
    return lambda _: torch.tensor(value)


def classes(labels: Callable[[int], Any]) -> Plant:
    return {"model": Computes(nn.functional.cross_entropy, 2), "train_dataset": rows(x=x, labels=labels)}


def bytes_of_images() -> Plant:
    model = Computes(nn.functional.cross_entropy, 2)
    model.layer = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LazyLinear(2))  # type: ignore[assignment]
    model.layer(torch.zeros(1, 3, 4, 4))
    return {"model": model, "train_dataset": rows(x=lambda _: torch.ones(3, 4, 4, dtype=torch.uint8), labels=whole(1))}


def gpt2(kind: Any, **more: Any) -> Any:
    return kind(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=1, **more))


def t5() -> Any:
    return T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))


def columns_of(**columns: list[Any]) -> Any:
    return datasets.Dataset.from_dict(columns)


def frozen() -> Line:
    return line().requires_grad_(False)


def other_optimizer(_: Any = None) -> Plant:
    return {"optimizers": (torch.optim.SGD(line().parameters(), lr=0.1), None)}


def broken() -> Line:
    model = line()
    with torch.no_grad():
        model.layer.weight.fill_(float("nan"))
    return model


def evaluating(**more: Any) -> Plant:
    return {"eval_dataset": Points(8), "eval_strategy": "epoch", **more}


def best(name: str, **more: Any) -> Plant:
    saved = {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": name}
    return evaluating(**saved, compute_metrics=lambda _: {"accuracy": 1.0}, **more)


MISTAKES: dict[str, tuple[Callable[[], Plant], str]] = {
    "no data": (lambda: {"train_dataset": Rows()}, "train_dataset is empty"),
    "no training set": (lambda: {"train_dataset": None}, "Training needs train_dataset"),
    "a path in the place of data": (lambda: {"train_dataset": "train.csv"}, "read it first"),
    "a class in the place of a model": (lambda: {"model": Line}, r"Pass an instance: Line\(\.\.\.\)"),
    "everything is frozen": (lambda: {"model": frozen()}, "Unfreeze some"),
    "columns that the model does not take": (
        lambda: {"train_dataset": rows(features=x, labels=y)},
        "no column is left|lacks what forward needs: 'x'",
    ),
    "labels under another name": (lambda: {"train_dataset": rows(x=x, target=y)}, "'?labels'?"),
    "a column too many": (
        lambda: {"train_dataset": rows(x=x, labels=y, colour=y), "remove_unused_columns": False},
        "'colour' reaches the model.*remove_unused_columns=True",
    ),
    "float64 inputs": (
        lambda: {"train_dataset": rows(x=lambda _: np.ones(3), labels=y)},
        r"different number formats.*tensor.float\(\)",
    ),
    "whole numbers as features": (
        lambda: {"train_dataset": rows(x=lambda _: torch.ones(3, dtype=torch.int64), labels=y)},
        "different number formats",
    ),
    "features of another width": (
        lambda: {"train_dataset": rows(x=lambda _: torch.ones(5), labels=y)},
        "A layer takes 3 features and is given 5",
    ),
    "samples of different length": (
        lambda: {"train_dataset": rows(x=lambda index: torch.ones(index + 1), labels=y)},
        "[Pp]ad|differ in length",
    ),
    "text in the batch": (lambda: {"train_dataset": rows(x=lambda _: "words", labels=y)}, "[Tt]okenize|text"),
    "NaN in the data": (
        lambda: {"train_dataset": rows(x=lambda _: torch.tensor([1.0, float("nan"), 1.0]), labels=y)},
        "'x' has values that are NaN.*Fill gaps",
    ),
    "labels without the last dimension": (
        lambda: {"train_dataset": rows(x=x, labels=lambda _: torch.tensor(1.0))},
        r"Predictions of shape .* are compared with labels of shape .*squeeze\(-1\)",
    ),
    "classes counted from 1": (
        lambda: {"model": BertForSequenceClassification(sizes(num_labels=2)), "train_dataset": sentences(label=2)},
        "A label is 2, and the model has the classes 0 to 1.*num_labels=3",
    ),
    "a class that the head does not have": (
        lambda: {
            "model": Computes(nn.functional.cross_entropy, 4),
            "train_dataset": rows(x=x, labels=lambda _: torch.tensor(4)),
        },
        "A label is 4, which the model has no output for",
    ),
    "a label a sample for a model of tokens": (
        lambda: {"model": BertForTokenClassification(sizes(num_labels=2)), "train_dataset": sentences()},
        "compares .* predictions with .* labels",
    ),
    "labels that are text": (
        lambda: classes(lambda index: "good"),
        "lacks 'labels'.*where labels are text, number them",
    ),
    "a label that is text": (
        lambda: {"train_dataset": rows(x=x, label=lambda index: "good")},
        "values of 'label' in a batch are text; number them",
    ),
    "a label that is missing": (
        lambda: {**classes(y), "train_dataset": columns_of(x=[[1.0] * 3] * 4, labels=[1, None, 1, None])},
        "sample 1 of a batch has None for 'labels'",
    ),
    "classes as floats": (lambda: classes(whole(1.0)), r"over classes.*whole numbers: write labels.long\(\)"),
    "classes in a column": (lambda: classes(whole([1])), r"over classes.*labels.squeeze\(-1\)"),
    "classes as ones and zeros": (lambda: classes(whole([1, 0])), r"over classes.*labels.argmax\(-1\)"),
    "classes as floats, for a model that guesses its loss": (
        lambda: {"model": BertForSequenceClassification(sizes(num_labels=2)), "train_dataset": sentences(label=1.0)},
        r"several labels a sample, predictions are of shape .*, where each has one class, its number",
    ),
    "several labels as whole numbers": (
        lambda: {
            "model": BertForSequenceClassification(sizes(num_labels=3, problem_type="multi_label_classification")),
            "train_dataset": sentences(label=[1, 0, 1]),
        },
        r"takes them as float32: write labels.float\(\)",
    ),
    "a label below 0": (
        lambda: {"model": BertForSequenceClassification(sizes(num_labels=2)), "train_dataset": sentences(label=-1)},
        "A label is -1, and the model has the classes 0 to 1. Count classes from 0, and mark",
    ),
    "every label ignored": (
        lambda: {
            "model": BertForTokenClassification(sizes(num_labels=2)),
            "train_dataset": rows(
                input_ids=lambda _: torch.ones(4, dtype=torch.int64), labels=lambda _: torch.full((4,), -100)
            ),
        },
        "Every label of the first batch is -100",
    ),
    "a token that an embedding of one's own does not have": (
        lambda: {
            "model": Computes(lambda p, t: nn.functional.cross_entropy(nn.Embedding(4, 2)(t), t * 0)),
            "train_dataset": rows(x=x, labels=whole(4)),
        },
        "An index is beyond its table: a token that the embeddings do not have",
    ),
    "no token to pad with": (
        lambda: {"model": gpt2(GPT2ForSequenceClassification), "train_dataset": sentences()},
        "model.config.pad_token_id = tokenizer.pad_token_id",
    ),
    "nothing for the decoder": (
        lambda: {"model": t5(), "train_dataset": rows(input_ids=lambda _: torch.ones(4, dtype=torch.int64))},
        "'labels' .DataCollatorForSeq2Seq makes them. or 'decoder_input_ids'",
    ),
    "labels of another width": (
        lambda: {"model": gpt2(GPT2LMHeadModel), "train_dataset": sentences(label=[1, 2, 3])},
        "compares 16 predictions with 12 labels. Give one label a sample, or one a token",
    ),
    "another model's tokenizer": (
        lambda: {"model": BertForSequenceClassification(sizes()), "train_dataset": sentences(token=25)},
        "the token 25, and the model knows 0 to 19.*resize_token_embeddings",
    ),
    "longer than the positions": (
        lambda: {
            "model": BertForSequenceClassification(sizes(max_position_embeddings=8)),
            "train_dataset": sentences(width=lambda _: 9),
        },
        "longer than the positions|truncate|must match",
    ),
    "a model in half precision": (
        lambda: {"model": line().half()},
        "weights are Half and its inputs float32.*bf16=True",
    ),
    "a model without weights": (lambda: {"model": line().to("meta")}, "'layer.weight' is on the meta device.*to_empty"),
    "bytes of images": (bytes_of_images, "Inputs are unsigned char and weights float.*divided by 255"),
    "samples that are tuples": (
        lambda: {"train_dataset": Pairs()},
        "a sample is a tuple of 2 values.*Let the dataset return a dictionary",
    ),
    "columns in the place of rows": (
        lambda: {"train_dataset": {"x": [[1.0] * 3] * 8, "labels": [[1.0]] * 8}},
        "keys x, labels; give one of its datasets, or rows made of its columns",
    ),
    "a batch that is a list": (
        lambda: {"data_collator": lambda samples: [torch.stack([sample["x"] for sample in samples])]},
        "A batch is a list, and the model takes its inputs by name.*or override compute_loss",
    ),
    "a batch that is nothing": (lambda: {"data_collator": lambda samples: None}, "The data_collator returns nothing"),
    "a prediction in the place of a loss": (lambda: {"model": First()}, "in a tuple the loss comes first"),
    "a detached loss": (lambda: {"model": Computes(lambda p, t: mse(p, t).detach())}, r"without \.detach\(\)"),
    "a loss for each sample": (
        lambda: {"model": Computes(lambda p, t: mse(p, t, reduction="none"))},
        "a value for each sample. Return its mean",
    ),
    "no loss at all": (lambda: {"model": Computes(lambda p, t: None)}, "The model returned no loss"),
    "a loss of another model": (lambda: {"model": Other()}, "No parameter has a gradient"),
    "a loss through argmax": (
        lambda: {"model": Computes(lambda p, t: mse(0 * p[:, :1] + p.argmax(-1, keepdim=True), t), 2)},
        "Every gradient is zero",
    ),
    "a gradient that is not finite": (
        lambda: {"model": Computes(lambda p, t: (p - p.detach()).norm() * 0 + ((p - p.detach()) ** 2).sum().sqrt())},
        "gradient of .* is not finite.*add a small number",
    ),
    "weights that are not finite": (lambda: {"model": broken()}, "The loss of the first step is nan"),
    "a logarithm of zero": (
        lambda: {"model": Computes(lambda p, t: torch.log(torch.relu(-p.abs())).mean())},
        "The loss of the first step is (-inf|nan).*logarithm of zero",
    ),
    "a change in place": (lambda: {"model": InPlace()}, r"Write y = y \+ x"),
    "a graph kept between batches": (
        lambda: {"model": Keeps(), "gradient_accumulation_steps": 2},
        "Detach what the model keeps",
    ),
    "a generator that the position does not seed": (
        lambda: {"train_dataset": OwnGenerator(), "dataloader_num_workers": 1},
        r"differs in \['x'\].*what OwnGenerator and default_data_collator give.*draws from dataset.generator "
        r"\(numpy.random._generator.Generator\).*set_batch_seed",
    ),
    "a counter in the data": (lambda: {"train_dataset": Counts()}, "what Counts and .*It keeps a counter"),
    "a collator that draws for itself": (
        lambda: {"data_collator": drawing_collator(), "dataloader_num_workers": 1},
        "draws from collate_fn",
    ),
    "another model's optimizer": (other_optimizer, "holds none of the model's parameters"),
    "a learning rate of zero": (lambda: {"learning_rate": 0.0}, "Set learning_rate"),
    "an optimizer that computes the loss itself": (
        lambda: {"model": (model := line()), "optimizers": (torch.optim.LBFGS(model.parameters()), None)},
        "missing 1 required positional argument: 'closure'.*Choose another, for example optim='adamw_torch'",
    ),
    "metrics that fail in an evaluation after training": (
        lambda: evaluating(eval_strategy="no", compute_metrics=lambda given: {"accuracy": 1 / 0}),
        r"ZeroDivisionError: division by zero \(planted.py, line \d+, in <lambda>\)",
    ),
    "a metric that does not exist": (lambda: best("f1"), "metric_for_best_model is 'f1', but the evaluation gives"),
    "metrics that fail": (
        lambda: evaluating(compute_metrics=lambda given: {"accuracy": given.predictions["logits"].mean()}),
        "IndexError",
    ),
    "a metric that is no number": (
        lambda: evaluating(compute_metrics=lambda given: {"errors": given.predictions - given.label_ids}),
        "'eval_errors' of the evaluation is a ndarray",
    ),
    "a metric that is NaN": (
        lambda: evaluating(compute_metrics=lambda _: {"recall": float("nan")}),
        "'eval_recall' is NaN on the first evaluation batch",
    ),
    "figures without names": (
        lambda: evaluating(compute_metrics=lambda _: [0.5]),
        "compute_metrics returned a list. Return a dict of figures by name",
    ),
    "metrics of predictions and labels": (
        lambda: evaluating(compute_metrics=lambda predictions, labels: {}),
        r"compute_metrics takes \(predictions, labels\). Pass a function of one argument, an EvalPrediction",
    ),
    "a loss of outputs alone": (
        lambda: {"compute_loss_func": lambda outputs: outputs["loss"]},
        r"compute_loss_func takes \(outputs\). Pass a function of the model's outputs and the labels",
    ),
    "a loss of torch": (
        lambda: {"compute_loss_func": nn.MSELoss()},
        r"given all outputs of the model.*Pass one of surestep's \(CrossEntropyLoss\(\), MSELoss\(\)\)",
    ),
    "classes in the last dimension": (
        lambda: {
            "model": Computes(lambda p, t: nn.functional.cross_entropy(p.expand(4, 4, 5), t), 5),
            "train_dataset": rows(x=x, labels=whole([1, 2, 3, 4])),
        },
        r"write cross_entropy\(logits.flatten\(0, 1\), labels.flatten\(\)\)",
    ),
    "label smoothing of amounts": (
        lambda: {"label_smoothing_factor": 0.1},
        "Leave label_smoothing_factor out of a regression",
    ),
    "an override without outputs": (
        lambda: {"kind": Alone, **evaluating()},
        r"returned no outputs. Return \(loss, outputs\) where it is True",
    ),
    "logits that nothing is made of": (
        lambda: evaluating(preprocess_logits_for_metrics=lambda logits, labels: None, compute_metrics=lambda _: {}),
        "preprocess_logits_for_metrics returned None. Return what metrics are to see",
    ),
    "scores in the place of classes": (
        lambda: {
            **evaluating(compute_metrics=lambda given: {"a": accuracy_score(given.label_ids, given.predictions)}),
            **classes(whole(1)),
            "eval_dataset": rows(x=x, labels=lambda index: torch.tensor(index % 2)),
        },
        r"Predictions are scores, and the metric takes classes: write prediction.predictions.argmax\(-1\)",
    ),
    "a loader in the place of data": (
        lambda: {"train_dataset": DataLoader(Points())},
        "train_dataset is a DataLoader; give its dataset, and its batch size as per_device_train_batch_size",
    ),
    "a metric that is a name": (
        lambda: evaluating(compute_metrics="accuracy"),
        "compute_metrics is a str. Pass a function",
    ),
    "an evaluation set without labels": (
        lambda: evaluating(eval_dataset=rows(x=x)),
        "gives neither a loss nor a figure: its batches lack 'labels'.*label_names",
    ),
    "labels that nobody calls so": (lambda: evaluating(label_names=["label"]), "its batches lack 'label'"),
    "no sample to evaluate": (lambda: evaluating(eval_dataset=Rows()), "eval_dataset is empty"),
    "a file in the place of a folder": (lambda: {"output_dir": __file__}, "planted.py' is a file. Write a folder"),
    "an evaluation set of another form": (
        lambda: evaluating(eval_dataset=rows(x=lambda _: torch.ones(4), labels=y)),
        "A layer takes 3 features and is given 4",
    ),
    "no evaluation set": (lambda: {"eval_strategy": "epoch"}, "Pass an eval_dataset"),
    "early stopping without evaluation": (
        lambda: {"callbacks": [EarlyStoppingCallback()]},
        "EarlyStopping|eval_strategy|metric_for_best_model",
    ),
    "a save that changes the weights": (
        lambda: {"kind": Forgets, "save_strategy": "epoch"},
        "saved and loaded again is not what it was: layer.weight",
    ),
    "a disk that is too small": (
        lambda: {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 10**13},
        "Set save_total_limit",
    ),
}
