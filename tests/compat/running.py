"""Scripts as people write them, run as they run them: on the original, and here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"

# A model and a set of known numbers; a script begins with it and says the rest in its own words.
BEGINNING = """
import json
import sys
import torch
from torch import nn

class Points(torch.utils.data.Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(20, 3, generator=generator)
        self.y = self.x.sum(dim=1, keepdim=True)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.y[index]}

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x, labels=None):
        prediction = self.layer(x)
        loss = None if labels is None else nn.functional.mse_loss(prediction, labels)
        return {"loss": loss, "logits": prediction}

QUIET = dict(use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no", logging_steps=1,
             per_device_train_batch_size=4, num_train_epochs=2, learning_rate=0.01)

def tell(**facts):
    print("FACTS " + json.dumps(facts))
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the script told, all of it together."""
        lines = [line.removeprefix("FACTS ") for line in self.out.splitlines() if line.startswith("FACTS ")]
        assert lines, self.err
        return {name: value for line in lines for name, value in json.loads(line).items()}


def python(*words: str | Path, folder: Path, said: str | None = None, **variables: str) -> Ended:
    """Run Python with `words` in `folder` to its end, with the source of this repository on its path."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(SOURCE), **variables}
    ended = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment,
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def execute(*words: str | Path, folder: Path, said: str | None = None, **variables: str) -> Ended:
    """Run `surestep exec` with `words`."""
    return python("-m", "surestep", "exec", *words, folder=folder, said=said, **variables)


def write(folder: Path, text: str, name: str = "script.py") -> Path:
    """Write a script that begins with the model and the set."""
    path = folder / name
    path.write_text(BEGINNING + text, encoding="utf-8")
    return path


def same_facts(folder: Path, text: str, words: Sequence[str] = ()) -> tuple[Ended, Ended]:
    """Run a script on the original and here; both must end well and tell the same, but for who trained."""
    script = write(folder, text)
    theirs, ours = (run(script, *words, folder=folder) for run in (python, execute))
    for ended in (theirs, ours):
        assert ended.code == 0, ended.err
    told, answered = dict(theirs.facts), dict(ours.facts)
    assert told.pop("trainer").startswith("transformers."), theirs.facts
    assert answered.pop("trainer").startswith("surestep."), ours.facts
    assert answered == told
    assert told, "the script tells nothing"
    return theirs, ours
