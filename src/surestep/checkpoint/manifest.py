"""The list of a checkpoint's files with their sizes and checksums, which makes it verifiable."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surestep.checkpoint import files, layout
from surestep.checkpoint.space import Size
from surestep.errors import CheckpointError
from surestep.runtime.disk import disk, write_text

_FORMAT = "surestep.checkpoint"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a folder, one sentence each, and whether there was anything to check it against.

    `files` has the sentence of each file that the manifest lists, None where it is as it was written; without a
    manifest, of those that are not as they should be.
    """

    problems: list[str]
    verified: bool = True
    files: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Header:
    """What a manifest says besides its files: the step, the run that wrote it, and the figure of the best-model metric.

    `score` is None where nothing was measured at this step, or no finite number.
    """

    step: int
    run: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A manifest that was read: its header, and size and checksum of each file by name."""

    header: Header
    entries: dict[str, dict[str, Any]]

    @property
    def size(self) -> Size:
        """How much room the checkpoint takes."""
        return _size_of(self.entries)


def seal(folder: Path, header: Header) -> Size:
    """Wait until every file below `folder` is on the disk, then write the manifest over them, and wait for that too.

    Raises:
        OSError: the disk is full, or a file could not be written.
    """
    path = folder / layout.MANIFEST
    files.remove(path)
    entries = {}
    for file in filter(Path.is_file, files.files_in(folder)):
        disk().sync(file)
        entries[file.relative_to(folder).as_posix()] = {"size": file.stat().st_size, "blake2b": files.digest(file)}
    score = header.score if header.score is not None and math.isfinite(header.score) else None
    about = {"step": header.step, "run": header.run, "score": score}
    content = {"format": _FORMAT, "version": _VERSION, **about, "files": entries}
    write_text(path, json.dumps(content | {"seal": _seal_of(content)}, indent=1))
    disk().sync(path)
    for parent in files.folders_in(folder):
        disk().sync(parent)
    return _size_of(entries)


def settle(folder: Path) -> None:
    """Wait until a checkpoint that has its manifest is on the disk."""
    for file in filter(Path.is_file, files.files_in(folder)):
        disk().sync(file)
    for parent in files.folders_in(folder):
        disk().sync(parent)


def header_of(folder: Path) -> Header | None:
    """Return what the manifest of a checkpoint says of itself; None where there is none that can be trusted."""
    try:
        return _read(folder / layout.MANIFEST).header
    except CheckpointError:
        return None


def size_of(folder: Path) -> Size | None:
    """Return how much room a checkpoint takes by its manifest; None where there is none that can be trusted."""
    try:
        return _read(folder / layout.MANIFEST).size
    except CheckpointError:
        return None


def has_manifest(folder: Path) -> bool:
    """Say whether this library committed `folder`."""
    return (folder / layout.MANIFEST).is_file()


def is_foreign(folder: Path) -> bool:
    """Say whether the original wrote a checkpoint: it has a trainer's state, and nothing of ours."""
    return (folder / layout.TRAINER_STATE).is_file() and not has_manifest(folder) and not _ours_in(folder)


def examine(folder: Path, *, deep: bool = True) -> Verdict:
    """Compare a checkpoint with its manifest: presence and size of each file, and its checksum when `deep`.

    Files that the manifest does not list are welcome. A folder that the original wrote has no manifest: it passes as
    not verified when what it has is whole.
    """
    if not folder.is_dir():
        return Verdict([f"{folder} is missing"])
    if not has_manifest(folder):
        problems = _problems_without_manifest(folder, deep=deep)
        return Verdict([*problems.values()], verified=False, files={**problems})
    try:
        entries = _read(folder / layout.MANIFEST).entries
    except CheckpointError as error:
        return Verdict([str(error)])
    found = {name: _problem(folder / name, entry, deep=deep) for name, entry in entries.items()}
    return Verdict([problem for problem in found.values() if problem], files=found)


def _seal_of(content: dict[str, Any]) -> str:
    return files.text_digest(json.dumps(content, sort_keys=True, separators=(",", ":")))


def _size_of(entries: dict[str, dict[str, Any]]) -> Size:
    sizes = [entry["size"] for entry in entries.values()]
    return Size(sum(sizes), max(sizes, default=0))


def parse(text: bytes) -> Listing:
    """Return what a manifest says, wherever it was read from.

    Raises:
        CheckpointError: it is damaged, or of a format that is not known here.
    """
    name = layout.MANIFEST
    try:
        content: dict[str, Any] = json.loads(text)
        expected, entries = content.pop("seal"), content["files"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged: {type(error).__name__}: {error}") from error
    if expected != _seal_of(content):
        raise CheckpointError(f"{name} is damaged: its own checksum differs")
    if (content["format"], content["version"]) != (_FORMAT, _VERSION):
        raise CheckpointError(f"{name} is of format {content['format']} {content['version']}, not known here")
    if not isinstance(entries, dict):
        raise CheckpointError(f"{name} is damaged: it lists no files")
    return Listing(Header(content["step"], content.get("run"), content.get("score")), entries)


def _read(path: Path) -> Listing:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} is damaged: {type(error).__name__}: {error}") from error
    return parse(text)


def _problem(path: Path, entry: dict[str, Any], *, deep: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            return f"{path.name} has {size:,} bytes instead of {entry['size']:,}"
        if deep and files.digest(path) != entry["blake2b"]:
            return f"{path.name} is damaged: its checksum differs"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error}"
    return None


def _ours_in(folder: Path) -> list[str]:
    """Return the names of files that only this library writes."""
    return [name for name in (layout.PROGRESS, layout.TRAINING_ARGUMENTS) if (folder / name).exists()]


def _problems_without_manifest(folder: Path, *, deep: bool) -> dict[str, str]:
    from surestep.checkpoint.foreign.files import problems_in

    ours = _ours_in(folder)
    if ours:
        return {layout.MANIFEST: f"{layout.MANIFEST} is missing beside {ours[0]}"}
    return problems_in(folder, deep=deep)
