import math

import pytest
from transformers import PrinterCallback as TheirPrinter

from surestep.callbacks.printer import PrinterCallback
from surestep.training.state import TrainerControl, TrainerState

LOGS = {
    "loss": 0.412345,
    "learning_rate": 4.53e-05,
    "epoch": 1,
    "note": "text",
    "grad_norm": math.nan,
    "total_flos": 9.0,
}


def printed(callback, logs, capsys, **state) -> str:
    callback.on_log(None, TrainerState(**state), TrainerControl(), logs=logs)
    return capsys.readouterr().out


def test_lines_equal_the_originals_and_the_entry_is_left_alone(capsys):
    logs = dict(LOGS)
    expected = printed(TheirPrinter(), dict(LOGS), capsys)
    assert printed(PrinterCallback(), logs, capsys) == expected
    assert "total_flos" not in expected
    assert list(logs) == list(LOGS)


@pytest.mark.parametrize(("first", "speaks"), [(True, True), (False, False)])
def test_one_process_of_a_machine_speaks(first, speaks, capsys):
    line = printed(PrinterCallback(), LOGS, capsys, is_local_process_zero=first, is_world_process_zero=not first)
    assert bool(line) is speaks
