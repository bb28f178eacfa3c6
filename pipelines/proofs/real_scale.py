"""A block of 1 content x 2 styles at the size of SD 1.5 (random weights, 512 px, 2 steps): bytes and memory as computed.

    python -m pipelines.proofs.real_scale [CODEC-DTYPE ...]     # default x-float32 x8-float32; about 10 minutes on 2 cores

Needs Linux (glibc), 7 GB of memory and 1 GB of disk. Prints a table, leaves outputs/real_scale/real_scale.json, and exits 1 when a
check fails: bytes on disk per timestep, bytes held, peak resident memory, held and cached features giving the same latents.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from pipelines.proofs.proof import Check as Check
from pipelines.proofs.proof import Record, peak, random_network, resident
from stylebatch.data.images import load_picture
from stylebatch.features.codecs import Codec
from stylebatch.features.style_bank import StyleBank, feature_codec
from stylebatch.features.style_cache import StyleCache, hash_pixels
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Inverted
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.denoiser import Conditioning
from stylebatch.models.unet.scheduler_config import schedule_from_config
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.batches import value_bytes
from stylebatch.planning.feature_memory import stored_bytes
from stylebatch.spec import RunSpec

DEMO = Path(__file__).resolve().parents[2] / "manifests" / "demo"
NUM_STYLES, STEPS, FLOAT32, TOLERANCE = 2, 2, 4, 0.15
UNET = {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64}  # fmt: skip
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True)
class Scale:
    """Pictures and networks; how far a rendering's peak may be off (inf: the program's own growth drowns it)."""

    size: int
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    peak_tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Arithmetic:
    """What a style or content takes, from the network's widths alone; `sites` as StyleID numbers them."""

    channels: tuple[int, ...]
    cells: int
    sites: tuple[int, ...] = (6, 7, 8, 9, 10, 11)

    def shape(self, site: int) -> tuple[int, int]:
        """(tokens, features) of x, and of q, k, v with their heads laid side by side."""
        level = len(self.channels) - 1 - site // 3
        return (self.cells >> level) ** 2, self.channels[level]

    @property
    def elements(self) -> int:
        """Of each of q, k, v and x, one image, one timestep."""
        return sum(math.prod(self.shape(site)) for site in self.sites)

    def stored(self, codec: Codec) -> int:
        """Bytes of one style and timestep: k and v or x, or x as int8 with a float32 scale per channel."""
        if codec.name == "x8":
            return self.elements + 4 * sum(self.shape(site)[1] for site in self.sites)
        numbers = self.elements * (2 if codec.name == "kv" else 1)
        return numbers * (2 if codec.dtype == "float16" else 4)


class RandomDiffusion(StableDiffusion):
    """A UNet without a text encoder: one context for any prompt. Pictures are encoded once, so that the VAE may go."""

    latents: dict[str, Tensor]

    def embed(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        shape, draw = (1, 77, self.unet.config.cross_attention_dim), torch.Generator()
        return Conditioning(torch.randn(shape, generator=draw.manual_seed(1)))

    embed_negative = embed

    def encode(self, images: Tensor) -> Tensor:
        key = hash_pixels(images.numpy())
        return self.latents[key] if key in self.latents else super().encode(images)


def disk_bytes(tar: Path) -> dict[str, int]:
    """Bytes of tensors per timestep in a style's tar: of each safetensors member what follows its header."""
    with tarfile.open(tar) as members:
        found = [(m, members.extractfile(m)) for m in members if m.name[:4].isdigit()]
        return {m.name: m.size - 8 - int.from_bytes(f.read(8), "little") for m, f in found if f}


def planned_bytes(folder: Path, size: int, codec: Codec) -> float:
    """What the planner expects of one style and timestep (it leaves out the scales of x8)."""
    spec = RunSpec.model_validate({
        "contents": {"path": "contents"}, "styles": {"path": "styles"}, "output": {"path": "out"},
        "model": {"path": str(folder), "dtype": codec.dtype}, "method": {"steps": STEPS},
    })  # fmt: skip
    memory = Checkpoint(folder).family.memory((size, size), value_bytes(spec))
    features = spec.options.feature_bytes(memory)
    return stored_bytes(spec, features, feature_codec(codec).name) / STEPS


class Proof:
    """One content inverted and everything measured that a codec's rendering is compared with."""

    def __init__(self, scale: Scale, sums: Arithmetic, folder: Path) -> None:
        self.scale, self.sums, self.folder, self.record = scale, sums, folder, Record()
        self.method = StyleID.model_validate({"steps": STEPS})
        paths = [next(iter(sorted(DEMO.glob("contents/*/*")))), *sorted(DEMO.glob("styles/*"))]
        pictures = [load_picture(path, scale.size) for path in paths[: 1 + NUM_STYLES]]
        random_network(AutoencoderKL, scale.vae).save_pretrained(str(folder / "vae"))
        base = resident()
        unet = random_network(UNet2DConditionModel, scale.unet)
        unet.save_config(str(folder / "unet"))
        weights = sum(p.numel() for p in unet.parameters()) * FLOAT32
        self.model = RandomDiffusion(unet, schedule_from_config(SCHEDULER))
        self.model.vae = AutoencoderKL.from_pretrained(str(folder / "vae"), use_safetensors=True)
        self.model.latents, self.program = {}, base + weights
        with self.record.timed(f"encoding {len(pictures)} pictures"):
            for image in (to_tensor([picture.pixels]) for picture in pictures):
                self.model.latents[hash_pixels(image.numpy())] = self.model.encode(image)
        self.clean, *targets = self.model.latents.values()
        self.targets, self.styles, self.model.vae = torch.cat(targets), pictures[1:], None
        self.record.figures |= {"program, bytes": base, "parameters": weights // FLOAT32}
        bound = scale.peak_tolerance / 3
        self.record.check("resident: program + weights", resident(), self.program, bound)
        working = self.bare_evaluations()
        self.contents = self.method.invert(self.model, self.clean, "query")
        self.timesteps = [step.t for step in self.method.trajectory(self.model).reverse]
        self.queries = STEPS * sums.elements * FLOAT32
        self.record.check("content's q held", self.held(self.contents), self.queries)
        # at every timestep: k and v of all styles, projected once; the activations
        self.shared = 2 * NUM_STYLES * sums.elements * FLOAT32 + working

    def held(self, images: Inverted) -> int:
        """Bytes of memory behind the features of all timesteps, whatever view of it they are."""
        sites = [site for t in self.timesteps for site in images.features.at(t).values()]
        tensors = [tensor for site in sites for tensor in site.values()]
        return sum({x.data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())

    def bare_evaluations(self) -> int:
        """Time one network evaluation of 1 and of 2 rows; bytes of the latter's activations at their peak."""
        for rows in (1, 1, 2, 2):  # the first of each warms up
            x, before = self.clean.repeat(rows, 1, 1, 1), resident()
            with self.record.timed(f"one evaluation, batch {rows}"):
                self.model.predict_noise(x, 501, self.model.embed([""]))
            working = peak() - before
            self.record.figures[f"activations, batch {rows}, bytes"] = working
        return working

    def prove(self, codec: Codec) -> Tensor:
        """Render the block with held and with cached styles and compare; the latents of the cached ones."""
        name, stored = f"{codec.name} {codec.dtype}", self.sums.stored(codec)
        check, scales = self.record.check, stored - self.sums.elements if codec.name == "x8" else 0
        planned = planned_bytes(self.folder, self.scale.size, codec)
        check(f"{name}: planner, bytes per timestep", planned, stored - scales)
        keep, every, before = feature_codec(codec), NUM_STYLES * STEPS * stored, resident()
        inverted = self.method.invert(self.model, self.targets, "key_value", batch=1, codec=keep)
        check(f"{name}: styles held", self.held(inverted), every)
        held = self._render(f"{name}, held", inverted, every, before)
        del inverted
        cache = StyleCache(self.folder / name)
        bank = StyleBank(cache, codec, self.method, self.model, model_fingerprint="random")
        styles = [bank.style(style.pixels, f"style {i}") for i, style in enumerate(self.styles)]
        with self.record.timed(f"{name}: inverting and writing {NUM_STYLES} styles"):
            bank.inverted(styles)
        tars = sorted(cache.folder.glob("*.tar"))
        for number, tar in enumerate(tars, 1):
            for member, found in disk_bytes(tar).items():
                check(f"{name}: style {number}, {member[:4]}, bytes on disk", found, stored)
        mapped = sum(tar.stat().st_size for tar in tars)
        self.record.figures[f"{name}: tars of {NUM_STYLES} styles, bytes"] = mapped
        # resident: the pages of the files that were read, and a copy of the timestep
        before, opened, read = resident(), bank.inverted(styles), mapped + NUM_STYLES * stored
        cached = self._render(f"{name}, cached", opened, read, before)
        check(f"{name}: styles written, and none again", bank.num_built, NUM_STYLES)
        check(f"{name}: held and cached give the same", torch.equal(held, cached), True)
        check(f"{name}: latents finite", bool(held.isfinite().all()), True)
        return cached

    def _render(self, name: str, styles: Inverted, features: int, before: int) -> Tensor:
        with self.record.timed(f"{name}: rendering {STEPS} steps"):
            out = self.method.stylise(self.model, self.contents, styles)
        most, added, bound = peak(), self.shared + features, self.scale.peak_tolerance
        self.record.check(f"{name}: peak", most, self.program + self.queries + added, bound)
        self.record.check(f"{name}: of it added since before", most - before, added, bound)
        return out


def prove(scale: Scale, sums: Arithmetic, codecs: Sequence[Codec], folder: Path) -> Record:
    """Render the block under each codec, in `folder`, compare with `sums`, and decode the last one's latents."""
    proof = Proof(scale, sums, folder)
    latents = [proof.prove(codec) for codec in codecs]
    proof.model.vae = AutoencoderKL.from_pretrained(str(folder / "vae"), use_safetensors=True)
    with proof.record.timed(f"decoding {NUM_STYLES} pictures"):
        drawn = [proof.model.decode_unclamped(row) for row in latents[-1].split(1)]
    proof.record.check("pictures finite", all(bool(x.isfinite().all()) for x in drawn), True)
    return proof.record


def main(names: Sequence[str]) -> int:
    scale, out = Scale(512, UNET, VAE), Path("outputs/real_scale")
    sums = Arithmetic(scale.unet["block_out_channels"], scale.size // 8)
    codecs = [Codec(*name.split("-")) for name in names or ("x-float32", "x8-float32")]  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what tensors free leaves the process
    with tempfile.TemporaryDirectory(dir=out) as folder:
        record = prove(scale, sums, codecs, Path(folder))
    about = {"size": scale.size, "threads": torch.get_num_threads(), "torch": torch.__version__}
    content = {**about, "steps": STEPS, "unet": UNET, "vae": VAE, **asdict(record)}
    (out / "real_scale.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    figures = [f"{name:<60} {value:>16,.3f}" for name, value in record.figures.items()]
    head = f"{'bytes, or 1 for yes':<60} {'measured':>16} {'computed':>16}"
    sys.stdout.write("\n".join([head, *(c.line() for c in record.checks), *figures, ""]))
    return 0 if all(check.holds for check in record.checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
