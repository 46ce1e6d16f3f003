"""The place of a process, from the launcher's environment."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist

from surestep.runtime.world import World, current_world

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, World(0, 1, 0, 1)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, World(5, 8, 1, 4)),
        # What older launchers write where there is none.
        ({"LOCAL_RANK": "-1"}, World()),
        ({"RANK": "", "WORLD_SIZE": "one"}, World()),
    ],
)
def test_the_world_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], world: World
) -> None:
    set_environment(monkeypatch, **environment)

    assert current_world() == world


@pytest.mark.parametrize(
    ("world", "main", "local"),
    [
        (World(), True, True),
        (World(rank=1, size=4, local_rank=1, local_size=2), False, False),
        (World(rank=2, size=4, local_rank=0, local_size=2), False, True),
    ],
)
def test_who_speaks(world: World, main: bool, local: bool) -> None:
    assert world.is_main is main
    assert world.is_local_main is local


def test_one_process_waits_for_nobody() -> None:
    # A barrier without a process group would raise.
    World().barrier()


@pytest.mark.parametrize(
    ("world", "local", "expected"),
    [
        (World(), True, ["body"]),
        (World(rank=0, size=2), False, ["body", "barrier"]),
        (World(rank=1, size=2, local_rank=1), False, ["barrier", "body"]),
        # The first of the second machine goes first there, and after the first machine of all.
        (World(rank=2, size=4, local_rank=0), True, ["body", "barrier"]),
        (World(rank=2, size=4, local_rank=0), False, ["barrier", "body"]),
    ],
)
def test_the_main_process_goes_first(
    monkeypatch: pytest.MonkeyPatch, world: World, local: bool, expected: list[str]
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(dist, "barrier", lambda: done.append("barrier"))
    with world.main_first(local=local):
        done.append("body")

    assert done == expected
