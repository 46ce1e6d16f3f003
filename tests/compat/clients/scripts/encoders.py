"""More of sentence-transformers and SetFit, as users write it: pairs, models made anew, streams, a student."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from transformers import BertConfig, BertForSequenceClassification

from tests.compat.clients.scripts.tiny import SPECIAL, WORDS, encoder, sentence, tokenizer

NUMBERS = range(12)
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "max_steps": 3,
    "logging_steps": 1,
    "save_steps": 2,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
}


def log_of(trainer: Any) -> list[dict[str, Any]]:
    trainer.train()
    log: list[dict[str, Any]] = trainer.state.log_history
    return log


def pairs(folder: Path) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(SPECIAL) + len(WORDS), max_position_embeddings=64, num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder / "start")
    tokenizer().save_pretrained(folder / "start")
    model = CrossEncoder(str(folder / "start"), device="cpu")
    rows = {
        "first": [sentence(number, 4) for number in NUMBERS],
        "second": [sentence(number + number % 2, 4) for number in NUMBERS],
        "label": [float(number % 2) for number in NUMBERS],
    }
    arguments = CrossEncoderTrainingArguments(str(folder), **SETTINGS)
    data = Dataset.from_dict(rows)
    loss = BinaryCrossEntropyLoss(model)
    return log_of(CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss))


def made_anew(folder: Path) -> Any:
    def make() -> SentenceTransformer:
        made: SentenceTransformer = encoder(str(folder / "start"))
        return made

    rows = Dataset.from_dict({"a": [sentence(n, 4) for n in NUMBERS], "b": [sentence(n, 6) for n in NUMBERS]})
    arguments = SentenceTransformerTrainingArguments(
        str(folder), bf16=True, prompts={"a": "the ", "b": "cat "}, **SETTINGS
    )
    trainer = SentenceTransformerTrainer(
        model_init=make,
        args=arguments,
        train_dataset=rows.to_iterable_dataset(),
        eval_dataset=rows,
        loss=lambda model: MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [16, 8]),
    )
    return [log_of(trainer), trainer.evaluate()]


def student(folder: Path) -> Any:
    from setfit import DistillationTrainer, SetFitModel, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    from tests.compat.clients.scripts.few_shot import accuracy, rows

    texts = rows(0, 8)
    teacher = SetFitModel(model_body=encoder(str(folder / "teacher")), model_head=LogisticRegression())
    teacher.fit(texts["text"], texts["label"], num_epochs=1)
    trainer = DistillationTrainer(
        teacher_model=teacher,
        student_model=SetFitModel(model_body=encoder(str(folder / "start"), 3), model_head=LogisticRegression()),
        args=TrainingArguments(str(folder), batch_size=4, max_steps=4, logging_steps=1, report_to="none"),
        train_dataset=Dataset.from_dict({"text": list(texts["text"])}),
        eval_dataset=rows(20, 4),
        metric=accuracy,
    )
    trainer.train()
    return [trainer.st_trainer.state.log_history, trainer.evaluate()]


def main(root: Path) -> None:
    seen = {make.__name__: make(root / make.__name__) for make in (pairs, made_anew, student)}
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
