"""What to write instead, for the errors that models, collators and loaders raise themselves."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from surestep.errors import SurestepError

Explain = Callable[[Exception], str]
# Where code lies that is nobody's own.
_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_ELSEWHERE = (str(Path(__file__).parents[2]), sysconfig.get_path("stdlib"), "<")


@dataclass(frozen=True, slots=True)
class Hint:
    """A form of error, and what to do; `{0}`, `{1}` are what the form's groups caught."""

    form: re.Pattern[str]
    advice: str


def _hint(form: str, advice: str) -> Hint:
    return Hint(re.compile(form, re.IGNORECASE | re.DOTALL), advice)


# The first that matches counts.
_HINTS = (
    _hint(
        r"forward\(\) got an unexpected keyword argument '(\w+)'",
        "A column called '{0}' reaches the model, whose forward takes none. Rename it to what forward takes, or leave "
        "remove_unused_columns=True so that it is dropped.",
    ),
    _hint(
        r"forward\(\) missing \d+ required (?:positional |keyword-only )?arguments?: ('labels?')",
        "The batch lacks {0}. Name the column so, or let the data_collator make it. Text is left out of a batch: where "
        "labels are text, number them.",
    ),
    _hint(
        r"forward\(\) missing \d+ required (?:positional |keyword-only )?arguments?: (.+)",
        "The batch lacks what forward needs: {0}. Name a column of the dataset so, or let the data_collator make it. "
        "Text is left out of a batch: tokenize it first.",
    ),
    _hint(
        r"argument after \*\* must be a mapping, not (\w+)",
        "The data_collator returned a {0}, and the model takes its inputs by name. Return a dictionary such as "
        "{{'x': x, 'labels': labels}}, or override compute_loss to call the model otherwise.",
    ),
    _hint(
        r"target (-?\d+) is out of bounds",
        "A label is {0}, which the model has no output for. Count classes from 0, make the model with as many "
        "(num_labels), and mark what is to be ignored with -100.",
    ),
    _hint(
        r"device-side assert triggered",
        "A kernel met an index that its table does not have: as a rule a label that is no class of the model, or a "
        "token that the embeddings do not have. Run a few steps with use_cpu=True, which names it.",
    ),
    _hint(
        r"expected input batch_size \((\d+)\) to match target batch_size \((\d+)\)",
        "The loss compares {0} predictions with {1} labels. Give one label a sample, or one a token where the model "
        "predicts tokens.",
    ),
    _hint(
        r"(?:index out of range in self|index \d+ is out of bounds|indexSelectLargeIndex)",
        "An index is beyond its table: a token that the embeddings do not have, or a sequence longer than the "
        "positions. Use the model's own tokenizer, or call model.resize_token_embeddings(len(tokenizer)), and truncate "
        "sequences.",
    ),
    _hint(
        r"(?:expected target dtype to be Long|0D or 1D target tensor expected, multi-target not supported|"
        r"floating point type for target with class probabilities|expected scalar type Long but found \w+)",
        "The loss is one over classes and takes the number of a class for each sample (or token), as whole numbers: "
        "write labels.long(), labels.squeeze(-1) where each stands in a row of its own, labels.argmax(-1) where they "
        "are ones and zeros.",
    ),
    _hint(
        r"expected target size \[.+?\], got \[.+?\]",
        "The loss looks for the classes in the second dimension of the predictions, and labels are of another shape "
        "than the rest of it. Over tokens write cross_entropy(logits.flatten(0, 1), labels.flatten()).",
    ),
    _hint(
        r"gather\(\): Expected dtype int",
        "Label smoothing, like a loss over classes, takes whole numbers, and labels are amounts. Leave "
        "label_smoothing_factor out of a regression, or write labels.long().",
    ),
    _hint(
        r"(?:object has no attribute 'size'|argument 'input' \(position 1\) must be Tensor, not \w+)",
        "A loss of torch takes one tensor of predictions, and compute_loss_func is given all outputs of the model. "
        "Pass one of surestep's (CrossEntropyLoss(), MSELoss()), or a function that takes the logits out of them.",
    ),
    _hint(
        r"can't handle a mix of .+ and continuous",
        "Predictions are scores, and the metric takes classes: write prediction.predictions.argmax(-1).",
    ),
    _hint(
        r"target size \((.+?)\) must be the same as input size \((.+?\]\))\)",
        "The loss is one over several labels a sample, predictions are of shape {1} and labels of shape {0}. Give each "
        "sample a row of zeros and ones as float32, or, where each has one class, its number (labels.long()).",
    ),
    _hint(
        r"result type Float can't be cast to the desired output type (?:long|int|bool)",
        "The loss is one over several labels a sample, and takes them as float32: write labels.float(). Where each "
        "sample has one class, set problem_type='single_label_classification' in the model's config.",
    ),
    _hint(
        r"mat1 and mat2 must have the same dtype, but got Float and (Half|BFloat16)",
        "The model's weights are {0} and its inputs float32. Load it in float32 (model.float()) and write bf16=True or "
        "fp16=True, which compute in half precision.",
    ),
    _hint(
        r"input type \((.+?)\) and (?:bias|weight) type \((.+?)\) should be the same",
        "Inputs are {0} and weights {1}. Give inputs as float32, bytes of an image divided by 255, and load the model "
        "in float32 (model.float()); bf16=True or fp16=True compute in half precision.",
    ),
    _hint(
        r"(?:must have the same dtype|expected scalar type (?:double|float|half|bfloat16|long)|"
        r"expected m1 and m2 to have the same dtype|found dtype \w+ but expected \w+|"
        r"not implemented for '(?:long|int|char|byte)')",
        "Inputs, labels or weights are of different number formats. Give inputs and labels of a regression as float32 "
        "(tensor.float()), classes and tokens as whole numbers (tensor.long()).",
    ),
    _hint(
        r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)",
        "A layer takes {2} features and is given {1}. Make the model for the width of the data, or reshape the data.",
    ),
    _hint(
        r"expected .*?(\d+)D.*? input|given groups=.*expected input.*to have (\d+) channels|"
        r"expected (?:more than 1 value|\d+D)",
        "The inputs do not have the dimensions that a layer takes (batch, then channels or features). Reshape them in "
        "the dataset or the data_collator.",
    ),
    _hint(
        r"(?:stack expects each tensor to be equal size|expected sequence of length \d+ at dim|inhomogeneous shape|"
        r"Unable to create tensor)",
        "Samples differ in length, and the data_collator does not pad them. Pass processing_class=tokenizer or "
        "DataCollatorWithPadding, or let the dataset make all of one length.",
    ),
    _hint(
        r"(?:too many dimensions 'str'|invalid data type 'str'|can't convert np.ndarray of type numpy.(?:str|object))",
        "A column of text reaches the data_collator. Tokenize it first, or drop it.",
    ),
    _hint(
        r"step\(\) missing 1 required positional argument: 'closure'",
        "The optimizer computes the loss several times in a step, which the trainer cannot do for it. Choose another, "
        "for example optim='adamw_torch'.",
    ),
    _hint(
        r"no padding token is defined",
        "Name the token that fills sequences up: model.config.pad_token_id = tokenizer.pad_token_id. A tokenizer that "
        "has none takes tokenizer.pad_token = tokenizer.eos_token first.",
    ),
    _hint(
        r"(?:exactly one of|either) (?:decoder_)?input_ids (?:or|and) (?:decoder_)?inputs_embeds",
        "The batch lacks 'input_ids', or, for a model that has a decoder beside an encoder, what the decoder reads: "
        "'labels' (DataCollatorForSeq2Seq makes them) or 'decoder_input_ids'.",
    ),
    _hint(
        r"(?:does not require grad and does not have a grad_fn|element 0 of tensors does not require grad)",
        "The loss hangs on no parameter: it was detached, made from numbers, or every parameter it uses is frozen. "
        "Return the loss tensor itself, without .detach(), .item() or torch.no_grad().",
    ),
    _hint(
        r"grad can be implicitly created only for scalar outputs",
        "The loss has a value for each sample. Return its mean, or a pair of sum and weight; in a tuple the loss comes "
        "first.",
    ),
    _hint(
        r"modified by an inplace operation",
        "The model changes in place a tensor that backward needs. Write y = y + x in the place of y += x.",
    ),
    _hint(
        r"trying to backward through the graph a second time",
        "A tensor of an earlier batch is part of this loss. Detach what the model keeps between batches.",
    ),
    _hint(
        r"(?:out of memory|can't allocate memory)",
        "Memory is not enough for one step. Set a smaller per_device_train_batch_size (and a larger "
        "gradient_accumulation_steps), activation_checkpointing=True, or bf16=True.",
    ),
    _hint(
        r"(?:can't pickle|cannot pickle|can't get local object)",
        "The dataset or the data_collator cannot be sent to the loading processes. Define it at the top of a module, "
        "or set dataloader_num_workers=0.",
    ),
    _hint(
        r"DataLoader worker .* (?:exited unexpectedly|is killed)",
        "A loading process died, as a rule for want of memory. Set a smaller dataloader_num_workers.",
    ),
    _hint(
        r"tensors? on (?:the same device|different devices)|expected all tensors to be on the same device",
        "A tensor stayed on another device. Register it as a buffer of the model, or make it with device=x.device.",
    ),
    _hint(
        r"using a target size \((.+?)\) that is different to the input size \((.+?\]\))\)",
        "Predictions of shape {1} are compared with labels of shape {0}, which torch spreads over each other without a "
        "word. Give both one shape, for example with predictions.squeeze(-1).",
    ),
)


def explain(error: BaseException) -> str:
    """Return what an error means, what to do about it, and where it was raised; our own say it themselves."""
    said = str(error).strip().splitlines()
    first = said[0] if said else type(error).__name__
    if isinstance(error, SurestepError):
        return str(error)
    raised = f"{type(error).__name__}: {first}{_place(error)}"
    advice = advice_for(str(error))
    return f"{raised.rstrip('.')}. {advice}" if advice else raised


def _place(error: BaseException) -> str:
    """Return the last line of the user's own code that led to an error; nothing where none did."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_ELSEWHERE) and not _INSTALLED.search(frame.filename)
    ]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})" if own else ""


def advice_for(message: str) -> str | None:
    """Return what to do about an error that says `message`, where its form is known."""
    for hint in _HINTS:
        found = hint.form.search(message)
        if found:
            return hint.advice.format(*(group or "" for group in found.groups()))
    return None
