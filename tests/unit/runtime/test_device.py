"""The device of a process, and moving batches there."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

import pytest
import torch
from transformers import BatchEncoding

from surestep.runtime.device import choose_device, empty_cache, supports_bf16, to_device
from surestep.runtime.nested import leaves
from surestep.runtime.world import World

# Takes moves without being an accelerator.
META = torch.device("meta")


class Machine:
    """What torch says of a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, cards: int = 0, mps: bool = False) -> None:
        self.emptied: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: cards > 1)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.emptied.append("cuda"))
        monkeypatch.setattr(torch.mps, "empty_cache", lambda: self.emptied.append("mps"))


@pytest.mark.parametrize(
    ("machine", "rank", "use_cpu", "device"),
    [
        ({}, 0, False, "cpu"),
        ({"cards": 4}, 0, False, "cuda:0"),
        ({"cards": 4}, 3, False, "cuda:3"),
        # More processes than cards share them.
        ({"cards": 2}, 3, False, "cuda:1"),
        ({"cards": 4}, 3, True, "cpu"),
        ({"mps": True}, 0, False, "mps"),
        ({"mps": True}, 0, True, "cpu"),
    ],
)
def test_the_device_of_a_process(
    monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], rank: int, use_cpu: bool, device: str
) -> None:
    Machine(monkeypatch, **machine)

    assert choose_device(World(rank, 4, rank, 4), use_cpu=use_cpu) == torch.device(device)


def test_who_computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, cards=1)
    assert not supports_bf16(torch.device("cuda"))
    assert supports_bf16(torch.device("cpu"))
    assert supports_bf16(torch.device("mps"))
    assert not supports_bf16(META)

    Machine(monkeypatch, cards=2)
    assert supports_bf16(torch.device("cuda"))


def test_the_cache_of_the_device_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    for name in ("cpu", "cuda", "mps"):
        empty_cache(torch.device(name))

    assert machine.emptied == ["cuda", "mps"]


@pytest.mark.parametrize(
    "batch",
    [
        {"x": torch.ones(2), "y": torch.ones(2)},
        {"x": [torch.ones(2), (torch.ones(1),)], "inner": {"y": torch.ones(2)}},
        OrderedDict(x=torch.ones(2)),
        BatchEncoding({"input_ids": torch.ones(2)}),
        [torch.ones(2)],
        (torch.ones(2),),
        torch.ones(2),
    ],
    ids=["dict", "nested", "ordered", "encoding", "list", "tuple", "tensor"],
)
def test_every_tensor_is_moved_and_every_container_kept(batch: Any) -> None:
    moved = to_device(batch, META)

    assert type(moved) is type(batch)
    assert {leaf.device for leaf in leaves(moved)} == {META}
    assert {leaf.device.type for leaf in leaves(batch)} == {"cpu"}


def test_what_is_no_tensor_passes() -> None:
    text = ["a", "b"]
    moved = to_device({"text": text, "n": 3, "none": None, "x": torch.ones(1)}, META)

    assert moved["text"] == text
    assert (moved["n"], moved["none"]) == (3, None)


def test_a_tensor_that_is_there_already_is_the_same() -> None:
    tensor = torch.ones(2)

    assert to_device({"x": tensor}, torch.device("cpu"))["x"] is tensor


def test_the_usual_batch_is_moved_without_a_call_for_each_tensor() -> None:
    batch = {name: torch.ones(2) for name in "abcdef"}
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(frame.f_code.co_name) if event == "call" else None)
    to_device(batch, torch.device("cpu"))
    sys.setprofile(None)

    assert calls == ["to_device"]


@pytest.mark.parametrize("ahead", [False, True])
def test_the_host_goes_on_where_it_may(ahead: bool) -> None:
    class Tells(torch.Tensor):
        def to(self, *place: Any, **how: Any) -> Any:
            told.append((place, how))
            return self

    told: list[Any] = []
    to_device({"x": torch.ones(2).as_subclass(Tells), "more": [torch.ones(1).as_subclass(Tells)]}, META, ahead)

    assert told == [((META,), {"non_blocking": ahead})] * 2
