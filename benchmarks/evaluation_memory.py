"""What an evaluation holds in memory, by the number of its samples: surestep and transformers.

Samples of 64 tokens, each with logits over 8,000 classes (2 MB a sample in float32), in batches of 8 on one thread.
Each figure is the peak of a process of its own above what it held before the evaluation: memory that the process
has to itself (`RssAnon` of Linux). Pages of files that are mapped, which the system takes back when it needs them, are
not in it. Transformers is asked for few samples only: it keeps all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

WIDTH, CLASSES, BATCH = 64, 8000, 8
# Way, and the numbers of samples it is asked for.
PLAN: dict[str, tuple[int, ...]] = {
    "surestep, loss only": (1000, 2000, 10000, 50000),
    "surestep, metrics=": (1000, 2000, 10000, 50000),
    "surestep, compute_metrics": (1000, 2000, 4000, 8000),
    "transformers, compute_metrics": (1000, 2000),
}


class Sentences(Dataset[dict[str, Tensor]]):
    """Sentences made when they are asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = (torch.arange(WIDTH) * 7 + index) % 16
        return {"tokens": tokens, "labels": tokens * 11}


class Model(nn.Module):
    """Looks logits up: little mathematics, large outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(16, CLASSES)

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.table(tokens)
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def right(prediction: Any) -> dict[str, float]:
    """Count the tokens predicted rightly, a few samples at a time."""
    parts = range(0, len(prediction.label_ids), BATCH)
    met = sum(
        int((prediction.predictions[at : at + BATCH].argmax(-1) == prediction.label_ids[at : at + BATCH]).sum())
        for at in parts
    )
    return {"accuracy": met / (len(prediction.label_ids) * WIDTH)}


def _trainer(library: Any, folder: str, samples: int, **given: Any) -> Any:
    args = library.TrainingArguments(
        folder, per_device_eval_batch_size=BATCH, report_to="none", disable_tqdm=True, use_cpu=True
    )
    return library.Trainer(Model(), args, eval_dataset=Sentences(samples), **given)


def _surestep(folder: str, samples: int, **given: Any) -> Any:
    import surestep

    return _trainer(surestep, folder, samples, **given)


def _transformers(folder: str, samples: int, **given: Any) -> Any:
    import transformers

    return _trainer(transformers, folder, samples, **given)


WAYS: dict[str, Callable[[str, int], Any]] = {
    "surestep, loss only": _surestep,
    "surestep, metrics=": lambda folder, samples: _surestep(folder, samples, metrics=["accuracy", "f1"]),
    "surestep, compute_metrics": lambda folder, samples: _surestep(folder, samples, compute_metrics=right),
    "transformers, compute_metrics": lambda folder, samples: _transformers(folder, samples, compute_metrics=right),
}


def _own_memory() -> int:
    """Return the bytes that this process has to itself."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


@contextlib.contextmanager
def _peak() -> Iterator[Callable[[], int]]:
    """Watch the process's own memory, and give a function that tells the highest so far."""
    highest, done = _own_memory(), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, _own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield lambda: highest
    done.set()
    watcher.join()


def measure(way: str, samples: int) -> dict[str, float]:
    """Evaluate in this process, and return the peak above the start in MiB, and the seconds."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # Everything is loaded, and the allocator warm, before counting begins.
        WAYS[way](folder, 2 * BATCH).evaluate()
        trainer = WAYS[way](folder, samples)
        before, start = _own_memory(), time.perf_counter()
        with _peak() as peak:
            trainer.evaluate()
            seconds = time.perf_counter() - start
        return {"peak": (peak() - before) / 2**20, "seconds": seconds}


def slope(points: list[tuple[int, float]]) -> float:
    """Return MiB a sample, by least squares."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def main(most: int = 2000) -> None:
    """Print the peaks and their slopes, for up to `most` samples."""
    print(f"{'':32}{'samples':>9}{'peak, MiB':>12}{'seconds':>9}")
    for way, sizes in PLAN.items():
        points = []
        for samples in (size for size in sizes if size <= most):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.evaluation_memory", "--one", way, str(samples)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            points.append((samples, found["peak"]))
            print(f"{way:32}{samples:9}{found['peak']:12.0f}{found['seconds']:9.0f}", flush=True)
        print(f"{'':32}{slope(points):.4f} MiB a sample" if len(points) > 1 else "", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=2000, help="leave out larger evaluations")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]))))
    else:
        main(given.most)
