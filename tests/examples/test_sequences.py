"""The scripts that translate and summarize run without a network: on rows of their own, on files, on real data."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHARED = ROOT.parent / "shared" / "data"
SCRIPTS = {"translation": ("bleu", "multi30k_en_de"), "summarization": ("rougeL", "scitldr_a")}
EVERYTHING = ["--do_train", "--do_eval", "--do_predict", "--predict_with_generate"]
QUICK = ["--use_cpu", "--disable_tqdm=true", "--report_to=none", "--learning_rate=3e-3", "--lr_scheduler_type=constant"]
SIZES = ["--max_source_length=64", "--max_target_length=32", "--per_device_train_batch_size=16"]
# What the scripts of the same purpose that come with transformers take, besides the arguments of training.
FLAGS = (
    "model_name_or_path", "config_name", "tokenizer_name", "cache_dir", "use_fast_tokenizer", "model_revision",
    "token", "trust_remote_code", "dataset_name", "dataset_config_name", "train_file", "validation_file",
    "test_file", "overwrite_cache", "preprocessing_num_workers", "max_source_length", "max_target_length",
    "val_max_target_length", "pad_to_max_length", "max_train_samples", "max_eval_samples",
    "max_predict_samples", "num_beams", "ignore_pad_token_for_loss", "source_prefix", "forced_bos_token",
)  # fmt: skip
OWN_FLAGS = {
    "translation": ["source_lang", "target_lang"],
    "summarization": ["lang", "text_column", "summary_column", "resize_position_embeddings"],
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that imports a script as Python does when it is run; without real data unless asked for."""

    def script(name: str, *, real_data: bool = False) -> Any:
        monkeypatch.syspath_prepend(EXAMPLES)
        for module in ("common", "sequences", *SCRIPTS):
            monkeypatch.delitem(sys.modules, module, raising=False)
        module = importlib.import_module(name)
        if not real_data:
            monkeypatch.setattr(sys.modules["common"], "SHARED_DATA", tmp_path / "none")
        return module

    return script


def flags(tmp_path: Path, *more: str) -> list[str]:
    return [*QUICK, *SIZES, "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "run"), *more]


def steps(tmp_path: Path) -> int:
    return int(json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_learns_its_own_rows_and_goes_on(load: Any, tmp_path: Path, name: str) -> None:
    script, figure = load(name), SCRIPTS[name][0]
    figures = script.main(flags(tmp_path, *EVERYTHING, "--max_steps", "60", "--save_steps", "60"))
    assert figures[f"eval_{figure}"] > 80
    assert figures["eval_samples"] == figures["predict_samples"] == 12
    written = (tmp_path / "run" / "generated_predictions.txt").read_text().splitlines()
    assert len(written) == 12
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())[f"predict_{figure}"] > 80
    assert steps(tmp_path) == 60

    again = script.main(flags(tmp_path, "--do_train", "--max_steps", "62"))
    assert steps(tmp_path) == 62
    assert again["train_samples"] == 48
    assert "eval_loss" not in again


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_on_real_data(load: Any, tmp_path: Path, name: str) -> None:
    figure, folder = SCRIPTS[name]
    if not (SHARED / folder).is_dir():
        pytest.skip(f"../shared/data/{folder} is not there")
    limits = ["--max_train_samples", "24", "--max_eval_samples", "4", "--max_predict_samples", "3"]
    more = [*EVERYTHING, *limits, "--max_steps", "2", "--num_beams", "2", "--val_max_target_length", "8"]
    figures = load(name, real_data=True).main(flags(tmp_path, *more))
    assert (figures["train_samples"], figures["eval_samples"], figures["predict_samples"]) == (24, 4, 3)
    assert 0 <= figures[f"eval_{figure}"] <= 100
    assert figures["eval_gen_len"] <= 8


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


PAIR = {"translation": {"en": "a red bus", "ro": "un autobuz roșu"}}
REPORT = {"body": "It rained all day and the game was off.", "headline": "No game."}
FILES = {
    "translation": ([PAIR] * 8, ["--source_lang", "en_XX", "--target_lang", "ro_RO"]),
    "summarization": ([REPORT] * 8, ["--text_column", "body", "--summary_column", "headline"]),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_takes_files_and_a_pretrained_model(load: Any, tmp_path: Path, name: str) -> None:
    rows, own = FILES[name]
    script, path = load(name), lines(tmp_path / "rows.json", rows)
    files = ["--train_file", path, "--validation_file", path, "--test_file", path]
    script.main(flags(tmp_path, *files, *own, "--do_train", "--max_steps", "1"))

    start = ["--model_name_or_path", str(tmp_path / "run"), "--forced_bos_token", "</s>", "--source_prefix", "say: "]
    padded = ["--pad_to_max_length", "--num_beams", "2", "--label_smoothing_factor", "0.1", "--max_steps", "2"]
    second = flags(tmp_path / "second", *files, *own, *EVERYTHING, *start, *padded)
    figures = script.main(second)
    assert figures["predict_samples"] == 8
    config = json.loads((tmp_path / "second" / "run" / "generation_config.json").read_text())
    assert config["forced_bos_token_id"] == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_flags_of_the_original_are_there(load: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        load(name).main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    expected = [*FLAGS, *OWN_FLAGS[name], "predict_with_generate", "generation_num_beams", "learning_rate"]
    assert [flag for flag in expected if f"--{flag} " not in shown and f"--{flag}]" not in shown] == []


def test_flags_may_come_from_a_file(load: Any, tmp_path: Path) -> None:
    given = {
        "output_dir": str(tmp_path / "run"),
        "do_train": True,
        "max_steps": 1,
        "use_cpu": True,
        "report_to": "none",
    }
    settings = {**given, "max_source_length": 32, "max_target_length": 32, "disable_tqdm": True}
    (tmp_path / "flags.json").write_text(json.dumps(settings))
    assert load("translation").main([str(tmp_path / "flags.json")])["train_samples"] == 48


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("translation", [], "There is nothing to do. Pass --do_train, --do_eval, --do_predict"),
        ("translation", ["--do_train", "--train_file", "rows.xml"], "The files rows.xml are to be of one kind"),
        ("translation", ["--do_train", "--forced_bos_token", "ro"], "--forced_bos_token=ro: the tokenizer has no such"),
        ("summarization", ["--do_train", "--text_column", "body"], "--text_column=body: write one of the columns"),
    ],
)
def test_what_cannot_be_done_is_told(load: Any, tmp_path: Path, name: str, given: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        load(name).main(flags(tmp_path, *given))


def test_a_missing_split_is_told(load: Any, tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.json", [PAIR] * 4)
    given = ["--train_file", path, "--target_lang", "ro", "--do_predict"]
    with pytest.raises(SystemExit, match=r"--do_predict needs a split 'test'\. The data have: train"):
        load("translation").main(flags(tmp_path, *given))


def test_a_script_runs_from_anywhere(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.json", [PAIR] * 8)
    given = flags(tmp_path, "--train_file", path, "--target_lang", "ro", "--do_train", "--max_steps", "1")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "translation.py"), *given],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "train_samples" in done.stdout


@pytest.mark.parametrize("name", ["common", "sequences", *SCRIPTS])
def test_a_script_can_be_read(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 160
