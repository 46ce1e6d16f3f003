"""Early stopping against the original's, evaluation by evaluation."""

import json
import logging
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback as TheirStopping
from transformers import TrainerControl as TheirControl
from transformers import TrainerState as TheirState

from surestep.callbacks.early_stopping import EarlyStoppingCallback
from surestep.errors import ArgumentError
from surestep.training.state import TrainerControl, TrainerState


def arguments(**changes) -> SimpleNamespace:
    values = {
        "metric_for_best_model": "accuracy",
        "greater_is_better": True,
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
    }
    return SimpleNamespace(**(values | changes))


def better(args: SimpleNamespace, value: float, best: float | None) -> bool:
    return best is None or (value > best if args.greater_is_better else value < best)


@example(values=[0.5, 0.75], patience=2, threshold=0.25, greater=True, name="accuracy")
@given(
    values=st.lists(st.one_of(st.sampled_from([0.5, 0.51, 0.75, float("nan")]), st.floats(-2, 2)), max_size=12),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 0.01, 0.25]),
    greater=st.booleans(),
    name=st.sampled_from(["accuracy", "eval_accuracy"]),
)
def test_stops_where_the_original_stops(values, patience, threshold, greater, name):
    args = arguments(greater_is_better=greater, metric_for_best_model=name)
    theirs, ours = TheirStopping(patience, threshold), EarlyStoppingCallback(patience, threshold)
    their_state, our_state = TheirState(), TrainerState()
    their_control, our_control = TheirControl(), TrainerControl()
    theirs.on_train_begin(args, their_state, their_control)
    ours.on_train_begin(args, our_state, our_control)
    for value in values:
        theirs.on_evaluate(args, their_state, their_control, metrics={"eval_accuracy": value})
        ours.on_evaluate(args, our_state, our_control, metrics={"eval_accuracy": value})
        assert our_control.should_training_stop == their_control.should_training_stop
        assert ours.state() == theirs.state()
        # The trainer compares after the event, so that the callback sees the best of the evaluations before.
        if better(args, value, our_state.best_metric):
            our_state.best_metric = their_state.best_metric = value


def test_the_count_survives_a_checkpoint():
    before = EarlyStoppingCallback(3, 0.5)
    before.early_stopping_patience_counter = 2
    after = EarlyStoppingCallback.from_state(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    control = TrainerControl()
    after.on_evaluate(arguments(), TrainerState(best_metric=0.9), control, metrics={"eval_accuracy": 0.1})
    assert control.should_training_stop


def test_no_threshold_is_a_threshold_of_nothing():
    stopping, control = EarlyStoppingCallback(early_stopping_threshold=None), TrainerControl()
    stopping.on_evaluate(arguments(), TrainerState(best_metric=0.5), control, metrics={"eval_accuracy": 0.50001})
    assert not control.should_training_stop


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric_for_best_model": None}, r'metric_for_best_model, which is None. Write metric_for_best_model="loss"'),
        ({"eval_strategy": "no"}, r'eval_strategy="no" makes none. Write eval_strategy="epoch"'),
    ],
)
def test_arguments_under_which_nothing_is_compared_are_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        EarlyStoppingCallback().on_train_begin(arguments(**changes), TrainerState(), TrainerControl())


@pytest.mark.parametrize(
    ("patience", "threshold", "message"),
    [(-1, 0.0, "early_stopping_patience=-1"), (1, -0.1, "threshold=-0.1"), (1, float("nan"), "threshold=nan")],
)
def test_nonsense_is_refused(patience, threshold, message):
    with pytest.raises(ArgumentError, match=message):
        EarlyStoppingCallback(patience, threshold)


def test_last_weights_are_warned_about(caplog):
    EarlyStoppingCallback().on_train_begin(arguments(load_best_model_at_end=False), TrainerState(), TrainerControl())
    assert "load_best_model_at_end=True" in caplog.text


def test_missing_metric_is_said_once_and_does_not_count(caplog):
    stopping, control = EarlyStoppingCallback(), TrainerControl()
    args = arguments(metric_for_best_model="missing_of_this_test")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            stopping.on_evaluate(args, TrainerState(best_metric=1.0), control, metrics={"eval_loss": 1.0, "epoch": 2})
    assert len(caplog.records) == 1
    assert "'eval_missing_of_this_test'" in caplog.text
    assert "eval_loss, epoch" in caplog.text
    assert control == TrainerControl()
    assert stopping.early_stopping_patience_counter == 0
