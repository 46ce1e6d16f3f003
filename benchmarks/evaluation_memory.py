"""What an evaluation holds in memory, by the number of its samples: surestep and transformers.

Samples of 64 tokens, each with logits over 8,000 classes (2 MB a sample in float32), in batches of 8 on one thread. The
model looks its logits up, so that they cost little. Each figure is that of a process of its own, above what it held
before the evaluation, in MiB:

- peak: the highest resident memory, as Linux counts it (`VmHWM`);
- own: the highest of it that no file lies behind (`RssAnon`, looked at every 10 ms). Arrays on disk are mapped into
  memory, and their pages, which the system takes back when it needs them, are in the peak and not in this.

The slope of the larger of what must not grow is given with its standard error. Transformers is asked for few samples
only where it keeps all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

WIDTH, CLASSES, BATCH = 64, 8000, 8
SIZES = (1000, 5000, 20000, 50000)


class Sentences(Dataset[dict[str, Tensor]]):
    """Sentences made when they are asked for."""

    def __init__(self, size: int, width: int = WIDTH) -> None:
        self.size, self.width = size, width

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = (torch.arange(self.width) * 7 + index) % 16
        return {"tokens": tokens, "labels": tokens * 11}


class Model(nn.Module):
    """Looks logits up: little mathematics, large outputs."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(16, num_classes)

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.table(tokens)
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def right(prediction: Any) -> dict[str, float]:
    """Count the tokens predicted rightly from their logits, a few samples at a time."""
    parts = [slice(start, start + BATCH) for start in range(0, len(prediction.label_ids), BATCH)]
    met = sum(int((prediction.predictions[part].argmax(-1) == prediction.label_ids[part]).sum()) for part in parts)
    return {"accuracy": met / (len(prediction.label_ids) * WIDTH)}


def chosen_right(prediction: Any) -> dict[str, float]:
    """Count the tokens predicted rightly from the classes chosen."""
    return {"accuracy": float((prediction.predictions == prediction.label_ids).mean())}


def chosen(logits: Tensor, _: Any) -> Tensor:
    """Return the likeliest class of each token."""
    return logits.argmax(-1)


@dataclass(frozen=True)
class Way:
    """A way to evaluate, and the numbers of samples it is asked for."""

    library: str
    name: str
    sizes: tuple[int, ...]
    given: dict[str, Any]

    def trainer(self, folder: str, samples: int) -> Any:
        """Return a trainer that evaluates so many samples in this way."""
        library: Any = __import__(self.library)
        args = library.TrainingArguments(
            folder, per_device_eval_batch_size=BATCH, report_to="none", disable_tqdm=True, use_cpu=True
        )
        return library.Trainer(Model(), args, eval_dataset=Sentences(samples), **self.given)

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.library}, {self.name}"


ARGMAX = {"preprocess_logits_for_metrics": chosen, "compute_metrics": chosen_right}
WAYS = (
    Way("surestep", "loss only", SIZES, {}),
    Way("surestep", "metrics=", SIZES, {"metrics": ["accuracy", "f1"]}),
    Way("surestep", "argmax kept", SIZES, ARGMAX),
    Way("surestep", "all logits, on disk", (1000, 2000, 4000), {"compute_metrics": right}),
    Way("transformers", "loss only", (1000, 2000), {}),
    Way("transformers", "argmax kept", (1000, 2000), ARGMAX),
    Way("transformers", "all logits", (250, 500, 1000), {"compute_metrics": right}),
)


def _status(name: str) -> int:
    """Return a figure that Linux tells of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


@contextlib.contextmanager
def _highest_own() -> Iterator[Callable[[], int]]:
    """Watch the process's own memory, and give a function that tells the highest so far."""
    highest, done = _status("RssAnon"), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, _status("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield lambda: highest
    done.set()
    watcher.join()


def measure(way: Way, samples: int) -> dict[str, float]:
    """Evaluate in this process; return both peaks above the start in MiB, and the seconds."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # Everything is loaded, and the allocator warm, before counting begins.
        way.trainer(folder, 2 * BATCH).evaluate()
        trainer = way.trainer(folder, samples)
        # Lets the highest resident memory begin anew.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        resident, own, start = _status("VmRSS"), _status("RssAnon"), time.perf_counter()
        with _highest_own() as highest:
            trainer.evaluate()
            seconds = time.perf_counter() - start
        figures = {"peak": _status("VmHWM") - resident, "own": highest() - own}
        return {name: size / 2**20 for name, size in figures.items()} | {"seconds": seconds}


def slope(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Return MiB a sample by least squares, and its standard error (NaN from two points)."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    found = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - found * (x - mean_x)) ** 2 for x, y in points)
    free = len(points) - 2
    return found, math.sqrt(rest / free / spread) if free > 0 else math.nan


def main(most: int = 2000, rounds: int = 1, only: str = "") -> None:
    """Print the peaks and their slopes, for up to `most` samples; each is measured `rounds` times.

    `only` is a part of the names of the ways to measure.
    """
    print(f"{'':34}{'samples':>9}{'peak, MiB':>12}{'own, MiB':>12}{'seconds':>9}")
    for number, way in enumerate(WAYS):
        if only not in way.title:
            continue
        points: dict[str, list[tuple[int, float]]] = {"peak": [], "own": []}
        for samples in [size for size in way.sizes if size <= most] * rounds:
            one = [sys.executable, "-W", "ignore", "-m", "benchmarks.evaluation_memory", "--one", f"{number}"]
            output = subprocess.run([*one, f"{samples}"], check=True, capture_output=True, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            for name, measured in points.items():
                measured.append((samples, found[name]))
            print(
                f"{way.title:34}{samples:9}{found['peak']:12.1f}{found['own']:12.1f}{found['seconds']:9.0f}", flush=True
            )
        slopes = ", ".join(f"{name} {found:.5f} (+- {error:.5f})" for name, (found, error) in _slopes(points))
        print(f"{'':34}MiB a sample: {slopes}\n", flush=True)


def _slopes(points: dict[str, list[tuple[int, float]]]) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, measured in points.items():
        if len({samples for samples, _ in measured}) > 1:
            yield name, slope(measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=2000, help="leave out larger evaluations")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured")
    parser.add_argument("--only", default="", help="a part of the names of the ways to measure")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(WAYS[given.one[0]], given.one[1])))
    else:
        main(given.most, given.rounds, given.only)
