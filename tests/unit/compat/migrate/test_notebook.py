"""Notebooks: code cells become today's, and every other byte stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from surestep.compat.migrate.notebook import migrate_notebook
from surestep.errors import MigrationError

HEAD = "from transformers import Trainer, TrainingArguments"
MAGICS = """%load_ext autoreload
!pip install --quiet \\
    transformers
files = !ls
rate = %env RATE
args = TrainingArguments("out", no_cuda=True)
if args:
    !python train.py --no_cuda
args?
?Trainer
%timeit TrainingArguments("out", no_cuda=True)"""


def notebook(*cells: str | dict[str, Any], indent: int | None = 1, ascii_only: bool = False, **metadata: Any) -> str:
    """A notebook as Jupyter writes it."""
    made = [cell if isinstance(cell, dict) else nbformat.v4.new_code_cell(cell) for cell in cells]
    content = nbformat.v4.new_notebook(cells=made, metadata=metadata)
    nbformat.validate(content)
    written = json.loads(nbformat.writes(content))
    return json.dumps(written, indent=indent, ensure_ascii=ascii_only) + "\n"


def sources(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]


def migrated(text: str, **options: Any) -> str:
    """Return a notebook in today's spelling, which is a notebook still; doing it twice is doing it once."""
    after = migrate_notebook(text, "n.ipynb", **options).after
    nbformat.validate(nbformat.reads(after, as_version=4))
    assert migrate_notebook(after, "n.ipynb", **options).after == after
    return after


def test_cells_are_one_script() -> None:
    text = notebook(HEAD, "args = TrainingArguments('out', no_cuda=True)", "Trainer(m, args, tokenizer=t).tokenizer")

    assert sources(migrated(text)) == [
        HEAD,
        "args = TrainingArguments('out', use_cpu=True)",
        "Trainer(m, args, processing_class=t).tokenizer",
    ]


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_all_else_stays_as_it_was(indent: int | None, ascii_only: bool) -> None:
    words = nbformat.v4.new_markdown_cell("no_cuda=True, größer\n\nTrainingArguments('out', no_cuda=True)")
    output = nbformat.v4.new_output("stream", text="no_cuda=True\n\tü")
    code = nbformat.v4.new_code_cell(
        f"{HEAD}\nargs = TrainingArguments(\n    'ä😀',  # größer\n    no_cuda=True,\n    seed=3,\n)\nprint('/')",
        outputs=[output],
        execution_count=7,
        metadata={"tags": ["no_cuda"]},
    )
    text = notebook(
        words, code, "x = 1\n", indent=indent, ascii_only=ascii_only, kernelspec={"name": "p", "display_name": "P"}
    )

    # One line is another; with the same setting once in Markdown, an output and a tag.
    assert migrated(text) == text.replace("    no_cuda=True,", "    use_cpu=True,")
    assert migrated(text) != text


def test_a_source_may_be_one_text_and_json_escaped_as_it_likes() -> None:
    text = '{"nbformat_minor":5,"nbformat":4,"metadata":{},"cells":[{"id":"a","cell_type":"code","metadata":{},'
    text += '"outputs":[],"execution_count":null,"source":"from transformers import TrainingArguments\\n'
    text += 'a = TrainingArguments(\\"o\\\\/\\", \\u006eo_cuda=True)"}]}'

    assert sources(migrated(text))[0].splitlines()[1] == 'a = TrainingArguments("o\\/", use_cpu=True)'
    assert migrated(text).startswith(text[: text.index("from")])


def test_lines_come_and_go() -> None:
    text = notebook(f"{HEAD}, pipeline\nargs = TrainingArguments(\n    'out',\n    overwrite_output_dir=True,\n)", "x")
    after = migrated(text, imports=True)

    assert sources(after)[0] == (
        "from transformers import pipeline\nfrom surestep import Trainer, TrainingArguments\n"
        "args = TrainingArguments(\n    'out',\n)"
    )
    assert [line for line in text.splitlines() if line not in after.splitlines()] == [
        f'    "{HEAD}, pipeline\\n",',
        '    "    overwrite_output_dir=True,\\n",',
    ]


def test_magics_are_left_alone() -> None:
    shell, timed = "%%bash\npython train.py --no_cuda", "%%time\nTrainingArguments('out', no_cuda=True)"
    migration = migrate_notebook(notebook(HEAD, MAGICS, shell, timed), "n.ipynb")
    line = 'args = TrainingArguments("out", no_cuda=True)\n'

    assert sources(migration.after) == [
        HEAD,
        MAGICS.replace(line, line.replace("no_cuda", "use_cpu")),
        shell,
        timed.replace("no_cuda", "use_cpu"),
    ]
    assert migration.left == []


def test_what_only_looks_like_magic_is_read() -> None:
    text = notebook(HEAD, "rest = (7\n%3)\nargs = TrainingArguments('out', no_cuda=True)\ntext = '''\n!no\n'''")

    assert "use_cpu=True" in sources(migrated(text))[1]


def test_a_cell_that_is_no_python_is_told_and_left() -> None:
    broken = "x = 3\nTrainingArguments('out', no_cuda=True"
    text = notebook(HEAD, broken, "TrainingArguments('out', no_cuda=True)")
    migration = migrate_notebook(text, "n.ipynb")

    assert sources(migration.after) == [HEAD, broken, "TrainingArguments('out', use_cpu=True)"]
    assert [note.text.partition(",")[0] for note in migration.left] == ["cell 2"]
    assert "no Python, so that the cell is left as it is" in migration.left[0].text


def test_notes_name_the_cell_and_the_line_of_the_file() -> None:
    words = nbformat.v4.new_markdown_cell("words")
    text = notebook(
        words, f"{HEAD}\nflag = input()", "\nargs = TrainingArguments('o',\n  evaluate_during_training=flag)"
    )
    migration = migrate_notebook(text, "n.ipynb")

    (note,) = migration.left
    assert note.text.startswith("cell 3, line 3: evaluate_during_training")
    assert "evaluate_during_training=flag" in text.splitlines()[note.line - 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "'n.ipynb' is no notebook: "),
        ("[]", "it has no cells. Open an older one in Jupyter and save it"),
        ('{"worksheets": []}', "it has no cells"),
        (notebook("x <- 3", language_info={"name": "R"}), "is a notebook of r, and no Python"),
        ('{"cells": [{"cell_type": "code"}]}', "a cell without 'source'"),
    ],
)
def test_what_is_no_notebook_is_refused(text: str, message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        migrate_notebook(text, "n.ipynb")


def test_the_command_shows_the_difference_and_writes(tmp_path: Path, migrate: Any, capsys: Any) -> None:
    path = tmp_path / "work" / "train.ipynb"
    path.parent.mkdir()
    text = notebook(
        HEAD, "args = TrainingArguments('out', no_cuda=True)", nbformat.v4.new_markdown_cell("x" * 1_000_001)
    )
    path.write_text(text)

    assert migrate(path.parent) == 0
    said = capsys.readouterr()
    changed = [line for line in said.out.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == [
        "-    \"args = TrainingArguments('out', no_cuda=True)\"",
        "+    \"args = TrainingArguments('out', use_cpu=True)\"",
    ]
    assert "cell 2, line 1: no_cuda is use_cpu=True" in said.err
    assert path.read_text() == text

    assert migrate(path, "--write") == 0
    assert path.read_text() == text.replace("no_cuda", "use_cpu")
    assert migrate(path, "--check") == 0
