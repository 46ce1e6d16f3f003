import json
import subprocess
import sys

import pytest

from surestep.data.position import DataPosition
from surestep.errors import CheckpointError, DataError


def test_it_counts_samples_and_starts_each_epoch_at_zero():
    position = DataPosition(seed=7)
    position.advance(8)
    position.advance(3)
    assert (position.seed, position.epoch, position.samples) == (7, 0, 11)
    position.next_epoch()
    assert (position.seed, position.epoch, position.samples) == (7, 1, 0)


def test_its_state_survives_json():
    position = DataPosition(seed=-3, epoch=2, samples=5)
    restored = DataPosition()
    restored.load_state_dict(json.loads(json.dumps(position.state_dict())))
    assert restored == position


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"seed": 1, "epoch": 0}, "samples=None"),
        ({"seed": 1, "epoch": -1, "samples": 0}, "epoch=-1"),
        ({"seed": 1, "epoch": 0, "samples": 2.5}, r"samples=2\.5"),
        ({"seed": True, "epoch": 0, "samples": 0}, "seed=True"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state, named):
    position = DataPosition(seed=9, epoch=1, samples=4)
    with pytest.raises(CheckpointError, match=named):
        position.load_state_dict(state)
    assert position == DataPosition(seed=9, epoch=1, samples=4)


def test_it_moves_forward_only():
    with pytest.raises(DataError, match=r"advance\(-1\)"):
        DataPosition().advance(-1)


def test_it_needs_no_torch():
    script = "import sys, surestep.data.position; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
