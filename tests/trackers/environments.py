"""Each tracker with its client, in an environment of its own: `python -m tests.trackers.environments [NAME ...]`.

The clients want different versions of the same packages, so each gets a virtual environment, `.venv-trackers/<name>`,
that sees the packages of the one that runs this and puts its own before them: torch is not installed again. The tests
of the tracker run there; a table says what was installed, how long it took and how it went.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-trackers"
# Name in `report_to`: what pip installs, the client first.
PACKAGES = {
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "swanlab": ("swanlab",),
    "dvclive": ("dvclive",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet-ml",),
    "clearml": ("clearml",),
    "neptune": ("neptune",),
    "azure_ml": ("azureml-core",),
    "flyte": ("flytekit", "flytekitplugins-deck-standard"),
    "dagshub": ("dagshub", "mlflow"),
}


@dataclass
class Outcome:
    """A row of the table."""

    name: str
    version: str = ""
    seconds: float = 0.0
    result: str = ""
    passed: bool = False


def python_of(name: str) -> Path:
    """Make the environment of a tracker, and return its Python."""
    folder = PLACE / name
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    inside = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(inside) / "_shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def install(python: Path, packages: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Install packages beside the torch that is there."""
    fixed = PLACE / "constraints.txt"
    fixed.write_text(f"torch=={version('torch').partition('+')[0]}\n", encoding="utf-8")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint", str(fixed)]
    return subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def tests_of(name: str) -> list[str]:
    """Return the files of tests that need the client of a tracker."""
    return [f"tests/trackers/test_{name}.py", "tests/parity/test_differences_trackers.py"]


def try_out(name: str) -> Outcome:
    """Install a tracker's client and run its tests."""
    outcome, start = Outcome(name), time.monotonic()
    python = python_of(name)
    installed = install(python, PACKAGES[name])
    if installed.returncode:
        outcome.result = f"not installed: {last_line(installed.stderr)}"
    else:
        about = f"import importlib.metadata; print(importlib.metadata.version({PACKAGES[name][0]!r}))"
        outcome.version = last_line(
            subprocess.run([python, "-c", about], capture_output=True, text=True, check=True).stdout
        )
        tests = [python, "-m", "pytest", "-q", "-p", "no:randomly", "--timeout=900", *tests_of(name)]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(tests, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        outcome.passed = done.returncode == 0
        outcome.result = re.sub(r" in \d.*", "", last_line(done.stdout))
        if not outcome.passed:
            outcome.result += f" (exit status {done.returncode})"
            print(done.stdout, done.stderr, sep="\n")
    outcome.seconds = time.monotonic() - start
    return outcome


def main() -> int:
    """Try the trackers that are named, else all, and print the table; 0 if all passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *PACKAGES], help="trackers; all of them where none is named")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    asked = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    outcomes = []
    for name in asked.names or PACKAGES:
        outcomes.append(try_out(name))
        found = outcomes[-1]
        print(f"{found.name:12} {found.version:14} {found.seconds:6.0f} s  {found.result}", flush=True)
        if not asked.keep:
            shutil.rmtree(PLACE / name)
    if not asked.keep and not any(PLACE.glob("*/")):
        shutil.rmtree(PLACE)
    print("\n| tracker | version | result |\n|---|---|---|")
    for found in outcomes:
        print(f"| {found.name} | {found.version} | `{found.result}` |")
    return 0 if all(found.passed for found in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
