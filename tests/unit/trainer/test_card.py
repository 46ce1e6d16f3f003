"""Model cards: metadata that parses, results that are right, tags that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.small import Points, quick

from surestep import Trainer
from surestep.errors import DataError
from surestep.trainer.card import ModelCard


def head(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n", 2)[1])


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def trained(folder: Path, **settings: Any) -> Trainer:
    trainer = quick(
        folder / "points",
        eval_dataset=Points(),
        eval_strategy="steps",
        eval_steps=2,
        max_steps=4,
        compute_metrics=lambda prediction: {"mae": float(abs(prediction.predictions - prediction.label_ids).mean())},
        **settings,
    )
    trainer.train()
    return trainer


def card_of(trainer: Trainer) -> str:
    return (Path(trainer.args.output_dir) / "README.md").read_text(encoding="utf-8")


def test_the_metadata_holds_what_is_known(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    trainer.create_model_card(
        language="en",
        license="apache-2.0",
        tags=["small", "small"],
        model_name="Points: a line",
        finetuned_from="someone/base",
        tasks="tabular-regression",
        dataset_tags="points",
        dataset="The points",
        dataset_args="seed 5",
    )
    text = card_of(trainer)

    assert head(text) == {
        "language": ["en"],
        "license": "apache-2.0",
        "base_model": "someone/base",
        "tags": ["generated_from_trainer", "small"],
        "datasets": ["points"],
        "metrics": ["mae"],
        "pipeline_tag": "tabular-regression",
    }
    assert "# Points: a line\n" in text
    assert "Trained from someone/base on The points (seed 5) with surestep." in text


def test_the_table_holds_every_evaluation(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    trainer.create_model_card()
    table = rows(card_of(trainer))
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]

    assert table[0] == ["step", "epoch", "eval_loss", "eval_mae"]
    assert len(table) == 2 + len(evaluations) == 4
    for row, entry in zip(table[2:], evaluations, strict=True):
        assert row[0] == str(entry["step"])
        assert [float(cell) for cell in row[1:]] == pytest.approx(
            [entry["epoch"], entry["eval_loss"], entry["eval_mae"]], rel=1e-3
        )


def test_arguments_and_versions_are_told(tmp_path: Path) -> None:
    trainer = trained(tmp_path, learning_rate=0.125, seed=11, lr_scheduler_type="cosine")
    trainer.create_model_card()
    text = card_of(trainer)

    assert "- learning_rate: 0.125\n" in text
    assert "- seed: 11\n" in text
    assert "- lr_scheduler_type: cosine\n" in text
    assert "- surestep " in text
    assert "- torch " in text


def test_tags_of_a_card_that_is_there_are_kept(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    trainer.create_model_card(tags=["one"])
    trainer.create_model_card(tags="two")

    assert head(card_of(trainer))["tags"] == ["generated_from_trainer", "two", "one"]


def test_a_card_without_metadata_is_written_anew(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    (tmp_path / "points" / "README.md").write_text("# By hand\n", encoding="utf-8")
    trainer.create_model_card()

    assert head(card_of(trainer))["tags"] == ["generated_from_trainer"]


def test_damaged_metadata_are_told_and_left_alone(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    path = tmp_path / "points" / "README.md"
    path.write_text("---\ntags: [one\n---\n# By hand\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"(?s)is no YAML.*Mend it, or move the file away"):
        trainer.create_model_card()

    assert path.read_text(encoding="utf-8").endswith("# By hand\n")


def test_a_card_of_nothing_but_a_name() -> None:
    text = ModelCard(name="bare").text()

    assert head(text) == {"tags": ["generated_from_trainer"]}
    assert "Trained on data that is not named with surestep." in text
    assert "## Results" not in text


@pytest.mark.parametrize("value", ["yes: no", "- dash", "ö, ü # and more", '"quoted"', "a\nb"])
def test_any_text_survives_in_the_metadata(value: str) -> None:
    assert head(ModelCard(name="bare", license=value, tags=value).text())["license"] == value


def test_the_card_stands_beside_the_model_when_the_hub_reads_it(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard as HubCard

    trainer = trained(tmp_path)
    trainer.create_model_card(tags="small", license="mit")
    read = HubCard.load(tmp_path / "points" / "README.md").data

    assert read.tags == ["generated_from_trainer", "small"]
    assert read.license == "mit"
