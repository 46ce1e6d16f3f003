"""Classify texts, or pairs of them, in the form of GLUE.

    python examples/glue.py --task_name sst2 --do_train --do_eval --learning_rate 1e-3 --output_dir runs/glue

The flags are those of the script of the same purpose that comes with transformers. Files hold a column `label` and
one or two columns of text, or those that the flags name. Without --model_name_or_path a small BERT is made anew, with a
tokenizer learnt from the data. A task is read from ../shared/data where it is there, else from the hub.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from torchmetrics.functional import matthews_corrcoef, pearson_corrcoef
from torchmetrics.functional.classification import binary_f1_score
from transformers import AutoModelForSequenceClassification

import common
from common import DataArguments, ModelArguments, parse, read_splits, run, wanted
from encoders import load_model, load_tokenizer, prepared
from surestep import EvalPrediction, Trainer, TrainingArguments, seed_everything

TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")


@dataclass
class TaskArguments(DataArguments):
    """Which task, and how long its texts are."""

    task_name: str | None = field(default=None, metadata={"help": f"A task of GLUE: {', '.join(TASKS)}."})
    max_seq_length: int = field(default=128, metadata={"help": "Cut texts to so many tokens."})
    pad_to_max_length: bool = field(default=False, metadata={"help": "Pad every sample to the longest allowed."})
    text_column_names: str | None = field(
        default=None, metadata={"help": "Columns to join to a text, with commas between; else the first two of text."}
    )
    text_column_delimiter: str = field(default=" ", metadata={"help": "What joins them."})
    label_column_name: str = field(default="label", metadata={"help": "Column of the label."})

    def __post_init__(self) -> None:
        if self.task_name is None:
            return
        self.task_name = self.task_name.lower()
        if self.task_name not in TASKS:
            sys.exit(f"--task_name={self.task_name}: write one of {', '.join(TASKS)}.")
        given = self.dataset_name or self.train_file or self.validation_file or self.test_file
        if given is None and not (common.SHARED_DATA / f"glue_{self.task_name}").is_dir():
            self.dataset_name, self.dataset_config_name = "nyu-mll/glue", self.task_name


def rows() -> list[dict[str, Any]]:
    """Return 96 invented opinions."""
    good, bad = ("fine", "bright", "warm", "clever"), ("dull", "cold", "clumsy", "flat")
    things = ("a film", "the plot", "this song", "her book")
    tails = ("", "indeed", "at last")
    return [
        {"text": f"{thing} so {word} {tail}".strip(), "label": int(word in good)}
        for thing in things
        for word in good + bad
        for tail in tails
    ]


def named(splits: DatasetDict, data_args: TaskArguments) -> DatasetDict:
    """Return the splits with the columns that the flags name as `text` and `label`."""
    texts, label = (
        [name for name in (data_args.text_column_names or "").split(",") if name],
        data_args.label_column_name,
    )
    there = next(iter(splits.values())).column_names
    for flag, name in [("--label_column_name", label), *(("--text_column_names", text) for text in texts)]:
        if name not in there:
            sys.exit(f"{flag}={name}: write one of the columns {', '.join(there)}.")
    if texts:
        joined = splits.map(
            lambda row: {"joined": data_args.text_column_delimiter.join(str(row[name]) for name in texts)}
        )
        splits = joined.select_columns(["joined", label]).rename_column("joined", "text")
    return splits if label == "label" else splits.rename_column(label, "label")


def measures(task: str | None, regression: bool) -> Any:
    """Return the function that measures predictions as the task does."""

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        scores = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        labels = torch.as_tensor(prediction.label_ids)
        if regression:
            guesses = torch.as_tensor(scores).squeeze(-1)
            return {
                "mse": float((guesses - labels).square().mean()),
                "pearson": float(pearson_corrcoef(guesses, labels)),
            }
        classes = torch.as_tensor(np.argmax(scores, axis=1))
        figures = {"accuracy": float((classes == labels).double().mean())}
        if task == "cola":
            figures["matthews_correlation"] = float(matthews_corrcoef(classes, labels, task="binary"))
        if task in {"mrpc", "qqp"}:
            figures["f1"] = float(binary_f1_score(classes, labels))
        return figures

    return measure


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, TaskArguments, TrainingArguments)
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, f"glue_{data_args.task_name or 'sst2'}", rows)
    for name in ("validation", "test"):
        if f"{name}_matched" in splits:
            splits[name] = splits.pop(f"{name}_matched")
    splits = named(splits, data_args)
    sample = next(iter(splits.values()))
    columns = [name for name, kind in sample.features.items() if "string" in str(getattr(kind, "dtype", ""))][:2]
    if not columns:
        sys.exit(f"The data have {', '.join(sample.column_names)}; a column of text is needed.")
    regression = "float" in str(sample.features["label"].dtype)
    # One of the splits may lack a class.
    classes = sorted({label for split in splits.values() for label in split["label"]} - {-1})
    number = {label: place for place, label in enumerate(classes)}

    texts = (text for split in splits.values() for name in columns for text in split[name])
    tokenizer = load_tokenizer(model_args, texts)
    length = min(data_args.max_seq_length, tokenizer.model_max_length)
    model = load_model(
        AutoModelForSequenceClassification, model_args, tokenizer, length,
        num_labels=1 if regression else len(classes),
        problem_type="regression" if regression else "single_label_classification",
    )  # fmt: skip
    padding = "max_length" if data_args.pad_to_max_length else False

    def make(batch: dict[str, list[Any]]) -> dict[str, Any]:
        found = tokenizer(*(batch[name] for name in columns), truncation=True, max_length=length, padding=padding)
        # What is to be found is -1 in a test set; no class stands for it.
        labels = batch["label"] if regression else [number.get(one, 0) for one in batch["label"]]
        return {**found, "labels": labels}

    ready = prepared(wanted(splits, data_args, args), data_args, make)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=ready.get("train"),
        eval_dataset=ready.get("validation"),
        processing_class=tokenizer,
        compute_metrics=measures(data_args.task_name, regression),
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
