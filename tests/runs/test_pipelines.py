"""Pipelines of diffusers and runs of manifests give the same pixels; pipelines do what those of diffusers do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import StableDiffusionPipeline
from PIL import Image

import stylebatch
from stylebatch import StyleAlignedPipeline, StyleIDPipeline
from stylebatch.errors import ManifestError
from stylebatch.models.pipeline_files import TINY
from tests.support.images import picture
from tests.support.pipeline_runs import quiet, stylealigned_both_ways, styleid_both_ways

SMALL = {"height": 32, "width": 32, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def tiny() -> StyleIDPipeline:
    made = StyleIDPipeline.from_pretrained("tiny")
    made.set_progress_bar_config(disable=True)
    return made


def test_styleid_is_that_of_a_manifest(tmp_path: Path) -> None:
    for by_run, by_call in styleid_both_ways(tmp_path, TINY, 32):
        assert np.array_equal(by_run, by_call)


@pytest.mark.parametrize("by_image", [False, True])
def test_stylealigned_is_that_of_a_manifest(by_image: bool, tmp_path: Path) -> None:
    for by_run, by_call in stylealigned_both_ways(tmp_path, TINY, 32, by_image=by_image):
        assert np.array_equal(by_run, by_call)


def test_other_batches_change_no_picture_by_more_than_a_level(tiny: StyleIDPipeline) -> None:
    given = [picture(n) for n in range(3)], [picture(n) for n in (7, 8)]
    together = tiny(*given, pairing="product", output_type="pt", **SMALL).images
    for batch, features in ((1, "held"), (4, "recomputed"), (5, "hosted")):
        parts = tiny(*given, pairing="product", output_type="pt", batch_size=batch, features=features, **SMALL).images  # fmt: skip
        assert float((parts - together).abs().max()) < 1e-4
    # pairs in another order are the same pairs
    places = [(2, 0), (0, 1), (2, 1)]
    contents, styles = ([side[p[i]] for p in places] for i, side in enumerate(given))
    zipped = tiny(contents, styles, output_type="pt", **SMALL).images
    assert float((zipped - together[[4, 1, 5]]).abs().max()) < 1e-4
    assert float((together[0] - together[1]).abs().max()) > 0.05


def test_images_may_be_given_in_any_form(tiny: StyleIDPipeline, tmp_path: Path) -> None:
    image, style = picture(1, 32, 32), picture(9, 32, 32)
    picture(1, 32, 32).save(tmp_path / "one.png")
    array = np.asarray(image)
    forms = {
        "path": tmp_path / "one.png",
        "opened": Image.open(tmp_path / "one.png"),
        "palette": image.convert("RGBA"),
        "array": array,
        "arrays": array[None],
        "floats": array.astype(np.float32) / 255.0,
        "tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
        "float tensors": torch.from_numpy(array.copy()).permute(2, 0, 1)[None].double() / 255.0,
        "nested": [[image]],
        "found": tmp_path.glob("*.png"),
    }
    expected = np.asarray(tiny(image, style, **SMALL).images[0])
    for name, form in forms.items():
        assert np.array_equal(tiny(form, style, **SMALL).images[0], expected), name


def test_a_photograph_that_lies_on_its_side_is_turned(
    tiny: StyleIDPipeline, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(2, 32, 32).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    upright = tiny(picture(2, 32, 32), picture(9), **SMALL).images[0]
    with Image.open(tmp_path / "lying.png") as opened:
        assert np.array_equal(tiny(opened, picture(9), **SMALL).images[0], upright)
        # turned by the caller, who keeps the metadata of the file: not a second time
        turned = opened.transpose(Image.Transpose.ROTATE_270)
    assert turned.info.get("exif")
    assert np.array_equal(tiny(turned, picture(9), **SMALL).images[0], upright)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": []}, "image: found an empty list"),
        ({"image": [picture(1), None]}, r"image\[1\]: found an object of type NoneType"),
        ({"image": "no/such.png"}, "no/such.png"),
        ({"image": torch.full((3, 32, 32), -1.0)}, "image: found floats from -1 to -1"),
        ({"image": np.full((32, 32, 3), np.nan)}, "image: found floats from nan"),
        ({"image": torch.zeros(1, 4, 8, 8)}, r"image\[0\]: found a tensor of shape \(4, 8, 8\)"),
        ({"image": [picture(1)] * 3, "style_image": [picture(1)] * 2}, "pairing='product'"),
        ({"pairing": "sample"}, "pairing: found 'sample'; accepted: zip, product"),
        ({"mask_image": [picture(1)] * 2}, "mask_image: found 2 for 1 image"),
        ({"height": 100}, "height: found 100; accepted: multiples of 32"),
        ({"resize_mode": "fit"}, "resize_mode: found 'fit'"),
        ({"output_type": "jpg"}, "output_type: found 'jpg'; accepted: pil, np, pt, latent"),
        ({"gamma": 1.5}, "^gamma: found 1.5; input should be less than or equal to 1"),
        ({"num_inference_steps": 1}, "^num_inference_steps: found 1; convention ldm accepts"),
        (
            {"num_inference_steps": "2"},
            "^num_inference_steps: found '2'; input should be a valid int",
        ),
        ({"num_inference_steps": None, "options": {"steps": 3}}, r"^options\['steps'\]: found 3"),
        ({"options": {"steps": 8}}, "num_inference_steps: found 2 beside options"),
        ({"options": {"gama": 0.5}}, r"^options\['gama'\]: no such option; did you mean 'gamma'"),
        ({"options": {"sites": [0]}}, "method.sites"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "accepted: .'latents'."),
        ({"generator": [torch.Generator()] * 2}, "generator: found 2 for 1 pairs"),
        ({"features": "host"}, "features: found 'host'; accepted: held, hosted, recomputed"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"generator": 3}, "generator: found 3; accepted: a torch.Generator"),
        ({"image": np.zeros((0, 32, 3))}, r"image: found an array of shape \(0, 32, 3\)"),
        ({"callback_on_step_end": lambda *_: torch.zeros(1)}, "returned an object of type Tensor"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_argument(
    tiny: StyleIDPipeline, changes: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        tiny(**{"image": picture(0), "style_image": picture(9), **SMALL, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": []}, "prompt: found"),
        ({"prompt": None}, "^prompt: found None"),
        ({"num_images_per_prompt": 1.5}, "num_images_per_prompt: found 1.5"),
        ({"generator": [3, 4]}, r"generator: found \[3, 4\]"),
        ({"prompt": ["a", None]}, "prompt: found"),
        ({"negative_prompt": ["a", "b", "c"]}, "negative_prompt: found 3 for 2 prompts"),
        ({"style_prompt": "waves"}, "style_prompt: found 'waves' without style_image"),
        ({"style_image": [picture(1)] * 2}, "style_image: found 2"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, "latents: found shape"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt: found 0"),
        ({"options": {"windows": {"size": 16, "stride": 8}}}, "manifests/panorama.yaml"),
        ({"options": {"guidance": 3}}, "guidance_scale: found 2 beside options"),
        ({"batch_size": 0}, "batch_size: found 0"),
        (
            {"callback_on_step_end": lambda pipe, step, t, had: {"latents": had["latents"][:1]}},
            "callback_on_step_end: returned latents",  # the other pictures would be lost
        ),
    ],
)
def test_what_stylealigned_cannot_use_is_told_by_its_argument(
    tiny: StyleIDPipeline, changes: Mapping[str, Any], words: str
) -> None:
    pipe = quiet(StyleAlignedPipeline.from_pipe(tiny))
    with pytest.raises(ValueError, match=words):
        pipe(**{"prompt": ["a cat", "a dog"], "guidance_scale": 2, **SMALL, **changes})


def test_output_types_show_one_picture(tiny: StyleIDPipeline) -> None:
    given = [picture(0), picture(1)], picture(9)
    pil, array, tensor, latent = (
        tiny(*given, output_type=kind, **SMALL).images for kind in ("pil", "np", "pt", "latent")
    )
    assert tiny(*given, return_dict=False, **SMALL)[0] == pil
    assert array.shape == (2, 32, 32, 3)
    assert tensor.shape == (2, 3, 32, 32)
    assert np.abs(array - tensor.permute(0, 2, 3, 1).numpy()).max() == 0.0
    assert np.abs(array - np.stack(pil) / 255.0).max() <= 0.5 / 255.0 + 1e-6
    assert latent.shape[:2] == (2, tiny.unet.config.in_channels)
    for one in (tensor, latent):  # a caller goes on with them
        assert not one.is_inference()


def test_callbacks_see_each_step_change_it_and_end_the_call(tiny: StyleIDPipeline) -> None:
    seen: list[tuple[int, float, torch.Tensor]] = []

    def note(pipe: Any, step: int, t: float, tensors: dict[str, Any]) -> None:
        seen.append((step, t, tensors["latents"]))

    given = [picture(0), picture(1)], picture(9)
    plain = tiny(*given, output_type="latent", callback_on_step_end=note, **SMALL).images
    assert [step for step, *_ in seen] == list(range(2)) == list(range(tiny.num_timesteps))
    assert [t for _, t, _ in seen] == sorted((t for _, t, _ in seen), reverse=True)
    assert torch.equal(seen[-1][2], plain)

    def zero(pipe: Any, step: int, t: float, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["latents"].zero_()
        return tensors if step == 0 else {}

    changed = tiny(*given, output_type="latent", callback_on_step_end=zero, **SMALL).images
    assert float((changed - plain).abs().max()) > 0.1
    # from the same latents on, the two pairs differ by their contents' queries alone
    assert float((changed[0] - changed[1]).abs().mean()) < float((plain[0] - plain[1]).abs().mean())

    def stop(pipe: Any, step: int, t: float, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 0
        return tensors

    ended = tiny(*given, output_type="latent", callback_on_step_end=stop, **SMALL).images
    assert torch.equal(ended, seen[0][2])
    assert tiny(*given, output_type="latent", **SMALL).images.equal(plain)  # not once for all


def test_callbacks_of_stylealigned_see_all_pictures(tiny: StyleIDPipeline) -> None:
    pipe = quiet(StyleAlignedPipeline.from_pipe(tiny))
    seen: list[torch.Tensor] = []

    def turn(pipe: Any, step: int, t: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors["latents"])
        return {"latents": tensors["latents"].flip(-1)} if step == 1 else {}

    noise = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {**SMALL, "latents": noise, "output_type": "latent", "callback_on_step_end": turn}
    made = pipe(["a cat", "a dog"], **options).images
    assert torch.equal(made, seen[1].flip(-1))
    made = pipe("a cat", picture(1), "waves", **{**options, "latents": noise[:1]}).images
    assert torch.equal(made, seen[3].flip(-1))
    alone = pipe("a cat", **{**SMALL, "latents": noise[:1]}, num_images_per_prompt=1).images
    assert len(alone) == 1
    assert len(pipe(["a", "b"], num_images_per_prompt=2, **SMALL).images) == 4


def test_masks_keep_a_content_where_they_are_black(tiny: StyleIDPipeline) -> None:
    image, style = picture(1, 32, 32), picture(9, 32, 32)
    plain, everywhere, nowhere = (
        np.asarray(tiny(image, style, **SMALL, **options).images[0], dtype=float)
        for options in ({}, {"mask_image": Image.new("L", (32, 32), 255)}, {"mask_image": Image.new("1", (32, 32))})
    )  # fmt: skip
    assert np.abs(everywhere - plain).max() <= 1.0
    kept = tiny(image, style, options={"inject": False, "init_adain": False}, **SMALL).images[0]
    assert np.abs(nowhere - np.asarray(kept, dtype=float)).max() <= 1.0
    assert np.abs(nowhere - plain).mean() > 3.0


def test_a_range_is_drawn_by_the_seeds_of_generators(tiny: StyleIDPipeline) -> None:
    method = stylebatch.StyleID(gamma={"from": 0.1, "to": 0.9})
    options = {"options": {"gamma": {"from": 0.1, "to": 0.9}}, "output_type": "latent"}
    drawn = method.drawn(5).gamma
    found = tiny(picture(1), picture(9), generator=[torch.Generator().manual_seed(5)], **options, **SMALL).images  # fmt: skip
    same = tiny(picture(1), picture(9), gamma=drawn, output_type="latent", **SMALL).images
    assert float((found - same).abs().max()) < 1e-4
    twice = [
        tiny([picture(1)] * 2, picture(9), generator=torch.Generator().manual_seed(1), **options, **SMALL).images
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(*twice)
    assert not torch.equal(twice[0][0], twice[0][1])


class Bar:
    """What tqdm would have shown."""

    def __init__(self) -> None:
        self.lines = ""

    def write(self, text: str) -> None:
        self.lines += text

    def flush(self) -> None: ...


def test_the_bar_counts_evaluations_and_can_be_silenced(
    tiny: StyleIDPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Bar()
    pipe = StyleIDPipeline.from_pipe(tiny)
    for features, total in (("held", 10), ("recomputed", 16)):
        pipe.set_progress_bar_config(file=bar, desc="styles")
        pipe([picture(0), picture(1)], picture(9), features=features, **SMALL)
        assert f"{total}/{total}" in bar.lines  # (2 + 1) x 2 inverted, 2 x 2 rendered
        assert "styles" in bar.lines
    aligned = StyleAlignedPipeline.from_pipe(tiny)
    for arguments, total in ((("a cat",), 4), (("a cat", picture(1), "waves"), 12)):
        aligned.set_progress_bar_config(file=bar)
        aligned(*arguments, **SMALL)
        assert f"{total}/{total}" in bar.lines
    pipe.set_progress_bar_config(disable=True)
    capsys.readouterr()
    pipe(picture(0), picture(9), **SMALL)
    assert capsys.readouterr().err == ""


def test_what_is_saved_loads_again_everywhere(tiny: StyleIDPipeline, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    given = {"image": picture(0), "style_image": picture(9), "output_type": "latent", **SMALL}
    expected = tiny(**given).images
    again = quiet(StyleIDPipeline.from_pretrained(tmp_path))
    assert torch.equal(again(**given).images, expected)
    stock = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert float((quiet(StyleIDPipeline.from_pipe(stock))(**given).images - expected).abs().max()) < 1e-4  # fmt: skip
    model = stylebatch.load_model(tmp_path, device="cpu")
    hidden = model.embed(["a cat"]).hidden
    assert torch.equal(hidden, stylebatch.load_model("tiny", device="cpu").embed(["a cat"]).hidden)


def test_a_folder_without_all_weights_is_refused(
    linked: Callable[..., Path], tmp_path: Path
) -> None:
    broken = linked(TINY, "broken", without=("unet/diffusion_pytorch_model.safetensors",))
    with pytest.raises(ManifestError, match="unet"):
        StyleIDPipeline.from_pretrained(broken)


@pytest.mark.parametrize("name", ["tinny", "./nope", "nope.safetensors", "a/b/c", "x" * 300])
def test_a_checkpoint_that_there_is_not_is_told(name: str) -> None:
    with pytest.raises(
        ManifestError, match=r"StyleIDPipeline: .*(no such model|`config` is missing)"
    ):
        StyleIDPipeline.from_pretrained(name)


def test_attention_is_sliced(tiny: StyleIDPipeline) -> None:
    given = {"image": picture(0), "style_image": picture(9), "output_type": "pt"}
    plain = tiny(**given, **SMALL).images
    tiny.enable_attention_slicing()
    try:
        assert any("Sliced" in type(p).__name__ for p in tiny.unet.attn_processors.values())
        assert float((tiny(**given, **SMALL).images - plain).abs().max()) < 1e-4
    finally:
        tiny.disable_attention_slicing()
    assert torch.equal(tiny(**given, **SMALL).images, plain)


def test_autoencoders_are_sliced_and_tiled(tiny: StyleIDPipeline) -> None:
    pipe = quiet(StyleIDPipeline.from_pretrained("tiny"))
    given = {"image": [picture(0), picture(1)], "style_image": picture(9), "output_type": "pt"}
    plain = pipe(**given, **SMALL).images
    calls = counted(pipe.vae.decoder)
    pipe.enable_vae_slicing()
    assert float((pipe(**given, **SMALL).images - plain).abs().max()) < 1e-4
    assert len(calls) == 2
    pipe.disable_vae_slicing()
    pipe.enable_vae_tiling()
    large = {"height": 160, "width": 160, "num_inference_steps": 2}
    calls.clear()
    pipe(**given, **large)
    assert len(calls) > 1
    pipe.disable_vae_tiling()
    calls.clear()
    pipe(**given, **large)
    assert len(calls) == 1


def counted(module: torch.nn.Module) -> list[None]:
    calls: list[None] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


@pytest.mark.parametrize("kind", ["model", "sequential"])
def test_offloaded_pipelines_give_the_same_pictures(kind: str) -> None:
    """By the hooks of an accelerator, which here stands for the CPU."""
    pipe = quiet(StyleIDPipeline.from_pretrained("tiny"))
    given = {"image": picture(0), "style_image": picture(9), "output_type": "latent", **SMALL}
    expected = pipe(**given).images
    if kind == "model":
        pipe.enable_model_cpu_offload(device="cpu")
    else:
        # as `enable_sequential_cpu_offload` does with an accelerator; it refuses a CPU
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            cpu_offload(part, torch.device("cpu"), offload_buffers=bool(part._parameters))
        assert pipe.unet.conv_in.weight.device.type == "meta"
    for _ in range(2):  # hooks are in place for a second call
        assert torch.equal(pipe(**given).images, expected)


def test_other_dtypes(tiny: StyleIDPipeline) -> None:
    pipe = quiet(StyleIDPipeline.from_pretrained("tiny", dtype=torch.bfloat16))
    assert pipe.unet.dtype == torch.bfloat16
    given = {"image": picture(0), "style_image": picture(9), "output_type": "pt", **SMALL}
    wide = tiny(**given).images
    assert float((pipe(**given).images - wide).abs().mean()) < 0.05
    assert float((pipe.to(torch.float32)(**given).images - wide).abs().mean()) < 0.05


@pytest.mark.slow
def test_a_notebook_never_starts_ray() -> None:
    code = (
        "import sys, stylebatch as sb\n"
        "assert 'torch' not in sys.modules\n"
        "from PIL import Image\n"
        "pipe = sb.StyleIDPipeline.from_pretrained('tiny')\n"
        "pipe(Image.new('RGB', (32, 32)), Image.new('RGB', (32, 32), 'red'), height=32, width=32, num_inference_steps=2)\n"
        "sb.StyleAlignedPipeline.from_pipe(pipe)('a cat', height=32, width=32, num_inference_steps=2)\n"
        "sb.load_model(pipe)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'ray'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
