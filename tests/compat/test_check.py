"""`surestep exec --check`: what a script takes of the original, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from surestep.cli import console
from surestep.cli.main import main
from surestep.compat.finding import Finding, Verdict
from surestep.compat.reading import file_of_module, read_script
from surestep.compat.refused import RefusedName
from surestep.compat.verdicts import all_findings, names_refused
from surestep.errors import NotServedError
from tests.compat.running import Ended, execute

REFUSED_NAME = "from transformers.trainer_jit_checkpoint import CheckpointManager\n"


def findings(folder: Path, text: str, **beside: str) -> list[Finding]:
    for name, source in beside.items():
        (folder / f"{name}.py").write_text(source)
    script = folder / "script.py"
    script.write_text(text)
    return all_findings(read_script(script))


def becomes(folder: Path, text: str, **beside: str) -> dict[str, Verdict]:
    return {finding.what: finding.verdict for finding in findings(folder, text, **beside)}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("from transformers import Trainer", "Trainer"),
        ("from transformers import Trainer as T", "Trainer"),
        ("import transformers\nclass Mine(transformers.Trainer): pass", "Trainer"),
        ("import transformers as t\nt.Trainer(None)", "Trainer"),
        ("import transformers\nprint(transformers.Trainer.train.__doc__)", "Trainer"),
        ("from transformers.trainer import Trainer", "trainer.Trainer"),
        ("from transformers import trainer\nx = trainer.Trainer", "trainer.Trainer"),
        ("import transformers.trainer\nx = transformers.trainer.Trainer", "trainer.Trainer"),
        ("import transformers.trainer as t\nx = t.Trainer", "trainer.Trainer"),
        ("def main():\n    if True:\n        from transformers import Trainer", "Trainer"),
    ],
)
def test_a_name_is_found_however_it_is_taken(tmp_path: Path, text: str, what: str) -> None:
    assert becomes(tmp_path, text) == {what: Verdict.SERVED}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from transformers import AutoModel, BertConfig\nimport torch, json\nfrom os import path", {}),
        ("from transformers.utils import logging", {}),
        (
            "from transformers.trainer import is_torch_xla_available",
            {"trainer.is_torch_xla_available": Verdict.ORIGINAL},
        ),
        (
            "from transformers.trainer import ALL_LAYERNORM_LAYERS, nested_concat",
            {"trainer.ALL_LAYERNORM_LAYERS": Verdict.ORIGINAL, "trainer.nested_concat": Verdict.SERVED},
        ),
        ("from transformers.trainer import *", {"trainer.*": Verdict.ORIGINAL}),
        (REFUSED_NAME, {"trainer_jit_checkpoint.CheckpointManager": Verdict.REFUSED}),
        ("from transformers import TFTrainer", {"TFTrainer": Verdict.REFUSED}),
        ("from transformers.trainer_utils import nothing", {"trainer_utils.nothing": Verdict.REFUSED}),
        ("from transformers import AdamW", {"AdamW": Verdict.SERVED}),
        (
            "from transformers.integrations import TensorBoardCallback, deepspeed, run_hp_search_ray",
            {"integrations.TensorBoardCallback": Verdict.SERVED, "integrations.run_hp_search_ray": Verdict.REFUSED},
        ),
        ("from transformers.data import DataCollatorWithPadding", {"data.DataCollatorWithPadding": Verdict.SERVED}),
        ("from transformers import SequentialDistributedSampler", {"SequentialDistributedSampler": Verdict.REFUSED}),
        ("from transformers import TFTrainer, Trainer", {"TFTrainer": Verdict.REFUSED, "Trainer": Verdict.SERVED}),
    ],
)
def test_names_are_judged(tmp_path: Path, text: str, expected: dict[str, Verdict]) -> None:
    assert becomes(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("call", "what", "verdict", "why"),
    [
        ("TrainingArguments('x', learning_rate=1e-3, report_to='none')", None, None, ""),
        (
            "TrainingArguments('x', evaluation_strategy='no')",
            "evaluation_strategy",
            Verdict.DIFFERENTLY,
            "eval_strategy='no'",
        ),
        (
            "TrainingArguments('x', evaluation_strategy=word)",
            "evaluation_strategy",
            Verdict.DIFFERENTLY,
            "write eval_strategy",
        ),
        ("TrainingArguments('x', overwrite_output_dir=word)", "overwrite_output_dir", Verdict.DIFFERENTLY, "no effect"),
        ("TrainingArguments('x', fp16_backend='apex')", "fp16_backend", Verdict.REFUSED, "gone"),
        ("TrainingArguments('x', fp16_backend=word)", "fp16_backend", Verdict.REFUSED, "apex"),
        ("TrainingArguments('x', parallelism_config={'tp_size': 2})", None, None, ""),
        ("TrainingArguments('x', leaning_rate=1e-3)", "leaning_rate", Verdict.REFUSED, "Did you mean learning_rate"),
        ("TrainingArguments('x', leaning_rate=word)", "leaning_rate", Verdict.REFUSED, "Did you mean learning_rate"),
        (
            "TrainingArguments('x', load_best_model_at_end=True)",
            "load_best_model_at_end",
            Verdict.REFUSED,
            "eval_strategy",
        ),
        ("TrainingArguments('x', load_best_model_at_end=True, eval_strategy=word)", None, None, ""),
        ("Trainer(None, tokenizer=word)", "tokenizer", Verdict.DIFFERENTLY, "processing_class"),
        ("Trainer(None, callback=word)", "callback", Verdict.REFUSED, "callbacks"),
        ("Mine('x', weight=1.0, learning_rate=1e-3)", None, None, ""),
        (
            "Mine('x', weight=1.0, evaluation_strategy='no')",
            "evaluation_strategy",
            Verdict.DIFFERENTLY,
            "eval_strategy",
        ),
    ],
)
def test_settings_are_judged(tmp_path: Path, call: str, what: str | None, verdict: Verdict | None, why: str) -> None:
    text = (
        "from transformers import Trainer, TrainingArguments\nword = input()\n"
        f"class Mine(TrainingArguments):\n    weight: float = 1.0\n{call}\n"
    )
    found = [finding for finding in findings(tmp_path, text) if "(" in finding.what]

    assert [(re.findall(r"\((.*)\)", one.what)[0], one.verdict) for one in found] == ([(what, verdict)] if what else [])
    assert all(why in one.why and one.place == "script.py:5" for one in found)


def test_a_setting_that_nothing_serves_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surestep.config import unserved

    monkeypatch.setitem(unserved.UNSERVED, "log_level", unserved.Unserved("X9", lambda value: value == "passive"))
    found = findings(tmp_path, "import transformers\ntransformers.TrainingArguments('x', log_level='debug')\n")

    assert [(one.what, one.verdict) for one in found][1:] == [("TrainingArguments(log_level)", Verdict.REFUSED)]
    assert "X9" in found[1].why


def test_an_override_that_nothing_calls_is_refused(tmp_path: Path) -> None:
    text = (
        "from transformers import Trainer\n"
        "class Base(Trainer):\n    def compute_loss(self, model, inputs): ...\n"
        "class Mine(Base):\n    def _run_epoch(self): ...\n"
        "class Other:\n    def _run_epoch(self): ...\n"
    )
    found = [one for one in findings(tmp_path, text) if one.verdict is Verdict.REFUSED]

    assert [(one.what, one.place) for one in found] == [("Mine._run_epoch", "script.py:4")]
    assert "training_step" in found[0].why


def test_modules_beside_the_script_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from .deep import *\n")
    (tmp_path / "package" / "deep.py").write_text(REFUSED_NAME)
    found = findings(
        tmp_path,
        "import helper\nimport package\n",
        helper="from transformers import Trainer\nfrom transformers import Trainer\nimport script\n",
        unused=REFUSED_NAME,
    )

    assert [(one.what, one.place) for one in found] == [
        ("Trainer", "helper.py:1, 2"),
        ("trainer_jit_checkpoint.CheckpointManager", "package/deep.py:1"),
    ]


def test_names_alone_are_judged_without_importing_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{REFUSED_NAME}from transformers import TFTrainer, Trainer, set_seed\nimport transformers\n")
    monkeypatch.setattr("importlib.import_module", None)

    assert [one.what for one in names_refused(read_script(script))] == ["trainer_jit_checkpoint.CheckpointManager"]


def test_the_file_of_a_module_is_found_as_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package" / "inner").mkdir(parents=True)
    for name in ("package/__init__.py", "package/tool.py", "package/inner/__main__.py", "alone.py"):
        (tmp_path / name).write_text("raise AssertionError('nothing is run')\n")
    monkeypatch.chdir(tmp_path)

    assert file_of_module("alone") == tmp_path / "alone.py"
    assert file_of_module("package.tool") == tmp_path / "package" / "tool.py"
    assert file_of_module("package.inner") == tmp_path / "package" / "inner" / "__main__.py"
    assert [file_of_module(name) for name in ("package", "package.gone", "alone.gone", "gone")] == [None] * 4


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str | None], Ended]:
    """Run `surestep exec --check` on a script within this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    console.output.cache_clear()
    console.messages.cache_clear()

    def run(name: str, text: str | None) -> Ended:
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(["exec", "--check", name])
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_the_table_says_what_becomes_of_what(check: Callable[[str, str | None], Ended]) -> None:
    ended = check("good.py", "from transformers import Trainer, AutoModel, set_seed\n")

    assert ended.code == 0, ended.err
    assert re.search(r"Trainer +good\.py:1 +served +surestep\.trainer\.trainer", ended.out)
    assert "AutoModel" not in ended.out
    assert "Everything is served." in ended.out


def test_the_code_is_1_where_something_is_refused(check: Callable[[str, str | None], Ended]) -> None:
    ended = check("bad.py", f"{REFUSED_NAME}print('it runs')\n")

    assert ended.code == 1
    assert re.search(r"CheckpointManager +bad\.py:1 +refused +it reaches into", ended.out)
    assert "1 of 1 refused." in ended.out
    assert "it runs" not in ended.out


def test_a_script_without_the_original_is_told_so(check: Callable[[str, str | None], Ended]) -> None:
    ended = check("none.py", "import torch\n")

    assert (ended.code, ended.out) == (0, "none.py takes nothing that is replaced.\n")


def test_what_cannot_be_read_is_no_success(check: Callable[[str, str | None], Ended]) -> None:
    broken, missing = check("broken.py", "def (\n"), check("gone.py", None)

    assert broken.code == 1
    assert "broken.py" in broken.err
    assert missing.code == 2
    assert "no file to read for 'gone.py'" in missing.err


def test_a_name_that_nobody_serves_is_told_before_the_work_begins(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"print('working', flush=True)\n{REFUSED_NAME}\nCheckpointManager()\n")
    ended = execute("script.py", folder=tmp_path)
    lines = ended.err.splitlines()

    assert ended.code == 1
    assert ended.out == "working\n"
    told = "WARNING surestep: script.py:2: trainer_jit_checkpoint.CheckpointManager is not served: it reaches into"
    assert lines[1].startswith(told)
    assert lines[-1].startswith("surestep.errors.NotServedError: transformers.trainer_jit_checkpoint.")
    first = next(line.strip() for line in lines if "File " in line)
    assert first == f'File "{tmp_path / "script.py"}", line 4, in <module>'


def test_a_script_that_never_reaches_the_name_runs(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"import sys\nif len(sys.argv) > 5:\n    {REFUSED_NAME}print('done')\n")
    ended = execute("script.py", folder=tmp_path)

    assert (ended.code, ended.out) == (0, "done\n")
    assert "is not served" in ended.err


def test_a_refused_name_can_be_held_and_not_used() -> None:
    name = RefusedName("transformers.trainer.Gone", "there is none; take Other")

    assert repr(name) == "<transformers.trainer.Gone is not served: there is none; take Other.>"
    assert not isinstance(name, name)
    assert not issubclass(int, name)
    assert not hasattr(name, "method")
    with pytest.raises(NotServedError, match=r"Gone is not served: there is none; take Other\."):
        name(1, key=2)
    with pytest.raises(NotServedError, match="take Other"):
        exec("class Mine(name): pass", {"name": name})
    with pytest.raises(AttributeError, match="take Other"):
        _ = name.method
