"""Trained models in folders: what a job leaves can be loaded and gives the same scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surestep.errors import ModelError
from surestep.jobs.job import make_job
from surestep.jobs.run import Request, run_job
from surestep.tasks.data.source import open_source
from surestep.tasks.saved import Classifier, load_classifier

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 32, "disable_tqdm": True, "learning_rate": 1e-2}


def _silent(text: str) -> None:
    del text


def _run(folder: Path, base: Path, **declared: Any) -> dict[str, Any]:
    job = make_job({"arguments": QUICK, "output_dir": str(folder), **declared}, "job")
    return run_job(Request(job, base, _silent, _silent)).results


def _accuracy(classifier: Classifier, values: list[Any], labels: list[str]) -> float:
    predictions = classifier.predict(values, batch_size=100)
    assert all(1 / len(classifier.labels) <= prediction.probability <= 1 for prediction in predictions)
    return float(np.mean([prediction.label == label for prediction, label in zip(predictions, labels, strict=True)]))


@pytest.mark.parametrize(
    "model",
    [
        {"name": "residual_network", "width": 8},
        {"name": "vision_transformer", "patch_size": 2, "dim": 16, "num_layers": 1},
    ],
    ids=lambda model: model["name"],
)
def test_an_image_classifier_is_the_one_that_was_trained(tmp_path: Path, model: dict[str, Any]) -> None:
    data = {"source": "sklearn:digits", "test": 0.3}
    found = _run(tmp_path / "run", tmp_path, task="image_classification", data=data, model=model)
    from surestep.tasks.data.splits import open_splits
    from surestep.tasks.settings import DataSettings

    test = open_splits(DataSettings.model_validate(data), "image", tmp_path).parts["test"]
    classifier = load_classifier(tmp_path / "run" / "model")
    labels = [str(label) for label in test.table.columns["label"]]
    accuracy = _accuracy(classifier, list(test.table.columns["image"]), labels)
    assert accuracy == pytest.approx(found["scores"]["test"]["metrics"]["accuracy"], abs=1e-9)


def test_a_text_classifier_is_the_one_that_was_trained(tmp_path: Path) -> None:
    declared = {"task": "text_classification", "data": {"source": "messages.csv", "test": "messages.csv"}}
    found = _run(tmp_path / "run", EXAMPLES, **declared)
    table = open_source("messages.csv", EXAMPLES)
    classifier = load_classifier(tmp_path / "run" / "model")
    accuracy = _accuracy(classifier, list(table.columns["text"]), list(table.columns["label"]))
    assert accuracy == pytest.approx(found["scores"]["test"]["metrics"]["accuracy"], abs=1e-9)


def test_a_model_of_transformers_is_kept_in_its_own_form(tmp_path: Path) -> None:
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "parcel", "win", "lunch", "your", "the", "a", "for"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    ).save_pretrained(tmp_path / "bert")
    (tmp_path / "messages.csv").write_text((EXAMPLES / "messages.csv").read_text())
    found = _run(
        tmp_path / "run",
        tmp_path,
        task="text_classification",
        data={"source": "messages.csv", "test": "messages.csv"},
        model={"name": "pretrained", "path": "bert", "from_scratch": True},
    )
    kept = tmp_path / "run" / "model"
    assert json.loads((kept / "config.json").read_text())["id2label"] == {
        "0": "advert",
        "1": "delivery",
        "2": "personal",
    }
    assert transformers.AutoModelForSequenceClassification.from_pretrained(kept).num_labels == 3
    table = open_source("messages.csv", tmp_path)
    accuracy = _accuracy(load_classifier(kept), list(table.columns["text"]), list(table.columns["label"]))
    assert accuracy == pytest.approx(found["scores"]["test"]["metrics"]["accuracy"], abs=1e-9)


def test_predictions_need_no_labels_and_keep_the_order(tmp_path: Path) -> None:
    _run(tmp_path / "run", EXAMPLES, task="text_classification", data="messages.csv")
    classifier = load_classifier(tmp_path / "run" / "model")
    texts = ["Win a free camera", "", "Parcel KX41 is waiting"]
    alone = [classifier.predict([text])[0] for text in texts]
    together = classifier.predict(texts, batch_size=2)
    assert [prediction.label for prediction in together] == [prediction.label for prediction in alone]
    assert [p.probability for p in together] == pytest.approx([p.probability for p in alone], abs=1e-5)
    assert classifier.predict([]) == []
    assert not any(
        parameter.requires_grad and parameter.grad is not None for parameter in classifier.model.parameters()
    )
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "holds no model"), ("{", "holds no model"), ('{"format": 9}', "has format 9")]
)
def test_folders_without_a_model_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "classifier.json").write_text(content)
    with pytest.raises(ModelError, match=said):
        load_classifier(tmp_path)
