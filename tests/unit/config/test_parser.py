"""The parser: what the original's makes of the same input, and what ours takes besides."""

import dataclasses
import json
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, List, Literal, Optional, Union  # noqa: UP035  (users write them)

import pytest
import transformers

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.parser import ArgumentsParser, HfArg, HfArgumentParser
from surestep.errors import ArgumentError, UnknownArgumentError


class Flavour(Enum):
    SWEET = "sweet"
    SOUR = "sour"


class Mixed(Enum):
    WORD = "word"
    NUMBER = 42


@dataclass
class Basic:
    foo: int
    bar: float
    baz: str
    flag: bool


@dataclass
class Defaults:
    foo: int = 42
    baz: str = field(default="word", metadata={"help": "Some help."})


@dataclass
class Flags:
    foo: bool = False
    baz: bool = True
    opt: bool | None = None
    on: Optional[bool] = True  # noqa: UP045


@dataclass
class Unset:
    flag: bool
    maybe: bool | None


@dataclass
class Enums:
    foo: Flavour = "sweet"
    mixed: Mixed = "word"
    word: Literal["a", "b", 3] = "a"
    needed: Literal["x", "y"] = field(default="x")


@dataclass
class Lists:
    numbers: list[int] = field(default_factory=list)
    words: List[str] = field(default_factory=lambda: ["a", "b"])  # noqa: UP006
    floats: list[float] | None = None


@dataclass
class Optionals:
    foo: int | None = None
    bar: Optional[float] = field(default=None, metadata={"help": "Help."})  # noqa: UP045
    text: Union[str, None] = None  # noqa: UP007
    path: Path | None = None
    any_of: dict | str | None = None


@dataclass
class Renamed:
    model_name: str = HfArg(default="m", aliases=["--model", "-m"], help="A model.")
    size: int = HfArg(default=1, aliases="-s")
    items: list[str] = HfArg(default_factory=list, metadata={"help": "Items."})  # noqa: RUF009


@dataclass
class Grouped:
    _argument_group_name = "grouped"
    inside: int = 1


@dataclass
class NotInit:
    foo: int = 1
    derived: int = field(init=False, default=0)


SAME = [
    (Basic, "--foo 1 --bar 0.5 --baz a --flag true"),
    (Basic, "--foo 1 --bar 0.5 --baz a"),
    (Basic, "--foo=-1 --bar 1e-3 --baz=a --flag"),
    (Defaults, ""),
    (Defaults, "--foo 1 --baz b"),
    (Flags, ""),
    (Flags, "--foo --no_baz"),
    (Flags, "--foo --no-baz"),
    (Flags, "--foo True --baz False --opt true --on no"),
    (Flags, "--foo yes --baz n --opt 0 --no_on"),
    (Unset, ""),
    (Unset, "--flag --maybe no"),
    (Enums, ""),
    (Enums, "--foo sour --mixed 42 --word b"),
    (Enums, "--word 3 --needed y"),
    (Lists, ""),
    (Lists, "--numbers 1 2 --words x y --floats 0.5 1e-3"),
    (Optionals, ""),
    (Optionals, "--foo 3 --bar 0.5 --text t --path a/b"),
    (Optionals, '--any_of {"a":1}'),
    (Optionals, "--any-of file.json"),
    (Renamed, ""),
    (Renamed, "--model a -s 3 --items x y"),
    (Renamed, "-m a --model-name b"),
    (Grouped, "--inside 3"),
    (NotInit, "--foo 3"),
]


@pytest.mark.parametrize(("kind", "line"), SAME)
def test_the_command_line_makes_what_the_originals_does(kind, line):
    words = line.split()
    ours = HfArgumentParser(kind).parse_args_into_dataclasses(words, look_for_args_file=False)
    theirs = transformers.HfArgumentParser(kind).parse_args_into_dataclasses(words, look_for_args_file=False)
    assert ours == theirs
    values = [vars(one) for one in ours]
    assert [{key: type(value) for key, value in one.items()} for one in values] == [
        {key: type(value) for key, value in vars(one).items()} for one in theirs
    ]


BAD = [
    (Basic, "--foo 1"),
    (Basic, "--foo a --bar 1 --baz a"),
    (Flags, "--foo maybe"),
    (Enums, "--foo bitter"),
    (Enums, "--word c"),
    (Lists, "--numbers a"),
]


@pytest.mark.parametrize(("kind", "line"), BAD)
def test_what_the_original_refuses_is_refused(kind, line, capsys):
    for parser in (HfArgumentParser(kind), transformers.HfArgumentParser(kind)):
        with pytest.raises(SystemExit) as left:
            parser.parse_args_into_dataclasses(line.split(), look_for_args_file=False)
        assert left.value.code == 2
    assert "error" in capsys.readouterr().err


LINES = [
    "--output_dir out",
    "--output_dir out --learning_rate 1e-3 --per_device_train_batch_size 4 --bf16 --use_cpu --max_steps 10",
    "--output_dir out --eval_strategy steps --eval_steps 10 --load_best_model_at_end --save_steps 20",
    "--output_dir out --no_remove_unused_columns --no-dataloader-pin-memory --tf32 false --seed 7",
    '--output_dir out --lr_scheduler_type cosine --lr_scheduler_kwargs {"num_cycles":"2"} --warmup_steps 0.1',
    "--output_dir out --label_names a b --report_to tensorboard --log_level info --disable_tqdm true",
    "--output_dir out --activation_checkpointing --do_train --do_eval true --resume_from_checkpoint c",
    "--output-dir out --logging-steps 0.1 --optim sgd --optim-args momentum=0.9 --include_for_metrics inputs loss",
    "--output_dir out --torch_compile --dataloader_num_workers 2 --metric_for_best_model f1",
]


@pytest.mark.parametrize("line", LINES)
def test_arguments_from_the_command_line_are_the_originals(line):
    (ours,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(line.split(), look_for_args_file=False)
    (theirs,) = transformers.HfArgumentParser(transformers.TrainingArguments).parse_args_into_dataclasses(
        line.split(), look_for_args_file=False
    )
    mine, stock = ours.to_dict(), theirs.to_dict()
    assert {name: mine[name] for name in stock if name != "accelerator_config"} == {
        name: value for name, value in stock.items() if name != "accelerator_config"
    }


def test_only_what_was_given_counts_as_given():
    words = ["--output_dir", "out", "--logging_nan_inf_filter", "true", "--learning-rate", "5e-5"]
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(words)
    assert args._given == {"output_dir", "logging_nan_inf_filter", "learning_rate"}


def test_several_dataclasses_and_own_arguments():
    parser = HfArgumentParser((Defaults, Grouped, TrainingArguments), description="Several.")
    parser.add_argument("--own", default="o")
    defaults, grouped, args, own = parser.parse_args_into_dataclasses(
        ["--foo", "1", "--inside", "2", "--max_steps", "3", "--own", "p"]
    )
    assert (defaults.foo, grouped.inside, args.max_steps) == (1, 2, 3)
    assert own == Namespace(own="p")
    assert "grouped" in parser.format_help()


def test_no_dataclass_at_all():
    parser = HfArgumentParser()
    parser.add_argument("--own")
    assert parser.parse_args_into_dataclasses(["--own", "p"]) == (Namespace(own="p"),)


@pytest.mark.parametrize("parser_class", [HfArgumentParser, transformers.HfArgumentParser])
def test_set_defaults_is_heeded(parser_class):
    parser = parser_class(TrainingArguments)
    parser.set_defaults(learning_rate=0.5, label_names=["a"], output_dir="out")
    (args,) = parser.parse_args_into_dataclasses(["--seed", "3"], look_for_args_file=False)
    assert (args.learning_rate, args.label_names, args.output_dir, args.seed) == (0.5, ["a"], "out", 3)
    (args,) = parser.parse_args_into_dataclasses(["--learning_rate", "1.0"], look_for_args_file=False)
    assert args.learning_rate == 1.0


def test_plain_argparse_still_works():
    namespace = HfArgumentParser(Defaults).parse_args(["--foo", "1"])
    assert (namespace.foo, namespace.baz) == (1, "word")


def test_help_shows_defaults_and_every_setting(capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(Seq2SeqTrainingArguments).parse_args(["--help"])
    text = capsys.readouterr().out
    for one in dataclasses.fields(Seq2SeqTrainingArguments):
        assert f"--{one.name}" in text
    assert "(default: 5e-05)" in text
    assert "evaluation_strategy" not in text


OLDER = [
    ("--evaluation_strategy epoch", {"eval_strategy": "epoch"}),
    ("--evaluation-strategy epoch --no_cuda", {"eval_strategy": "epoch", "use_cpu": True}),
    ("--no_cuda true --overwrite_output_dir --seed 3", {"use_cpu": True, "seed": 3}),
    ("--warmup_ratio 0.1 --per_gpu_train_batch_size 4", {"warmup_steps": 0.1, "per_device_train_batch_size": 4}),
    ("--group_by_length --logging_dir logs", {"train_sampling_strategy": "group_by_length", "tensorboard_dir": "logs"}),
    ("--save_safetensors true --include_inputs_for_metrics", {"include_for_metrics": ["inputs"]}),
    ("--optim adamw_hf", {"optim": "adamw_torch"}),
    ("--lr_scheduler_type constant_w_warmup", {"lr_scheduler_type": "constant_with_warmup"}),
    ("--gradient_checkpointing", {"activation_checkpointing": True}),
    ("--gradient_checkpointing true --max_steps -1", {"activation_checkpointing": True}),
]


@pytest.mark.parametrize(("line", "expected"), OLDER)
def test_older_names_on_the_command_line(line, expected):
    with pytest.warns(FutureWarning) as caught:
        (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(line.split())
    assert len(caught) == 1
    assert args == TrainingArguments(**expected)


def test_older_names_go_to_the_class_that_knows_them():
    with pytest.warns(FutureWarning):
        plain, args = HfArgumentParser((Defaults, TrainingArguments)).parse_args_into_dataclasses(
            ["--no_cuda", "--foo", "1"]
        )
    assert (plain.foo, args.use_cpu) == (1, True)
    with pytest.raises(ArgumentError, match="no_cuda"):
        HfArgumentParser(Defaults).parse_args_into_dataclasses(["--no_cuda"])


def test_a_field_with_an_older_name_is_the_classs_own():
    @dataclass
    class Own(TrainingArguments):
        group_by_length: bool = False

    (args,) = HfArgumentParser(Own).parse_args_into_dataclasses(["--group_by_length"])
    assert args.group_by_length is True


def test_unknown_arguments_are_answered():
    parser = HfArgumentParser((Defaults, TrainingArguments))
    with pytest.raises(ArgumentError) as error:
        parser.parse_args_into_dataclasses(["--learnin-rate=3", "--fooo", "1", "loose"])
    for fragment in ("--learnin-rate=3", "Did you mean learning_rate?", "Did you mean foo?", "loose"):
        assert fragment in str(error.value)
    *_, remaining = parser.parse_args_into_dataclasses(["--foo", "1", "--other", "2"], return_remaining_strings=True)
    assert remaining == ["--other", "2"]


def test_an_unknown_word_is_answered(capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(["--eval_strategy", "stepz"])
    assert "Did you mean 'steps'?" in capsys.readouterr().err


def test_what_is_no_truth_value_is_told_what_is_one(capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(["--output_dir", "out", "--use_cpu", "maybe"])
    words = "yes, true, t, y, 1, no, false, f, n, 0"
    assert f"'maybe' is no truth value: write one of {words}" in capsys.readouterr().err


def test_files_of_arguments(tmp_path, monkeypatch):
    (tmp_path / "script.args").write_text("--foo 1 --baz file", encoding="utf-8")
    (tmp_path / "a.args").write_text("--foo 2", encoding="utf-8")
    (tmp_path / "b.args").write_text("--foo 3", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), "--baz", "line"])
    for kind in (HfArgumentParser, transformers.HfArgumentParser):
        parse = kind(Defaults).parse_args_into_dataclasses
        assert parse() == (Defaults(1, "line"),)
        assert parse(look_for_args_file=False) == (Defaults(42, "line"),)
        assert parse([], args_filename=str(tmp_path / "a.args")) == (Defaults(2, "word"),)
        assert parse([], args_filename=str(tmp_path / "absent.args")) == (Defaults(),)
        flags = ["--args", str(tmp_path / "a.args"), "--args", str(tmp_path / "b.args"), "--baz", "x"]
        assert parse(flags, args_file_flag="--args") == (Defaults(3, "x"),)
        assert parse(["--foo", "9", *flags], args_file_flag="--args", look_for_args_file=False) == (Defaults(9, "x"),)
    monkeypatch.setattr(sys, "argv", [""])
    assert HfArgumentParser(Defaults).parse_args_into_dataclasses() == (Defaults(),)


@dataclass
class Near:
    """A setting whose name begins that of the flag for files."""

    arg: str = "none"


def test_an_option_that_begins_like_the_flag_for_files_is_none():
    parse = HfArgumentParser(Near).parse_args_into_dataclasses
    assert parse(["--arg", "x"], args_file_flag="--args", look_for_args_file=False) == (Near("x"),)


@dataclass
class Wide:
    """Types that the original does not take, or takes otherwise."""

    one_or_many: str | list[str] = "none"
    number_or_word: int | str = 0
    rate: float | str | None = None
    settings: dict[str, int] | None = None
    plain: dict = field(default_factory=dict)
    noted: Annotated[int, "a note"] = 1
    anything: Any = None
    flag_or_word: bool | str = "no"
    literal_or_word: Literal[False] | str | None = None
    pair: tuple[int, ...] = (1, 2)
    bare: list = field(default_factory=list)
    either: int | float = 1
    enums: list[Flavour] = field(default_factory=list)
    two_lists: list[int] | list[str] | None = None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--one_or_many a", {"one_or_many": "a"}),
        ("--one_or_many a b", {"one_or_many": ["a", "b"]}),
        ("--number_or_word 3", {"number_or_word": 3}),
        ("--number_or_word three", {"number_or_word": "three"}),
        ("--rate 0.5", {"rate": 0.5}),
        ("--rate auto", {"rate": "auto"}),
        ('--settings {"a":1}', {"settings": {"a": 1}}),
        ('--plain {"a":[1]}', {"plain": {"a": [1]}}),
        ("--noted 3", {"noted": 3}),
        ("--anything x", {"anything": "x"}),
        ("--flag_or_word true", {"flag_or_word": True}),
        ("--flag_or_word some", {"flag_or_word": "some"}),
        ("--literal_or_word False", {"literal_or_word": False}),
        ("--literal_or_word a/b", {"literal_or_word": "a/b"}),
        ("--pair 3 4", {"pair": [3, 4]}),
        ("--bare 3 4", {"bare": ["3", "4"]}),
        ("--either 3", {"either": 3}),
        ("--either 0.5", {"either": 0.5}),
        ("--two_lists 3 4", {"two_lists": [3, 4]}),
        ("--enums sweet sour", {"enums": ["sweet", "sour"]}),
    ],
)
def test_types_that_the_original_does_not_take(line, expected):
    (made,) = HfArgumentParser(Wide).parse_args_into_dataclasses(line.split())
    assert made == Wide(**expected)


@pytest.mark.parametrize("line", ["--settings [1]", "--settings {a", "--either x", "--enums bitter"])
def test_bad_values_of_those_types(line, capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(Wide).parse_args_into_dataclasses(line.split())
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize("parser_class", [HfArgumentParser, transformers.HfArgumentParser])
def test_dictionaries(parser_class):
    parser = parser_class((Defaults, TrainingArguments))
    values = {"foo": 1, "output_dir": "out", "learning_rate": 0.5}
    defaults, args = parser.parse_dict(values)
    assert (defaults.foo, args.learning_rate) == (1, 0.5)
    with pytest.raises(ValueError, match="learnin_rate"):
        parser.parse_dict({**values, "learnin_rate": 1})
    assert parser.parse_dict({**values, "other": 1}, allow_extra_keys=True)[0] == defaults


def test_dictionaries_with_older_names():
    with pytest.warns(FutureWarning) as caught:
        defaults, args = HfArgumentParser((Defaults, TrainingArguments)).parse_dict(
            {"foo": 1, "evaluation_strategy": "epoch", "no_cuda": True}
        )
    assert len(caught) == 1
    assert (defaults.foo, args.eval_strategy, args.use_cpu) == (1, "epoch", True)
    with pytest.raises(ArgumentError, match=r"Did you mean learning_rate\?"):
        HfArgumentParser(TrainingArguments).parse_dict({"learnin_rate": 1})


@pytest.mark.parametrize("parser_class", [HfArgumentParser, transformers.HfArgumentParser])
def test_json_files(parser_class, tmp_path):
    file = tmp_path / "args.json"
    file.write_text(json.dumps({"output_dir": "out", "seed": 3, "label_names": ["a"]}), encoding="utf-8")
    (args,) = parser_class(TrainingArguments).parse_json_file(str(file))
    assert (args.output_dir, args.seed, args.label_names) == ("out", 3, ["a"])


@pytest.mark.parametrize("parser_class", [HfArgumentParser, transformers.HfArgumentParser])
def test_yaml_files(parser_class, tmp_path):
    file = tmp_path / "args.yaml"
    file.write_text("output_dir: out\nseed: 3\nlearning_rate: 5.0e-5\neval_strategy: epoch\n", encoding="utf-8")
    (args,) = parser_class(TrainingArguments).parse_yaml_file(file)
    assert (args.output_dir, args.seed, args.learning_rate, args.do_eval) == ("out", 3, 5e-5, True)


def test_yaml_as_people_write_it(tmp_path):
    file = tmp_path / "args.yaml"
    file.write_text(
        "learning_rate: 5e-5\neval_strategy: no\nbf16: off\nmax_time: 1h30m\nrun_name: 'e5'\n", encoding="utf-8"
    )
    (args,) = HfArgumentParser(TrainingArguments).parse_yaml_file(file)
    assert (args.learning_rate, args.eval_strategy, args.bf16, args.max_time) == (5e-5, "no", False, 5400.0)


@pytest.mark.parametrize(
    ("method", "text", "fragment"),
    [
        ("parse_json_file", "{", "is no JSON"),
        ("parse_json_file", "[1]", "holds no settings"),
        ("parse_yaml_file", "a: [", "is no YAML"),
        ("parse_yaml_file", "- a", "holds no settings"),
        ("parse_yaml_file", "", "holds no settings"),
        ("parse_yaml_file", "learnin_rate: 1", "Did you mean learning_rate?"),
        ("parse_json_file", '{"learning_rate": "3e-5"}', "without quotes"),
    ],
)
def test_files_that_hold_no_settings(tmp_path, method, text, fragment):
    file = tmp_path / "args"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError) as error:
        getattr(HfArgumentParser(TrainingArguments), method)(file)
    assert fragment in str(error.value)


def test_types_that_cannot_be_read():
    @dataclass
    class Lost:
        what: "NoSuchType" = None  # noqa: F821

    with pytest.raises(ArgumentError, match="Lost cannot be read"):
        HfArgumentParser(Lost)


def test_fields_are_left_as_they_are():
    before = {field.name: field.type for field in dataclasses.fields(TrainingArguments)}
    HfArgumentParser(TrainingArguments)
    assert {field.name: field.type for field in dataclasses.fields(TrainingArguments)} == before


def test_both_names_are_one():
    assert ArgumentsParser is HfArgumentParser
    assert issubclass(UnknownArgumentError, TypeError)
