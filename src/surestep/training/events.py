"""The order of callbacks and who listens to what, worked out once: an event that nobody hears costs one look-up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dis import get_instructions
from functools import partial, wraps
from typing import Any, Protocol

from surestep.errors import ArgumentError
from surestep.logs import get_logger, warn_where_written
from surestep.training.callback import EVENTS, TrainerCallback
from surestep.training.state import ExportableState, TrainerControl, TrainerState

logger = get_logger(__name__)

Listener = Callable[..., Any]

# A request is spent once served: what each event clears before anybody hears it.
_SPENT: dict[str, tuple[str, ...]] = {
    "on_train_begin": ("should_training_stop",),
    "on_epoch_begin": ("should_epoch_stop",),
    "on_step_begin": ("should_log", "should_evaluate", "should_save"),
    "on_log": ("should_log",),
    "on_evaluate": ("should_evaluate",),
    "on_save": ("should_save",),
}
# What the original hands over by position, for handlers that are called directly.
_POSITIONAL = {"on_log": "logs", "on_evaluate": "metrics", "on_predict": "metrics"}


class EventSource(Protocol):
    """What an event reads, and where the control that a callback returns goes: the trainer."""

    args: Any
    state: TrainerState
    control: TrainerControl


def listens(callback: Any, event: str) -> bool:
    """Say whether `callback` does anything on `event`: whether the method is not the empty one of a base class."""
    lookup: Any = type(callback).__getattribute__
    if lookup is not object.__getattribute__:
        return True
    method = getattr(callback, event, None)
    function = getattr(method, "__func__", method)
    if function is None or function is getattr(TrainerCallback, event):
        return False
    # The original's own base class has empty methods too, and its callbacks are welcome here.
    return getattr(function, "__qualname__", "") != f"TrainerCallback.{event}"


def _listener(callback: Any, event: str) -> Listener:
    """Return what to call on `event`; a method of up to 4.45 gets the processing class as its `tokenizer`."""
    method: Listener = getattr(callback, event)
    try:
        takes = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return method
    rest = next((name for name, one in takes.items() if one.kind is one.VAR_KEYWORD), None)
    if "tokenizer" not in takes and not (rest and _looks_up(method, rest, "tokenizer")):
        return method
    name = f"{type(callback).__name__}.{event}"
    warn_where_written(method, f"{name} takes a tokenizer: name it processing_class.")

    @wraps(method)
    def listen(*args: Any, processing_class: Any = None, **kwargs: Any) -> Any:
        more = {"processing_class": processing_class} if rest or "processing_class" in takes else {}
        return method(*args, tokenizer=processing_class, **more, **kwargs)

    return listen


def _looks_up(method: Listener, keywords: str, key: str) -> bool:
    """Say whether a method looks `key` up in its further keywords: `kwargs["key"]`, `kwargs.get("key")` and the like.

    One that knows today's name as well is left to take what is there.
    """
    code = getattr(inspect.unwrap(getattr(method, "__func__", method)), "__code__", None)
    if code is None or key not in code.co_consts or "processing_class" in code.co_consts:
        return False
    lines = [instruction.argval for instruction in get_instructions(code)]
    # The two stand beside each other, in one order or the other, with a method of dict between them at most.
    return any(keywords in lines[max(0, at - 3) : at + 3] for at, value in enumerate(lines) if value == key)


class Events:
    """Fires events at callbacks in their order. Named `callback_handler` on the trainer, as in the original.

    The attributes `model`, `processing_class`, `optimizer`, `lr_scheduler`, `train_dataloader` and `eval_dataloader`
    are what callbacks get as keywords; the trainer keeps them up to date.
    """

    def __init__(self, source: EventSource, callbacks: Iterable[Any], *, model: Any, processing_class: Any) -> None:
        self._source = source
        self._table: dict[str, tuple[Listener, ...]] = {}
        self.callbacks: list[Any] = []
        self.model = model
        self.processing_class = processing_class
        self.optimizer: Any = None
        self.lr_scheduler: Any = None
        self.train_dataloader: Any = None
        self.eval_dataloader: Any = None
        for callback in callbacks:
            self.add_callback(callback)

    def serve(self, source: EventSource) -> None:
        """Read and answer `source` from now on: the trainer that this was given to."""
        self._source = source

    def fire(self, event: str, **extra: Any) -> None:
        """Clear the requests that this event answers, then tell every listener, in order."""
        source = self._source
        for flag in _SPENT.get(event, ()):
            setattr(source.control, flag, False)
        if self._table.get(event, True):
            source.control = self.call_event(event, source.args, source.state, source.control, **extra)

    def call_event(
        self, event: str, args: Any, state: TrainerState, control: TrainerControl, **extra: Any
    ) -> TrainerControl:
        """Tell every listener of `event` and return the control that the last one left."""
        listeners = self._table.get(event)
        for listen in self._listeners(event) if listeners is None else listeners:
            answer = listen(
                args,
                state,
                control,
                model=self.model,
                processing_class=self.processing_class,
                optimizer=self.optimizer,
                lr_scheduler=self.lr_scheduler,
                train_dataloader=self.train_dataloader,
                eval_dataloader=self.eval_dataloader,
                **extra,
            )
            if answer is not None:
                control = answer
        return control

    def hears(self, event: str) -> bool:
        """Say whether anybody listens to `event`."""
        return bool(self._listeners(event))

    def refresh(self) -> None:
        """Work the listeners out anew; done at the start of training, for lists that were changed by hand."""
        self._table.clear()
        for event in EVENTS:
            self._listeners(event)

    def _listeners(self, event: str) -> tuple[Listener, ...]:
        if event not in self._table:
            self._table[event] = tuple(_listener(item, event) for item in self.callbacks if listens(item, event))
        return self._table[event]

    def __getattr__(self, name: str) -> Any:
        if name not in EVENTS:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return partial(self._direct, name)

    def _direct(
        self, event: str, args: Any, state: TrainerState, control: TrainerControl, *values: Any, **extra: Any
    ) -> TrainerControl:
        """Serve `callback_handler.on_x(args, state, control, ...)`, which subclasses of the original call."""
        for flag in _SPENT.get(event, ()):
            setattr(control, flag, False)
        if values:
            extra[_POSITIONAL[event]] = values[0]
        return self.call_event(event, args, state, control, **extra)

    def add_callback(self, callback: Any) -> None:
        """Append a callback, given as an instance or as a class to be made without arguments."""
        instance = callback() if isinstance(callback, type) else callback
        if not any(callable(getattr(instance, event, None)) for event in EVENTS):
            raise ArgumentError(
                f"callbacks has {callback!r}, which listens to no event. Give a TrainerCallback, with methods such as "
                "on_step_end or on_log."
            )
        if any(type(known) is type(instance) for known in self.callbacks):
            logger.warning(
                "The callback %s was added a second time; both will be called. The callbacks are now: %s, %s",
                type(instance).__name__,
                ", ".join(type(known).__name__ for known in self.callbacks),
                type(instance).__name__,
            )
        self.callbacks.append(instance)
        self._table.clear()

    def pop_callback(self, callback: Any) -> Any | None:
        """Remove and return the first callback that is `callback` or an instance of it; None if none is."""
        for known in self.callbacks:
            if isinstance(known, callback) if isinstance(callback, type) else known == callback:
                self.callbacks.remove(known)
                self._table.clear()
                return known
        return None

    def remove_callback(self, callback: Any) -> None:
        """Remove a callback, by class or instance."""
        self.pop_callback(callback)

    @property
    def callback_list(self) -> str:
        """The names of the callbacks, one a line, in the order in which they are called."""
        return "\n".join(type(callback).__name__ for callback in self.callbacks)

    def stateful(self) -> list[ExportableState]:
        """Return the callbacks whose state belongs into a checkpoint: those with `state` and `from_state`."""
        return [
            item for item in self.callbacks if hasattr(item, "from_state") and callable(getattr(item, "state", None))
        ]
