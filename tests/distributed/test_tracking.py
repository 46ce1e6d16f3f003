"""Ranks agree on what is best, and on what no evaluation gives."""

from __future__ import annotations

import json
from pathlib import Path

from tests.distributed.launch import launch


def test_ranks_agree_on_what_is_best(tmp_path: Path) -> None:
    one, other = launch("tests.distributed.tracking", 2, tmp_path)

    assert one == other
    assert tuple(one["found"]["score"]) == (0.9, 2)
    # The loss falls from the first evaluation on.
    assert one["found"]["loss"][1] == 1
    assert "metric_for_best_model is 'f1', but no evaluation gives 'eval_f1'" in one["told"]
    assert one["steps"] == 0
    kept = json.loads((tmp_path / "tracked" / "best.json").read_text())
    assert {name: Path(best["checkpoint"]).name for name, best in kept.items()} == {
        "score": "checkpoint-2",
        "loss": "checkpoint-1",
    }
    folders = sorted(path.name for path in (tmp_path / "tracked").glob("checkpoint-*"))
    assert folders == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
