"""Compares the tensors of a checkpoint with those that its configs describe.

The networks are built on the meta device, without memory, and only headers of the weights are read. The loaders of the
libraries log missing tensors at most, and fill them with random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylebatch.errors import ManifestError
from stylebatch.models.libraries import WRONG, first_line, quiet
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.tokens import load_tokenizer
from stylebatch.models.unet.single_file import (
    HARMLESS_VAE,
    UNET_KEYS,
    VAE_KEYS,
    is_original_vae,
    vae_tensors,
)
from stylebatch.models.unet.unet_family import UNet
from stylebatch.models.weights import FLOATS, NETWORKS, Stored, read_header

with quiet():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import (
        convert_ldm_clip_checkpoint,
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
        convert_open_clip_checkpoint,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Former names of the autoencoder's attention, in files of SD 1.x and 2.x -> today's."""
_HARMLESS_TEXT = ("vision_model.", "visual_projection.", "logit_scale", "text_projection.")

Shapes = dict[str, Stored]


def faults(family: UNet) -> Iterator[ManifestError]:
    """Missing, unexpected or misshapen tensors, one error per part."""
    files = family.files
    if files.folder == TINY and files.weights is None and files.vae is None:
        return  # part of the package, and checked by its tests
    header = read_header(family.files.weights) if family.files.weights is not None else {}
    for part in (part for part in NETWORKS if part in family.parts):
        try:
            network = bare(family, part)
            if part == "vae" and family.files.vae_file is not None:
                _compare_vae_file(family, family.files.vae_file, network)
            elif family.files.weights is not None and not (part == "vae" and family.files.vae):
                _compare_single(family, family.files.weights, part, network, header)
            else:
                _compare_folder(family, part, network)
        except ManifestError as error:
            yield error
    for tokenizer, encoder in family.tokenizers.items():
        try:
            with quiet():
                load_tokenizer(family.files.folder / tokenizer, family.files.fields(encoder))
        except ManifestError as error:
            yield error


def bare(family: UNet, part: str) -> Any:
    """The network that a part's config describes, on the meta device. Raises ManifestError if it describes none."""
    fields = family.files.fields(part)
    try:
        with quiet(), torch.device("meta"):
            if part in ("unet", "vae"):
                cls: Any = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
                return cls.from_config(fields.values)
            config = CLIPTextConfig.from_pretrained(str(family.files.folder), subfolder=part)
            return (CLIPTextModel if part == "text_encoder" else CLIPTextModelWithProjection)(
                config
            )
    except WRONG as error:
        raise ManifestError(
            f"model: {fields.path} describes no network ({first_line(error)}); next: fetch the file again"
        ) from error


def _compare_folder(family: UNet, part: str, network: nn.Module) -> None:
    files = family.files.weight_files(part)
    place = family.files.place(part)
    if not files:
        raise _nothing(family, place)
    found: Shapes = {}
    for path in files:
        for name, stored in read_header(path).items():
            if name in found:
                raise ManifestError(
                    f"model: {path} holds {name}, as another file of its index does"
                )
            found[name] = stored
    where = str(files[0]) if len(files) == 1 else str(place)
    _compare(
        where, part, network, {_current_name(part, name): stored for name, stored in found.items()}
    )


def _nothing(family: UNet, place: Path) -> ManifestError:
    """The error for a part without weights: what the folder holds instead, and the next step."""
    wanted = f"of variant {family.files.variant}" if family.files.variant else "without a variant"
    names = sorted(path.name for path in place.iterdir())
    stems = [name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")]
    others = sorted({stem.split(".")[1].split("-")[0] for stem in stems if "." in stem})
    if others:
        step = f"`model: {{..., variant: {others[0]}}}`, or --variant {others[0]}"
    elif any(stem in ("model", "diffusion_pytorch_model") for stem in stems):
        step = "leave `variant` out"
    elif any(name.endswith((".bin", ".ckpt")) for name in names):
        step = "convert the pickled weights to safetensors (docs/models.md)"
    else:
        step = "fetch the folder again, weights included"
    return ManifestError(f"model: {place} holds no safetensors weights {wanted}; next: {step}")


def _current_name(part: str, name: str) -> str:
    """A tensor's name in the current versions of the libraries."""
    if part == "vae" and ".attentions." in name:
        words = name.split(".")
        return ".".join(_OLD_ATTENTION.get(word, word) for word in words)
    return name.removeprefix("text_model.") if part.startswith("text") else name


def _expected(part: str, network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {_current_name(part, name): tuple(x.shape) for name, x in network.state_dict().items()}


def _compare(
    where: str,
    part: str,
    network: nn.Module,
    found: Mapping[str, Stored],
    name_in_file: Callable[[str], str] = lambda name: name,
) -> None:
    """Raise ManifestError for the first kind of difference. `name_in_file`: a missing tensor's name as the file would have it."""
    expected = _expected(part, network)
    missing = [name_in_file(name) for name in expected if name not in found]
    if missing:
        raise ManifestError(
            f"model: {where}: the {part} lacks {_some(missing)}; accepted: every tensor that its config describes. Next: fetch "
            "the file again"
        )
    extra = [name for name in found if name not in expected and not _is_harmless(part, name)]
    if extra:
        raise ManifestError(
            f"model: {where}: the {part} holds {_some(extra)}, which its config does not describe; next: take config and weights "
            "of one checkpoint"
        )
    for name, shape in expected.items():
        stored = found[name]
        if stored.shape != shape or stored.dtype not in FLOATS:
            raise ManifestError(
                f"model: {where}: {name} of the {part} is {stored.dtype} of shape {stored.shape}; accepted: floats of shape "
                f"{shape}, as its config describes. Next: take config and weights of one checkpoint"
            )


def _is_harmless(part: str, name: str) -> bool:
    if not part.startswith("text"):
        return False
    return name.startswith(_HARMLESS_TEXT) or name.endswith("position_ids")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more tensors" if len(names) > 3 else "")


def _compare_single(
    family: UNet, path: Path, part: str, network: Any, header: Mapping[str, Stored]
) -> None:
    """As `_compare_folder`, after diffusers has converted the names; it is given tensors on the meta device."""
    state = {
        name: torch.empty(stored.shape, dtype=_DTYPES.get(stored.dtype, torch.uint8), device="meta")
        for name, stored in header.items()
    }
    try:
        with quiet():
            changed = _renamed(family, part, network, state)
    except WRONG as error:
        raise ManifestError(
            f"model.path: {path}: the {part} lacks {first_line(error)}; accepted: a whole checkpoint of the config's family"
        ) from error
    # Converted tensors are the given ones, or views of them (a fused qkv is cut up): identity leads back to the file's names.
    names = {id(tensor): name for name, tensor in state.items()}
    origin = {new: names.get(id(tensor._base if tensor._is_view() else tensor)) for new, tensor in changed.items()}  # fmt: skip
    found = {
        _current_name(part, new): Stored(
            header[origin[new] or ""].dtype if origin[new] else "F32", tuple(tensor.shape)
        )
        for new, tensor in changed.items()
    }

    def name_in_file(name: str) -> str:
        # by the tensor beside it: a missing bias has the file's name of its weight
        ends = {"weight": "bias", "bias": "weight"}
        stem, _, end = name.rpartition(".")
        beside = origin.get(f"{stem}.{ends.get(end, '')}")
        return f"{name} ({beside.removesuffix(ends[end])}{end})" if beside else name

    _compare(str(path), part, network, found, name_in_file)
    prefix = {"unet": UNET_KEYS, "vae": VAE_KEYS}.get(part)
    used = set(origin.values())
    left = [
        name
        for name in header
        if prefix is not None
        and name.startswith(prefix)
        and name not in used
        and not name.removeprefix(prefix).startswith(HARMLESS_VAE if part == "vae" else ("-",))
    ]
    if left:
        raise ManifestError(
            f"model.path: {path}: the {part} holds {_some(left)}, which model.config ({family.files.folder}) does not describe; "
            "accepted: the configs of the file's own family"
        )


def _compare_vae_file(family: UNet, path: Path, network: Any) -> None:
    """As `_compare_folder`, for the single file of an autoencoder."""
    _, tensors = vae_tensors(path, read_header(path))
    strange = [name for name, stored in tensors.items() if stored.dtype not in FLOATS]
    if strange:
        raise ManifestError(
            f"model.vae: {path}: found {_some(strange)} that is no float; accepted: floats"
        )
    state = {name: torch.empty(stored.shape, device="meta") for name, stored in tensors.items()}
    changed = vae_state(state, family.files.config("vae"))
    if len(changed) != len(state):
        raise ManifestError(
            f"model.vae: {path}: found {len(state)} tensors, of which {len(changed)} have names that are known; accepted: an "
            "AutoencoderKL in diffusers' or the original layout"
        )
    found = {name: Stored("F32", tuple(tensor.shape)) for name, tensor in changed.items()}
    _compare(str(path), "vae", network, found)


def vae_state(state: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of an autoencoder under diffusers' current names; `config`: the file's."""
    if is_original_vae(state):
        state = dict(convert_ldm_vae_checkpoint(state, config))
    return {_current_name("vae", name): tensor for name, tensor in state.items()}


def _renamed(family: UNet, part: str, network: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    config = family.files.config(part)
    if part == "unet":
        found: dict[str, Tensor] = convert_ldm_unet_checkpoint(
            state,
            {"layers_per_block": 2, **config},  # a default that diffusers does not fill in here
        )
    elif part == "vae":
        found = convert_ldm_vae_checkpoint(state, config)
    elif part == "text_encoder" and family.layout != "2.x":
        found = convert_ldm_clip_checkpoint(state)
    else:
        prefix = (
            "cond_stage_model.model."
            if part == "text_encoder"
            else "conditioner.embedders.1.model."
        )
        found = convert_open_clip_checkpoint(network, state, prefix=prefix)
    return found
