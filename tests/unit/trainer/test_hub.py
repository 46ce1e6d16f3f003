"""Pushes to a hub that is a server on this machine, through the real client: what arrives, and what if it does not."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
import yaml
from tests.hub_server import Answer, FakeHub, serving
from tests.small import quick

import surestep
import surestep.optional
from surestep.errors import ArgumentError, MissingPackageError
from surestep.trainer.outbox import NAME

# The client's own, about its own call.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "hf_averysecrettoken"
PUSHES = {"push_to_hub": True, "hub_token": TOKEN, "save_strategy": "steps", "save_steps": 2}
MODEL = {"model.safetensors", "training_args.json", "train_log.jsonl"}
Log = pytest.LogCaptureFixture
Train = Callable[..., surestep.Trainer]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client talks to whom a test says, by plain HTTP, and knows no login of this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving(FakeHub()) as found:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.url)
        yield found


@pytest.fixture
def nowhere(client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def _logs(caplog: Log) -> None:
    caplog.set_level(logging.WARNING, logger="surestep")


def text_of(caplog: Log) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("surestep"))


def trained(folder: Path, **settings: Any) -> surestep.Trainer:
    """Train 5 steps of the small model, with saves after 2, 4 and 5."""
    trainer = quick(folder, **{**PUSHES, **settings})
    trainer.train()
    return trainer


def steps_of(hub: FakeHub) -> list[str]:
    return [commit["message"].removeprefix("Training in progress, ") for commit in hub.commits]


def weights(content: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(content)


def is_final(trainer: surestep.Trainer, content: bytes) -> bool:
    return all(torch.equal(value, weights(content)[name]) for name, value in trainer.model.state_dict().items())


# What arrives


def test_every_save_sends_the_model(hub: FakeHub, tmp_path: Path) -> None:
    trainer = trained(tmp_path / "mine", hub_always_push=True)
    assert steps_of(hub) == ["step 2", "step 4", "step 5"]
    assert all(set(commit["files"]) == MODEL for commit in hub.commits)
    assert trainer.hub_model_id == "somebody/mine"
    assert is_final(trainer, hub.files["somebody/mine@main"]["model.safetensors"])
    assert not (tmp_path / "mine" / NAME).exists()


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("end", None),
        ("every_save", set()),
        ("checkpoint", {"last-checkpoint"}),
        ("all_checkpoints", {"checkpoint-2", "checkpoint-4", "checkpoint-5"}),
    ],
)
def test_strategies(strategy: str, more: set[str] | None, hub: FakeHub, tmp_path: Path) -> None:
    trainer = trained(tmp_path / "mine", hub_strategy=strategy, save_total_limit=1)
    if more is None:
        assert hub.commits == []
        trainer.save_model()
        assert [commit["message"] for commit in hub.commits] == ["Model save"]
        return
    files = hub.files["somebody/mine@main"]
    assert {name.partition("/")[0] for name in files} == MODEL | more
    # Each checkpoint is whole, also those that the limit has removed here.
    for folder in more:
        listed = json.loads(files[f"{folder}/manifest.json"])["files"]
        assert {f"{folder}/{name}" for name in listed} <= files.keys()
        assert is_final(trainer, files[f"{folder}/model.safetensors"]) is (
            folder not in {"checkpoint-2", "checkpoint-4"}
        )


def test_a_checkpoint_from_the_hub_is_resumed_from(hub: FakeHub, tmp_path: Path) -> None:
    trainer = trained(tmp_path / "mine", hub_strategy="all_checkpoints")
    for name, content in hub.files["somebody/mine@main"].items():
        path = tmp_path / "fetched" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    again = quick(tmp_path / "fetched")
    again.train(resume_from_checkpoint=str(tmp_path / "fetched" / "checkpoint-2"))
    assert torch.equal(again.model.layer.weight, trainer.model.layer.weight)


def test_push_to_hub_sends_the_folder_with_a_card(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    trainer = quick(folder, hub_model_id="team/better", hub_token=TOKEN, hub_private_repo=True, hub_revision="dev")
    trainer.train()
    for name in ("notes.txt", "_private.txt", "checkpoint-1/big.bin", ".surestep-lock", "deep/_kept.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    trainer.model.model_tags = ["tiny"]
    commit = trainer.push_to_hub("The end", tags="mine", license="mit")
    assert commit.commit_url.startswith(f"{hub.url}/team/better/commit/")
    assert hub.created[0] | {"name": "better", "organization": "team", "visibility": "private"} == hub.created[0]
    files = hub.files["team/better@dev"]
    assert set(files) == MODEL | {"README.md", "notes.txt", "deep/_kept.txt"}
    card = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert {"mine", "tiny"} <= set(card["tags"])
    assert card["license"] == "mit"
    assert "# better" in files["README.md"].decode()
    assert hub.commits[-1]["message"] == "The end"
    assert trainer.push_to_hub(revision="main", token="hf_another_token") is not None
    assert "team/better@main" in hub.files
    assert "Bearer hf_another_token" in hub.tokens


def test_a_push_without_waiting_gives_a_future(hub: FakeHub, tmp_path: Path) -> None:
    trainer = quick(tmp_path / "mine", hub_token=TOKEN)
    assert trainer.push_to_hub(blocking=False).result(timeout=60).oid == "1" * 40


def test_callbacks_hear_of_each_push(hub: FakeHub, tmp_path: Path) -> None:
    heard: list[int] = []

    class Hears(surestep.TrainerCallback):
        def on_push_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            heard.append(state.global_step)

    trained(tmp_path / "mine", callbacks=[Hears()]).push_to_hub()
    assert heard == [2, 4, 5, 5]


def test_overrides_are_called(hub: FakeHub, tmp_path: Path) -> None:
    called: list[str] = []

    class Mine(surestep.Trainer):
        def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
            called.append("init")
            super().init_hf_repo(token, private)

        def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
            called.append(Path(checkpoint_folder).name)
            assert (Path(checkpoint_folder) / "manifest.json").is_file()
            super()._push_from_checkpoint(checkpoint_folder)

        def _finish_current_push(self) -> None:
            called.append("finish")
            super()._finish_current_push()

    trained(tmp_path / "mine", kind=Mine)
    assert called == ["init", "checkpoint-2", "checkpoint-4", "checkpoint-5", "finish"]


def test_a_model_that_is_stored_otherwise_is_sent_in_the_form_that_others_read(hub: FakeHub, tmp_path: Path) -> None:
    sizes = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.MixtralConfig(**sizes, intermediate_size=16, num_local_experts=2, num_key_value_heads=2)
    model = transformers.MixtralForCausalLM(config)
    tokens = [{"input_ids": torch.arange(6) + i, "labels": torch.arange(6) + i} for i in range(8)]
    trained(tmp_path / "mine", model=model, train_dataset=tokens, max_steps=2)
    sent = weights(hub.files["somebody/mine@main"]["model.safetensors"])
    model.save_pretrained(tmp_path / "theirs")
    theirs = weights((tmp_path / "theirs" / "model.safetensors").read_bytes())
    assert sent.keys() == theirs.keys() != model.state_dict().keys()
    assert all(torch.equal(sent[name], value) for name, value in theirs.items())


# A hub that is slow


def held_until(released: threading.Event) -> Callable[[str], Answer | None]:
    def answer(path: str) -> Answer | None:
        if "/commit/" in path:
            released.wait(60)
        return None

    return answer


class ReleasesAtTheEnd(surestep.TrainerCallback):
    def __init__(self, hub: FakeHub) -> None:
        self.hub, self.released, self.before = hub, threading.Event(), -1
        hub.answers = held_until(self.released)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before = len(self.hub.commits)
        self.released.set()


def test_training_does_not_wait_and_its_end_does(hub: FakeHub, tmp_path: Path) -> None:
    releases = ReleasesAtTheEnd(hub)
    trainer = trained(tmp_path / "mine", callbacks=[releases], hub_strategy="all_checkpoints", save_total_limit=1)
    assert releases.before == 0
    assert steps_of(hub) == ["step 2", "step 5"]
    files = hub.files["somebody/mine@main"]
    # What came while the first push was under way went with the second: nothing is left out.
    assert {f"checkpoint-{step}/model.safetensors" for step in (2, 4, 5)} <= files.keys()
    assert is_final(trainer, files["model.safetensors"])
    assert is_final(trainer, files["checkpoint-5/model.safetensors"])
    assert not is_final(trainer, files["checkpoint-4/model.safetensors"])


def test_no_thread_is_left_of_a_run(hub: FakeHub, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    trained(tmp_path / "mine", hub_always_push=True)
    for thread in set(threading.enumerate()) - before:
        if thread.name == "surestep-hub":
            thread.join(10)
    assert len(hub.commits) == 3
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "surestep-hub"]


def test_pushes_in_line_keep_their_order(hub: FakeHub, tmp_path: Path) -> None:
    trainer = trained(tmp_path / "mine", callbacks=[ReleasesAtTheEnd(hub)], hub_always_push=True)
    assert steps_of(hub) == ["step 2", "step 4", "step 5"]
    sent = [commit["files"]["model.safetensors"] for commit in hub.commits]
    assert [is_final(trainer, content) for content in sent] == [False, False, True]


def test_a_long_wait_is_told(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Log) -> None:
    monkeypatch.setattr("surestep.trainer.hub._REMINDER", 0.01)
    released = threading.Event()
    hub.answers = held_until(released)

    class Releases(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Still uploading" in record.getMessage():
                released.set()

    handler = Releases()
    logging.getLogger("surestep.trainer.hub").addHandler(handler)
    try:
        trained(tmp_path / "mine")
    finally:
        logging.getLogger("surestep.trainer.hub").removeHandler(handler)
    assert "Still uploading to 'somebody/mine'. Ctrl+C ends the wait" in text_of(caplog)
    assert hub.commits


def test_a_hub_that_does_not_answer_at_the_start_holds_nothing_up(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    monkeypatch.setattr("surestep.trainer.hub._START_PATIENCE", 0.01)
    released = threading.Event()

    def answer(path: str) -> Answer | None:
        if path == "/api/repos/create":
            released.wait(60)
        return None

    hub.answers = answer
    trainer = quick(tmp_path / "mine", **PUSHES)
    assert "The hub has not answered yet" in text_of(caplog)
    assert trainer.hub_model_id == "mine"
    released.set()
    trainer.train()
    assert trainer.hub_model_id == "somebody/mine"
    assert is_final(trainer, hub.files["somebody/mine@main"]["model.safetensors"])


# A hub that is away


def test_a_hub_that_is_away_ends_no_run(nowhere: None, tmp_path: Path, caplog: Log) -> None:
    trainer = trained(tmp_path / "mine")
    assert trainer.state.global_step == 5
    said = text_of(caplog)
    assert "The hub is away (ConnectError: " in said
    assert said.count("The push to 'mine' failed") >= 1
    waiting = tmp_path / "mine" / NAME / "waiting"
    assert "3 files are not on the hub: model.safetensors, train_log.jsonl, training_args.json. Upload" in said
    assert f"Upload them with: hf upload mine '{waiting}' ." in said
    assert is_final(trainer, (waiting / "model.safetensors").read_bytes())
    assert trainer.push_to_hub() is None


def test_what_could_not_be_sent_goes_with_the_next_run(
    nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    trained(tmp_path / "mine", hub_strategy="all_checkpoints", hub_revision="dev")
    assert ".surestep-outbox/waiting' . --revision dev" in text_of(caplog)
    with serving(FakeHub()) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        trainer = quick(tmp_path / "mine", **PUSHES)
        trainer.push_to_hub()
    assert len(hub.commits) == 1
    names = set(hub.commits[0]["files"])
    assert {f"checkpoint-{step}/manifest.json" for step in (2, 4, 5)} | MODEL | {"README.md"} <= names
    assert not (tmp_path / "mine" / NAME).exists()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "it answers 500: an error of its own"),
        (403, "it answers 403: the token may not write there"),
        (404, "it answers 404: there is no such repository or revision"),
    ],
)
def test_an_error_in_the_middle_is_one_warning(
    status: int, said: str, hub: FakeHub, tmp_path: Path, caplog: Log
) -> None:
    def answer(path: str) -> Answer | None:
        failed = "/commit/" in path and not hub.commits and len(failures) < 1
        if failed:
            failures.append(path)
        return (status, {"error": f"secret is {TOKEN}"}) if failed else None

    failures: list[str] = []
    hub.answers = answer
    trainer = trained(tmp_path / "mine", hub_strategy="all_checkpoints")
    text = text_of(caplog)
    assert text.count("failed (Training in progress, step 2)") == 1
    assert f"{said}. Its files are kept in" in text
    assert "not on the hub" not in text
    files = hub.files["somebody/mine@main"]
    assert {f"checkpoint-{step}/model.safetensors" for step in (2, 4, 5)} <= files.keys()
    assert is_final(trainer, files["model.safetensors"])


@pytest.mark.parametrize("answer", [(200, {"wrong": "words"}), (200, {})])
def test_an_answer_that_makes_no_sense_ends_no_run(answer: Answer, hub: FakeHub, tmp_path: Path, caplog: Log) -> None:
    hub.answers = lambda path: answer if "/preupload/" in path else None
    assert trained(tmp_path / "mine").state.global_step == 5
    assert "are not on the hub" in text_of(caplog)


def test_a_full_disk_ends_no_run(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Log) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("surestep.trainer.outbox._place", full)
    assert trained(tmp_path / "mine").state.global_step == 5
    assert "could not be put aside ([Errno 28] No space left on device)" in text_of(caplog)


def test_a_process_that_dies_leaves_what_it_was_sending(hub: FakeHub, tmp_path: Path) -> None:
    released = threading.Event()
    hub.answers = held_until(released)
    program = f"""
import os, pathlib
from tests.small import quick
from surestep import TrainerCallback
class Dies(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os._exit(9)
folder = pathlib.Path({str(tmp_path / "mine")!r})
quick(folder, callbacks=[Dies()], **{PUSHES!r}, hub_strategy="all_checkpoints").train()
"""
    secrets = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    paths = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | secrets | {"PYTHONPATH": paths}, check=False, timeout=120
    )
    assert done.returncode == 9
    released.set()
    hub.commits.clear()
    hub.answers = lambda path: None
    quick(tmp_path / "mine", **PUSHES).train(resume_from_checkpoint=True)
    assert "checkpoint-2/manifest.json" in hub.commits[0]["files"]
    assert steps_of(hub)[-1] == "step 5"


# Settings


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_at_the_start_is_an_error(status: int, hub: FakeHub, tmp_path: Path) -> None:
    hub.answers = lambda path: (status, {"error": f"no {TOKEN}"})
    with pytest.raises(ArgumentError, match=r"refuses the repository 'mine'.*hub_token") as raised:
        quick(tmp_path / "mine", **PUSHES)
    assert TOKEN not in str(raised.value)


def test_a_name_that_cannot_be_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"'a/b/c'.*hub_model_id='<owner>/<name>'"):
        quick(tmp_path / "mine", **PUSHES, hub_model_id="a/b/c")


def test_no_token_is_written_anywhere(hub: FakeHub, tmp_path: Path, caplog: Log) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(path: str) -> Answer | None:
        return (500, {"error": f"it was {TOKEN}"}) if "/commit/" in path else None

    hub.answers = answer
    trainer = trained(tmp_path / "mine", hub_strategy="checkpoint")
    trainer.push_to_hub()
    assert f"Bearer {TOKEN}" in hub.tokens
    held = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(held) > 20
    assert [path for path in held if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in caplog.text


def test_the_login_is_used_where_no_token_is_given(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_fromthelogin")
    trained(tmp_path / "mine", hub_token=None)
    assert "Bearer hf_fromthelogin" in hub.tokens


def test_without_the_package_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = surestep.optional.installed
    monkeypatch.setattr("surestep.optional.installed", lambda name: name != "huggingface_hub" and known(name))
    with pytest.raises(MissingPackageError, match=r"push_to_hub=True needs .*pip install huggingface_hub"):
        quick(tmp_path / "mine", push_to_hub=True, save_strategy="no")


def test_progress_bars_come_back(hub: FakeHub, tmp_path: Path) -> None:
    shown = not huggingface_hub.utils.are_progress_bars_disabled()
    trained(tmp_path / "mine")
    assert (not huggingface_hub.utils.are_progress_bars_disabled()) is shown
