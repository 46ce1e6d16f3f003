"""What all trackers have in common, on one that keeps its runs in a dict."""

import json
import logging
import random

import pytest
from tests.small import Points, quick

from surestep import TrainerState, TrainingArguments
from surestep.callbacks.trackers.record import read_record
from surestep.callbacks.trackers.tracker import Tracker
from surestep.errors import TrackerError
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl


class Server:
    """Runs by name, with the entries that each was given. It can be away."""

    def __init__(self):
        self.runs, self.away, self.ended, self.away_from = {}, False, [], None

    def check(self, step=0):
        if self.away or (self.away_from is not None and step >= self.away_from):
            raise ConnectionError("nobody there")


class Simple(Tracker):
    name, hint = "simple", "Start the server."

    def __init__(self, server, *, strict=False, background=False, stays_open=False):
        self.in_background, self.stays_open = background, stays_open
        super().__init__(strict=strict)
        self.server = server

    def open_run(self, args, state, model):
        self.server.check()
        self.run_id = self.run_id or f"run{len(self.server.runs)}"
        self.server.runs.setdefault(self.run_id, [])

    def send(self, entry):
        self.server.check(entry.step)
        self.server.runs[self.run_id].append(
            (entry.step, sorted(set(entry.values) & {"loss", "eval_loss", "train_loss"}))
        )

    def end_run(self, *, failed):
        self.server.check()
        self.server.ended.append((self.run_id, failed))


class Stop(TrainerCallback):
    """Breaks the training off after the log of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trainer(folder, tracker, *callbacks, **settings):
    usual = {"logging_steps": 1, "max_steps": 8, "save_strategy": "steps", "save_steps": 3, "log_level": "warning"}
    return quick(folder, callbacks=[tracker, *callbacks], eval_dataset=Points(4), **{**usual, **settings})


@pytest.fixture
def server():
    return Server()


def steps(entries, name="loss"):
    return [step for step, names in entries if name in names]


def whole(entries, last=8):
    return steps(entries) == list(range(1, last + 1)) and len(entries) == len(set(map(str, entries)))


def test_a_training_is_a_run(tmp_path, server):
    trainer(tmp_path, Simple(server), eval_strategy="steps", eval_steps=4).train()
    assert server.runs["run0"] == [
        *((step, ["loss"]) for step in range(1, 5)),
        (4, ["eval_loss"]),
        *((step, ["loss"]) for step in range(5, 9)),
        (8, ["eval_loss"]),
        (8, ["train_loss"]),
    ]
    assert server.ended == [("run0", False)]
    record = read_record(tmp_path, "simple")
    assert (record.run, record.step, record.count) == ("run0", 8, 3)
    assert read_record(tmp_path / "checkpoint-3", "simple").step == 3


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stop", [4, 5, 6, 7])
def test_a_resumed_training_goes_on_in_its_run(tmp_path, server, stop, background):
    settings = {"eval_strategy": "steps", "eval_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Simple(server, background=background), Stop(stop), **settings).train()
    assert server.ended == [("run0", True)]
    assert steps(server.runs["run0"])[-1] == stop
    trainer(tmp_path, Simple(server, background=background), **settings).train(resume_from_checkpoint=True)
    assert list(server.runs) == ["run0"]
    assert whole(server.runs["run0"])
    assert steps(server.runs["run0"], "eval_loss") == [2, 4, 6, 8]


def test_the_record_of_the_checkpoint_counts_where_there_is_no_later_one(tmp_path, server):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Simple(server), Stop(5)).train()
    (tmp_path / "tracker_simple.json").unlink()
    del server.runs["run0"][3:]
    trainer(tmp_path, Simple(server)).train(resume_from_checkpoint=True)
    assert whole(server.runs["run0"])


def test_another_name_begins_a_run_of_its_own(tmp_path, server, caplog):
    trainer(tmp_path, Simple(server), max_steps=4, run_name="one").train()
    trainer(tmp_path, Simple(server), run_name="two").train(resume_from_checkpoint=True)
    assert steps(server.runs["run1"]) == [5, 6, 7, 8]
    assert "run_name is 'two' and was 'one' in the checkpoint" in caplog.text


def test_a_tracker_that_is_new_in_a_resumed_training_begins_with_it(tmp_path, server):
    trainer(tmp_path, TrainerCallback(), max_steps=4).train()
    trainer(tmp_path, Simple(server)).train(resume_from_checkpoint=True)
    assert steps(server.runs["run0"]) == [5, 6, 7, 8]


def test_a_tracker_that_cannot_be_opened_stops_before_the_first_step(tmp_path, server):
    server.away = True
    ours = trainer(tmp_path, Simple(server))
    with pytest.raises(TrackerError, match=r"simple: no run can be opened. ConnectionError: nobody there. Start the s"):
        ours.train()
    assert ours.state.global_step == 0


@pytest.mark.parametrize("background", [False, True])
def test_a_tracker_that_goes_away_stops_nothing_and_what_was_not_sent_is_said(tmp_path, server, caplog, background):
    server.away_from = 5
    ours = trainer(tmp_path, Simple(server, background=background))
    ours.train()
    assert ours.state.global_step == 8
    assert steps(server.runs["run0"]) == [1, 2, 3, 4]
    assert caplog.text.count("Training goes on") == 1
    assert "simple was not sent: 5 entries of the log, of steps 5 to 8." in caplog.text


def test_what_was_not_sent_is_sent_when_the_run_is_resumed(tmp_path, server):
    server.away_from = 2
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Simple(server), Stop(5)).train()
    assert steps(server.runs["run0"]) == [1]
    server.away_from = None
    trainer(tmp_path, Simple(server)).train(resume_from_checkpoint=True)
    assert whole(server.runs["run0"])


def test_a_resumed_training_does_not_need_its_tracker(tmp_path, server, caplog):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Simple(server), Stop(5)).train()
    server.away = True

    class Back(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            server.away = state.global_step < 7

    tracker = Simple(server)
    trainer(tmp_path, tracker, Back()).train(resume_from_checkpoint=True)
    assert "Training goes on" in caplog.text
    assert whole(server.runs["run0"])
    assert "simple was not sent" not in caplog.text


@pytest.mark.parametrize("background", [False, True])
def test_strict_stops_the_training(tmp_path, server, background):
    server.away_from = 3
    ours = trainer(tmp_path, Simple(server, strict=True, background=background))
    with pytest.raises(TrackerError, match="strict=True asks"):
        ours.train()
    assert ours.state.global_step == 3


def test_an_end_that_fails_is_said(tmp_path, server, caplog):
    class Gone(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            server.away = True

    ours = quick(tmp_path, callbacks=[Gone(), Simple(server)], logging_steps=1)
    ours.train()
    assert "simple was not sent: the end of the run." in caplog.text


def test_evaluations_before_and_after_a_training_are_in_its_run(tmp_path, server):
    ours = trainer(tmp_path, Simple(server))
    ours.evaluate()
    ours.train()
    ours.evaluate()
    assert list(server.runs) == ["run0"]
    assert steps(server.runs["run0"], "eval_loss") == [0, 8]
    ours.end()
    assert server.ended == [("run0", False)] * 2


@pytest.mark.parametrize(("stays_open", "runs"), [(True, ["run0"]), (False, ["run0", "run1"])])
def test_a_second_training_has_a_run_unless_the_first_is_still_open(tmp_path, server, stays_open, runs):
    ours = trainer(tmp_path, Simple(server, stays_open=stays_open))
    ours.train()
    ours.evaluate()
    ours.train()
    assert list(server.runs) == runs


def test_a_run_that_stays_open_goes_on_in_the_same_process(tmp_path, server):
    tracker = Simple(server, stays_open=True)
    ours = trainer(tmp_path, tracker)
    ours.train()
    ours.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert list(server.runs) == ["run0"]
    assert steps(server.runs["run0"]) == list(range(1, 9))
    assert server.ended == []


def test_each_trial_has_a_run(tmp_path, server):
    args, tracker = TrainingArguments(str(tmp_path), use_cpu=True), Simple(server, stays_open=True)
    for trial in ("run-0", "run-1"):
        state = TrainerState(is_hyper_param_search=True, trial_name=trial, global_step=0)
        tracker.on_train_begin(args, state, TrainerControl())
        tracker.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
        tracker.on_train_end(args, state, TrainerControl())
    assert {name: len(entries) for name, entries in server.runs.items()} == {"run0": 1, "run1": 1}
    assert [json.loads((tmp_path / f"run-{n}" / "tracker_simple.json").read_text())["run"] for n in (0, 1)] == [
        "run0",
        "run1",
    ]


def test_only_the_main_process_reports(tmp_path, server):
    args, tracker = TrainingArguments(str(tmp_path), use_cpu=True), Simple(server)
    state = TrainerState(is_world_process_zero=False)
    tracker.on_train_begin(args, state, TrainerControl())
    tracker.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
    tracker.on_save(args, state, TrainerControl())
    tracker.on_train_end(args, state, TrainerControl())
    tracker.close()
    assert (server.runs, server.ended) == ({}, [])


def test_predictions_are_for_those_that_take_them(tmp_path, server):
    ours = trainer(tmp_path, Simple(server))
    ours.predict(Points(4))
    assert server.runs == {}


def test_a_setup_that_is_overridden_is_called(tmp_path, server):
    class Mine(Simple):
        def setup(self, args, state, model, **kwargs):
            super().setup(args, state, model, **kwargs)
            self.server.more = (self.run_id, type(model).__name__)

    trainer(tmp_path, Mine(server)).train()
    assert server.more == ("run0", "Line")


def test_a_disk_that_is_full_does_not_repeat_an_entry(tmp_path, server, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    tracker = Simple(server)
    args, state = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState()
    tracker.on_train_begin(args, state, TrainerControl())
    monkeypatch.setattr("surestep.callbacks.trackers.record.Record.write", full)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            tracker.on_log(args, TrainerState(global_step=step), TrainerControl(), logs={"loss": 1.0})
    assert steps(server.runs["run0"]) == [1, 2]
    assert "simple may repeat steps after a restart" in caplog.text


def test_names_that_a_client_makes_up_differ_and_change_no_random_number_of_the_training(tmp_path, server):
    class Named(Simple):
        def open_run(self, args, state, model):
            self.run_id = self.run_id or str(random.random())
            server.runs[self.run_id] = []

    drawn = []
    for folder in ("one", "two"):
        ours = trainer(tmp_path / folder, Named(server), max_steps=1)
        random.seed(7)
        ours.train()
        drawn.append(random.random())
    assert len(server.runs) == 2
    random.seed(7)
    assert set(drawn) == {random.random()}
