"""What is sent to the hub and what happens if it is away, otherwise than in the original, on purpose: both sides."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers

import surestep
from tests.hub_server import Answer, FakeHub, serving
from tests.parity.differences import shows
from tests.parity.harness import Seen, run
from tests.parity.models import Net, Points

# The client's own, about its own call.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SIDES = [transformers, surestep]
ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "push_to_hub": True,
    "hub_token": "hf_sometoken",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with serving(FakeHub()) as found:
        point_to(found.url, monkeypatch)
        yield found


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    # The original keeps one client for good.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)


def train(side: Any, folder: Path, **options: Any) -> Seen:
    arguments = {**ARGUMENTS, **options.pop("arguments", {})}
    return run(side, arguments, model=Net, train=lambda: Points(16), folder=str(folder), **options)


@shows("P1")
def test_a_hub_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(Exception, match="Connection refused"):
        train(transformers, tmp_path / "theirs")
    with caplog.at_level(logging.WARNING, logger="surestep"):
        seen = train(surestep, tmp_path / "ours")
    assert seen.state.global_step == 4
    assert "Upload them with: hf upload ours" in caplog.text
    assert seen.trainer.push_to_hub() is None


@shows("P2")
def test_a_save_during_an_upload(hub: FakeHub, tmp_path: Path) -> None:
    sent: dict[str, set[str]] = {}
    for side in SIDES:
        released, under_way = threading.Event(), threading.Event()

        def answer(
            path: str, released: threading.Event = released, begun: threading.Event = under_way
        ) -> Answer | None:
            if "/commit/" in path:
                begun.set()
                released.wait(60)
            return None

        class Releases(side.TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, begun: Any = under_way, **kwargs: Any) -> None:
                begun.wait(60)

            def on_train_end(self, args: Any, state: Any, control: Any, gate: Any = released, **kwargs: Any) -> None:
                gate.set()

        hub.answers, name = answer, side.__name__
        more = {"hub_strategy": "all_checkpoints"}
        train(side, tmp_path / name, arguments=more, callbacks=lambda _, kind=Releases: [kind()])
        sent[name] = {path.partition("/")[0] for path in hub.files[f"somebody/{name}@main"] if "checkpoint" in path}
    assert sent["transformers"] == {"checkpoint-1"}
    assert sent["surestep"] == {f"checkpoint-{step}" for step in range(1, 5)}


@shows("P3")
def test_model_and_checkpoint_in_one_commit(hub: FakeHub, tmp_path: Path) -> None:
    commits: dict[str, list[bool]] = {}
    for side in SIDES:
        name = side.__name__
        more = {"hub_strategy": "checkpoint", "hub_always_push": True}
        train(side, tmp_path / name, arguments=more)
        assert (tmp_path / name / "model.safetensors").exists() is (side is transformers)
        commits[name] = [
            {"model.safetensors", "last-checkpoint/model.safetensors"} <= commit["files"].keys()
            for commit in hub.commits
            if commit["repo"] == f"somebody/{name}"
        ]
    assert commits["transformers"] == [False] * 8
    assert commits["surestep"] == [True] * 4
