"""How fast a run goes."""

from __future__ import annotations

import time


def speed_metrics(
    split: str,
    start_time: float,
    num_samples: float | None = None,
    num_steps: float | None = None,
    num_tokens: float | None = None,
) -> dict[str, float]:
    """Return runtime (seconds) and rates (per second) since `start_time`, a value of `time.time()`.

    Keys are `<split>_runtime`, `<split>_samples_per_second`, `<split>_steps_per_second` and, for `num_tokens`,
    `<split>_tokens_per_second`; rounded as in the original (runtime to 4 places, rates to 3). No rate is given where
    no time has passed.
    """
    runtime = time.time() - start_time
    result = {f"{split}_runtime": round(runtime, 4)}
    if runtime <= 0:
        return result
    counts = {"samples": num_samples, "steps": num_steps, "tokens": num_tokens}
    for name, count in counts.items():
        if count is not None:
            result[f"{split}_{name}_per_second"] = round(count / runtime, 3)
    return result
