"""Who hears what, in which order, and what each event clears."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from surestep.errors import ArgumentError
from surestep.training.callback import EVENTS, TrainerCallback
from surestep.training.events import Events, listens
from surestep.training.state import TrainerControl, TrainerState

FLAGS = ("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate", "should_log")
# What the original's handler clears on each event.
CLEARED = {
    "on_train_begin": {"should_training_stop"},
    "on_epoch_begin": {"should_epoch_stop"},
    "on_step_begin": {"should_log", "should_evaluate", "should_save"},
    "on_log": {"should_log"},
    "on_evaluate": {"should_evaluate"},
    "on_save": {"should_save"},
}


def source() -> Any:
    return SimpleNamespace(args="args", state=TrainerState(), control=TrainerControl())


def events_of(*callbacks: Any, owner: Any = None) -> Events:
    return Events(owner or source(), callbacks, model="model", processing_class="processor")


class Quiet(TrainerCallback):
    """Listens to nothing."""


def recorder(name: str, seen: list[Any], event: str = "on_step_end", answer: Any = None) -> Any:
    def method(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        seen.append((name, args, state, control, kwargs))
        return answer

    return type(name, (TrainerCallback,), {event: method})()


def test_callbacks_are_called_in_their_order_with_what_they_need() -> None:
    owner, seen = source(), []
    events = events_of(recorder("One", seen), Quiet(), recorder("Two", seen), owner=owner)
    events.optimizer, events.lr_scheduler = "optimizer", "schedule"
    events.train_dataloader, events.eval_dataloader = "train", "eval"
    events.fire("on_step_end", extra=1)

    assert [name for name, *_ in seen] == ["One", "Two"]
    assert seen[0][1:4] == ("args", owner.state, owner.control)
    assert seen[0][4] == {
        "model": "model",
        "processing_class": "processor",
        "optimizer": "optimizer",
        "lr_scheduler": "schedule",
        "train_dataloader": "train",
        "eval_dataloader": "eval",
        "extra": 1,
    }


@pytest.mark.parametrize("event", EVENTS)
def test_the_keywords_are_those_of_the_original(event: str) -> None:
    seen: list[Any] = []
    theirs = transformers.trainer_callback.CallbackHandler([], "model", "processor", "optimizer", "schedule")
    theirs.callbacks.append(recorder("Theirs", seen, event))
    extra = {"on_log": ({"loss": 1},), "on_evaluate": ({"eval_loss": 1},), "on_predict": ({"test_loss": 1},)}
    getattr(theirs, event)("args", TrainerState(), TrainerControl(), *extra.get(event, ()))
    ours = events_of(recorder("Ours", seen, event))
    ours.optimizer, ours.lr_scheduler = "optimizer", "schedule"
    getattr(ours, event)("args", TrainerState(), TrainerControl(), *extra.get(event, ()))

    assert seen[0][4] == seen[1][4]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("direct", [False, True], ids=["fired", "called"])
def test_an_event_clears_the_requests_that_it_answers(event: str, direct: bool) -> None:
    owner, events = source(), None
    owner.control = TrainerControl(*[True] * 5)
    events = events_of(owner=owner)
    if direct:
        getattr(events, event)("args", owner.state, owner.control)
    else:
        events.fire(event)

    assert {flag for flag in FLAGS if not getattr(owner.control, flag)} == CLEARED.get(event, set())


@pytest.mark.parametrize("event", EVENTS)
def test_the_original_clears_the_same(event: str) -> None:
    control = transformers.TrainerControl(*[True] * 5)
    theirs = transformers.trainer_callback.CallbackHandler([transformers.DefaultFlowCallback], *[None] * 4)
    theirs.callbacks.clear()
    extra = [{}] if event in ("on_log", "on_evaluate", "on_predict") else []
    getattr(theirs, event)("args", transformers.TrainerState(), control, *extra)

    assert {flag for flag in FLAGS if not getattr(control, flag)} == CLEARED.get(event, set())


def test_requests_are_cleared_before_anybody_hears_of_the_event() -> None:
    owner, seen = source(), []
    owner.control.should_log = True

    class Asks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(control.should_log)
            control.should_log = True

    events_of(Asks(), owner=owner).fire("on_step_begin")

    assert seen == [False]
    assert owner.control.should_log


def test_a_returned_control_takes_the_place_of_the_old_one() -> None:
    owner, seen = source(), []
    new = TrainerControl(should_save=True)
    events = events_of(recorder("One", seen, answer=new), recorder("Two", seen), recorder("Three", seen), owner=owner)
    events.fire("on_step_end")

    assert owner.control is new
    assert [control is new for _, _, _, control, _ in seen] == [False, True, True]


def test_what_nobody_hears_costs_no_call() -> None:
    events = events_of(Quiet(), Quiet())
    events.refresh()
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    fire = events.fire
    sys.setprofile(count)
    fire("on_substep_end")
    sys.setprofile(None)

    assert calls == 1


def test_a_heard_event_costs_two_calls_and_one_for_each_listener() -> None:
    events = events_of(recorder("One", []), Quiet(), recorder("Two", []))
    events.refresh()
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(frame.f_code.co_name) if event == "call" else None)
    events.fire("on_step_end")
    sys.setprofile(None)

    assert calls == ["fire", "call_event", "method", "method"]


def test_who_hears() -> None:
    events = events_of(Quiet(), recorder("One", [], "on_log"))

    assert events.hears("on_log")
    assert not events.hears("on_save")


# Who listens


class Sub(Quiet):
    def on_log(self, *_: Any, **__: Any) -> None: ...


class SubSub(Sub):
    """Inherits its method."""


class Stock(transformers.TrainerCallback):
    def on_log(self, *_: Any, **__: Any) -> None: ...


class Duck:
    def on_log(self, *_: Any, **__: Any) -> None: ...


class Everything(TrainerCallback):
    """Answers for every event by one method, as a proxy of another object does."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args, **kwargs: object.__getattribute__(self, "heard").append(name)
        return object.__getattribute__(self, name)


class Handed(TrainerCallback):
    """Has its method as an attribute of the instance."""

    def __init__(self, method: Callable[..., None]) -> None:
        self.on_log = method  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("callback", "log", "save"),
    [
        (Quiet(), False, False),
        (TrainerCallback(), False, False),
        (transformers.TrainerCallback(), False, False),
        (Sub(), True, False),
        (SubSub(), True, False),
        (Stock(), True, False),
        (Duck(), True, False),
        (Everything(), True, True),
        (Handed(lambda *_, **__: None), True, False),
        (Handed(print), True, False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else str(value),
)
def test_a_callback_listens_where_it_does_something(callback: Any, log: bool, save: bool) -> None:
    assert listens(callback, "on_log") is log
    assert listens(callback, "on_save") is save


@pytest.mark.parametrize("told", ["no signature", None], ids=["not one", "none"])
def test_a_listener_whose_signature_nobody_can_tell_is_called_as_it_is(told: Any) -> None:
    heard = []

    class Opaque:
        def __call__(self, *args: Any, **kwargs: Any) -> None:
            heard.append(kwargs["processing_class"])

    listener = Opaque()
    listener.__signature__ = told  # type: ignore[attr-defined]
    events_of(SimpleNamespace(on_log=listener)).fire("on_log", logs={})

    assert heard == ["processor"]


def test_a_callback_that_answers_for_everything_hears_everything() -> None:
    everything = Everything()
    events = events_of(everything)
    for event in EVENTS:
        events.fire(event)

    assert everything.heard == list(EVENTS)


def test_a_stock_callback_works_on_our_state_and_control() -> None:
    owner = source()
    owner.args = transformers.TrainingArguments("unused", logging_steps=2, save_strategy="no")
    owner.state.logging_steps, owner.state.max_steps, owner.state.global_step = 2, 4, 2
    events = events_of(transformers.DefaultFlowCallback, owner=owner)
    events.fire("on_step_end")
    assert (owner.control.should_log, owner.control.should_training_stop) == (True, False)

    owner.state.global_step = 4
    events.fire("on_step_end")
    assert owner.control.should_training_stop


def test_a_duck_needs_no_base_class() -> None:
    events = events_of(Duck)
    events.fire("on_log", logs={})

    assert not events.hears("on_save")


# The list


def test_a_list_changed_by_hand_is_heard_after_a_refresh() -> None:
    seen: list[Any] = []
    events = events_of(Quiet())
    events.refresh()
    events.callbacks.append(recorder("Late", seen))
    events.fire("on_step_end")
    assert seen == []

    events.refresh()
    events.fire("on_step_end")
    assert len(seen) == 1


def test_callbacks_are_added_and_removed_by_class_and_instance() -> None:
    events = events_of(Quiet, Sub())
    assert events.callback_list == "Quiet\nSub"
    assert events.pop_callback(Everything) is None

    removed = events.pop_callback(Sub)
    assert type(removed) is Sub
    quiet = events.callbacks[0]
    assert events.pop_callback(quiet) is quiet
    assert events.callbacks == []
    events.remove_callback(quiet)


def test_a_removed_callback_hears_nothing_more_and_an_added_one_does() -> None:
    seen: list[Any] = []
    one, two = recorder("One", seen), recorder("Two", seen)
    events = events_of(one)
    events.fire("on_step_end")
    events.remove_callback(one)
    events.fire("on_step_end")
    events.add_callback(two)
    events.fire("on_step_end")

    assert [name for name, *_ in seen] == ["One", "Two"]


def test_a_class_removes_an_instance_of_a_subclass() -> None:
    assert type(events_of(Sub).pop_callback(Quiet)) is Sub


def test_a_second_callback_of_a_class_is_told_and_called(caplog: pytest.LogCaptureFixture) -> None:
    events = events_of(Quiet(), Quiet())

    assert "Quiet was added a second time; both will be called" in caplog.text
    assert len(events.callbacks) == 2


@pytest.mark.parametrize("thing", [object(), "on_log", print], ids=["object", "text", "function"])
def test_what_listens_to_nothing_is_refused(thing: Any) -> None:
    with pytest.raises(ArgumentError, match=r"which listens to no event. Give a TrainerCallback"):
        events_of(thing)


def test_the_stateful_ones_are_those_with_state_and_from_state() -> None:
    stateful = transformers.EarlyStoppingCallback(early_stopping_patience=3)

    class StateIsNoMethod(TrainerCallback):
        state = "some attribute"
        from_state = "another"

    assert events_of(Quiet(), stateful, StateIsNoMethod()).stateful() == [stateful]


# As subclasses of the original call it


def test_an_event_is_called_directly_as_in_the_original() -> None:
    owner, seen = source(), []
    events = events_of(recorder("One", seen, "on_log"), recorder("Two", seen, "on_evaluate"), owner=owner)
    control = TrainerControl(should_log=True, should_evaluate=True)

    assert events.on_log("own args", owner.state, control, {"loss": 1.0}) is control
    events.on_evaluate("own args", owner.state, control, metrics={"eval_loss": 2.0})

    assert seen[0][1] == "own args"
    assert seen[0][4]["logs"] == {"loss": 1.0}
    assert seen[1][4]["metrics"] == {"eval_loss": 2.0}
    assert not control.should_log
    assert not control.should_evaluate


def test_call_event_clears_nothing_and_returns_the_last_control() -> None:
    owner, new = source(), TrainerControl()
    control = TrainerControl(should_log=True)
    events = events_of(recorder("One", [], "on_log"), recorder("Two", [], "on_log", answer=new), owner=owner)

    assert events.call_event("on_log", "args", owner.state, control, logs={}) is new
    assert control.should_log
    assert owner.control is not new


def test_no_other_attribute_is_made_up() -> None:
    with pytest.raises(AttributeError, match="'Events' object has no attribute 'on_no_such_event'"):
        _ = events_of().on_no_such_event


class Subscript(TrainerCallback):
    def on_evaluate(self, args, state, control, **kwargs):
        self.seen = kwargs["tokenizer"]


class Get(TrainerCallback):
    def on_evaluate(self, args, state, control, **more):
        self.seen = more.get("tokenizer", "none")


class Contains(TrainerCallback):
    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.seen = kwargs.pop("tokenizer") if "tokenizer" in kwargs else "none"


@pytest.mark.parametrize("kind", [Subscript, Get, Contains])
def test_a_tokenizer_that_is_looked_up_among_further_keywords_is_there(kind: type[Any]) -> None:
    callback = kind()
    with pytest.warns(
        FutureWarning, match=rf"{kind.__name__}\.on_evaluate takes a tokenizer: name it processing_class"
    ):
        events_of(callback).fire("on_evaluate", metrics={})

    assert callback.seen == "processor"


class EitherName(TrainerCallback):
    def on_evaluate(self, args, state, control, **kwargs):
        self.seen = kwargs.get("processing_class", kwargs.get("tokenizer"))
        self.names = set(kwargs)


class AnotherMeaning(TrainerCallback):
    def on_evaluate(self, args, state, control, **kwargs):
        self.names = set(kwargs)
        folder = "tokenizer"
        self.folder = folder.upper()


@pytest.mark.parametrize("kind", [EitherName, AnotherMeaning])
def test_who_does_not_need_the_older_name_is_not_given_it(kind: type[Any]) -> None:
    callback = kind()
    events_of(callback).fire("on_evaluate", metrics={})

    assert "processing_class" in callback.names
    assert "tokenizer" not in callback.names
