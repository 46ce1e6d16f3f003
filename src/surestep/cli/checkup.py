"""Look at the machine: versions, devices, threads, memory, disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surestep.checkpoint.space import human

_LEAST_PYTHON = (3, 11)
_OPTIONAL = ("transformers", "datasets", "accelerate", "pyarrow", "pillow", "scikit-learn", "tensorboard")
_LITTLE_DISK = 2 * 1024**3
# Workers hand batches over through this file system; containers often give it 64 MiB.
_SHARED_MEMORY, _LITTLE_SHARED = Path("/dev/shm"), 256 * 1024**2


@dataclass
class Findings:
    """What was found; `problems` keep training from working, `cautions` may."""

    facts: dict[str, str] = field(default_factory=dict)
    cautions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def examine() -> Findings:
    """Look at the machine and say what does not fit together."""
    findings = Findings()
    _look_at_versions(findings)
    _look_at_devices(findings)
    _look_at_threads(findings)
    _look_at_disk(findings)
    return findings


def _look_at_versions(findings: Findings) -> None:
    findings.facts["python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _LEAST_PYTHON:
        findings.problems.append(f"Python {platform.python_version()} is too old: install 3.11 or newer.")
    for package in ("surestep", "torch", "numpy", *_OPTIONAL):
        findings.facts[package] = _version(package) or "not installed"
    for requirement in importlib.metadata.requires("surestep") or []:
        _compare(requirement, findings)


def _compare(requirement: str, findings: Findings) -> None:
    """Compare a requirement such as `torch>=2.13; extra == 'hf'` with what is installed."""
    match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\d.]+)([^;]*);?(.*)", requirement)
    if match is None:
        return
    package, least, _, condition = match.groups()
    found = _version(package)
    if found is None:
        if "extra" not in condition:
            findings.problems.append(f"{package} is not installed. Install it with: pip install '{package}>={least}'")
    elif _numbers(found) < _numbers(least):
        text = (
            f"{package} {found} is older than {least}, the oldest that is served: pip install -U '{package}>={least}'"
        )
        (findings.cautions if "extra" in condition else findings.problems).append(text)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version; what follows a plus names a build."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _look_at_devices(findings: Findings) -> None:
    import torch

    findings.facts["cuda build"] = torch.version.cuda or "none"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card: Any = torch.cuda.get_device_properties(index)
            findings.facts[f"cuda:{index}"] = f"{card.name}, {human(card.total_memory)}"
            _check_card(index, card, torch.cuda.get_arch_list(), findings)
    elif torch.backends.mps.is_available():
        findings.facts["mps"] = "Apple GPU"
    else:
        findings.facts["device"] = "cpu"
        _explain_missing_card(torch.version.cuda, findings)


def _check_card(index: int, card: Any, architectures: list[str], findings: Findings) -> None:
    """Name a card that this build of torch has no code for."""
    own = (card.major, card.minor)
    built = [(int(name[3:-1]), int(name[-1])) for name in architectures if re.fullmatch(r"sm_\d+", name)]
    # Code for a card runs on later cards of the same major number.
    if built and not any(major == own[0] and minor <= own[1] for major, minor in built):
        findings.problems.append(
            f"cuda:{index} ({card.name}, sm_{own[0]}{own[1]}) is not among {', '.join(architectures)}, for which this "
            "torch was built. Install a torch that names it: https://pytorch.org/get-started/locally"
        )


def _explain_missing_card(cuda: str | None, findings: Findings) -> None:
    driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    if driver and cuda is None:
        findings.cautions.append(
            "There is an NVIDIA driver, but this torch was built for the CPU only; install a CUDA build."
        )
    elif driver:
        findings.cautions.append(
            f"There is an NVIDIA driver, but torch (built for CUDA {cuda}) finds no card: the driver is too old, "
            f"or CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '(not set)')} hides the cards."
        )


def _look_at_threads(findings: Findings) -> None:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    findings.facts["cores"] = f"{cores} ({threads} threads for torch)"
    if threads > cores:
        findings.cautions.append(f"torch uses {threads} threads on {cores} cores: set OMP_NUM_THREADS={cores}.")


def _look_at_disk(findings: Findings) -> None:
    free = shutil.disk_usage(Path.cwd()).free
    findings.facts["disk"] = f"{human(free)} free in {Path.cwd()}"
    if free < _LITTLE_DISK:
        findings.cautions.append(f"Only {human(free)} are free in {Path.cwd()}: checkpoints may not fit.")
    if _SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(_SHARED_MEMORY).total
        findings.facts["shared memory"] = f"{human(shared)}"
        if shared < _LITTLE_SHARED:
            findings.cautions.append(
                f"{_SHARED_MEMORY} has {human(shared)}: with dataloader_num_workers > 0 give the container "
                "more (docker run --shm-size=1g)."
            )
