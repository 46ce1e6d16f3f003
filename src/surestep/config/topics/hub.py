"""Hub: what is pushed to the Hugging Face Hub."""

from dataclasses import dataclass, field
from typing import Any

from surestep.config.enums import HubStrategy
from surestep.config.messages import mask
from surestep.config.rules import Member, Text
from surestep.config.topic import Topic
from surestep.config.verdicts import SENT, verdicts


@dataclass
class HubArguments:
    """What is pushed to the Hub, and where."""

    push_to_hub: bool = field(default=False, metadata={"help": "Push the model whenever it is saved."})
    # No part of any repr: a subclass with `@dataclass` gets one of its own.
    hub_token: str | None = field(
        default=None, repr=False, metadata={"help": "Token for the Hub; None takes the login's."}
    )
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "Make a new repository private; None takes the organisation's default."}
    )
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository to push to, as 'owner/name'."})
    hub_strategy: HubStrategy | str = field(
        default="every_save", metadata={"help": "What to push, and when: end, every_save, checkpoint, all_checkpoints."}
    )
    hub_always_push: bool = field(default=False, metadata={"help": "Push even while the previous push is under way."})
    hub_revision: str | None = field(default=None, metadata={"help": "Branch or tag to push to."})


def _token(name: str, value: Any) -> Any:
    """Take a token; the mask that `to_dict` writes for one stands for none."""
    return None if value == mask(name) else Text(optional=True)(name, value)


HUB = Topic(
    HubArguments,
    rules={"hub_strategy": Member(HubStrategy), "hub_token": _token},
    resumed=verdicts(
        (SENT, "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"),
    ),
)
