"""What quantised models need before they can be trained."""

from __future__ import annotations

from typing import Any

from surestep.errors import ModelError


def check_quantised(model: Any) -> None:
    """Refuse a quantised model that has no adapters, or whose kind of quantisation lets no gradient through.

    Models say it themselves, as those of transformers do: `is_quantized`, `quantization_method`, `hf_quantizer`.
    """
    method = _method(model)
    if method is None:
        return
    name, quantizer = type(model).__name__, getattr(model, "hf_quantizer", None)
    if getattr(quantizer, "is_qat_trainable", False):
        return
    if not getattr(model, "peft_config", None):
        raise ModelError(
            f"{name} is quantised ({method}) and has no adapters: its rounded weights cannot be trained. Put adapters "
            "on it, peft.get_peft_model(peft.prepare_model_for_kbit_training(model), peft.LoraConfig(...)), or load it "
            "without quantization_config."
        )
    if quantizer is not None and not getattr(quantizer, "is_trainable", False):
        raise ModelError(
            f"{name} is quantised by {method}, which lets no gradient through to adapters. Load it with another "
            "quantization_config, such as BitsAndBytesConfig(load_in_4bit=True)."
        )


def _method(model: Any) -> str | None:
    """Return how a model is quantised, or None where it is not."""
    method = getattr(model, "quantization_method", None)
    quantizer = getattr(model, "hf_quantizer", None)
    if method is None and quantizer is None and not getattr(model, "is_quantized", False):
        return None
    if method is None:
        method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", "no method named")
    return str(getattr(method, "value", method))
