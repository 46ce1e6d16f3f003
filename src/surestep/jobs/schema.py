"""The schema of the job file, for editors and for other programs."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, TypeAdapter

from surestep import TrainingArguments
from surestep.jobs.job import SHORT_FORMS, Job
from surestep.tasks.settings import MODELS_OF_TASK

# What a job file may leave out although a job has it: the file's name, the run's folder and the task's model stand in.
_FILLED_IN = ("name", "output_dir", "model")
_PLAIN = {str, int, float, bool, type(None)}


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of a job file, the training arguments with their help and defaults included."""
    schema = Job.model_json_schema()
    schema["title"] = "surestep job"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["required"] = [name for name in schema["required"] if name not in _FILLED_IN]
    properties = schema["properties"]
    for block in SHORT_FORMS:
        described = properties[block]
        description = described.pop("description", None)
        short: dict[str, Any] = {"type": "string"}
        if block == "task":
            short["enum"] = list(MODELS_OF_TASK)
        properties[block] = {"description": description, "anyOf": [described, short]}
    properties["arguments"] |= {"properties": arguments_schema()}
    return schema


def arguments_schema() -> dict[str, Any]:
    """Return the schema of each training argument by name.

    Older spellings are taken as well, so no other names are forbidden here: the arguments check their names themselves.
    """
    hints = typing.get_type_hints(TrainingArguments)
    properties: dict[str, Any] = {}
    for field in dataclasses.fields(TrainingArguments):
        if not field.init or field.name == "output_dir":
            continue
        described = _type_schema(hints[field.name])
        if field.metadata.get("help"):
            described["description"] = field.metadata["help"]
        default = getattr(field.default, "value", field.default)
        if type(default) in _PLAIN:
            described["default"] = default
        properties[field.name] = described
    return properties


def _type_schema(hint: Any) -> dict[str, Any]:
    """Return the schema of a type, or one that takes anything where JSON has no such type."""
    try:
        return TypeAdapter(hint).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return {}
