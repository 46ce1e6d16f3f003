"""Results and plans as tables for the console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surestep.checkpoint.space import human
from surestep.jobs.space import values_shown

if TYPE_CHECKING:
    from surestep.compat.finding import Finding
    from surestep.jobs.job import Job
    from surestep.jobs.memory import Memory
    from surestep.jobs.plan import JobPlan

# A confusion table of more classes does not fit on a screen: the pairs most often confused are shown instead.
_WIDEST = 20
_PAIRS = 10
# So many trials of a search are shown.
_BEST = 5
_OF_A_CLASS = ("precision", "recall", "f1")
_BARS = "▁▂▃▄▅▆▇█"


def results_view(results: Mapping[str, Any], folder: Path, *, files: Sequence[str]) -> RenderableType:
    """Show the scores of a complete run, what was confused with what, and where everything lies."""
    parts: list[RenderableType] = [_scores(results)]
    if "search" in results:
        parts = [_trials(results["search"]), Text(), *parts]
    judged = "test" if "test" in results["scores"] else "validation"
    if judged in results["scores"]:
        parts += [Text(), _confusion(results["scores"][judged], results["labels"], judged)]
    return Group(*parts, Text(), _ending(results), Text(f"Written to {folder}: {', '.join(files)}"))


def _trials(search: Mapping[str, Any]) -> RenderableType:
    """Show the best trials of a search, the first of them in bold, and how the others ended."""
    trials, table = search["trials"], plain_table()
    table.add_column("trial")
    table.add_column(search["metric"], justify="right")
    table.add_column("values", overflow="fold")
    for trial in [one for one in trials if one["state"] == "complete"][:_BEST]:
        style = "bold" if trial["trial"] == search["best"] else ""
        table.add_row(trial["trial"], f"{trial['objective']:.4f}", values_shown(trial["values"]), style=style)
    states = [trial["state"] for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return titled(f"search: {counted}; the best is {search['best']}", table)


def _scores(results: Mapping[str, Any]) -> RenderableType:
    if not results["scores"]:
        return Text(f"{results['name']}: no data was held out to judge the model on (data.validation, data.test).")
    table = plain_table()
    names = dict.fromkeys(name for score in results["scores"].values() for name in score["metrics"])
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("samples", justify="right")
    for split, score in results["scores"].items():
        values = [f"{score['metrics'][name]:.4f}" if name in score["metrics"] else "" for name in names]
        table.add_row(split, *values, f"{score['samples']:,}", style="bold" if split == "test" else "")
    return titled(results["name"], table)


def _confusion(score: Mapping[str, Any], labels: Sequence[str], split: str) -> RenderableType:
    confusion = score["confusion"]
    if len(labels) > _WIDEST:
        return _confused_pairs(confusion, labels, split)
    table = plain_table()
    # Ten classes and their figures fit into 80 columns.
    table.padding = (0, 1, 0, 0)
    table.add_column("")
    for label in labels:
        table.add_column(label, justify="right", overflow="fold")
    for name in _OF_A_CLASS:
        table.add_column(name, justify="right", min_width=len(name))
    for i, row in enumerate(confusion):
        cells = [_cell(count, right=i == j) for j, count in enumerate(row)]
        figures = [f"{score['per_class'][labels[i]][name]:.3f}" for name in _OF_A_CLASS]
        table.add_row(labels[i], *cells, *figures)
    return titled(f"{split} samples: true class (rows), predicted class (columns)", table)


def _cell(count: int, *, right: bool) -> Text:
    if not count:
        return Text("·", style="dim")
    return Text(str(count), style="green" if right else "bold red")


def _confused_pairs(confusion: Sequence[Sequence[int]], labels: Sequence[str], split: str) -> RenderableType:
    table = plain_table()
    for name in ("true class", "predicted class", "samples"):
        table.add_column(name)
    wrong = [(n, i, j) for i, row in enumerate(confusion) for j, n in enumerate(row) if n and i != j]
    for count, i, j in sorted(wrong, key=lambda pair: -pair[0])[:_PAIRS]:
        table.add_row(labels[i], labels[j], str(count))
    return titled(f"{split} samples: the pairs most often confused", table)


def _ending(results: Mapping[str, Any]) -> Text:
    text = f"{results['steps']:,} steps, {results['epochs']:g} epochs; {results['train_seconds']:.1f} s of training"
    if results["resumed_from_step"]:
        text += f" since step {results['resumed_from_step']:,}, where it went on"
    best = results.get("best_checkpoint")
    return Text(text + (f"; best checkpoint {Path(best).name}." if best else "."))


def plan_view(plan: JobPlan) -> RenderableType:
    """Show what a job would do."""
    steps = plan.steps
    table = plain_table()
    table.show_header = False
    table.add_column("", style="bold")
    table.add_column("")
    splits = ", ".join(f"{name} {size:,}" for name, size in plan.sizes.items())
    rows = {
        "task": f"{plan.job.task.name}, {len(plan.labels)} classes: {_listed(plan.labels)}",
        "data": f"{plan.job.data.source}: {splits}",
        "model": f"{plan.job.model.name}: {plan.parameters:,} parameters, {plan.trainable:,} of them trained",
        "batch": f"{steps.total_batch_size} samples a step ({steps.accumulation} x {plan.micro_batch} on a device)",
        "steps": f"{steps.steps_per_epoch:,} an epoch, {steps.epochs:,} epochs, {steps.max_steps:,} in total",
        "optimizer": f"{plan.optimizer}, schedule {plan.schedule}",
        "rate": _rate_line(plan.rates),
        "device": f"{plan.device}, {plan.precision}",
        "memory": _memory_line(plan.memory, plan.micro_batch),
        "output": f"{plan.output_dir} ({plan.standing})",
        **_search_rows(plan.job),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    title = f"{plan.job.name}: nothing was written"
    return Group(
        titled(title, table),
        Text(),
        _groups(plan),
        *(Text(f"warning: {warning}", "yellow") for warning in plan.warnings),
    )


def _search_rows(job: Job) -> dict[str, str]:
    """Say what a search would vary, and how."""
    search = job.search
    if search is None:
        return {}
    limit = f", {search.timeout:g} s at most" if search.timeout else ""
    how = f"{search.backend}, {search.sampler}, pruner {search.pruner}"
    best = "lowest" if job.search_direction == "minimize" else "highest"
    within = "\n".join(f"{name}: {one}" for name, one in search.varied())
    return {
        "search": f"{search.n_trials:,} trials{limit} ({how}), the {best} {job.search_metric} is the best",
        "space": within,
    }


def _groups(plan: JobPlan) -> RenderableType:
    table = plain_table()
    for name in ("tensors", "parameters", "learning rate", "weight decay"):
        table.add_column(name, justify="right")
    for group in plan.groups:
        table.add_row(
            str(group.tensors), f"{group.parameters:,}", f"{group.learning_rate:g}", f"{group.weight_decay:g}"
        )
    return titled("parameter groups", table)


def _rate_line(rates: Sequence[tuple[int, float]]) -> str:
    """Draw the learning rate over the steps, and name its first, highest and last value."""
    highest = max(rates, key=lambda point: point[1])
    if highest[1] <= 0 or len(rates) < 2:
        return f"step {rates[0][0]}: {rates[0][1]:.3g}; later rates depend on the run"
    drawn = "".join(_BARS[round(rate / highest[1] * (len(_BARS) - 1))] for _, rate in rates)
    named = dict.fromkeys((rates[0], highest, rates[len(rates) // 2], rates[-1]))
    return f"{drawn}\n" + ", ".join(f"step {step:,}: {rate:.3g}" for step, rate in sorted(named))


def findings_view(script: str, found: Sequence[Finding]) -> RenderableType:
    """Show what becomes of the names and settings that a script takes, and how many of them are refused."""
    if not found:
        return Text(f"{script} takes nothing that is replaced.")
    table = plain_table()
    for name in ("what it takes", "where", "becomes", "why, or what serves it"):
        table.add_column(name, overflow="fold")
    for finding in found:
        refused = finding.verdict.value == "refused"
        table.add_row(finding.what, finding.place, finding.verdict.value, finding.why, style="red" if refused else None)
    count = sum(finding.verdict.value == "refused" for finding in found)
    return Group(table, Text(), Text(f"{count} of {len(found)} refused." if count else "Everything is served."))


def _memory_line(memory: Memory, batch_size: int) -> str:
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        f"activations of {batch_size} samples": memory.activations,
    }
    return f"about {human(memory.total)}: " + ", ".join(f"{name} {human(part)}" for name, part in parts.items())


def _listed(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def plain_table(*columns: str) -> Table:
    """Return a table without a frame."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def facts_table(facts: Mapping[str, str]) -> Table:
    """Return names and what there is to say of each."""
    table = plain_table("", "")
    table.show_header = False
    for name, value in facts.items():
        table.add_row(Text(name, "bold"), value)
    return table


def titled(title: str, table: Table) -> RenderableType:
    """Put a title above a table, which a title of its own would wrap to its width."""
    return Group(Text(title, style="bold"), table)
