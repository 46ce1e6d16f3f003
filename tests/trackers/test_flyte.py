"""Flyte, with a task that runs on this machine."""

import pytest

pytest.importorskip("flytekit", reason="needs flytekit: make test-trackers")

from tests.trackers.harness import run, script

# In a file of its own: Flyte reads the source of a task.
WORK = """
from flytekit import current_context, task

def train():
    raise NotImplementedError

@task
def work() -> int:
    checkpoint = current_context().checkpoint
    handed, kept = [], type(checkpoint).save
    type(checkpoint).save = lambda self, path: handed.append(path)
    try:
        trainer = train(report_to="flyte")
    finally:
        type(checkpoint).save = kept
    [deck] = [deck for deck in current_context().decks if deck.name == "Log History"]
    print("HANDED", handed, "learning_rate" in deck.html)
    return trainer.state.global_step
"""


def test_checkpoints_and_the_log_are_handed_over(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    printed = script(tmp_path, "import work\nwork.train = train\nprint('steps', work.work())")
    assert "HANDED ['out/checkpoint-5', 'out/checkpoint-8'] True" in printed
    assert "steps 8" in printed


def test_outside_of_a_task_it_says_so(tmp_path):
    printed = run(tmp_path, "flyte", expect=1)
    assert "works inside a Flyte task only" in printed
