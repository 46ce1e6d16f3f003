"""The scripts for each task run without a network: on rows that they make, on files, on real data."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHARED = ROOT.parent / "shared" / "data"
QUICK = ("--use_cpu", "--disable_tqdm=true", "--report_to=none", "--per_device_train_batch_size=16")
LEARNING = ("--learning_rate=3e-3", "--lr_scheduler_type=constant", "--save_strategy=no")


@dataclass(frozen=True)
class Script:
    """A script: what it measures, to which value it learns its own rows in so many steps, and its real data."""

    name: str
    figure: str
    bound: float
    steps: int
    data: str
    flags: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    predicts: bool = True
    tolerance: float = 1e-5


LINES = {"data": "tiny_shakespeare", "predicts": False}
SCRIPTS = [
    Script("glue", "eval_accuracy", 0.9, 30, "glue_rte", ("--max_seq_length=64",), ("--task_name=RTE",)),
    Script("multiple_choice", "eval_accuracy", 0.9, 40, "codah", ("--max_seq_length=32",)),
    Script("question_answering", "eval_f1", 60.0, 80, "xquad_en", ("--max_seq_length=64", "--doc_stride=16")),
    Script("token_classification", "eval_f1", 0.9, 40, "ncbi_disease", ("--return_entity_level_metrics",)),
    Script("causal_lm", "eval_accuracy", 0.85, 120, flags=("--block_size=32",), **LINES),
    Script("masked_lm", "eval_loss", 2.3, 60, flags=("--max_seq_length=32", "--line_by_line"), tolerance=0.1, **LINES),
    Script("permutation_lm", "eval_loss", 2.3, 60, flags=("--max_seq_length=32",), tolerance=0.1, **LINES),
    Script("vision_classification", "eval_accuracy", 0.9, 40, "cifar10_small"),
    Script("masked_images", "eval_loss", 0.7, 40, "cifar10_small", tolerance=0.1),
    Script("segmentation", "eval_mean_iou", 0.7, 30, "camvid_240x180", real=("--ignored_class=11",)),
    Script("speech_pretraining", "eval_loss", 3.0, 10, "fsdd", ("--mask_time_length=3",), tolerance=0.2),
]


# What the scripts of the same purpose that come with transformers take, besides the arguments of training.
FLAGS = (
    "model_name_or_path", "config_name", "tokenizer_name", "cache_dir", "model_revision", "token", "trust_remote_code",
    "dataset_name", "dataset_config_name", "train_file", "validation_file", "max_train_samples", "max_eval_samples",
    "overwrite_cache", "preprocessing_num_workers", "ignore_mismatched_sizes",
)  # fmt: skip
OWN_FLAGS = {
    "glue": "task_name max_seq_length pad_to_max_length text_column_names text_column_delimiter label_column_name",
    "multiple_choice": "max_seq_length pad_to_max_length",
    "question_answering": "max_seq_length doc_stride n_best_size null_score_diff_threshold version_2_with_negative",
    "token_classification": "task_name text_column_name label_column_name label_all_tokens max_seq_length",
    "causal_lm": "model_type config_overrides block_size validation_split_percentage",
    "masked_lm": "model_type config_overrides max_seq_length mlm_probability line_by_line pad_to_max_length",
    "permutation_lm": "max_seq_length plm_probability max_span_length line_by_line",
    "vision_classification": "image_processor_name train_dir validation_dir train_val_split image_column_name",
    "masked_images": "image_processor_name train_dir validation_dir mask_patch_size mask_ratio image_size patch_size",
    "segmentation": "train_val_split do_reduce_labels",
    "speech_pretraining": "max_gumbel_temperature max_duration_in_seconds mask_time_prob audio_column_name",
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that imports a script as Python does when it is run; without real data unless asked for."""

    def script(name: str, *, real_data: bool = False) -> Any:
        monkeypatch.syspath_prepend(EXAMPLES)
        for path in EXAMPLES.glob("*.py"):
            monkeypatch.delitem(sys.modules, path.stem, raising=False)
        module = importlib.import_module(name)
        if not real_data:
            monkeypatch.setattr(sys.modules["common"], "SHARED_DATA", tmp_path / "none")
        return module

    return script


def flags(tmp_path: Path, *more: str) -> list[str]:
    return [*QUICK, "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "run"), *more]


def heads(folder: Path, tmp_path: Path) -> list[str]:
    """Return flags that name the first lines of texts, which are long."""
    given = []
    for path in folder.glob("*.txt"):
        head = tmp_path / path.name
        head.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:300]), "utf-8")
        given += [f"--{path.stem}_file", str(head)]
    return given


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_learns_its_own_rows(load: Any, tmp_path: Path, script: Script) -> None:
    given = flags(tmp_path, *LEARNING, "--do_train", "--do_eval", "--max_steps", str(script.steps), *script.flags)
    figures = load(script.name).main(given)

    reached = figures[script.figure]
    assert reached <= script.bound if script.figure.endswith("loss") else reached >= script.bound
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text())[script.figure] == reached
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", OWN_FLAGS)
def test_the_flags_of_the_original_are_there(load: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        load(name).main(["--help"])

    assert ended.value.code == 0
    shown = capsys.readouterr().out
    wanted = [*FLAGS, *OWN_FLAGS[name].split(), "learning_rate", "output_dir"]
    assert [flag for flag in wanted if not re.search(rf"--{flag}\b", shown)] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_runs_on_real_data_and_goes_on_from_its_model(load: Any, tmp_path: Path, script: Script) -> None:
    if not (SHARED / script.data).is_dir():
        pytest.skip(f"../shared/data/{script.data} is not there")
    limits = ("--max_train_samples=32", "--max_eval_samples=12", "--max_predict_samples=6", "--max_steps=2")
    module = load(script.name, real_data=True)
    own = (*limits, *script.flags, *script.real, *heads(SHARED / script.data, tmp_path))
    first = module.main(flags(tmp_path, "--do_train", "--do_eval", *own))
    predict = ["--do_predict"] if script.predicts else []
    more = ("--do_eval", *predict, "--model_name_or_path", str(tmp_path / "run"))
    second = module.main(flags(tmp_path / "second", *more, *own))

    assert first["train_samples"] > 0
    # What was saved is what is loaded; masks are drawn anew.
    assert second["eval_loss"] == pytest.approx(first["eval_loss"], rel=script.tolerance)
    assert ("predict_samples" in second) == script.predicts


def test_columns_of_other_names_are_joined_to_a_text(load: Any, tmp_path: Path) -> None:
    """In the form of the script that classifies any table."""
    lines = [f"{word},is it?,{'yes' if word in 'good fine' else 'no'}" for word in ("good", "bad", "fine", "dull") * 6]
    (tmp_path / "rows.csv").write_text("\n".join(["title,body,verdict", *lines]) + "\n", "utf-8")
    path = str(tmp_path / "rows.csv")
    named = ("--text_column_names=title,body", "--text_column_delimiter=: ", "--label_column_name=verdict")
    files = ("--train_file", path, "--validation_file", path)
    script = load("glue")
    figures = script.main(flags(tmp_path, *LEARNING, *files, *named, "--do_train", "--do_eval", "--max_steps=30"))

    assert figures["eval_accuracy"] == 1.0
    splits = script.DatasetDict(train=script.common.Dataset.from_list([{"a": "x", "b": 1, "c": 0}]))
    chosen = script.named(splits, script.TaskArguments(text_column_names="b,a", label_column_name="c"))
    assert chosen["train"][0] == {"text": "1 x", "label": 0}


def test_a_new_model_may_have_other_settings(load: Any, tmp_path: Path) -> None:
    given = flags(tmp_path, "--do_train", "--max_steps=1", "--config_overrides=n_layer=1,scale_attn_weights=false")
    load("causal_lm").main(given)

    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["n_layer"], config["scale_attn_weights"]) == (1, False)
    with pytest.raises(SystemExit, match="is for a new model"):
        load("causal_lm").main([*given, "--model_name_or_path", str(tmp_path / "run")])


def test_a_head_of_other_classes_is_made_anew_where_asked_for(load: Any, tmp_path: Path) -> None:
    def table(*verdicts: str) -> list[str]:
        path = tmp_path / f"{len(verdicts)}.csv"
        path.write_text("\n".join(["text,label", *(f"it is {one},{one}" for one in verdicts * 8)]) + "\n", "utf-8")
        return [f"--{split}_file={path}" for split in ("train", "validation")]

    short = ("--do_train", "--max_steps=1", "--max_seq_length=16")
    load("glue").main(flags(tmp_path, *short, *table("good", "bad")))
    more = flags(tmp_path / "more", *short, *table("good", "bad", "dull"), f"--model_name_or_path={tmp_path / 'run'}")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load("glue").main(more)
    figures = load("glue").main([*more, "--ignore_mismatched_sizes"])
    assert figures["train_samples"] == 24


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_script_is_listed_and_can_be_read(name: str) -> None:
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    assert f"[{name}]({name})" in listed or f"`{name}`" in listed
    assert len((EXAMPLES / name).read_text("utf-8").splitlines()) <= 170


def test_hidden_squares_are_whole_and_as_many_as_asked_for(load: Any) -> None:
    hidden = load("masked_images").Hidden(size=32, patch=4, square=8, share=0.5).draw().view(8, 8)

    squares = hidden.view(4, 2, 4, 2).transpose(1, 2).reshape(16, 4)
    assert squares.all(dim=1).sum() == 8
    assert squares.any(dim=1).sum() == 8


def test_names_are_counted_whole(load: Any) -> None:
    spans = load("token_classification").spans

    assert spans(["B-A", "I-A", "O", "B-A", "B-A", "I-B"]) == {(0, 2, "A"), (3, 4, "A"), (4, 5, "A"), (5, 6, "B")}
    assert spans(["O", "O"]) == set()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("glue", "--task_name=sst3", "write one of cola, mnli"),
        ("glue", "--label_column_name=verdict", "write one of the columns text, label"),
        ("glue", "--text_column_names=text,title", "--text_column_names=title: write one of the columns text, label"),
        ("causal_lm", "--model_type=none", "a new model is one of gpt2, llama"),
        ("causal_lm", "--config_overrides=n_layers=1", "n_layers"),
        ("masked_images", "--mask_patch_size=7", "must divide pictures of 32 pixels"),
        ("token_classification", "--text_column_name=none", "no column none"),
    ],
)
def test_what_cannot_be_done_is_told(load: Any, tmp_path: Path, name: str, given: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        load(name).main(flags(tmp_path, "--do_train", given))
