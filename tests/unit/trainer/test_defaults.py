"""What a trainer has without being told."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.small import quick
from transformers import TrainerCallback as TheirCallback

from surestep import TrainerCallback
from surestep.callbacks.printer import PrinterCallback
from surestep.callbacks.trackers.jsonl import JsonlCallback
from surestep.config.topics.hardware import AcceleratorConfig
from surestep.data.collators.default import default_data_collator
from surestep.data.collators.padding import DataCollatorWithPadding
from surestep.trainer.defaults import copies_ahead, default_collator
from surestep.trainer.points import stepping


class Pads:
    """As much of a tokenizer as the collator asks for."""

    padding_side = "right"

    def pad(self, *_: Any, **__: Any) -> Any: ...


class PadsPictures:
    """An image processor: it pads as well, but pictures, one by one."""

    def pad(self, *_: Any, **__: Any) -> Any: ...


class Mine(TrainerCallback):
    """The user's."""


def names(**settings: Any) -> list[str]:
    trainer = quick(settings.pop("folder"), **settings)
    return [type(callback).__name__ for callback in trainer.callback_handler.callbacks]


def test_the_collator_pads_where_there_is_something_to_pad_with() -> None:
    assert default_collator(None) is default_data_collator
    assert default_collator(object()) is default_data_collator
    assert isinstance(default_collator(Pads()), DataCollatorWithPadding)
    assert default_collator(PadsPictures()) is default_data_collator


def test_the_callbacks_come_in_the_order_of_the_original(tmp_path: Path) -> None:
    found = names(folder=tmp_path, callbacks=[Mine, TheirCallback()], report_to=["tensorboard"])

    assert found == [
        "DefaultFlowCallback", "JsonlCallback", "TensorBoardCallback", "Mine", "TrainerCallback", "PrinterCallback",
    ]  # fmt: skip


@pytest.mark.parametrize(("quiet", "last"), [(True, "PrinterCallback"), (False, "ProgressCallback")])
def test_progress_or_lines(tmp_path: Path, quiet: bool, last: str) -> None:
    assert names(folder=tmp_path, disable_tqdm=quiet)[-1] == last


def test_a_given_instance_is_used(tmp_path: Path) -> None:
    mine = Mine()
    trainer = quick(tmp_path, callbacks=[mine])

    assert mine in trainer.callback_handler.callbacks
    kinds = {type(callback) for callback in trainer.callback_handler.callbacks}
    assert {PrinterCallback, JsonlCallback} <= kinds


@pytest.mark.parametrize(("device", "pinned", "warns"), [("cuda", False, 1), ("cuda", True, 0), ("cpu", False, 0)])
def test_only_pinned_memory_is_copied_ahead(
    caplog: pytest.LogCaptureFixture, device: str, pinned: bool, warns: int
) -> None:
    config = AcceleratorConfig(non_blocking=True)
    args: Any = SimpleNamespace(
        accelerator_config=config, dataloader_pin_memory=pinned, device=SimpleNamespace(type=device)
    )
    with caplog.at_level(logging.WARNING, logger="surestep"):
        assert copies_ahead(args)
    assert caplog.text.count("dataloader_pin_memory=False: the host waits") == warns


@pytest.mark.parametrize("asked", [False, True])
def test_batches_are_copied_as_the_arguments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    seen: list[bool] = []
    original = stepping.to_device
    monkeypatch.setattr(
        stepping, "to_device", lambda data, device, ahead=False: seen.append(ahead) or original(data, device, ahead)
    )
    quick(tmp_path, accelerator_config={"non_blocking": asked}, max_steps=2).train()

    assert seen == [asked] * 2
