"""What the scripts for language modelling share: texts, cut into blocks, and perplexity."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, DatasetDict

import common
from common import DataArguments, ModelArguments, parse, read_splits, run
from encoders import prepared
from surestep import Trainer, TrainingArguments, seed_everything


@dataclass
class LanguageModelArguments(ModelArguments):
    """Which model, and how a new one is made."""

    model_type: str | None = field(default=None, metadata={"help": "Kind of a new model, where it is not named."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "Settings of a new model, such as n_embd=128,scale_attn_weights=false."}
    )


@dataclass
class TextArguments(DataArguments):
    """How texts become samples."""

    block_size: int | None = field(default=None, metadata={"help": "Tokens of a sample; None is 128, or the model's."})
    max_seq_length: int | None = field(default=None, metadata={"help": "The same, under the name that some expect."})
    line_by_line: bool = field(default=False, metadata={"help": "A line is a sample; else texts are joined and cut."})
    pad_to_max_length: bool = field(default=False, metadata={"help": "Pad every line to the longest allowed."})
    validation_split_percentage: int = field(default=5, metadata={"help": "Share of the data to evaluate on."})

    def length(self, tokenizer: Any) -> int:
        """Return how many tokens a sample has."""
        return min(self.block_size or self.max_seq_length or 128, tokenizer.model_max_length)


def rows() -> list[dict[str, str]]:
    """Return 200 invented lines that count on and on."""
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    return [{"text": " ".join(numbers[(start + step) % 8] for step in range(16))} for start in range(200)]


def read_texts(data: DataArguments, model: ModelArguments, share: int) -> DatasetDict:
    """Return the texts: those named, else Shakespeare's from ../shared/data, else rows of our own."""
    folder = common.SHARED_DATA / "tiny_shakespeare"
    if data.train_file is None and data.validation_file is None and data.dataset_name is None and folder.is_dir():
        lines = {name: (folder / f"{name}.txt").read_text("utf-8").splitlines() for name in ("train", "validation")}
        texts = {name: [line for line in found if line.strip()] for name, found in lines.items()}
        return DatasetDict({name: Dataset.from_dict({"text": found}) for name, found in texts.items()})
    splits = read_splits(data, model, "none", rows)
    if "validation" not in splits and "train" in splits:
        splits = splits["train"].train_test_split(share / 100, seed=0)
        splits["validation"] = splits.pop("test")
    return splits


def blocks(
    splits: DatasetDict, data: TextArguments, tokenizer: Any, *, labels: bool = False, even: bool = False
) -> DatasetDict:
    """Return texts as samples of one length, an even one where asked for; what is left over at the end is dropped.

    With `line_by_line` each line is a sample, which goes with models that mask.
    """
    columns = next(iter(splits.values())).column_names
    column = "text" if "text" in columns else columns[0]
    length = data.length(tokenizer)
    length -= length % 2 if even else 0

    def lines(batch: dict[str, list[str]]) -> dict[str, Any]:
        texts = [text for text in batch[column] if text.strip()]
        padding = "max_length" if data.pad_to_max_length else False
        settings = {"truncation": True, "max_length": length, "padding": padding}
        return dict(tokenizer(texts, return_special_tokens_mask=True, **settings))

    def joined(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        found = tokenizer(batch[column], return_special_tokens_mask=not labels)
        whole = {name: [one for row in values for one in row] for name, values in found.items()}
        total = len(whole["input_ids"]) // length * length
        cut = {name: [one[at : at + length] for at in range(0, total, length)] for name, one in whole.items()}
        return {**cut, "labels": cut["input_ids"]} if labels else cut

    return prepared(splits, data, lines if data.line_by_line and not labels else joined)


def model_of(auto: Any, names: LanguageModelArguments, configs: dict[str, Callable[..., Any]], **sizes: Any) -> Any:
    """Return the model that is named, else a new one of a kind in `configs` (the first, unless a type is named)."""
    if names.model_name_or_path is not None:
        if names.config_overrides is not None:
            sys.exit("--config_overrides is for a new model: leave it or --model_name_or_path out.")
        return auto.from_pretrained(
            names.model_name_or_path, ignore_mismatched_sizes=names.ignore_mismatched_sizes, **names.options()
        )
    kind = names.model_type or next(iter(configs))
    if kind not in configs:
        sys.exit(f"--model_type={kind}: a new model is one of {', '.join(configs)}.")
    config = configs[kind](**sizes)
    if names.config_overrides is not None:
        try:
            config.update_from_string(names.config_overrides)
        except ValueError as error:
            sys.exit(f"--config_overrides={names.config_overrides}: {error}")
    return auto.from_config(config)


def arguments(argv: list[str], kind: type[TextArguments] = TextArguments) -> tuple[Any, Any, Any, DatasetDict]:
    """Return the three classes of flags, and the texts."""
    model_args, data_args, args = parse(argv, LanguageModelArguments, kind, TrainingArguments)
    seed_everything(args.seed)
    return model_args, data_args, args, read_texts(data_args, model_args, data_args.validation_split_percentage)


def train(args: TrainingArguments, model: Any, tokenizer: Any, splits: DatasetDict, **parts: Any) -> dict[str, float]:
    """Train and evaluate, and return all figures, perplexity among them; `parts` are further parts of the trainer."""
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=splits.get("train"),
        eval_dataset=splits.get("validation"),
        processing_class=tokenizer,
        **parts,
    )
    figures, _ = run(trainer, splits)
    if "eval_loss" in figures:
        figures["perplexity"] = math.exp(min(figures["eval_loss"], 700.0))
        trainer.save_metrics("eval", {name: one for name, one in figures.items() if not name.startswith("train")})
    return figures
