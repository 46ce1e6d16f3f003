"""Pairs of token sequences, and models small enough to be made on the spot that turn one into the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.utils.data import Dataset

import surestep
from tests.parity.models import IGNORED

PAD, START, END = 0, 1, 2
SPECIAL = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
# The classes of both sides under the names that the harness asks for.
THEIRS, OURS = (
    SimpleNamespace(
        Trainer=side.Seq2SeqTrainer,
        TrainingArguments=side.Seq2SeqTrainingArguments,
        TrainerCallback=side.TrainerCallback,
    )
    for side in (transformers, surestep)
)


class Pairs(Dataset):
    """Sentences of 3 to 8 tokens, and as their labels each first token one to three times, then the end.

    Four labels count in every pair, so that a batch weighs what its size says; further ones are -100.
    """

    def __init__(self, size: int = 24, seed: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 9, (size,), generator=generator).tolist()
        self.sources = [torch.randint(3, 9, (length,), generator=generator) for length in lengths]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source = self.sources[index]
        more = int(source[0]) % 3
        labels = [*[int(source[0])] * (1 + more), *[END] * (3 - more), *[IGNORED] * more]
        return {"input_ids": source.tolist(), "attention_mask": [1] * len(source), "labels": labels}


class Sources(Pairs):
    """The same without labels."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        del sample["labels"]
        return sample


class Prompts(Pairs):
    """Token sequences of one length, for a model that predicts the next; the first is nothing to predict."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = (super().__getitem__(index)["input_ids"] * 2)[:6]
        return {"input_ids": tokens, "attention_mask": [1] * 6, "labels": [IGNORED, *tokens[1:]]}


class Even(Pairs):
    """Pairs whose labels have one length, so that nothing needs to pad them."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "labels": sample["labels"][:4]}


def tokenizer(**options: Any) -> Any:
    words = {f"w{number}": number for number in range(24)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w3")), pad_token="w0", eos_token="w2", **options
    )


class Collator:
    """The original's collator for pairs, which asks the model for the decoder's inputs."""

    def __init__(self, model: Any = None) -> None:
        self.collate = transformers.DataCollatorForSeq2Seq(tokenizer(), model=model)

    def __call__(self, samples: list[dict[str, Any]]) -> Any:
        return self.collate(samples)


def _layers(**sizes: int) -> dict[str, Any]:
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"vocab_size": 24, "d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    return {**layers, **widths, "max_position_embeddings": 64, **SPECIAL, **sizes}


def bart() -> nn.Module:
    config = transformers.BartConfig(**_layers(), forced_eos_token_id=END, decoder_start_token_id=END)
    return transformers.BartForConditionalGeneration(config)


def marian() -> nn.Module:
    return transformers.MarianMTModel(transformers.MarianConfig(**_layers(), decoder_start_token_id=PAD))


def t5() -> nn.Module:
    sizes = {"vocab_size": 24, "d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(**sizes, **SPECIAL, decoder_start_token_id=PAD)
    )


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2, n_positions=64, **SPECIAL)
    )


def words(prediction: Any) -> dict[str, float]:
    """Return how often the first generated token is right, and how many tokens were generated."""
    tokens, labels = prediction.predictions, prediction.label_ids
    tokens = np.where(tokens != IGNORED, tokens, PAD)
    return {
        "right": float((tokens[:, 1] == labels[:, 0]).mean()),
        "length": float((tokens != PAD).sum(axis=1).mean()),
    }


def by_hand(model: Any, batch: dict[str, Tensor], **settings: Any) -> Tensor:
    """Generate without a trainer."""
    with torch.no_grad():
        return model.eval().generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings)
