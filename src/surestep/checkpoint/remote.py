"""The checkpoints in a remote folder: sent, listed, examined, fetched and thinned out.

Owner of what lies under `<url>/checkpoint-<step>/`. No rename is assumed, and no other stroke but that of one small
file: `manifest.json` is put last and removed first, so that a remote folder without one is incomplete by definition,
and one that is cut short says so itself, by its own checksum. `origin.json` is put first and removed last: what is
incomplete tells by it which run left it. Nothing is remembered here: every question is one to the store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from surestep.checkpoint import files, layout, manifest
from surestep.checkpoint.arrival import check_arrived, digest_there
from surestep.checkpoint.manifest import Header, Listing, Verdict
from surestep.checkpoint.origin import ORIGIN, run_in
from surestep.checkpoint.retention import Kept, Retention
from surestep.errors import CheckpointError
from surestep.runtime.disk import disk, make_folders
from surestep.runtime.remote_folder import RemoteError, RemoteFolder

# Called with the bytes that have arrived since the last call.
Told = Callable[[int], None]
# Seldom less than what a file of tensors says of itself.
_FIRST_READ = 2**18


@dataclass(frozen=True, slots=True)
class Standing:
    """A checkpoint by its manifest: the header, None where none can be trusted, and whether it is unfinished."""

    header: Header | None = None
    unfinished: bool = False


class DamagedError(CheckpointError):
    """A remote checkpoint that is incomplete, or not as it was written; the message says in what."""


class RemoteStore:
    """Keeper of the checkpoints in a remote folder. One whose manifest is there is complete.

    Every method raises `RemoteError` where the store, or the way to it, fails.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the names of the checkpoints, the earliest step first, complete or not."""
        steps = {name: step for name in self.folder.folders() if (step := layout.step_of(Path(name))) is not None}
        return sorted(steps, key=lambda name: (steps[name], name))

    def listing(self, name: str) -> Listing:
        """Return the manifest of a checkpoint whose files are all there, each of its size.

        Raises:
            DamagedError: it is incomplete or damaged.
        """
        there = self.folder.within(name)
        listing = _listing(there)
        sizes = there.sizes()
        problems = [problem for one, entry in listing.entries.items() if (problem := _problem(one, entry, sizes))]
        if problems:
            raise DamagedError("; ".join(problems))
        return listing

    def send(self, source: Path, beside: Mapping[str, bytes] | None = None) -> bool:
        """Put a complete checkpoint of this machine there, and say whether it was not there already.

        Each file is looked at once it is there. One of the same step that is there loses its manifest first. `beside`
        are further files by name, which no manifest lists.

        Raises:
            OSError: a file here cannot be read, or is not as it was written any more.
        """
        text = (source / layout.MANIFEST).read_bytes()
        listing, there = manifest.parse(text), self.folder.within(source.name)
        present = there.sizes()
        if layout.MANIFEST in present:
            whole = not any(_problem(name, entry, present) for name, entry in listing.entries.items())
            if whole and there.read(layout.MANIFEST) == text:
                return False
            there.remove(layout.MANIFEST)
        wanted = [*sorted(listing.entries, key=lambda name: (name != ORIGIN, name)), *(beside or ())]
        for name in sorted(present.keys() - {*wanted, layout.MANIFEST}):
            there.remove(name)
        for name in wanted:
            if name in listing.entries:
                there.put(source / name, name)
                check_arrived(source / name, there, name, listing.entries[name])
            else:
                there.write(name, (beside or {})[name])
        there.write(layout.MANIFEST, text)
        if there.read(layout.MANIFEST) != text:
            raise RemoteError(f"'{there.url}/{layout.MANIFEST}' is not what was sent")
        return True

    def fetch(self, name: str, listing: Listing, target: Path, told: Told) -> None:
        """Write the files of a checkpoint into the folder `target`, each compared with the manifest, then the manifest.

        A file that comes otherwise than the manifest says is fetched once more: the way may have been at fault.

        Raises:
            DamagedError: a file is damaged there.
            OSError: the disk is full.
        """
        there = self.folder.within(name)
        text = there.read(layout.MANIFEST)
        if manifest.parse(text) != listing:
            raise DamagedError(f"{layout.MANIFEST} has become another one while it was read")
        for one, entry in listing.entries.items():
            make_folders((target / one).parent)
            if not any(_fetched(there, one, entry, target / one, told) for _ in range(2)):
                raise DamagedError(f"{one} is damaged: its checksum differs")
        disk().write(target / layout.MANIFEST, [text])

    def peek(self, name: str, listing: Listing, target: Path) -> None:
        """Write into `target` what tells what is in a checkpoint: its JSON, and tensors with names and shapes alone.

        The numbers of the tensors are not read: there are holes in their place.
        """
        there = self.folder.within(name)
        for one, entry in listing.entries.items():
            path = target / one
            if path.suffix in (".json", ".safetensors"):
                make_folders(path.parent)
                disk().write(path, [there.read(one) if path.suffix == ".json" else _head(there, one, entry["size"])])
                os.truncate(path, entry["size"])

    def verify(self, name: str, told: Told) -> Verdict:
        """Compare every file of a checkpoint with its manifest, where it lies: it is read and not kept."""
        there = self.folder.within(name)
        try:
            listing, sizes = _listing(there), there.sizes()
        except DamagedError as error:
            return Verdict([str(error)])
        found: dict[str, str | None] = {}
        for one, entry in listing.entries.items():
            found[one] = _problem(one, entry, sizes)
            if found[one] is None and digest_there(there, one, entry["size"]) != entry["blake2b"]:
                found[one] = f"{one} is damaged: its checksum differs"
            told(entry["size"])
        return Verdict([problem for problem in found.values() if problem], files=found)

    def standing(self) -> dict[str, Standing]:
        """Return what each checkpoint there is, the earliest step first; every manifest is read, and nothing else."""
        names = self.names()
        texts = self.folder.read_each([f"{name}/{layout.MANIFEST}" for name in names])
        return {name: _standing(text) for name, text in zip(names, texts, strict=True)}

    def own(self, run: str) -> list[Kept]:
        """Return the checkpoints that a run wrote, the earliest step first; `path` has their names."""
        headers = {name: one.header for name, one in self.standing().items() if one.header is not None}
        return [Kept(Path(name), one.step, one.score) for name, one in headers.items() if one.run == run]

    def prune(self, run: str, retention: Retention, newest: str | None, protect: Collection[str]) -> list[str]:
        """Delete the checkpoints of a run that its retention does not keep, and return their names."""
        if not retention.spares:
            return []
        gone = retention.spare(self.own(run), None if newest is None else Path(newest), [Path(one) for one in protect])
        for path in gone:
            self.remove(path.name)
        return [path.name for path in gone]

    def remove(self, name: str) -> None:
        """Delete a checkpoint: its manifest first, so that no half of it counts."""
        there = self.folder.within(name)
        there.remove(layout.MANIFEST)
        for one in sorted(there.sizes(), key=lambda one: (one == ORIGIN, one)):
            there.remove(one)
        there.remove_empty()

    def left_by(self, run: str, unfinished: Collection[str]) -> list[str]:
        """Return those of the unfinished checkpoints that a run began to send or to delete, and those without files."""
        names = sorted(unfinished)
        origins = self.folder.read_each([f"{name}/{ORIGIN}" for name in names])
        return [
            name
            for name, text in zip(names, origins, strict=True)
            if (run_in(text) == run if text is not None else not self.folder.within(name).sizes())
        ]


def _standing(text: bytes | None) -> Standing:
    """Judge a manifest; one of a version that is not known here is no unfinished one."""
    if text is None:
        return Standing(unfinished=True)
    try:
        return Standing(manifest.parse(text).header)
    except CheckpointError:
        return Standing(unfinished=_is_cut_short(text))


def _head(there: RemoteFolder, name: str, size: int) -> bytes:
    """Return the beginning of a file of tensors, which tells their names and shapes; its first 8 bytes say how long."""
    begun = there.read(name, 0, min(size, _FIRST_READ))
    end = 8 + int.from_bytes(begun[:8], "little")
    if end > size:
        raise DamagedError(f"{name} is damaged: it is shorter than it says")
    return begun[:end] if end <= len(begun) else begun + there.read(name, len(begun), end)


def _is_cut_short(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def _listing(there: RemoteFolder) -> Listing:
    try:
        return manifest.parse(there.read(layout.MANIFEST))
    except FileNotFoundError as error:
        raise DamagedError(f"it is incomplete: it has no {layout.MANIFEST}, which is put last") from error
    except CheckpointError as error:
        raise DamagedError(str(error)) from error


def _problem(name: str, entry: Mapping[str, int], sizes: Mapping[str, int]) -> str | None:
    if name not in sizes:
        return f"{name} is missing"
    if sizes[name] != entry["size"]:
        return f"{name} has {sizes[name]:,} bytes instead of {entry['size']:,}"
    return None


def _fetched(there: RemoteFolder, name: str, entry: Mapping[str, int | str], target: Path, told: Told) -> bool:
    """Write one file of a remote folder here, and say whether it is what the manifest says."""

    def parts() -> Iterator[bytes]:
        for part in there.parts(name, int(entry["size"])):
            told(len(part))
            yield part

    disk().write(target, parts())
    return target.stat().st_size == entry["size"] and files.digest(target) == entry["blake2b"]
