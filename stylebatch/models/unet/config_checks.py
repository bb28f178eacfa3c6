"""Checks a checkpoint's configs: the formulation must be implemented, and the parts must fit each other.

diffusers implements more formulations than stylebatch. A setting that would change pictures and is not implemented is refused
by file and name, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylebatch.errors import ManifestError
from stylebatch.models.configs import Fields
from stylebatch.models.unet.network import network_of

SCHEDULERS = (
    "DDIMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler",
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler",
    "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler",
    "PNDMScheduler", "SASolverScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
"""Schedulers of diffusers for networks that were trained on a table of betas; they differ in their steps alone."""
PREDICTS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
MOST_NOISE = -300.0
"""Least logarithm of alpha_bar at the last timestep: below it, sqrt(alpha_bar) in float32 would be 0, and DDIM divides by it."""
MARKS = {
    "v_pred": "it predicts v",
    "ztsnr": "its schedule ends without signal (zero terminal SNR)",
    "edm_mean": "its latents have statistics of their own (EDM)",
    "edm_std": "its latents have statistics of their own (EDM)",
    "edm_vpred.sigma_max": "it was trained on noise levels of EDM",
    "edm_vpred.sigma_min": "it was trained on noise levels of EDM",
}
"""Tensors without weights by which single files declare how they were trained."""


@dataclass(frozen=True)
class Configs:
    """The configs of a pipeline folder; `texts`: those of its text encoders, by part."""

    index: Fields
    scheduler: Fields
    unet: Fields
    vae: Fields
    texts: Mapping[str, Fields]


def check_configs(configs: Configs) -> None:
    """Raise ManifestError, naming file, field and value, for anything that is not implemented."""
    check_scheduler(configs.scheduler, configs.index)
    _check_unet(configs.unet)
    _check_vae(configs.vae)
    for fields in configs.texts.values():
        _check_text(fields)
    _check_fit(configs)
    configs.index.flag("force_zeros_for_empty_prompt", True)


def check_scheduler(fields: Fields, index: Fields | None = None) -> None:
    """Refuse a scheduler config unless its class is known, its betas are valid, and nothing else changes the prediction."""
    # Both files name the class; a hand-edited folder may contradict itself.
    named: list[tuple[Fields, str, Any]] = [
        (fields, "_class_name", fields.values.get("_class_name"))
    ]
    if index is not None and isinstance(pair := index.values.get("scheduler"), list):
        named.append((index, "scheduler", pair[-1] if pair else None))
    for source, name, kind in named:
        if kind is not None and (not isinstance(kind, str) or kind not in SCHEDULERS):
            raise source.refusal(
                name,
                "a scheduler of diffusers for a table of betas, such as DDIMScheduler or EulerDiscreteScheduler (no EDM, "
                "flow matching or consistency model)",
            )
    fields.word("prediction_type", "epsilon", PREDICTS)
    fields.word("timestep_spacing", "leading", SPACINGS)
    fields.count("steps_offset", 0, least=0)
    fields.flag("set_alpha_to_one", True)
    fields.word("timestep_type", "discrete", ("discrete",))
    if fields.flag("rescale_betas_zero_snr", False):
        raise fields.refusal(
            "rescale_betas_zero_snr", "false (the inversion needs signal at every level)"
        )
    # null and false are how configs of other samplers carry these keys
    for name, what in (
        ("thresholding", "dynamic thresholding"),
        ("use_flow_sigmas", "flow matching"),
        ("sigma_min", "noise levels apart from betas"),
        ("sigma_max", "noise levels apart from betas"),
        ("sigma_data", "EDM"),
        ("snr_shift_scale", "a shifted schedule"),
    ):
        fields.none(name, what)
    variance = fields.values.get("variance_type")
    if isinstance(variance, str) and variance.startswith("learned"):
        raise fields.refusal("variance_type", "a fixed variance (learned ones are not implemented)")
    _check_betas(fields)


def _check_betas(fields: Fields) -> None:
    num = fields.count("num_train_timesteps", 1000, least=2)
    if (betas := fields.values.get("trained_betas")) is None:
        fields.word("beta_schedule", "linear", ("linear", "scaled_linear"))
        first, last = fields.number("beta_start", 0.0001), fields.number("beta_end", 0.02)
        for name, beta in (("beta_start", first), ("beta_end", last)):
            if not 0.0 < beta < 1.0:
                raise fields.refusal(name, "above 0, below 1")
        # a bound on sum(log(1 - beta)), without building the table: num may be a million
        if num * math.log1p(-max(first, last)) < MOST_NOISE:
            raise fields.refusal(
                "num_train_timesteps",
                "fewer, or smaller betas, which leave signal at the last of them",
            )
        return
    if not isinstance(betas, list) or len(betas) < 2 or not all(map(_is_beta, betas)):
        raise fields.refusal("trained_betas", "a list of numbers above 0, below 1")
    if "num_train_timesteps" in fields.values and len(betas) != num:
        raise fields.refusal("num_train_timesteps", f"{len(betas)}, as many as trained_betas has")


def _is_beta(value: Any) -> bool:
    return isinstance(value, float) and 0.0 < value < 1.0


def _check_class(fields: Fields, accepted: str) -> None:
    if fields.values.get("_class_name") is not None:
        fields.word("_class_name", accepted, (accepted,))


def _check_unet(fields: Fields) -> None:
    _check_class(fields, "UNet2DConditionModel")
    for name, what in (
        ("time_cond_proj_dim", "guidance that is embedded (a latent consistency model)"),
        ("class_embed_type", "conditioning on classes"),
        ("num_class_embeds", "conditioning on classes"),
        ("encoder_hid_dim", "projected conditioning"),
        ("encoder_hid_dim_type", "projected conditioning"),
        ("dual_cross_attention", "attention to two sources"),
    ):
        fields.none(name, what)
    for name in ("mid_block_scale_factor", "resnet_out_scale_factor", "norm_eps", "dropout"):
        fields.number(name, 1.0)
    if fields.values.get("addition_embed_type") is not None:
        fields.word("addition_embed_type", None, ("text_time",))


def _check_vae(fields: Fields) -> None:
    _check_class(fields, "AutoencoderKL")
    for name in ("latents_mean", "latents_std"):
        if fields.values.get(name) is not None:
            raise fields.refusal(
                name, "null (latents with statistics by channel are not implemented)"
            )
    for name in ("in_channels", "out_channels"):
        if fields.count(name, 3) != 3:
            raise fields.refusal(name, "3, red, green and blue")
    if fields.number("scaling_factor", 0.18215) <= 0.0:
        raise fields.refusal("scaling_factor", "above 0")
    fields.number("shift_factor", 0.0)
    fields.flag("force_upcast", True)
    levels = len(fields.list("block_out_channels"))
    for name in ("down_block_types", "up_block_types"):
        if len(fields.list(name)) != levels:
            raise fields.refusal(name, f"{levels}, as many as block_out_channels")
    fields.counts("sample_size", 512, 2)


def _check_fit(configs: Configs) -> None:
    """Refuse parts whose sizes differ: text features, latent channels, added embeddings of SDXL."""
    unet, network, texts = configs.unet, network_of(configs.unet), list(configs.texts.values())
    latents = configs.vae.count("latent_channels", 4)
    if network.in_channels != latents:
        raise unet.refusal(
            "in_channels",
            f"{latents}, the channels that the VAE gives (networks for inpainting, depth or editing take more; "
            "use a text-to-image checkpoint)",
        )
    if unet.count("out_channels", 4) != latents:
        raise unet.refusal("out_channels", f"{latents}, as many as in_channels (the latents alone)")
    width = sum(text.count("hidden_size", 512) for text in texts)
    attended = unet.counts("cross_attention_dim", 1280, network.num_levels)
    if any(one != width for one in attended):
        raise unet.refusal(
            "cross_attention_dim",
            f"{width}, the features that the text encoder{'s give' if len(texts) > 1 else ' gives'} (take the parts "
            "of one checkpoint)",
        )
    if len(texts) > 1:
        sizes = unet.count("addition_time_embed_dim")
        expected = 6 * sizes + texts[-1].count("projection_dim", 512)
        if unet.count("projection_class_embeddings_input_dim") != expected:
            raise unet.refusal(
                "projection_class_embeddings_input_dim",
                f"{expected}, pooled text and six sizes (take the base checkpoint; the refiner takes five)",
            )


def check_vae_fits(vae: Fields, former: Fields) -> None:
    """Raise ManifestError unless latents of `vae` are as those of the checkpoint's autoencoder, `former`."""
    _check_vae(vae)
    for name, default, what in (
        ("latent_channels", 4.0, "channels"),
        ("scaling_factor", 0.18215, "factor"),
        ("shift_factor", 0.0, "shift"),
    ):
        wanted, found = former.number(name, default), vae.number(name, default)
        if not math.isclose(wanted, found, rel_tol=1e-4):
            # the default is shown, where the file leaves it out
            raise _unfit(vae, name, found, f"{wanted:g}, the {what} of latents", former)
    wanted, found = (len(one.list("block_out_channels")) for one in (former, vae))
    if wanted != found:
        what = f"{wanted} levels ({2 ** (wanted - 1)} pixels per latent cell)"
        raise _unfit(vae, "block_out_channels", found, what, former)


def _unfit(vae: Fields, name: str, found: float, accepted: str, former: Fields) -> ManifestError:
    return ManifestError(
        f"model.vae: {vae.path}: {name}: found {found:g}; accepted: {accepted} that the network was trained on ({former.path}). Next: "
        "take an autoencoder of the checkpoint's family"
    )


def _check_text(fields: Fields) -> None:
    if fields.values.get("model_type") is not None:
        fields.word("model_type", None, ("clip_text_model", "clip"))
    kinds = fields.values.get("architectures")
    if kinds is not None and not (
        isinstance(kinds, list)
        and all(isinstance(kind, str) and kind.startswith("CLIP") for kind in kinds)
    ):
        raise fields.refusal("architectures", "CLIPTextModel, CLIPTextModelWithProjection")
    fields.count("num_hidden_layers", 12)


def checked_clip_skip(skip: int, layers: Sequence[int]) -> int:
    """`skip`. Raises ManifestError where it would leave no layer of a text encoder; `layers`: of each of them."""
    # SDXL takes the last layer but one anyway
    most = min(layers) - len(layers)
    if not 0 <= skip <= most:
        raise ManifestError(
            f"model.clip_skip: found {skip}; accepted by this model: 0 to {most}, since a text encoder has {min(layers)} layers"
        )
    return skip


def check_marks(path: Path, tensors: Mapping[str, object], scheduler: Fields) -> None:
    """Raise ManifestError if a single file declares a training that its config contradicts or that is not implemented."""
    for name in (name for name in MARKS if name in tensors):
        if name == "v_pred":
            if scheduler.word("prediction_type", "epsilon", PREDICTS) == "v_prediction":
                continue
            accepted = "a scheduler config with prediction_type: v_prediction"
        else:
            accepted = "files without it (this is not implemented)"
        raise ManifestError(
            f"model.path: {path} holds {name}, a mark that {MARKS[name]}; accepted: {accepted}"
        )
