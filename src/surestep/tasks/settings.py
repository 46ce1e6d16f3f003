"""What tasks and their models can be told, as strict records. Needs no torch, so that schemas are cheap to export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from surestep.tasks.nearest import nearest

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
OtherSplit = Annotated[float, Field(gt=0.0, lt=1.0)] | str | None
_DROPOUT = "share of activations dropped in training"
_OTHER_SPLIT = "rows to {}: a fraction of the source, another file, or split:name of an hf: source"


class Settings(BaseModel):
    """The base of every declared block: immutable, no conversions between types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, data: Any) -> Any:
        """Answer unknown keys with the nearest known ones; pydantic alone would only say that they are extra."""
        unknown = [key for key in data if key not in cls.model_fields] if isinstance(data, dict) else []
        if unknown:
            said = "; ".join(f"unknown key '{key}': {cls.answer(str(key))}" for key in unknown)
            raise PydanticCustomError("unknown_key", "{said}", {"said": said})
        return data

    @classmethod
    def answer(cls, key: str) -> str:
        """Return what to write in the place of a key that there is not."""
        return nearest(key, cls.model_fields)


class DataSettings(Settings):
    """Where the samples are, which columns matter, and how they are cut into train, validation and test."""

    source: str = Field(
        description="a CSV, TSV, JSON, JSONL or Parquet file, a folder with a sub-folder of pictures for each class, "
        "sklearn:digits, or hf:name[:config]; paths are relative to the job file"
    )
    validation: OtherSplit = Field(None, description=_OTHER_SPLIT.format("compare checkpoints"))
    test: OtherSplit = Field(None, description=_OTHER_SPLIT.format("judge the final model"))
    split_seed: int = Field(0, ge=0, description="which of the many ways to cut by fractions is taken")
    text: str = Field("text", description="column of the texts (text classification)")
    image: str = Field("image", description="column of the pictures (image classification)")
    label: str = Field("label", description="column of the classes")
    label_names: list[str] | None = Field(
        None, description="names of the classes in the order of their ids; found in the data when not given"
    )

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _take_fraction_or_source(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (number and 0 < value < 1) or isinstance(value, str | None):
            return value
        raise PydanticCustomError("split", "Write a fraction between 0 and 1, such as 0.15, or a file")


class Transformer(Settings):
    """What all small transformers can be told."""

    dim: Count = Field(64, description="width of the hidden states; must be a multiple of num_heads")
    num_layers: Count = Field(description="transformer blocks")
    num_heads: Count = Field(4, description="attention heads of a block")
    dropout: Fraction = Field(0.1, description=_DROPOUT)

    @model_validator(mode="after")
    def _divide_among_heads(self) -> Self:
        if self.dim % self.num_heads:
            near = max(self.num_heads, round(self.dim / self.num_heads) * self.num_heads)
            raise PydanticCustomError(
                "heads",
                "dim={dim} cannot be divided among num_heads={num_heads}: write dim={near}",
                {"dim": self.dim, "num_heads": self.num_heads, "near": near},
            )
        return self


class VisionTransformer(Transformer):
    """A small vision transformer: patches of the image are its positions."""

    name: Literal["vision_transformer"] = "vision_transformer"
    patch_size: Count = Field(4, description="side of a square patch, in pixels; must divide the image's sides")
    num_layers: Count = Field(4, description="transformer blocks")


class ResidualNetwork(Settings):
    """A small convolutional network with residual blocks; each stage halves the picture and doubles the channels."""

    name: Literal["residual_network"] = "residual_network"
    width: Count = Field(32, description="channels of the first stage; must be a multiple of 8")
    num_stages: Count = Field(2, description="stages; the picture's side is halved between two of them")
    blocks_per_stage: Count = Field(1, description="residual blocks of a stage")
    dropout: Fraction = Field(0.1, description=_DROPOUT)

    @model_validator(mode="after")
    def _divide_into_groups(self) -> Self:
        if self.width % 8:
            raise PydanticCustomError("width", "width={width} is no multiple of 8: write 32", {"width": self.width})
        return self


class TextEncoder(Transformer):
    """A small transformer encoder over the words of a text."""

    name: Literal["text_encoder"] = "text_encoder"
    num_layers: Count = Field(2, description="transformer blocks")


class Pretrained(Settings):
    """A model of transformers in a local folder (`config.json`, weights, tokenizer)."""

    name: Literal["pretrained"] = "pretrained"
    path: str = Field(description="folder of the model, relative to the job file")
    from_scratch: bool = Field(False, description="take the folder's configuration only, with new random weights")


class ImageClassification(Settings):
    """One class for each picture."""

    name: Literal["image_classification"] = "image_classification"
    image_size: Count | None = Field(None, description="side to which pictures are resized; as they are when not given")
    channels: Literal[1, 3] | None = Field(None, description="1 for grey, 3 for colour; the data's own when not given")
    random_shift: int = Field(0, ge=0, description="training pictures are moved by up to so many pixels each way")
    random_flip: bool = Field(False, description="half of the training pictures are mirrored left to right")


class TextClassification(Settings):
    """One class for each text."""

    name: Literal["text_classification"] = "text_classification"
    max_length: Annotated[int, Field(ge=2)] = Field(128, description="positions kept of a text; the rest is cut off")
    vocabulary_size: Annotated[int, Field(ge=4)] = Field(20_000, description="most frequent words that are known")
    min_count: Count = Field(1, description="a word rarer than this in the training texts is unknown")
    lowercase: bool = Field(True, description="whether Word and word are one")


TaskSettings = Annotated[ImageClassification | TextClassification, Field(discriminator="name")]
ModelSettings = Annotated[
    VisionTransformer | ResidualNetwork | TextEncoder | Pretrained,
    Field(discriminator="name"),
]

# Which models serve which task; the first one is taken when the job names none.
MODELS_OF_TASK: dict[str, tuple[str, ...]] = {
    "image_classification": ("residual_network", "vision_transformer", "pretrained"),
    "text_classification": ("text_encoder", "pretrained"),
}
