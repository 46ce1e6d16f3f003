"""What translation and summarization share: from two texts to a sample, and from generated tokens to a text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from common import DataArguments, ModelArguments, run, small_tokenizer, wanted
from surestep import DataCollatorForSeq2Seq, EvalPrediction, Seq2SeqTrainer, Seq2SeqTrainingArguments

IGNORED = -100
# Of a sample: its source and its target.
Texts = Callable[[dict[str, Any]], tuple[str, str]]
# Of what was written and what should have been: figures by name.
Score = Callable[[list[str], list[str]], dict[str, float]]


@dataclass
class SequenceArguments(DataArguments):
    """Which data, how much of them, and how texts become tokens."""

    max_source_length: int = field(default=1024, metadata={"help": "Longest source, in tokens; the rest is cut off."})
    max_target_length: int = field(default=128, metadata={"help": "Longest target, in tokens; the rest is cut off."})
    val_max_target_length: int | None = field(
        default=None, metadata={"help": "The same in evaluation, and the longest text generated; None is as above."}
    )
    pad_to_max_length: bool = field(default=False, metadata={"help": "Pad every sample to the longest allowed."})
    num_beams: int | None = field(default=None, metadata={"help": "Beams to generate with."})
    ignore_pad_token_for_loss: bool = field(default=True, metadata={"help": "Leave padding out of the loss."})
    source_prefix: str | None = field(default=None, metadata={"help": "Put before every source, as T5 wants it."})
    forced_bos_token: str | None = field(
        default=None, metadata={"help": "The first token to generate, such as a language of a multilingual model."}
    )

    def __post_init__(self) -> None:
        if self.val_max_target_length is None:
            self.val_max_target_length = self.max_target_length


def load(
    names: ModelArguments, data: SequenceArguments, splits: DatasetDict, texts: Texts, small: Callable[..., Any]
) -> tuple[Any, Any]:
    """Return a model and its tokenizer: those named, else a tokenizer learnt from the data and what `small` makes."""
    options, source = names.options(), names.model_name_or_path
    name, config_name = names.tokenizer_name or source, names.config_name or source
    if name is None:
        pairs = (pair for split in splits.values() for pair in map(texts, split))
        tokenizer = small_tokenizer(text for pair in pairs for text in pair)
    else:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=names.use_fast_tokenizer, **options)
    if config_name is None:
        model = small(
            vocab_size=len(tokenizer),
            max_position_embeddings=max(data.max_source_length, data.max_target_length, data.val_max_target_length),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    else:
        config = AutoConfig.from_pretrained(config_name, **options)
        kind, fitting = AutoModelForSeq2SeqLM, {"ignore_mismatched_sizes": names.ignore_mismatched_sizes}
        model = (
            kind.from_pretrained(source, config=config, **fitting, **options) if source else kind.from_config(config)
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    if data.forced_bos_token is not None:
        if data.forced_bos_token not in tokenizer.get_vocab():
            sys.exit(f"--forced_bos_token={data.forced_bos_token}: the tokenizer has no such token.")
        model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids(data.forced_bos_token)
    return model, tokenizer


def set_languages(tokenizer: Any, source: str | None, target: str | None) -> None:
    """Tell a multilingual tokenizer its languages; any other has no use for them."""
    if hasattr(tokenizer, "src_lang"):
        if source is None or target is None:
            sys.exit(f"{type(tokenizer).__name__} knows many languages. Name those of the texts.")
        tokenizer.src_lang, tokenizer.tgt_lang = source, target


def tokenized(splits: DatasetDict, data: SequenceArguments, tokenizer: Any, texts: Texts) -> DatasetDict:
    """Return the splits as tokens; samples without a source or a target are left out."""
    padding = "max_length" if data.pad_to_max_length else False

    def prepare(sample: dict[str, Any], longest: int) -> dict[str, Any]:
        source, target = texts(sample)
        source = (data.source_prefix or "") + source
        row = dict(tokenizer(source, max_length=data.max_source_length, padding=padding, truncation=True))
        labels = tokenizer(text_target=target, max_length=longest, padding=padding, truncation=True)["input_ids"]
        if padding and data.ignore_pad_token_for_loss:
            labels = [IGNORED if token == tokenizer.pad_token_id else token for token in labels]
        return {**row, "labels": labels}

    common = {"num_proc": data.preprocessing_num_workers, "load_from_cache_file": not data.overwrite_cache}
    prepared = {}
    for name, split in splits.items():
        longest = data.max_target_length if name == "train" else data.val_max_target_length
        whole = split.filter(lambda sample: all(texts(sample)), **common)
        prepared[name] = whole.map(prepare, fn_kwargs={"longest": longest}, remove_columns=split.column_names, **common)
    return DatasetDict(prepared)


def decoded(tokenizer: Any, tokens: Any) -> list[str]:
    """Return the texts of tokens, some of which may be -100."""
    tokens = np.where(np.asarray(tokens) == IGNORED, tokenizer.pad_token_id, tokens)
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def train_and_score(
    args: Seq2SeqTrainingArguments,
    data: SequenceArguments,
    loaded: tuple[Any, Any],
    splits: DatasetDict,
    texts: Texts,
    score: Score,
) -> dict[str, float]:
    """Do what the flags ask for and return all figures; generated texts go to `generated_predictions.txt`."""
    model, tokenizer = loaded
    splits = tokenized(wanted(splits, data, args), data, tokenizer, texts)

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        written = prediction.predictions
        lengths = (written != tokenizer.pad_token_id).sum(axis=1)
        figures = score(decoded(tokenizer, written), decoded(tokenizer, prediction.label_ids))
        return {**figures, "gen_len": float(lengths.mean())}

    trainer = Seq2SeqTrainer(
        model=model,
        args=args,
        train_dataset=splits.get("train"),
        eval_dataset=splits.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(
            tokenizer,
            model=model,
            label_pad_token_id=IGNORED if data.ignore_pad_token_for_loss else tokenizer.pad_token_id,
            pad_to_multiple_of=8 if args.fp16 else None,
        ),
        compute_metrics=measure if args.predict_with_generate else None,
    )
    settings: dict[str, Any] = {}
    if args.predict_with_generate:
        longest = args.generation_max_length or data.val_max_target_length
        settings = {"max_length": longest, "num_beams": data.num_beams or args.generation_num_beams}
    figures, predicted = run(trainer, splits, **settings)
    if predicted is not None and args.predict_with_generate and trainer.is_world_process_zero():
        path = Path(args.output_dir) / "generated_predictions.txt"
        path.write_text("\n".join(decoded(tokenizer, predicted.predictions)) + "\n", encoding="utf-8")
    return figures
