"""surestep verify, inspect and diff, on checkpoints of ours and of the original's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.conftest import Ended
from tests.small import line, quick

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    quick(folder, save_strategy="steps", save_steps=2, max_steps=4, logging_steps=1).train()
    return folder


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the original's."""
    import transformers
    from tests.small import Points

    folder = tmp_path_factory.mktemp("stock")
    quiet: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "report_to": "none"}
    args = transformers.TrainingArguments(str(folder), save_steps=2, max_steps=2, **quiet)
    transformers.Trainer(line(), args, train_dataset=Points()).train()
    return folder / "checkpoint-2"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


# verify


def test_a_run_that_is_whole(here: Run, run: Path) -> None:
    verified = here("verify", run)

    assert verified.code == 0, verified.err
    assert "checkpoint-2" in verified.out
    assert verified.out.count("whole") == 2


def test_a_checkpoint_shows_its_files(here: Run, run: Path) -> None:
    (run / "checkpoint-4" / "note.txt").write_text("mine")
    verified = here("verify", run / "checkpoint-4")

    assert verified.code == 0
    assert "model.safetensors" in verified.out
    assert "not listed in the manifest" in next(line for line in verified.out.splitlines() if "note.txt" in line)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "its checksum differs"),
        (lambda path: path.write_bytes(b""), "has 0 bytes instead of"),
        (Path.unlink, "is missing"),
    ],
    ids=["a flipped bit", "cut short", "gone"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.json", "trainer_state.json", "random_0.safetensors"])
def test_damage_is_told_file_by_file(here: Run, run: Path, damage: Any, said: str, name: str) -> None:
    damage(run / "checkpoint-4" / name)
    verified = here("verify", run, "--json")

    assert verified.code == 1
    good, bad = json.loads(verified.out)
    assert (good["verdict"], bad["verdict"]) == ("whole", "damaged")
    assert [(file["name"], said in file["problem"]) for file in bad["files"] if file["problem"]] == [(name, True)]


def test_a_damaged_manifest_is_told(here: Run, run: Path) -> None:
    manifest = run / "checkpoint-4" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 4', '"step": 5'))
    verified = here("verify", run / "checkpoint-4")

    assert verified.code == 1
    assert "manifest.json is damaged: its own checksum differs" in verified.out


def test_a_checkpoint_of_the_originals(here: Run, stock: Path, tmp_path: Path) -> None:
    verified = here("verify", stock)
    assert verified.code == 0, verified.out
    assert "whole, as far as can be told" in verified.out

    copy = Path(shutil.copytree(stock, tmp_path / "copy"))
    (copy / "optimizer.pt").write_bytes((copy / "optimizer.pt").read_bytes()[:-200])
    damaged = here("verify", copy)
    assert damaged.code == 1
    assert "optimizer.pt is damaged" in damaged.out


def test_what_is_no_folder_or_no_checkpoint_is_an_error(here: Run, tmp_path: Path) -> None:
    assert "is no folder" in here("verify", tmp_path / "nowhere").err
    (tmp_path / "empty").mkdir()
    assert here("verify", tmp_path / "nowhere").code == 2
    assert here("verify", tmp_path / "empty").code == 1
    # 1 would say that they differ.
    assert here("diff", tmp_path / "nowhere", tmp_path / "nowhere").code == 2


# inspect


def test_what_a_checkpoint_holds(here: Run, trained: Path) -> None:
    shown = here("inspect", trained / "checkpoint-4")

    assert shown.code == 0, shown.err
    for text in (
        "4 of 4",
        "seed 42, epoch 0, samples 16",
        "Line, 2 tensors, 4 numbers",
        "AdamW",
        "layer.weight",
        "1 x 3",
    ):
        assert text in shown.out
    assert "per_device_train_batch_size" not in shown.out
    assert "per_device_train_batch_size" in here("inspect", trained / "checkpoint-4", "--all").out


def test_what_a_checkpoint_holds_as_json(here: Run, trained: Path) -> None:
    found = json.loads(here("inspect", trained / "checkpoint-2", "--json").out)

    assert (found["step"], found["epoch"], found["position"]["samples"]) == (2, 0.4, 8)
    assert found["tensors"] == [
        {"name": "layer.bias", "dtype": "float32", "shape": [1], "bytes": 4},
        {"name": "layer.weight", "dtype": "float32", "shape": [1, 3], "bytes": 12},
    ]
    assert found["optimizer"]["name"] == "AdamW"
    assert found["optimizer"]["groups"][0]["lr"] == pytest.approx(5e-5 * 2 / 4)
    # Two moments and a count for each of two parameters.
    assert found["parts"]["optimizer"] == {"tensors": 6, "bytes": 2 * 16 + 2 * 4}
    assert found["arguments"]["max_steps"] == 4
    assert found["origin"]["processes"] == 1


def test_what_a_checkpoint_of_the_originals_holds(here: Run, stock: Path) -> None:
    found = json.loads(here("inspect", stock, "--json").out)

    assert found["step"] == 2
    assert {row["name"] for row in found["tensors"]} == {"layer.weight", "layer.bias"}
    assert found["parts"]["optimizer"]["tensors"] == 6
    assert found["origin"] is found["arguments"] is None


def test_a_run_is_no_checkpoint(here: Run, trained: Path) -> None:
    refused = here("inspect", trained)

    assert refused.code == 2
    assert "checkpoint-2, checkpoint-4: name one of them" in refused.err


# diff


def test_a_checkpoint_equals_itself_and_its_copy(here: Run, run: Path, trained: Path) -> None:
    same = here("diff", trained / "checkpoint-4", run / "checkpoint-4")

    assert same.code == 0, same.out
    assert same.out.strip() == "Nothing differs."


def test_the_same_training_in_another_folder_is_equal(here: Run, trained: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "logging_steps": 1}
    quick(tmp_path / "again", **settings, run_name="again").train()
    same = here("diff", trained / "checkpoint-4", tmp_path / "again" / "checkpoint-4")

    assert same.code == 0, same.out
    assert "the checkpoints are equal" in same.out
    assert "run_name" in same.out


def test_two_steps_of_a_run_differ(here: Run, trained: Path) -> None:
    different = here("diff", trained / "checkpoint-2", trained / "checkpoint-4", "--json")

    assert different.code == 1
    found = {(one["part"], one["name"]): one for one in json.loads(different.out)["differences"]}
    one, other = (load_file(trained / f"checkpoint-{step}" / "model.safetensors") for step in (2, 4))
    distance = float((one["layer.weight"].double() - other["layer.weight"].double()).abs().max())
    assert found["weights", "layer.weight"]["distance"] == distance
    assert found["trainer state", "global_step"]["second"] == "4"
    assert ("optimizer", "state.layer.weight.exp_avg") in found
    assert ("arguments", "max_steps") not in found


def test_one_bit_and_one_missing_tensor_are_seen(here: Run, run: Path, trained: Path) -> None:
    path = run / "checkpoint-4" / "model.safetensors"
    tensors = load_file(path)
    weight = tensors["layer.weight"].clone()
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    save_file({"layer.weight": weight}, path)
    shown = here("diff", trained / "checkpoint-4", run / "checkpoint-4", "--json")

    assert shown.code == 1
    found = {one["name"]: one for one in json.loads(shown.out)["differences"]}
    assert found.keys() == {"layer.weight", "layer.bias"}
    assert 0 < found["layer.weight"]["distance"] < 1e-6
    assert found["layer.bias"]["second"] == "missing"


@pytest.mark.parametrize(
    ("changed", "shown"), [(torch.nan, "inf"), (-0.0, "0.0")], ids=["no number", "the sign of nothing"]
)
def test_values_that_compare_in_odd_ways(here: Run, run: Path, trained: Path, changed: float, shown: str) -> None:
    for folder, value in ((trained, 0.0), (run, changed)):
        copy = Path(shutil.copytree(trained / "checkpoint-4", run / f"of-{folder.name}"))
        save_file({"layer.weight": torch.full((1, 3), value), "layer.bias": torch.ones(1)}, copy / "model.safetensors")
    different = here("diff", run / f"of-{trained.name}", run / f"of-{run.name}", "--json")

    assert different.code == 1
    (found,) = json.loads(different.out)["differences"]
    assert str(found["distance"]) == shown


def test_a_part_that_one_lacks(here: Run, run: Path, trained: Path) -> None:
    for path in (run / "checkpoint-4").glob("optimizer.*"):
        path.unlink()
    different = here("diff", trained / "checkpoint-4", run / "checkpoint-4")

    assert different.code == 1
    assert "optimizer: 1 differ" in different.out


def test_long_tables_are_cut_unless_all_is_asked_for(here: Run, trained: Path, tmp_path: Path) -> None:
    for name, value in (("one", 0.0), ("other", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        save_file({f"weight{i:02}": torch.full((1,), value) for i in range(40)}, folder / "model.safetensors")
    cut = here("diff", tmp_path / "one", tmp_path / "other").out
    whole = here("diff", tmp_path / "one", tmp_path / "other", "--all").out

    assert "weight39" not in cut
    assert "and 15 more; --all shows them" in cut
    assert "weight39" in whole


def test_the_commands_stand_in_the_order_of_their_use(here: Run) -> None:
    shown = here("--help").out
    places = [shown.index(f" {name} ") for name in ("run", "plan", "verify", "inspect", "diff", "doctor", "exec")]

    assert places == sorted(places)


def test_the_command_itself(surestep: Run, run: Path) -> None:
    flip(run / "checkpoint-4" / "model.safetensors")
    ended = surestep("verify", run)

    assert ended.code == 1
    assert "model.safetensors is damaged: its checksum differs" in ended.out
