"""What waits for the hub: newer files win, and nothing is lost with a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from surestep.trainer.outbox import NAME, Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


def put(outbox: Outbox, tmp_path: Path, *, link: bool = True, **contents: str) -> None:
    for name, content in contents.items():
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).write_text(content)
    outbox.add({name: tmp_path / name for name in contents}, link=link)


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_added_waits_and_newer_replaces_older(outbox: Outbox, tmp_path: Path) -> None:
    assert outbox.left() == []
    put(outbox, tmp_path, a="1", b="1")
    put(outbox, tmp_path, b="2")
    assert texts(outbox.waiting) == {"a": "1", "b": "2"}
    assert outbox.left() == ["a", "b"]


@pytest.mark.parametrize("link", [True, False])
def test_files_stay_when_their_source_goes(outbox: Outbox, tmp_path: Path, link: bool) -> None:
    put(outbox, tmp_path, link=link, a="1")
    assert ((outbox.waiting / "a").stat().st_nlink == 2) is link
    (tmp_path / "a").unlink()
    assert texts(outbox.waiting) == {"a": "1"}


def test_a_disk_without_links_gets_copies(outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    put(outbox, tmp_path, a="1")
    assert texts(outbox.waiting) == {"a": "1"}


def test_a_parcel_is_closed_and_goes_when_it_arrived(outbox: Outbox, tmp_path: Path) -> None:
    assert outbox.pack() is None
    put(outbox, tmp_path, a="1")
    parcel = outbox.pack()
    assert parcel is not None
    put(outbox, tmp_path, a="2")
    assert (texts(parcel), texts(outbox.waiting)) == ({"a": "1"}, {"a": "2"})
    outbox.arrived(parcel)
    assert outbox.left() == ["a"]
    second = outbox.pack()
    assert second is not None
    outbox.arrived(second)
    assert not (tmp_path / NAME).exists()


def test_what_did_not_arrive_waits_behind_what_is_newer(outbox: Outbox, tmp_path: Path) -> None:
    parcels = []
    for number in ("1", "2"):
        put(outbox, tmp_path, **{"a": number, f"only{number}": number})
        parcels.append(outbox.pack())
    put(outbox, tmp_path, b="3", only1="3")
    first, second = parcels
    assert first is not None
    assert second is not None
    outbox.put_back(first)
    # `a` is on its way in the second, `only1` waits already in a newer form.
    assert texts(outbox.waiting) == {"b": "3", "only1": "3"}
    outbox.put_back(second)
    assert texts(outbox.waiting) == {"a": "2", "only2": "2", "b": "3", "only1": "3"}


def test_what_a_dead_process_was_sending_waits_again(outbox: Outbox, tmp_path: Path) -> None:
    for number in range(1, 12):
        put(outbox, tmp_path, **{"a": str(number), f"only{number}": str(number)})
        outbox.pack()
    put(outbox, tmp_path, b="new")
    again = Outbox(tmp_path)
    again.recover()
    assert texts(again.waiting) == {"a": "11", "b": "new"} | {f"only{n}": str(n) for n in range(1, 12)}
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["waiting"]


def test_files_can_be_written_into_it(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, tmp_path, a="1")
    with outbox.adding() as own:
        (own / "a").write_text("2")
        (own / "deep").mkdir()
        (own / "deep" / "b").write_text("2")
    assert texts(tmp_path / NAME) == {"waiting/a": "2", "waiting/deep/b": "2"}
