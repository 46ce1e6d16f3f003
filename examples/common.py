"""What the scripts for text share: flags, data, a small tokenizer, and the order of training, evaluation, prediction.

Data come from the first of these that is there: files named on the command line, a dataset of the hub, real data in
../shared/data beside this repository, a few rows that the script makes itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from surestep import HfArgumentParser, Trainer, TrainingArguments

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PAD, END = "<pad>", "</s>"
_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


@dataclass
class ModelArguments:
    """Which model, and how to load it."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Name or folder of a pretrained model; without it a small one is made anew."}
    )
    config_name: str | None = field(default=None, metadata={"help": "Another configuration than the model's."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Another tokenizer than the model's."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    use_fast_tokenizer: bool = field(default=True, metadata={"help": "Take the tokenizer that is written in Rust."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the model."})
    token: str | None = field(default=None, metadata={"help": "Token for private models."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
    ignore_mismatched_sizes: bool = field(default=False, metadata={"help": "Make weights anew whose shapes differ."})

    def options(self) -> dict[str, Any]:
        """Return what every `from_pretrained` is given."""
        names = {"cache_dir": self.cache_dir, "revision": self.model_revision, "token": self.token}
        return {**names, "trust_remote_code": self.trust_remote_code}


@dataclass
class DataArguments:
    """Which data, and how much of them."""

    dataset_name: str | None = field(default=None, metadata={"help": "A dataset of the hub."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "Training data: json, jsonl, csv, parquet or txt."})
    validation_file: str | None = field(default=None, metadata={"help": "Data to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "Data to predict on."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many samples."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first so many."})
    max_predict_samples: int | None = field(default=None, metadata={"help": "Predict on the first so many."})
    overwrite_cache: bool = field(default=False, metadata={"help": "Prepare data anew that were prepared before."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that prepare the data."})

    def limits(self) -> dict[str, int | None]:
        """Return how many samples of each split are wanted; None is all."""
        return {
            "train": self.max_train_samples,
            "validation": self.max_eval_samples,
            "test": self.max_predict_samples,
        }


def parse(argv: list[str], *kinds: type) -> Any:
    """Return an object of each dataclass, from flags or from one JSON file."""
    parser = HfArgumentParser(kinds)
    if len(argv) == 1 and argv[0].endswith(".json"):
        return parser.parse_json_file(argv[0])
    return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)


def read_splits(data: DataArguments, model: ModelArguments, shared: str, rows: Callable[[], list[Any]]) -> DatasetDict:
    """Return the splits. `shared` names the folder in ../shared/data, `rows` makes samples where nothing else is."""
    named = {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}
    files = {split: name for split, name in named.items() if name is not None}
    if files:
        kinds = {_FORMATS.get(Path(name).suffix) for name in files.values()}
        if len(kinds) != 1 or None in kinds:
            sys.exit(f"The files {', '.join(files.values())} are to be of one kind: {', '.join(_FORMATS)}.")
        return load_dataset(kinds.pop(), data_files=files, cache_dir=model.cache_dir)
    if data.dataset_name is not None:
        names = (data.dataset_name, data.dataset_config_name)
        return load_dataset(*names, cache_dir=model.cache_dir, token=model.token)
    folder = SHARED_DATA / shared
    if folder.is_dir():
        files = {path.stem: str(path) for path in sorted(folder.glob("*.parquet"))}
        splits = load_dataset("parquet", data_files=files, cache_dir=model.cache_dir)
    else:
        splits = Dataset.from_list(rows()).train_test_split(0.2, seed=0)
        splits["validation"] = splits.pop("test")
    # Neither has a test set of its own.
    splits.setdefault("test", splits["validation"])
    return splits


def wanted(splits: DatasetDict, data: DataArguments, args: TrainingArguments) -> DatasetDict:
    """Return the splits that the flags ask for, as long as they are to be."""
    asked = {"train": args.do_train, "validation": args.do_eval, "test": args.do_predict}
    flags = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
    names = [name for name, is_asked in asked.items() if is_asked]
    if not names:
        sys.exit(f"There is nothing to do. Pass {', '.join(flags.values())}, or some of them.")
    for name in names:
        if name not in splits:
            sys.exit(f"{flags[name]} needs a split '{name}'. The data have: {', '.join(splits)}.")
    limits = data.limits()
    return DatasetDict(
        {name: splits[name].take(min(limits[name] or len(splits[name]), len(splits[name]))) for name in names}
    )


def small_tokenizer(texts: Iterable[str], size: int = 4000) -> PreTrainedTokenizerFast:
    """Return a tokenizer of byte pairs learnt from texts; every text ends with `</s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)


def run(trainer: Trainer, splits: DatasetDict, **settings: Any) -> tuple[dict[str, float], Any]:
    """Train, evaluate and predict, as far as there are splits for it; write figures into the output folder.

    `settings` go to `evaluate` and `predict`. Returns all figures, and what `predict` returned.
    """
    figures: dict[str, float] = {}

    def note(name: str, metrics: dict[str, float], samples: Dataset) -> None:
        metrics = {**metrics, f"{name}_samples": len(samples)}
        trainer.log_metrics(name, metrics)
        trainer.save_metrics(name, metrics)
        figures.update(metrics)

    if "train" in splits:
        # Goes on from the newest checkpoint in the output folder, where there is one.
        output = trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint or True)
        trainer.save_model()
        note("train", output.metrics, splits["train"])
        trainer.save_state()
    if "validation" in splits:
        note("eval", trainer.evaluate(**settings), splits["validation"])
    predicted = None
    if "test" in splits:
        predicted = trainer.predict(splits["test"], metric_key_prefix="predict", **settings)
        note("predict", predicted.metrics or {}, splits["test"])
    return figures, predicted
