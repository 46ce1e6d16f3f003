"""Teach a model tokens in any order: XLNet's permutation language modelling.

    python examples/permutation_lm.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/permuted

The flags are those of the script of the same purpose that comes with transformers. Files are text, or have a column
`text`. Without --model_name_or_path a small XLNet is made anew, with a tokenizer learnt from the texts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from transformers import XLNetConfig, XLNetLMHeadModel

from common import wanted
from encoders import load_tokenizer
from surestep import DataCollatorForPermutationLanguageModeling
from texts import TextArguments, arguments, blocks, model_of, train


@dataclass
class PermutedArguments(TextArguments):
    """How long the spans to predict are."""

    plm_probability: float = field(default=1 / 6, metadata={"help": "Length of a span over the text around it."})
    max_span_length: int = field(default=5, metadata={"help": "Tokens of the longest span."})


class Permuted(XLNetLMHeadModel):
    """XLNet, made as the automatic classes make theirs."""

    @classmethod
    def from_config(cls, config: XLNetConfig) -> XLNetLMHeadModel:
        return XLNetLMHeadModel(config)


def xlnet(**sizes: Any) -> XLNetConfig:
    return XLNetConfig(d_model=64, n_layer=2, n_head=2, d_inner=128, **sizes)


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args, splits = arguments(argv, PermutedArguments)
    tokenizer = load_tokenizer(model_args, (text for split in splits.values() for text in split["text"]))
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = model_of(Permuted, model_args, {"xlnet": xlnet}, **ids)
    collator = DataCollatorForPermutationLanguageModeling(
        tokenizer, plm_probability=data_args.plm_probability, max_span_length=data_args.max_span_length
    )
    samples = wanted(blocks(splits, data_args, tokenizer, even=True), data_args, args)
    return train(args, model, tokenizer, samples, data_collator=collator)


if __name__ == "__main__":
    main(sys.argv[1:])
