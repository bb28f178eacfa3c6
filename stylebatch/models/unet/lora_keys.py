"""Checks a LoRA file by the names in its header: only weights that can be applied exactly are accepted."""

from __future__ import annotations

import re
from pathlib import Path

from stylebatch.errors import ManifestError
from stylebatch.models.weights import FLOATS, read_header

ACCEPTED = (
    "a .safetensors file with LoRA weights for this model's UNet or text encoders (kohya, diffusers or peft layout; no "
    "LyCORIS, DoRA, biases or norms)"
)
DOWN = re.compile(r"\.lora_down\.weight|\.lora_A(\.default)?\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight")  # fmt: skip
"""Ends of the names of down weights, one per layer."""
_KNOWN = re.compile(
    rf"(.*)({DOWN.pattern}|\.lora_up\.weight|\.lora_B(\.default)?\.weight|[._]lora\.up\.weight|"
    r"\.lora_linear_layer\.up\.weight|\.alpha)"
)
_OTHERS = (
    (r"\.hada_", "LyCORIS, LoHa"),
    (r"\.lokr_", "LyCORIS, LoKr"),
    (r"\.(diff|diff_b)$", "LyCORIS, whole differences"),
    (r"\.(oft_|boft_)", "orthogonal finetuning"),
    (r"\.on_input$", "IA3"),
    (r"\.(a1|a2|b1|b2|bm1|bm2)\.weight", "GLoRA"),
    (r"\.lora_mid\.", "a Tucker decomposition"),
    (r"dora_scale|lora_magnitude", "DoRA"),
    (r"\.(w_norm|b_norm)$", "weights of norms"),
    (r"bias$", "a bias"),
    (r"^bundle_emb\.|emb_params", "a textual inversion"),
)


def check_keys(path: Path) -> None:
    """Raise ManifestError, naming file and key, unless all weights are LoRA. Reads the header alone."""
    try:
        tensors = read_header(path)
    except ManifestError as error:
        reason = str(error).removeprefix("model: ")
        raise ManifestError(
            f"model.lora: {path}: cannot be read ({reason}); accepted: {ACCEPTED}"
        ) from None
    # One unknown key refuses the file: applying the others would give pictures that nobody trained.
    for key, stored in tensors.items():
        if _KNOWN.fullmatch(key) is None:
            kinds = [kind for pattern, kind in _OTHERS if re.search(pattern, key)]
            what = f" ({kinds[0]})" if kinds else ""
            raise ManifestError(f"model.lora: {path}: found {key}{what}; accepted: {ACCEPTED}")
        if (stored.dtype not in FLOATS and not key.endswith(".alpha")) or 0 in stored.shape:
            raise ManifestError(
                f"model.lora: {path}: {key}: found {stored.dtype} of shape {stored.shape}; accepted: floats"
            )
    if not any(DOWN.search(key) for key in tensors):
        raise ManifestError(f"model.lora: {path}: found no LoRA weights; accepted: {ACCEPTED}")


def num_layers(keys: list[str]) -> int:
    """Number of layers that weights of these names change."""
    return sum(DOWN.search(key) is not None for key in keys)
