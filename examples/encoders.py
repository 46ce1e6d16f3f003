"""What the scripts for text that read (and do not write) share: a tokenizer with its marks, and small models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datasets import DatasetDict
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from common import DataArguments, ModelArguments

MARKS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def load_tokenizer(names: ModelArguments, texts: Iterable[str], **settings: Any) -> Any:
    """Return the tokenizer that is named, else one of words and their parts that is learnt from texts."""
    name = names.tokenizer_name or names.model_name_or_path
    if name is not None:
        return AutoTokenizer.from_pretrained(name, use_fast=names.use_fast_tokenizer, **settings, **names.options())
    tokenizer = Tokenizer(models.WordPiece(unk_token=MARKS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learning = trainers.WordPieceTrainer(vocab_size=4000, special_tokens=list(MARKS.values()), show_progress=False)
    tokenizer.train_from_iterator(texts, learning)
    first, last = ((mark, tokenizer.token_to_id(mark)) for mark in (MARKS["cls_token"], MARKS["sep_token"]))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **MARKS, model_input_names=inputs)


def load_model(auto: Any, names: ModelArguments, tokenizer: Any, length: int, **settings: Any) -> Any:
    """Return the model that is named, else a small BERT for texts of up to `length` tokens; `settings` configure it."""
    if names.model_name_or_path is not None:
        settings["ignore_mismatched_sizes"] = names.ignore_mismatched_sizes
        return auto.from_pretrained(names.model_name_or_path, **settings, **names.options())
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=length,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
        **settings,
    )
    return auto.from_config(config)


def prepared(splits: DatasetDict, data: DataArguments, make: Any) -> DatasetDict:
    """Return the splits with `make` (many samples in, many out) in the place of their columns."""
    return DatasetDict(
        {
            name: split.map(
                make,
                batched=True,
                remove_columns=split.column_names,
                num_proc=data.preprocessing_num_workers,
                load_from_cache_file=not data.overwrite_cache,
            )
            for name, split in splits.items()
        }
    )
