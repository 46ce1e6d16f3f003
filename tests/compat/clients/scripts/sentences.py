"""Sentence embeddings as a user trains them: two sets, each with its loss, one with hard negatives; an evaluator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss, SoftmaxLoss

from tests.compat.clients.scripts.tiny import encoder, sentence


def datasets(start: int, size: int) -> DatasetDict:
    """Return triplets with a hard negative each, and pairs with how alike they are."""
    numbers = range(start, start + size)
    triplets = {
        "anchor": [sentence(number, 4) for number in numbers],
        "positive": [sentence(number, 6) for number in numbers],
        "negative": [sentence(number + 1, 5) for number in numbers],
    }
    pairs = {
        "sentence1": [sentence(number, 5) for number in numbers],
        "sentence2": [sentence(number + number % 3, 5) for number in numbers],
        "score": [1.0 - number % 3 / 2 for number in numbers],
    }
    return DatasetDict({"triplets": Dataset.from_dict(triplets), "pairs": Dataset.from_dict(pairs)})


def train(folder: Path, *, resume: str | None = None, **settings: Any) -> SentenceTransformerTrainer:
    model = encoder(str(folder / "start"))
    evaluation = datasets(40, 6)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        **{
            "num_train_epochs": 1,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "learning_rate": 1e-2,
            "warmup_steps": 0.1,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_strategy": "steps",
            "save_steps": 4,
            "save_total_limit": 3,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            **settings,
        },
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets(0, 20),
        eval_dataset=evaluation,
        loss={"triplets": MultipleNegativesRankingLoss(model), "pairs": CoSENTLoss(model)},
        evaluator=EmbeddingSimilarityEvaluator(
            evaluation["pairs"]["sentence1"], evaluation["pairs"]["sentence2"], evaluation["pairs"]["score"]
        ),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def classify(folder: Path) -> list[dict[str, Any]]:
    """Train with a loss that has weights of its own, and return the log."""
    model, numbers = encoder(str(folder / "start")), range(16)
    rows = {
        "first": [sentence(number, 4) for number in numbers],
        "second": [sentence(number + number % 2, 5) for number in numbers],
        "label": [number % 2 for number in numbers],
    }
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=2,
        batch_sampler="no_duplicates",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    loss = SoftmaxLoss(model, model.get_embedding_dimension(), num_labels=2)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows), loss=loss)
    trainer.train()
    return trainer.state.log_history


def main(root: Path) -> None:
    seen: dict[str, Any] = {}
    for sampler in ("proportional", "round_robin"):
        best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_spearman_cosine"}
        trainer = train(root / sampler, multi_dataset_batch_sampler=sampler, **best)
        trainer.save_model(str(root / sampler / "final"))
        seen[sampler] = {"logs": [*trainer.state.log_history], "evaluated": trainer.evaluate()}
        seen[sampler]["best"] = trainer.state.best_metric
        seen[sampler]["vectors"] = trainer.model.encode([sentence(1, 4), sentence(2, 4)]).tolist()
    checkpoint = str(root / "round_robin" / "checkpoint-4")
    resumed = train(root / "round_robin", multi_dataset_batch_sampler="round_robin", resume=checkpoint)
    seen["round_robin"]["resumed"] = resumed.state.log_history
    seen["classified"] = classify(root / "classified")
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
