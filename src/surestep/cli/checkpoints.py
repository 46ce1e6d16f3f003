"""Checkpoints as the console and as JSON show them: whether they are whole, what they hold, how two differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from surestep.checkpoint.space import human
from surestep.cli.console import complain
from surestep.cli.tables import facts_table, plain_table, titled
from surestep.errors import SurestepError

if TYPE_CHECKING:
    import torch

    from surestep.checkpoint.contents import Contents
    from surestep.checkpoint.differing import Unlike
    from surestep.checkpoint.manifest import Verdict

# Rows of a table that are shown unless all are asked for.
_MOST = 25
_SETTINGS_OF_GROUP = ("lr", "initial_lr", "weight_decay", "betas", "momentum", "eps")


@dataclass(frozen=True)
class FileCheck:
    """A file of a checkpoint: its size (None where it is gone), what is wrong, and whether the manifest lists it."""

    name: str
    size: int | None
    problem: str | None = None
    listed: bool = True


@dataclass(frozen=True)
class FolderCheck:
    """A checkpoint, by its folder or URL, and its files. `verified` says that there were checksums to compare with."""

    place: str
    files: list[FileCheck]
    problems: list[str]
    verified: bool

    @property
    def name(self) -> str:
        """The last part of its place."""
        return self.place.rpartition("/")[2]

    @property
    def verdict(self) -> str:
        """Whether it is whole, in a word or two."""
        return "damaged" if self.problems else "whole" if self.verified else "whole, as far as can be told"


@contextmanager
def readable() -> Iterator[None]:
    """Exit with 2 where what is named cannot be read: 1 is an answer of the command."""
    try:
        yield
    except SurestepError as error:
        complain(str(error))
        raise typer.Exit(2) from error


def print_json(content: Any) -> None:
    """Print plain data as JSON."""
    sys.stdout.write(json.dumps(content, indent=1, default=str) + "\n")


# verify


def check_folder(folder: Path) -> FolderCheck:
    """Compare every file of a checkpoint with the manifest; those of the original with what they say of themselves."""
    from surestep.checkpoint.files import files_in
    from surestep.checkpoint.manifest import examine

    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files_in(folder) if path.is_file()}
    return check_of(str(folder), examine(folder), there)


def check_of(place: str, verdict: Verdict, there: Mapping[str, int]) -> FolderCheck:
    """Set what was found of a checkpoint beside its files, which are `there` with their sizes."""
    from surestep.checkpoint.layout import MANIFEST

    checks = []
    for name in sorted({*there, *verdict.files}):
        listed = not verdict.verified or name in verdict.files or name == MANIFEST
        checks.append(FileCheck(name, there.get(name), verdict.files.get(name), listed))
    return FolderCheck(place, checks, verdict.problems, verdict.verified)


def checks_view(checks: Sequence[FolderCheck]) -> RenderableType:
    """Show checkpoints a line each, the files of a single one, and everything that is wrong."""
    table = plain_table("checkpoint", "files", "size", "verdict")
    for check in checks:
        total = sum(file.size or 0 for file in check.files)
        colour = "bold red" if check.problems else "green"
        table.add_row(check.name, str(len(check.files)), human(total), Text(check.verdict, colour))
    parts: list[RenderableType] = [table]
    if len(checks) == 1:
        parts += [Text(), _files_table(checks[0].files)]
    parts += [Text(f"{check.name}: {problem}", "red") for check in checks for problem in check.problems]
    return Group(*parts)


def _files_table(files: Iterable[FileCheck]) -> RenderableType:
    table = plain_table("file", "bytes", "verdict")
    for file in files:
        verdict = file.problem or ("well" if file.listed else "not listed in the manifest")
        shown = Text(verdict, "red" if file.problem else "" if file.listed else "dim")
        table.add_row(file.name, "missing" if file.size is None else f"{file.size:,}", shown)
    return table


def checks_data(checks: Sequence[FolderCheck]) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "folder": check.place,
            "verdict": check.verdict,
            "verified": check.verified,
            "problems": check.problems,
            "files": [asdict(file) for file in check.files],
        }
        for check in checks
    ]


# inspect


def inspected(contents: Contents, place: str) -> dict[str, Any]:
    """Return what a checkpoint holds, as plain data; `place` is where it lies."""
    from surestep.checkpoint.origin import read_origin

    origin, state, trees = read_origin(contents.folder), contents.state(), contents.trees()
    progress = trees.get("progress", {})
    weights = list(_tensors(contents.weights()))
    parts = {name: _summary(tree) for name, tree in trees.items()}
    best = ("best_metric", "best_global_step", "best_model_checkpoint")
    return {
        "folder": place,
        "origin": None if origin is None else asdict(origin),
        "step": state.get("global_step"),
        "max_steps": state.get("max_steps"),
        "epoch": state.get("epoch"),
        "position": progress.get("position"),
        "best": {name: state[name] for name in best if state.get(name) is not None},
        "logged": len(state.get("log_history", [])),
        "parts": {"weights": {"tensors": len(weights), "bytes": sum(row["bytes"] for row in weights)}, **parts},
        "optimizer": _optimizer(trees.get("optimizer")),
        "arguments": contents.arguments(),
        "tensors": weights,
    }


def _tensors(weights: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, tensor in weights.items():
        yield {
            "name": name,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "bytes": _bytes(tensor),
        }


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _summary(tree: Any) -> dict[str, int]:
    from surestep.checkpoint.contents import leaves

    tensors = [value for _, value in leaves(tree) if hasattr(value, "element_size")]
    return {"tensors": len(tensors), "bytes": sum(map(_bytes, tensors))}


def _optimizer(tree: Any) -> dict[str, Any] | None:
    """Return what an optimizer's state says of itself: our form names it, the original's has its groups only."""
    if not isinstance(tree, Mapping):
        return None
    groups = tree.get("groups", tree.get("param_groups", []))
    described = [
        {"parameters": len(group.get("params", [])), **{key: group[key] for key in _SETTINGS_OF_GROUP if key in group}}
        for group in groups
    ]
    return {"name": tree.get("optimizer"), "groups": described}


def inspect_view(found: Mapping[str, Any], *, everything: bool) -> RenderableType:
    """Show what a checkpoint holds."""
    return Group(
        titled(str(found["folder"]), facts_table(_facts(found))),
        Text(),
        _parts_table(found),
        Text(),
        _tensor_table(found["tensors"], everything=everything),
        *([Text(), _arguments_table(found["arguments"])] if everything and found["arguments"] else []),
    )


def _facts(found: Mapping[str, Any]) -> dict[str, str]:
    origin, position, optimizer = found["origin"], found["position"], found["optimizer"]
    facts = {"step": f"{found['step']} of {found['max_steps']}, epoch {found['epoch']}"}
    if position:
        facts["position"] = ", ".join(f"{name} {value}" for name, value in position.items())
    if origin:
        facts["written"] = f"{origin['written']} by surestep {origin['surestep']} with torch {origin['torch']}"
        facts["run"] = f"{origin['run']}, begun {origin['begun']}, {origin['processes']} process(es)"
        facts["model"] = f"{origin['model']}, {origin['tensors']} tensors, {origin['elements']:,} numbers"
    if found["best"]:
        facts["best"] = ", ".join(f"{name} {value}" for name, value in found["best"].items())
    for place, group in enumerate(optimizer["groups"] if optimizer else []):
        shown = ", ".join(f"{name} {value}" for name, value in group.items())
        facts[f"optimizer {place}"] = f"{optimizer['name'] or ''} {shown}".strip()
    return facts


def _parts_table(found: Mapping[str, Any]) -> RenderableType:
    table = plain_table("part", "tensors", "size of them")
    for name, part in found["parts"].items():
        table.add_row(name, str(part["tensors"]), human(part["bytes"]))
    return table


def _tensor_table(rows: Sequence[Mapping[str, Any]], *, everything: bool) -> RenderableType:
    table = plain_table("weight", "dtype", "shape", "size")
    shown = rows if everything else rows[:_MOST]
    for row in shown:
        table.add_row(row["name"], row["dtype"], " x ".join(map(str, row["shape"])) or "one", human(row["bytes"]))
    return Group(table, *_more(len(rows) - len(shown)))


def _arguments_table(arguments: Mapping[str, Any]) -> RenderableType:
    return titled("arguments", facts_table({name: json.dumps(value) for name, value in arguments.items()}))


# diff


def diff_view(found: Sequence[Unlike], *, everything: bool) -> RenderableType:
    """Show what differs, part by part."""
    if not found:
        return Text("Nothing differs.")
    parts: list[RenderableType] = []
    for part in dict.fromkeys(one.part for one in found):
        rows = [one for one in found if one.part == part]
        shown = rows if everything else rows[:_MOST]
        table = plain_table("name", "first", "second", "largest difference")
        for one in shown:
            distance = "" if one.distance is None else f"{one.distance:.3g}"
            table.add_row(one.name, one.first, one.second, distance, style="dim" if one.harmless else None)
        parts += [titled(f"{part}: {len(rows)} differ", table), *_more(len(rows) - len(shown)), Text()]
    if all(one.harmless for one in found):
        parts.append(Text("What differs is harmless: the checkpoints are equal."))
    return Group(*parts)


def _more(count: int) -> list[Text]:
    return [Text(f"and {count} more; --all shows them", "dim")] if count > 0 else []
