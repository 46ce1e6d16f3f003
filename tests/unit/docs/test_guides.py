"""Every block of Python in the guides runs, each by itself, on a small model in a scratch folder."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from surestep import Trainer, TrainingArguments

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [*sorted((DOCS / "guides").glob("*.md")), DOCS / "loop.md", DOCS / "loss.md", DOCS.parent / "README.md"]
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return the line at which each block begins, and the block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start(1)].count("\n") + 1, found[1]) for found in _FENCE.finditer(text)]


BLOCKS = [pytest.param(page, line, code, id=f"{page.name}:{line}") for page in PAGES for line, code in blocks(page)]


class Model(nn.Module):
    """Embeddings, four layers and a head, under the names that guides use."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(8, width)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
        self.head = nn.Linear(width, 2)

    def forward(self, tokens, labels=None):
        hidden = self.embeddings(tokens).mean(1)
        for layer in self.encoder.layers:
            hidden = layer(hidden).tanh()
        logits = self.head(hidden)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def samples(count: int) -> list[dict[str, torch.Tensor]]:
    return [{"tokens": torch.arange(i, i + 3) % 8, "labels": torch.tensor(i % 2)} for i in range(count)]


def given() -> dict[str, object]:
    """Return what a guide takes as the reader's own."""
    torch.manual_seed(0)
    model, train, evaluation = Model(), samples(32), samples(8)
    args = TrainingArguments("own", max_steps=101, save_strategy="no", disable_tqdm=True)
    return {
        "model": model,
        "make_model": lambda *, width=4: Model(width),
        "train_dataset": train,
        "eval_dataset": evaluation,
        "trainer": Trainer(model, args, train_dataset=train),
    }


def sequences() -> dict[str, object]:
    """Return what the guide to sequences takes as the reader's own."""
    from tests.parity.sequences import Pairs, bart, tokenizer

    torch.manual_seed(0)
    return {"model": bart(), "tokenizer": tokenizer(), "train_dataset": Pairs(16), "eval_dataset": Pairs(8, seed=6)}


def job() -> dict[str, object]:
    """Run the job that the guide to jobs has trained, for a step, and draw a picture beside it."""
    from PIL import Image

    from surestep.jobs.job import make_job
    from surestep.jobs.run import Request, run_job

    arguments = {"max_steps": 1, "save_strategy": "no", "disable_tqdm": True}
    declared = {"task": "image_classification", "data": "sklearn:digits", "arguments": arguments}
    run_job(Request(make_job(declared, "digits"), Path(), say=str, warn=str))
    Image.new("L", (8, 8)).save("seven.png")
    return {}


GIVEN = {"sequence-to-sequence.md": sequences, "jobs.md": job}


@pytest.mark.parametrize(("page", "line", "code"), BLOCKS)
def test_a_block_runs(tmp_path, monkeypatch, page, line, code):
    monkeypatch.chdir(tmp_path)
    # Lines of the page, so that an error points at it.
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), GIVEN.get(page.name, given)())


def test_no_block_is_missed():
    assert len(BLOCKS) >= 8
    for page in PAGES:
        assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```py"), page
