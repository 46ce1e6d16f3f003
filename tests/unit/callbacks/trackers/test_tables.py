import logging

import pytest

from surestep.callbacks.trackers.tables import drop_unfinished


@pytest.mark.parametrize("content", ["step\tloss\n1\t0.5\n", "step\tloss\n"])
def test_a_whole_table_is_left_alone(tmp_path, caplog, content):
    table = tmp_path / "loss.tsv"
    table.write_text(content)
    with caplog.at_level(logging.WARNING):
        drop_unfinished(table)
    assert table.read_text() == content
    assert caplog.text == ""


def test_an_unfinished_line_is_dropped_and_told(tmp_path, caplog):
    table = tmp_path / "loss.tsv"
    table.write_text("step\tloss\n1\t0.5\n2\t0.")
    with caplog.at_level(logging.WARNING):
        drop_unfinished(table)
    assert table.read_text() == "step\tloss\n1\t0.5\n"
    assert [file.name for file in tmp_path.iterdir()] == ["loss.tsv"]
    assert "ends in the middle of a line ('2\\t0.')" in caplog.text


@pytest.mark.parametrize("content", ["", "step\tlo"])
def test_a_table_without_a_whole_line_is_removed(tmp_path, content):
    table = tmp_path / "loss.tsv"
    table.write_text(content)
    drop_unfinished(table)
    assert not table.exists()
