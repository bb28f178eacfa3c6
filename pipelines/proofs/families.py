"""Published checkpoints at full size, random weights, never on disk: parameters, bytes, memory and shapes as computed.

    python -m pipelines.proofs.families [NAME ...]     # default sd15 sd21-base sd21 sdxl; about 15 minutes on one core

For each: every part in memory at once in bfloat16; prompts through the text encoders; then the UNet in float32, one evaluation of
one row at native size through the product's own adapter, with the features of every decoder site. Needs Linux (glibc) and
14 GB of free memory for sdxl, 7.3 GB for the others (less is refused). Prints a table, leaves outputs/families/NAME.json, and
exits 1 when a check fails.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipelines.proofs.proof import Record, peak, random_network, resident
from pipelines.proofs.published import PUBLISHED
from stylebatch.diffusion.attention import attend
from stylebatch.methods.styleid.features import Recorder
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.unet.published import Published
from stylebatch.models.unet.scheduler_config import schedule_from_config
from stylebatch.models.unet.stable_diffusion import StableDiffusion, StableDiffusionXL

BFLOAT16, FLOAT32, TOLERANCE = 2, 4, 0.03
ROOM = 7 * 2**29
"""For the program and for activations, beside the UNet in float32."""


class Ids:
    """Stands where a tokenizer stands: the vocabularies are the hub's. Any prompt is the same ids, padded as CLIP's are."""

    model_max_length = 77
    added_tokens_encoder: ClassVar[dict[str, int]] = {}

    def __init__(self, vocabulary: int) -> None:
        start, end = vocabulary - 2, vocabulary - 1
        self.bos_token_id, self.eos_token_id = start, end
        self.pad_token_id = end
        words = [320 % start, 2368 % start, 525 % start]
        padded = [start, *words, *[end] * (self.model_max_length - 1 - len(words))]
        self.input_ids = torch.tensor([padded])

    def __call__(self, prompts: list[str], **padding: Any) -> Ids:
        return self


def text_encoder(**config: Any) -> Any:
    """A CLIP text encoder, with projection where its config says so."""
    cls = {"CLIPTextModel": CLIPTextModel}.get(
        config.pop("architectures")[0], CLIPTextModelWithProjection
    )
    return cls(CLIPTextConfig(**{key: x for key, x in config.items() if key != "model_type"}))


BUILD = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": text_encoder,
    "text_encoder_2": text_encoder,
}


def adapter(published: Published, parts: Mapping[str, Any]) -> StableDiffusion:
    """The product's model around random networks."""
    schedule = schedule_from_config(dict(published.configs["scheduler"]))
    ids = Ids(int(published.configs["text_encoder"]["vocab_size"]))
    if "text_encoder_2" not in parts:
        text = {"text_encoder": parts["text_encoder"], "tokenizer": ids}
        return StableDiffusion(parts["unet"], schedule, vae=parts["vae"], **text)
    texts = [(parts["text_encoder"], ids), (parts["text_encoder_2"], ids)]
    return StableDiffusionXL(parts["unet"], schedule, vae=parts["vae"], texts=texts)


def config_folder(published: Published, folder: Path) -> Checkpoint:
    """The configs alone, as the planner reads them."""
    for part in ("unet", "vae"):
        (folder / part).mkdir()
        text = json.dumps(dict(published.configs[part]))
        (folder / part / "config.json").write_text(text, encoding="utf-8")
    return Checkpoint(folder)


def prove(published: Published, folder: Path, tolerance: float = TOLERANCE) -> Record:
    """Build, count, weigh and evaluate one checkpoint; `tolerance`: of memory that is measured."""
    record, checkpoint = Record(), config_folder(published, folder)
    before, parts = resident(), {}
    for part, count in published.parameters.items():
        config = dict(published.configs[part])
        with record.timed(f"building {part} in bfloat16"):
            parts[part] = random_network(BUILD[part], config, dtype=torch.bfloat16)
        found = sum(x.numel() for x in parts[part].parameters())
        record.check(f"{part}: parameters", found, count)
    total = sum(published.parameters.values())
    record.check("all parts resident, bfloat16", resident() - before, BFLOAT16 * total, tolerance)
    model = adapter(published, parts)
    with record.timed("encoding a prompt, bfloat16"):
        cond = model.embed(["a prompt"])
    record.check("text: tokens", cond.hidden.shape[1], 77)
    record.check("text: features", cond.hidden.shape[2], _features(published))
    if cond.pooled is not None:
        width = published.configs["text_encoder_2"]["projection_dim"]
        record.check("text: pooled features", cond.pooled.shape[1], width)
    size = published.native_size
    _encode_and_decode(record, model, min(size, 256))
    unet = parts.pop("unet")
    parts.clear()
    model.vae = None
    if isinstance(model, StableDiffusionXL):
        model.text_encoders = ()
    model.text_encoder = None
    gc.collect()
    unet.float()
    weights = FLOAT32 * published.parameters["unet"]
    record.check("UNet resident, float32", resident() - before, weights, tolerance)
    _evaluate(record, model, checkpoint, size, cond)
    return record


def _features(published: Published) -> int:
    return int(published.configs["unet"]["cross_attention_dim"])


def _encode_and_decode(record: Record, model: StableDiffusion, size: int) -> None:
    """A picture of `size` through the VAE, in float32; shapes and finiteness."""
    model.vae.float()
    with record.timed(f"VAE: encoding and decoding {size} px, float32"):
        latents = model.encode(torch.zeros(1, 3, size, size))
        pixels = model.decode(latents)
    record.check("VAE: latent cells per side", latents.shape[-1], size // 8)
    record.check("VAE: pixels per side", pixels.shape[-1], size)
    record.check("VAE: finite", bool(pixels.isfinite().all()), True)


def _evaluate(
    record: Record, model: StableDiffusion, checkpoint: Checkpoint, size: int, cond: Any
) -> None:
    """One row at native size, bare, then with the features of every site recorded."""
    x = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    before = resident()
    with record.timed(f"one evaluation at {size} px, float32"):
        eps = model.predict_noise(x, 501, cond)
    record.figures["activations of one row, bytes"] = peak() - before
    record.figures["activations of one row as planned, bytes"] = checkpoint.family.memory(
        (size, size), FLOAT32
    ).row
    record.check("noise: shape as the latents'", eps.shape == x.shape, True)
    record.check("noise: finite", bool(eps.isfinite().all()), True)
    recorder = Recorder("key_value", attend)
    with model.editing(recorder, model.sites):
        edited = model.predict_noise(x, 501, cond)
    difference = float((edited - eps).abs().max() / eps.abs().max())
    record.check("edited attention gives the same noise", difference < 1e-4, True)
    found: Mapping[int, Mapping[str, Tensor]] = recorder.take()
    for shape in checkpoint.family.site_shapes(size):
        keys = found[shape.site]["k"]
        name = f"site {shape.site}: {shape.side} x {shape.side} cells, {shape.heads} heads; numbers of k"
        record.check(name, keys.numel(), shape.elements // shape.layers)
        record.check(f"site {shape.site}: heads", keys.shape[1], shape.heads)


def free_memory() -> int:
    """Bytes that Linux can give without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def main(names: Sequence[str]) -> int:
    out, sound = Path("outputs/families"), True
    out.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what tensors free leaves the process
    for name in names or ("sd15", "sd21-base", "sd21", "sdxl"):
        published = PUBLISHED[name]
        needed = FLOAT32 * published.parameters["unet"] + ROOM
        if (free := free_memory()) < needed:
            sys.stderr.write(f"{name}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed\n")
            return 2
        with tempfile.TemporaryDirectory() as folder:
            record = prove(published, Path(folder))
        about = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        content = {"model": published.title, **about, **asdict(record)}
        (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        lines = [f"{published.title:<60} {'measured':>16} {'computed':>16}"]
        lines += [check.line() for check in record.checks]
        lines += [f"{figure:<60} {value:>16,.3f}" for figure, value in record.figures.items()]
        sys.stdout.write("\n".join([*lines, "", ""]))
        sys.stdout.flush()
        sound = sound and all(check.holds for check in record.checks)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
