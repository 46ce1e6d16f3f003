"""DVCLive: what its tables hold."""

import csv
import json
import subprocess
import sys

import pytest

pytest.importorskip("dvclive", reason="needs dvclive: make test-trackers")

from tests.trackers.harness import KILLED, assert_no_network, assert_once, curves_of, expected, run, script


def renamed(name):
    return name.replace("train_", "train/").replace("eval_", "eval/")


def curves(folder):
    tables = folder / "dvclive" / "plots" / "metrics"
    points = []
    for table in tables.rglob("*.tsv"):
        name = table.relative_to(tables).with_suffix("").as_posix()
        with table.open(newline="") as file:
            points += [(name, int(row["step"]), row[table.stem]) for row in csv.DictReader(file, delimiter="\t")]
    return curves_of(points)


def wanted(folder):
    return {renamed(name): points for name, points in expected(folder).items()}


def test_a_run_is_written_as_it_was_logged(tmp_path):
    run(tmp_path, "dvclive", eval_strategy="steps", eval_steps=4)
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)
    assert json.loads((tmp_path / "dvclive" / "metrics.json").read_text())["step"] == 12
    assert "max_steps: 12" in (tmp_path / "dvclive" / "params.yaml").read_text()
    assert_no_network(tmp_path)


@pytest.mark.parametrize("kill", [6, 8])
def test_a_killed_run_goes_on_with_every_step_once(tmp_path, kill):
    settings = {"eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "dvclive", expect=KILLED, kill_at=kill, **settings)
    run(tmp_path, "dvclive", resume=True, **settings)
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)


def cut_row(folder):
    """Leave a row of the last entry out, and the end of another, as a full disk or a fall of the machine do."""
    tables = folder / "dvclive" / "plots" / "metrics"
    *before, _ = (tables / "epoch.tsv").read_text().splitlines(keepends=True)
    (tables / "epoch.tsv").write_text("".join(before))
    (tables / "learning_rate.tsv").write_text((tables / "learning_rate.tsv").read_text()[:-3])


def cut_head(folder):
    (folder / "dvclive" / "plots" / "metrics" / "epoch.tsv").write_text("ste")


def cut_summary(folder):
    summary = folder / "dvclive" / "metrics.json"
    summary.write_text(summary.read_text()[:-9])


def empty_summary(folder):
    (folder / "dvclive" / "metrics.json").write_text("")


def cut_parameters(folder):
    parameters = folder / "dvclive" / "params.yaml"
    parameters.write_text(parameters.read_text()[:-9])


def empty_parameters(folder):
    (folder / "dvclive" / "params.yaml").write_text("")


@pytest.mark.parametrize("cut", [cut_row, cut_head, cut_summary, empty_summary, cut_parameters, empty_parameters])
def test_what_a_killed_client_was_writing_is_completed(tmp_path, cut):
    settings = {"eval_strategy": "steps", "eval_steps": 4}
    run(tmp_path, "dvclive", expect=KILLED, kill_at=8, **settings)
    cut(tmp_path)
    printed = run(tmp_path, "dvclive", resume=True, **settings)
    assert_once(curves(tmp_path), wanted(tmp_path), exact=renamed)
    assert json.loads((tmp_path / "dvclive" / "metrics.json").read_text())["step"] == 12
    assert "max_steps: 12" in (tmp_path / "dvclive" / "params.yaml").read_text()
    assert "dropped" in printed or "made anew" in printed


def test_an_evaluation_after_the_training_is_added(tmp_path):
    script(tmp_path, 'train(report_to="dvclive").evaluate()')
    assert [step for step, _ in curves(tmp_path)["eval/loss"]] == [8]
    assert [step for step, _ in curves(tmp_path)["loss"]] == list(range(1, 9))


def test_the_model_is_an_artifact(tmp_path):
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    run(tmp_path, "dvclive", env={"HF_DVCLIVE_LOG_MODEL": "1"}, max_steps=2)
    assert (tmp_path / "out" / "last" / "model.safetensors").exists()
    assert "last" in (tmp_path / "dvc.yaml").read_text()


def test_a_live_of_the_scripts_own(tmp_path):
    script(
        tmp_path,
        """
        from dvclive import Live
        from surestep import DVCLiveCallback, Trainer, TrainingArguments
        from surestep.errors import ArgumentError
        live = Live(dir="mine", save_dvc_exp=False)
        args = TrainingArguments("out", max_steps=2, logging_steps=1, use_cpu=True, disable_tqdm=True)
        Trainer(program.Line(), args, train_dataset=program.samples(20), callbacks=[DVCLiveCallback(live)]).train()
        try:
            DVCLiveCallback("mine")
        except ArgumentError as error:
            print(error)
        """,
    )
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["step"] == 2
