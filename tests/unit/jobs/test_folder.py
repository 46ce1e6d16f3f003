"""The folder of a run: what it holds, who may work in it, what moved aside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from surestep.errors import CheckpointError, JobError
from surestep.jobs.folder import RunFolder, differences, write_json
from surestep.jobs.job import Job, make_job


def _job(**changes: object) -> Job:
    return make_job({"task": "image_classification", "data": "sklearn:digits", **changes}, "digits")


def test_a_run_begins_and_ends_with_its_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.record() is None
    assert folder.results() is None
    folder.begin(_job(), "abc")
    record = folder.record()
    assert record is not None
    assert differences(record, _job(), "abc") == []
    folder.finish({"steps": 3})
    assert folder.results() == {"format": 1, "steps": 3}
    folder.reopen()
    assert folder.results() is None
    assert (tmp_path / "results.old.json").is_file()


def test_steps_of_checkpoints_are_found_in_order(tmp_path: Path) -> None:
    for name in ("checkpoint-20", "checkpoint-100", "checkpoint-3", "checkpoint-x", "other-5"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert RunFolder(tmp_path).steps_saved() == [3, 20, 100]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"arguments": {"learning_rate": 0.1}}, ["arguments.learning_rate: not given there, 0.1 now"]),
        ({"model": {"width": 8}}, ["model.width: 32 there, 8 now"]),
        ({"metrics": ["accuracy"]}, ["metrics: ['accuracy', 'macro_f1'] there, ['accuracy'] now"]),
        ({"arguments": {"logging_steps": 3, "disable_tqdm": True, "dataloader_num_workers": 2}}, []),
        ({"arguments": {"per_device_eval_batch_size": 64, "save_steps": 7, "on_save_error": "stop"}}, []),
        ({"arguments": {"max_time": "2h"}}, ["arguments.max_time: not given there, '2h' now"]),
        ({"arguments": {"push_to_hub": True}}, ["arguments.push_to_hub: not given there, True now"]),
        ({"name": "other", "output_dir": "elsewhere"}, []),
    ],
)
def test_differences_name_what_changes_results(tmp_path: Path, changes: dict[str, object], expected: list[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(_job(), "abc")
    record = folder.record()
    assert record is not None
    assert differences(record, _job(**changes), "abc") == expected


def test_changed_data_is_a_difference(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(_job(), "abc")
    record = folder.record()
    assert record is not None
    assert differences(record, _job(), "abd") == ["data: the files have changed since that run began"]


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is damaged"), ("[]", "is damaged"), ("{}", "is damaged"), ('{"format": 99}', "has format 99")],
)
def test_damaged_files_are_named_with_what_to_do(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"job\.json {said}.*--fresh"):
        RunFolder(tmp_path).record()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "absent").check_free()
    RunFolder(tmp_path).check_free()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(JobError, match=r"'thesis\.txt' among them"):
        RunFolder(tmp_path).check_free()
    with pytest.raises(JobError, match="is a file"):
        RunFolder(tmp_path / "thesis.txt").check_free()


def test_moving_aside_takes_the_first_free_name_and_loses_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.move_aside() is None
    for number in (1, 2):
        folder.path.mkdir()
        (folder.path / "x").write_text(str(number))
        assert folder.move_aside() == tmp_path / f"run.old-{number}"
    assert [(tmp_path / f"run.old-{number}" / "x").read_text() for number in (1, 2)] == ["1", "2"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    other = (
        "import sys; from pathlib import Path; from surestep.errors import JobError; "
        "from surestep.jobs.folder import RunFolder\n"
        "try:\n"
        "    with RunFolder(Path(sys.argv[1])).locked(): print('entered')\n"
        "except JobError as error: print(error)\n"
    )
    with folder.locked():
        (folder.path / "x").write_text("")
        said = subprocess.run([sys.executable, "-c", other, folder.path], capture_output=True, text=True, check=True)
        assert said.stdout.startswith(f"{folder.path} is being written to by process {os.getpid()} ")
        assert "Give each run its own output_dir" in said.stdout
    said = subprocess.run([sys.executable, "-c", other, folder.path], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "entered"


def test_a_folder_that_moves_aside_while_it_is_locked_is_free_afterwards(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with folder.locked():
        aside = folder.move_aside()
    assert aside is not None
    for path in (aside, folder.path):
        with RunFolder(path).locked():
            assert path.is_dir()


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "run")
    with pytest.raises(JobError, match=r"output_dir '.*/file/run' cannot be written to \(.*Write another folder"):
        folder.locked().__enter__()


def test_a_run_that_was_refused_leaves_no_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(JobError, match="refused"), folder.locked():
        raise JobError("refused")
    assert not folder.path.exists()


def test_lists_of_numbers_take_one_line_and_texts_stay_as_they_are(tmp_path: Path) -> None:
    content = {"rows": [[1, 2], [3.5, -4e-10]], "text": "[1,  2]", "names": ["a", "b"], "empty": []}
    write_json(tmp_path / "x.json", content)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == content
    assert "    [3.5, -4e-10]\n" in text


def test_json_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
