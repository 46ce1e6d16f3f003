"""A model card: what was trained, on what, how, and what came of it, as a README with metadata for the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.errors import DataError

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

Names = str | Sequence[str] | None

# The arguments that a reader of the card asks for first.
_SHOWN = (
    "learning_rate",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "seed",
    "optim",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "num_train_epochs",
    "max_steps",
    "label_smoothing_factor",
)
_CLOCK = ("_runtime", "_per_second", "_model_preparation_time")


def _listed(names: Names) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


@dataclass
class ModelCard:
    """The facts of a card; `text` writes them down."""

    name: str
    language: Names = None
    license: str | None = None
    tags: Names = None
    base_model: str | None = None
    tasks: Names = None
    datasets: Names = None
    dataset_names: Names = None
    dataset_args: Names = None
    arguments: dict[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Return what the hub reads, without what is not known."""
        final = self.evaluations[-1] if self.evaluations else {}
        found = {
            "language": _listed(self.language),
            "license": self.license,
            "base_model": self.base_model,
            "tags": list(dict.fromkeys(["generated_from_trainer", *_listed(self.tags)])),
            "datasets": _listed(self.datasets),
            "metrics": [name.removeprefix("eval_") for name in _figures(final) if name != "eval_loss"],
            "pipeline_tag": next(iter(_listed(self.tasks)), None),
        }
        return {name: value for name, value in found.items() if value}

    def text(self) -> str:
        """Return the card in Markdown, with its metadata before it."""
        import yaml

        head = yaml.safe_dump(self.metadata(), sort_keys=False, allow_unicode=True)
        data = ", ".join(_listed(self.dataset_names) or _listed(self.datasets)) or "data that is not named"
        settings = ", ".join(_listed(self.dataset_args))
        origin = f"from {self.base_model} " if self.base_model else ""
        parts = [
            f"---\n{head}---\n",
            f"# {self.name}\n",
            f"Trained {origin}on {data}{f' ({settings})' if settings else ''} with surestep.\n",
            *self._results(),
            "## Training\n",
            "\n".join(f"- {name}: {value}" for name, value in self.arguments.items()) + "\n",
            "## Versions\n",
            "\n".join(f"- {name} {value}" for name, value in self.versions.items()) + "\n",
        ]
        return "\n".join(parts)

    def _results(self) -> list[str]:
        if not self.evaluations:
            return []
        names = list(dict.fromkeys(name for entry in self.evaluations for name in _figures(entry)))
        columns = ["step", "epoch", *names]
        rows = [[_cell(entry.get(column)) for column in columns] for entry in self.evaluations]
        table = [columns, ["---"] * len(columns), *rows]
        return ["## Results\n", "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"]


def _figures(entry: dict[str, Any]) -> list[str]:
    return [name for name in entry if name.startswith("eval_") and not name.endswith(_CLOCK)]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def card_of(trainer: Trainer, **facts: Any) -> ModelCard:
    """Return the card of a trainer's model; `facts` are what only the user knows."""
    import platform
    from importlib.metadata import version

    args = trainer.args
    folder = Path(args.output_dir or ".")
    facts["name"] = facts.get("name") or folder.resolve().name
    base = getattr(getattr(trainer.model, "config", None), "_name_or_path", None)
    facts["base_model"] = facts.get("base_model") or (base if base and not Path(base).exists() else None)
    shown = {name: getattr(getattr(args, name), "value", getattr(args, name)) for name in _SHOWN}
    history = [entry for entry in trainer.state.log_history if any(name.startswith("eval_") for name in entry)]
    versions = {"surestep": version("surestep"), "torch": version("torch"), "Python": platform.python_version()}
    return ModelCard(arguments=shown, evaluations=history, versions=versions, **facts)


def existing_tags(path: Path) -> list[str]:
    """Return the tags of a card that is there already, so that writing it anew loses none."""
    import yaml

    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        return []
    try:
        head = yaml.safe_load(text.split("---\n", 2)[1]) or {}
    except yaml.YAMLError as error:
        raise DataError(f"The metadata of '{path}' is no YAML ({error}). Mend it, or move the file away.") from error
    return _listed(head.get("tags"))
