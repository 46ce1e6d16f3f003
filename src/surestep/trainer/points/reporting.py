"""Extension points of reporting: logs, results in files, who may speak."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.metrics.speed import speed_metrics
from surestep.runtime.disk import make_folders, replace_text
from surestep.trainer.points.face import Face

if TYPE_CHECKING:
    from surestep.trainer.card import Names


class ReportingPoints(Face):
    """`log`, `log_metrics`, `save_metrics` and what they stand on."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Append figures to the log history and tell the callbacks; `logs` gains `epoch` on the way."""
        state, args = self.state, self.args
        if state.epoch is not None:
            logs["epoch"] = state.epoch
        if args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = state.num_input_tokens_seen
            if start_time is not None:
                tokens = state.num_input_tokens_seen - self._first_num_input_tokens_seen
                logs.update(speed_metrics("train", start_time, num_tokens=tokens))
        state.log_history.append({**logs, "step": state.global_step})
        self.callback_handler.fire("on_log", logs=logs)

    @staticmethod
    def metrics_format(metrics: dict[str, Any]) -> dict[str, Any]:
        """Return the metrics as people read them: memory in MB, runtimes as h:mm:ss, floats with 4 places."""
        return {name: _readable(name, value) for name, value in metrics.items()}

    def log_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Print the metrics of a split, aligned, on the main process."""
        if not self.is_world_process_zero():
            return
        shown = self.metrics_format(metrics)
        names = max((len(name) for name in shown), default=0)
        values = max((len(str(value)) for value in shown.values()), default=0)
        lines = [f"  {name: <{names}} = {shown[name]!s:>{values}}" for name in sorted(shown)]
        print("\n".join([f"***** {split} metrics *****", *lines]))  # noqa: T201 (printing is what it is for)

    def save_metrics(self, split: str, metrics: dict[str, Any], combined: bool = True) -> None:
        """Write the metrics to `<split>_results.json` and, with `combined`, into `all_results.json` as well."""
        if not self.is_world_process_zero():
            return
        folder = self._output_folder
        _write_json(folder / f"{split}_results.json", metrics)
        if combined:
            path = folder / "all_results.json"
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            _write_json(path, {**known, **metrics})

    def save_state(self) -> None:
        """Write `trainer_state.json` into the output folder, with the state that callbacks have now."""
        if self.is_world_process_zero():
            self.state.remember([*self.callback_handler.stateful(), self.control])
            self.state.save_to_json(self._output_folder / "trainer_state.json")

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,  # noqa: A002 (the original's name)
        tags: Names = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: Names = None,
        dataset_tags: Names = None,
        dataset: Names = None,
        dataset_args: Names = None,
    ) -> None:
        """Write `README.md` into the output folder: metadata for the hub, results, arguments, versions.

        Tags of a card that is there already are kept.
        """
        from surestep.trainer.card import card_of, existing_tags

        if not self.is_world_process_zero():
            return
        path = self._output_folder / "README.md"
        known = [tags] if isinstance(tags, str) else list(tags or [])
        card = card_of(
            self,  # type: ignore[arg-type]
            name=model_name,
            language=language,
            license=license,
            tags=[*known, *existing_tags(path)],
            base_model=finetuned_from,
            tasks=tasks,
            datasets=dataset_tags,
            dataset_names=dataset,
            dataset_args=dataset_args,
        )
        replace_text(path, card.text())

    def show_loop(self) -> None:
        """Print the loop, with the callbacks that listen at each of its events."""
        from surestep.training.show import show_loop

        print(show_loop(self.callback_handler))  # noqa: T201 (printing is what it is for)

    def _close_callbacks(self) -> None:
        """Let callbacks that hold a resource, such as the terminal, give it back; also after an error."""
        for callback in self.callback_handler.callbacks:
            close = getattr(callback, "close", None)
            if callable(close):
                close()

    def add_callback(self, callback: Any) -> None:
        """Append a callback: an instance, or a class to be made without arguments."""
        self.callback_handler.add_callback(callback)

    def pop_callback(self, callback: Any) -> Any | None:
        """Remove and return the first callback that is `callback` or an instance of it; None if there is none."""
        return self.callback_handler.pop_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """Remove the first callback that is `callback` or an instance of it."""
        self.callback_handler.remove_callback(callback)

    def is_local_process_zero(self) -> bool:
        """Say whether this process speaks for its machine."""
        return self._world.is_local_main

    def is_world_process_zero(self) -> bool:
        """Say whether this process speaks for all."""
        return self._world.is_main


def _readable(name: str, value: Any) -> Any:
    if "_mem_" in name:
        return f"{int(value) >> 20}MB"
    if "_runtime" in name:
        whole = int(value)
        return f"{timedelta(seconds=whole)}.{int(abs(value - whole) * 100):02d}"
    if name == "total_flos":
        return f"{int(value) >> 30}GF"
    return round(value, 4) if isinstance(value, float) else value


def _write_json(path: Path, content: dict[str, Any]) -> None:
    make_folders(path.parent)
    replace_text(path, json.dumps(content, indent=4, sort_keys=True))
