"""The small commands, and how quickly the command line answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.cli.conftest import DIGITS, EXAMPLES, Ended

from surestep.cli import checkup
from surestep.cli.checkup import Findings
from surestep.errors import DataError, JobError
from surestep.jobs import run as jobs_run
from surestep.jobs.run import Request

Run = Callable[..., Ended]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["version"], ["run", "nothere.yaml"]])
def test_what_needs_no_training_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from surestep.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert said.stdout.splitlines()[-1] == "HEAVY []"


def test_the_installed_command_knows_its_version() -> None:
    script = Path(sys.executable).with_name("surestep")
    if not script.is_file():
        pytest.skip("surestep is not installed as a command beside this Python")
    said = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"surestep {version('surestep')}\n"


def test_a_misspelt_command_is_answered(here: Run) -> None:
    refused = here("runn")
    assert refused.code == 2
    assert "run" in refused.err
    assert "Traceback" not in refused.err


def test_the_schema_describes_every_block_and_argument(here: Run, tmp_path: Path) -> None:
    from surestep import TrainingArguments

    printed = here("schema")
    assert printed.code == 0, printed.err
    schema = json.loads(printed.out)
    assert schema["required"] == ["task", "data"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert set(properties) == {"name", "output_dir", "task", "data", "model", "metrics", "arguments", "search"}
    described = properties["arguments"]["properties"]
    assert set(described) == {field.name for field in fields(TrainingArguments) if field.init} - {"output_dir"}
    assert described["learning_rate"]["default"] == 5e-5
    assert described["learning_rate"]["type"] == "number"
    lacking = [name for name, field in described.items() if not field.get("description")]
    assert lacking == []
    assert here("schema", "--output", "schema.json").code == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == schema
    refused = here("schema", "--output", "nowhere/schema.json")
    assert refused.code == 1
    assert "'nowhere/schema.json' cannot be written (No such file or directory)" in refused.err


@pytest.mark.parametrize("job", [DIGITS, *sorted(EXAMPLES.glob("messages*.yaml"))], ids=lambda path: path.stem)
def test_the_examples_have_only_keys_of_the_schema(here: Run, job: Path) -> None:
    from surestep.jobs.reading import read_declaration

    schema = json.loads(here("schema").out)
    declared = read_declaration(job)
    assert set(declared) <= set(schema["properties"])
    assert set(declared["arguments"]) <= set(schema["properties"]["arguments"]["properties"])


def test_the_doctor_exits_with_1_where_training_cannot_work(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = Findings({"torch": "0.4"}, ["the disk is nearly full."], ["torch 0.4 is too old."])
    monkeypatch.setattr(checkup, "examine", lambda: findings)
    said = here("doctor")
    assert said.code == 1
    assert said.err == "warning: the disk is nearly full.\nerror: torch 0.4 is too old.\n"
    assert "Nothing wrong" not in said.out


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (JobError("not like this"), 2, "error: not like this\n"),
        (DataError("broken in the middle"), 1, "error: broken in the middle\n"),
    ],
)
def test_exit_codes_tell_what_happened(
    here: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, said: str
) -> None:
    def fail(request: Request) -> None:
        raise raised

    monkeypatch.setattr(jobs_run, "run_job", fail)
    ended = here("run", DIGITS)
    assert (ended.code, ended.err) == (code, said)


def test_the_doctor_names_versions_and_device(here: Run) -> None:
    import torch

    said = here("doctor")
    assert said.code == 0, said.err
    for text in ("python", "surestep", f"torch {torch.__version__.split('+')[0]}", "cores", "disk"):
        assert text in " ".join(said.out.split())
