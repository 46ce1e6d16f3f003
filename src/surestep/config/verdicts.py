"""What becomes of a run that is resumed with other settings. Each topic says it of its own fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from surestep.config.messages import is_secret


class Effect(Enum):
    """What another value of a setting does to the rest of the run, the lightest first."""

    HARMLESS = "harmless"
    NONE = "has no effect"
    MATHEMATICS = "changes the mathematics"
    REFUSED = "refused unless allowed"


@dataclass(frozen=True)
class Verdict:
    """The effect of a change, and why it has this one."""

    effect: Effect
    why: str = ""


@dataclass(frozen=True)
class Situation:
    """All settings of the checkpoint and of today, by name, and whether the checkpoint is from within an epoch."""

    then: Mapping[str, Any]
    now: Mapping[str, Any]
    within_epoch: bool = False


Judge = Callable[[Situation], Verdict]


@dataclass(frozen=True)
class Difference:
    """A setting that is not what it was, and the verdict on it."""

    name: str
    then: Any
    now: Any
    verdict: Verdict
    allowed: bool = False

    @property
    def refused(self) -> bool:
        """Whether the run must not go on with it."""
        return self.verdict.effect is Effect.REFUSED and not self.allowed


# Without a reason: nothing that a run leaves behind depends on it, but for what is shown and which files are kept.
HARMLESS = Verdict(Effect.HARMLESS)
MATHEMATICS = Verdict(Effect.MATHEMATICS)
ROUNDING = Verdict(Effect.MATHEMATICS, "the same formulas, rounded otherwise")
SCORES = Verdict(Effect.HARMLESS, "other figures of evaluations, the same training")
SENT = Verdict(Effect.HARMLESS, "the same training, its model sent elsewhere")
ENDS_OTHERWISE = Verdict(Effect.HARMLESS, "the same steps, and the run may end after another one")
DRAWS = Verdict(Effect.MATHEMATICS, "an evaluation draws from the random generators, and schedules may follow it")
STRETCHED = Verdict(Effect.MATHEMATICS, "the schedule of the learning rate spans the new length")
HELD = Verdict(Effect.NONE, "the state of the optimizer and of the schedule holds the value of the checkpoint")
OTHER_STATE = Verdict(Effect.REFUSED, "the state of the optimizer is of another kind: allowed, it begins anew")
_UNKNOWN = Verdict(Effect.MATHEMATICS, "not a setting of this library, so taken to count")
_SAME_STEP = Verdict(Effect.HARMLESS, "global_batch_size is the same, and so is a step")
_OTHER_STEP = Verdict(Effect.MATHEMATICS, "a step has other samples; fix global_batch_size to keep them")
_OTHER_ORDER = Verdict(Effect.MATHEMATICS, "the epochs to come have another order")
_OTHER_REST = Verdict(
    Effect.REFUSED, "the rest of this epoch would be that of another order: some samples twice, others never"
)


def batch(situation: Situation) -> Verdict:
    """Judge the parts that make up the batch of a step."""
    before, now = (settings.get("global_batch_size") for settings in (situation.then, situation.now))
    return _SAME_STEP if before is not None and before == now else _OTHER_STEP


def order(situation: Situation) -> Verdict:
    """Judge what the order of the samples follows from."""
    begins_anew = situation.now.get("ignore_data_skip")
    return _OTHER_REST if situation.within_epoch and not begins_anew else _OTHER_ORDER


def seed(situation: Situation) -> Verdict:
    """Judge the seed: the order follows it where `data_seed` says nothing."""
    given = [settings.get("data_seed") is not None for settings in (situation.then, situation.now)]
    return MATHEMATICS if all(given) else order(situation)


def one_of(words: Iterable[str], name: str, among: Verdict, beyond: Verdict) -> Judge:
    """Return a judge of `name`: a change within `words` is one thing, any other another."""
    family = frozenset(words)

    def judge(situation: Situation) -> Verdict:
        return among if {situation.then.get(name), situation.now.get(name)} <= family else beyond

    return judge


def verdicts(*groups: tuple[Verdict | Judge, str]) -> dict[str, Judge]:
    """Return the judges by field, from pairs of a verdict and the names that it holds for, with spaces between."""
    return {name: _judge(verdict) for verdict, names in groups for name in names.split()}


def _judge(verdict: Verdict | Judge) -> Judge:
    return (lambda _: verdict) if isinstance(verdict, Verdict) else verdict


def differences(situation: Situation, judges: Mapping[str, Judge], allowed: Iterable[str] = ()) -> list[Difference]:
    """Return the settings that are not what they were, in the order of today's; secrets are left out.

    A setting that only one of the two sides knows counts where its value says something.
    """
    then, now = situation.then, situation.now
    names = [name for name in {**now, **then} if then.get(name) != now.get(name) and not is_secret(name)]
    permitted = set(allowed)
    return [
        Difference(
            name,
            then.get(name),
            now.get(name),
            judges.get(name, _judge(_UNKNOWN))(situation),
            allowed=bool({name, "all"} & permitted),
        )
        for name in names
    ]
