"""Where commands find checkpoints: in folders of this machine, or behind URLs, of which only what is needed is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from surestep.runtime.remote_folder import RemoteFolder, is_url

if TYPE_CHECKING:
    from surestep.checkpoint.remote import RemoteStore
    from surestep.cli.checkpoints import FolderCheck


def checks_at(place: str) -> list[FolderCheck]:
    """Compare every file of a checkpoint, or of all those of a run, with the manifest; none where nothing is there.

    Remote files are read and not kept.
    """
    from surestep.checkpoint.layout import checkpoints_in
    from surestep.cli.checkpoints import check_folder

    if is_url(place):
        return _remote_checks(RemoteFolder(place, "The place"))
    folder = Path(place)
    return [check_folder(one) for one in checkpoints_in(folder) or [folder]] if folder.is_dir() else []


@contextmanager
def brought(place: str, *, whole: bool) -> Iterator[Path]:
    """Give the folder of a checkpoint; one behind a URL is brought here for as long as the body runs.

    Without `whole` the numbers of its tensors are not read.
    """
    if not is_url(place):
        yield Path(place)
        return
    from surestep.checkpoint.space import check_room
    from surestep.checkpoint.transfers import transferring

    folder = RemoteFolder(place, "The checkpoint")
    store = _store(folder.parent)
    listing = store.listing(folder.name)
    with TemporaryDirectory(prefix="surestep-") as scratch:
        target = Path(scratch) / folder.name
        if whole:
            check_room(listing.size, Path(scratch))
            with transferring(f"Fetching {folder.name}", listing.size.total) as told:
                store.fetch(folder.name, listing, target, told)
        else:
            store.peek(folder.name, listing, target)
        yield target


def _remote_checks(folder: RemoteFolder) -> list[FolderCheck]:
    from surestep.checkpoint.layout import step_of
    from surestep.checkpoint.transfers import transferring
    from surestep.cli.checkpoints import check_of

    named = step_of(Path(folder.name)) is not None
    store = _store(folder.parent if named else folder)
    checks = []
    for name in [folder.name] if named else store.names():
        there = store.folder.within(name)
        sizes = there.sizes()
        with transferring(f"Reading {name}", sum(sizes.values())) as told:
            checks.append(check_of(there.url, store.verify(name, told), sizes))
    return checks


def _store(folder: RemoteFolder) -> RemoteStore:
    from surestep.checkpoint.remote import RemoteStore

    return RemoteStore(folder)
