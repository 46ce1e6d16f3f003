"""Teach a model to write on: each token from those before it.

    python examples/causal_lm.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/causal

The flags are those of the script of the same purpose that comes with transformers. Files are text, or have a column
`text`. Without --model_name_or_path a small GPT-2 is made anew, with a tokenizer learnt from the texts.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

from common import small_tokenizer, wanted
from surestep import EvalPrediction, default_data_collator
from texts import arguments, blocks, model_of, train


def gpt2(**sizes: Any) -> GPT2Config:
    return GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=1024, **sizes)


def llama(**sizes: Any) -> LlamaConfig:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, **heads, **sizes)


def best_tokens(logits: Any, _: Any) -> Any:
    """Keep the token with the highest score, and not the scores of all."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(dim=-1)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return how often the next token was right."""
    return {"accuracy": float(np.mean(prediction.predictions[:, :-1] == prediction.label_ids[:, 1:]))}


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args, splits = arguments(argv)
    name = model_args.tokenizer_name or model_args.model_name_or_path
    if name is None:
        tokenizer = small_tokenizer(text for split in splits.values() for text in split["text"])
    else:
        tokenizer = AutoTokenizer.from_pretrained(name, **model_args.options())
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids |= {"bos_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)}
    model = model_of(AutoModelForCausalLM, model_args, {"gpt2": gpt2, "llama": llama}, **ids)
    return train(
        args,
        model,
        tokenizer,
        wanted(blocks(splits, data_args, tokenizer, labels=True), data_args, args),
        data_collator=default_data_collator,
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=best_tokens,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
