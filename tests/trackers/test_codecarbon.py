"""CodeCarbon: what its file holds."""

import csv

import pytest

pytest.importorskip("codecarbon", reason="needs codecarbon: make test-trackers")

from tests.trackers.harness import KILLED, assert_no_network, run

FRANCE = {"CODECARBON_COUNTRY_ISO_CODE": "FRA"}


def lines(folder):
    with (folder / "out" / "emissions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_is_a_line(tmp_path):
    run(tmp_path, "codecarbon", env=FRANCE)
    [line] = lines(tmp_path)
    assert line["country_name"] == "France"
    assert float(line["energy_consumed"]) > 0
    assert_no_network(tmp_path)


def test_what_a_killed_process_used_is_known_and_the_resumed_one_adds_a_line(tmp_path):
    run(tmp_path, "codecarbon", env=FRANCE, expect=KILLED, kill_at=8)
    [killed] = lines(tmp_path)
    assert float(killed["energy_consumed"]) > 0
    run(tmp_path, "codecarbon", env=FRANCE, resume=True)
    first, second = lines(tmp_path)
    assert first == killed
    assert first["run_id"] != second["run_id"]


def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path):
    run(tmp_path, "codecarbon", env=FRANCE, expect=KILLED, kill_at=8)
    table = tmp_path / "out" / "emissions.csv"
    table.write_bytes(table.read_bytes()[:-20])
    printed = run(tmp_path, "codecarbon", env=FRANCE, resume=True)
    assert "emissions.csv' ends in the middle of a line" in printed
    [line] = lines(tmp_path)
    assert float(line["energy_consumed"]) > 0
    assert None not in line.values()


def test_a_place_that_nobody_names_is_asked_for_and_said(tmp_path):
    printed = run(tmp_path, "codecarbon", max_steps=2)
    assert "CODECARBON_COUNTRY_ISO_CODE" in printed
    assert len(lines(tmp_path)) == 1


def test_a_training_that_fails_is_a_line(tmp_path):
    run(tmp_path, "codecarbon", env=FRANCE, expect=1, fail_at=3)
    assert len(lines(tmp_path)) == 1
