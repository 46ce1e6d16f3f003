"""Models of transformers, made on the spot from small configurations, on the original and on ours."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertForTokenClassification, PreTrainedTokenizerFast

from tests.parity.harness import Case, as_parameters, check
from tests.parity.models import IGNORED, Documents, EvenSentences, Reviews, pad
from tests.parity.tiny import bart, bert, gpt2, llama, pictures, t5, vit

BASE = {"per_device_train_batch_size": 4, "max_steps": 6, "logging_steps": 1, "learning_rate": 1e-2}
ONE = {"gradient_accumulation_steps": 1}
THREE = {"gradient_accumulation_steps": 3}


def table() -> datasets.Dataset:
    """A table with the columns of a tokenizer and two that no model knows."""
    reviews = [Reviews()[number] for number in range(24)]
    return datasets.Dataset.from_dict(
        {
            "input_ids": [row["input_ids"].tolist()[:4] for row in reviews],
            "attention_mask": [[1] * 4 for _ in reviews],
            "label": [int(row["labels"]) for row in reviews],
            "text": ["words"] * len(reviews),
            "id": list(range(len(reviews))),
        }
    )


def tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{number}": number for number in range(24)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="w1")), pad_token="w0")


def ragged() -> list[dict[str, Any]]:
    """Token sequences of different lengths, as lists, for a tokenizer to pad."""
    return [{"input_ids": row["input_ids"].tolist(), "label": int(row["labels"])} for row in list(Reviews())[:24]]


def accuracy(prediction: Any) -> dict[str, float]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float(np.mean(logits.argmax(-1) == prediction.label_ids))}


class Prefixed(Documents):
    """Documents whose first token is no label, so that shifting the labels changes no count."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        sample["labels"][0] = IGNORED
        return sample


PREFIXED = {"train": Prefixed, "data_collator": pad}
REVIEWS = {"train": Reviews, "data_collator": pad}
DOCUMENTS = {"train": Documents, "data_collator": pad}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 3, "include_num_input_tokens_seen": "all"}

CASES = [
    Case(
        "Bert, a class for each sequence",
        BASE,
        {**REVIEWS, "model": bert, "evaluate": Reviews, "compute_metrics": accuracy},
    ),
    Case(
        "Bert, evaluated and saved",
        {**BASE, **EVALUATED, "save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": True},
        {**REVIEWS, "model": bert, "evaluate": Reviews, "compute_metrics": accuracy},
        lambda seen: seen.files == ["checkpoint-3", "checkpoint-6"] and seen.state.num_input_tokens_seen > 0,
    ),
    Case(
        "Bert on a table with columns that it does not know",
        {**BASE, "eval_strategy": "epoch"},
        {"model": bert, "train": table, "evaluate": table, "compute_metrics": accuracy},
        lambda seen: "eval_accuracy" in seen.last_logs,
    ),
    Case(
        "Bert, hidden states among its outputs",
        BASE,
        {
            **REVIEWS,
            "model": lambda: bert(output_hidden_states=True),
            "evaluate": EvenSentences,
            "drive": lambda trainer: trainer.predict(Reviews()),
        },
        lambda seen: len(seen.output.predictions) == 2,
    ),
    Case("Bert, label smoothing", {**BASE, "label_smoothing_factor": 0.1}, {**REVIEWS, "model": bert}),
    Case("Bert, bfloat16", {**BASE, "bf16": True}, {**REVIEWS, "model": bert}),
    Case("Bert, recomputed activations", {**BASE, "activation_checkpointing": True}, {**REVIEWS, "model": bert}),
    Case(
        "Bert, a class for each token",
        BASE,
        {"train": EvenSentences, "data_collator": pad, "model": lambda: bert(BertForTokenClassification, num_labels=5)},
    ),
    Case("Llama", {**BASE, **ONE}, {**DOCUMENTS, "model": llama}),
    Case("Llama, accumulated", {**BASE, **THREE}, {**DOCUMENTS, "model": llama}),
    Case("Llama, accumulated with a ragged tail", {**BASE, **THREE, "max_steps": 8}, {**DOCUMENTS, "model": llama}),
    Case("Llama, label smoothing", {**BASE, **THREE, "label_smoothing_factor": 0.1}, {**DOCUMENTS, "model": llama}),
    Case("Llama, noise on embeddings", {**BASE, "neftune_noise_alpha": 5}, {**DOCUMENTS, "model": llama}),
    Case(
        "Bert, padded by its tokenizer, tokens counted without padding",
        {**BASE, "eval_strategy": "epoch", "include_num_input_tokens_seen": "non_padding"},
        {"model": bert, "train": ragged, "evaluate": ragged, "processing_class": tokenizer()},
        lambda seen: 0 < seen.state.num_input_tokens_seen < 24 * 12,
    ),
    Case("Llama, tied weights", {**BASE, **THREE}, {**DOCUMENTS, "model": lambda: llama(tie_word_embeddings=True)}),
    Case("GPT-2, the first label ignored", {**BASE, **ONE}, {**PREFIXED, "model": gpt2}),
    Case("GPT-2, the first label ignored, accumulated", {**BASE, **THREE}, {**PREFIXED, "model": gpt2}),
    Case(
        "GPT-2, the first label ignored, label smoothing",
        {**BASE, **THREE, "label_smoothing_factor": 0.1},
        {**PREFIXED, "model": gpt2},
    ),
    Case("Bart", {**BASE, **ONE}, {**DOCUMENTS, "model": bart}),
    Case("T5", {**BASE, **ONE}, {**DOCUMENTS, "model": t5}),
    Case("ViT", {**BASE, **ONE}, {"train": pictures, "model": vit}),
]


@as_parameters(CASES)
def test_models_of_transformers_train_the_same(case: Case) -> None:
    check(case)
