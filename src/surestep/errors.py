"""The exceptions of surestep. Each message names the setting, the value found, and what to write instead."""

from __future__ import annotations

import signal


class SurestepError(Exception):
    """The base of every error that surestep raises on its own account."""


class ArgumentError(SurestepError, ValueError):
    """A setting that cannot be right, found before any work began."""


class UnknownArgumentError(SurestepError, TypeError):
    """A name that no setting has; the message offers the nearest real one."""


class NotServedError(SurestepError, NotImplementedError):
    """A setting that is known but that nothing serves yet; never accepted and ignored."""


class MissingPackageError(SurestepError, ImportError):
    """An optional package is asked for and not installed; the message names what to install."""


class DataError(SurestepError, ValueError):
    """A dataset or batch that cannot be trained on as it is."""


class ModelError(SurestepError, ValueError):
    """A model that cannot be trained as it is: no loss, nothing to train, or a result of no known form."""


class CheckpointError(SurestepError, ValueError):
    """A checkpoint that is missing, damaged or does not belong to this run."""


class SaveError(CheckpointError, OSError):
    """A checkpoint that could not be written, where that ends a run or was the last one of it."""


class JobError(SurestepError, ValueError):
    """A job file that does not declare what can be run."""


class TrackerError(SurestepError, RuntimeError):
    """A tracker whose run cannot be opened, or one that fails and was asked to be strict."""


class UnservedNameError(SurestepError, ImportError):
    """A name of the original that nothing here serves; the message says why."""


class PreflightError(SurestepError, ValueError):
    """What a preflight found before the first step; the message says all of it, and what to write instead."""


class MigrationError(SurestepError, ValueError):
    """A file that cannot be brought to today's spelling, because it cannot be read as what it is."""


class SearchError(SurestepError, RuntimeError):
    """A search that came to nothing: no trial was completed."""


class RankError(SurestepError, RuntimeError):
    """What has failed on another process of the run; `out_of_memory` says whether it was for want of memory."""

    def __init__(self, message: str, out_of_memory: bool = False) -> None:
        super().__init__(message, out_of_memory)
        self.out_of_memory = out_of_memory

    def __str__(self) -> str:
        return str(self.args[0])


class NonFiniteError(SurestepError, FloatingPointError):
    """A step whose loss or gradients are not finite, found before its update.

    `step` counts from 1. `samples` are the numbers, in the dataset, of the samples of the micro-batch (or of the whole
    step, where no micro-batch is to blame), and `module` is the first module whose output was not finite; each is None
    where it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int = 0,
        epoch: float = 0.0,
        micro_batch: int | None = None,
        samples: list[int] | None = None,
        module: str | None = None,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.epoch = epoch
        self.micro_batch = micro_batch
        self.samples = samples
        self.module = module


class Interrupted(SystemExit):
    """A signal asked the process to end, and what was under way ended at a good moment, and was saved where it can be.

    Not caught, it ends the process with the exit code `128 + signal_number`, without a traceback. `step` is the last
    step that was made, None outside training. The one of Ctrl-C is a `KeyboardInterrupt` as well.
    """

    def __init__(self, signal_number: int, step: int | None = None) -> None:
        super().__init__(128 + signal_number)
        self.signal_number = signal_number
        self.step = step


class InterruptedByKeyboard(Interrupted, KeyboardInterrupt):
    """Ctrl-C asked the process to end."""


def interruption(signal_number: int, step: int | None = None) -> Interrupted:
    """Return the exception for a signal."""
    kind = InterruptedByKeyboard if signal_number == signal.SIGINT else Interrupted
    return kind(signal_number, step)
