"""Teach a model to fill gaps: some tokens are masked, and it finds them from both sides.

    python examples/masked_lm.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/masked

The flags are those of the script of the same purpose that comes with transformers. Files are text, or have a column
`text`. Without --model_name_or_path a small BERT is made anew, with a tokenizer learnt from the texts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoModelForMaskedLM, BertConfig

from common import wanted
from encoders import load_tokenizer
from surestep import DataCollatorForLanguageModeling
from texts import TextArguments, arguments, blocks, model_of, train


@dataclass
class MaskedArguments(TextArguments):
    """How many tokens are hidden."""

    mlm_probability: float = field(default=0.15, metadata={"help": "Share of the tokens that is masked."})


def bert(**sizes: Any) -> BertConfig:
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return BertConfig(hidden_size=64, intermediate_size=128, **layers, **sizes)


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args, splits = arguments(argv, MaskedArguments)
    tokenizer = load_tokenizer(model_args, (text for split in splits.values() for text in split["text"]))
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = model_of(AutoModelForMaskedLM, model_args, {"bert": bert}, **ids)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=data_args.mlm_probability)
    samples = wanted(blocks(splits, data_args, tokenizer), data_args, args)
    return train(args, model, tokenizer, samples, data_collator=collator)


if __name__ == "__main__":
    main(sys.argv[1:])
