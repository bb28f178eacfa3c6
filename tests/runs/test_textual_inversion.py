"""Textual inversions and clip_skip: the stock pipelines with the same, in the same files; what cannot be meant is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders import TextualInversionLoaderMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylebatch import StyleAlignedPipeline
from stylebatch.cli import main
from stylebatch.diffusion.noise import draw
from stylebatch.errors import ManifestError
from stylebatch.methods.builtin import Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned.algorithm import StyleAligned
from stylebatch.models.checkpoint import checkpoint_to_plan, find_checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import EmbeddingSpec, ModelSpec
from stylebatch.models.prompt_windows import windows_of_ids
from stylebatch.models.tokens import WordCounts, token_counts, token_groups
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.runs import small_manifest

PROMPTS = ["a <cat-toy> on a table", "two houses, ink-wash, in the <cat-toy>s rain"]
NEGATIVE, SEEDS = "badpic, <cat-toy>", [3, 8]


def vectors(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 4


def written(folder: Path, name: str, tensors: dict[str, Tensor]) -> str:
    save_file(tensors, folder / f"{name}.safetensors")
    return str(folder / f"{name}.safetensors")


def files(folder: Path, widths: tuple[int, ...]) -> tuple[EmbeddingSpec, ...]:
    """As people have them: of diffusers, of AUTOMATIC1111 with several vectors, and of SDXL."""
    if len(widths) == 1:
        toy = written(folder, "learned_embeds", {"<cat-toy>": vectors(1, widths[0])})
        bad = written(folder, "badpic", {"emb_params": vectors(2, 3, widths[0])})
        ink = written(folder, "x", {"<ink>": vectors(3, 2, widths[0])})
        return (
            EmbeddingSpec(path=toy),
            EmbeddingSpec(path=bad),
            EmbeddingSpec(path=ink, token="ink-wash"),
        )
    one, two = widths
    pair = {"clip_l": vectors(2, 3, one), "clip_g": vectors(4, 3, two)}
    # diffusers' script for XL writes a file for each text encoder
    first = written(folder, "learned_embeds", {"<cat-toy>": vectors(1, 1, one)})
    second = written(folder, "learned_embeds_2", {"<cat-toy>": vectors(5, 1, two)})
    lone = written(folder, "x", {"clip_g": vectors(6, 2, two)})
    return (
        EmbeddingSpec(path=first),
        EmbeddingSpec(path=written(folder, "badpic", pair)),
        EmbeddingSpec(path=second),
        EmbeddingSpec(path=lone, token="ink-wash"),
    )


def load_stock(pipeline: Any, specs: tuple[EmbeddingSpec, ...]) -> None:
    """As diffusers' documentation loads such files."""
    sides = [(pipeline.text_encoder, pipeline.tokenizer)]
    if hasattr(pipeline, "text_encoder_2"):
        sides.append((pipeline.text_encoder_2, pipeline.tokenizer_2))
    for spec in specs:
        for name, tensor in load_file(spec.path).items():
            known = {"clip_l": 0, "clip_g": 1}
            width = tensor.shape[-1]
            place = known[name] if name in known else [e.config.hidden_size for e, _ in sides].index(width)  # fmt: skip
            encoder, tokenizer = sides[place]
            token = spec.token or (name if name.startswith("<") else Path(spec.path).stem)
            pipeline.load_textual_inversion({name: tensor}, token=token, text_encoder=encoder, tokenizer=tokenizer)  # fmt: skip


def stock_of(name: str, folder: Path) -> Any:
    cls: Any = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    options = {"add_watermarker": False} if name == "sdxl" else {"safety_checker": None}
    found = cls.from_pretrained(folder, **options)
    found.scheduler = DDIMScheduler.from_config(found.scheduler.config)
    found.set_progress_bar_config(disable=True)
    if name != "sdxl":
        # diffusers 0.42 asks for a name that transformers 5 dropped; not as a submodule, which would hold itself
        object.__setattr__(found.text_encoder, "text_model", found.text_encoder)
    return found


@pytest.mark.parametrize("name", ["sd15", pytest.param("sd21", marks=pytest.mark.slow), "sdxl"])
def test_text2img_is_the_stock_pipeline(
    name: str, twins: Callable[[str], Path], tmp_path: Path
) -> None:
    """With embeddings in prompts and negative prompts, and with layers left out."""
    stock = stock_of(name, twins(name))
    encoders = [stock.text_encoder] + ([stock.text_encoder_2] if name == "sdxl" else [])
    specs = files(tmp_path, tuple(one.config.hidden_size for one in encoders))
    load_stock(stock, specs)
    model = load_model(ModelSpec(path=str(twins(name)), embeddings=specs), device="cpu")
    assert isinstance(model, StableDiffusion)
    # a pipeline that a caller loaded them into is read alike
    given, lent = model.embed(PROMPTS), load_model(stock).embed(PROMPTS)
    torch.testing.assert_close(given.hidden, lent.hidden, rtol=1e-5, atol=1e-5)
    made = {}
    for skip, negative in ((None, NEGATIVE), (1, NEGATIVE), (3, None)):
        expected = stock(
            PROMPTS,
            negative_prompt=None if negative is None else [negative] * 2,
            height=64, width=64, num_inference_steps=2, guidance_scale=5.0, clip_skip=skip, output_type="latent",
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        ).images  # fmt: skip
        model.clip_skip = skip or 0
        asked = Samples(tuple(PROMPTS), (negative, negative), tuple(SEEDS), (4, 8, 8))
        made[skip] = Text2Img(steps=2, guidance=5.0).render(model, asked)
        assert float((made[skip] - expected).abs().max()) <= 1e-4, skip
    plain = load_model(twins(name), device="cpu")
    before = Text2Img(steps=2, guidance=5.0).render(
        plain, Samples(tuple(PROMPTS), (NEGATIVE,) * 2, tuple(SEEDS), (4, 8, 8))
    )
    for other in (before, made[1]):
        assert float((made[None] - other).abs().max()) > 1e-2


def test_clip_skip_leaves_no_prompt_and_negative_prompts_alone(
    eps_folder: Path, eps_model: Any, twins: Callable[[str], Path], twin_model: Callable[..., Any]
) -> None:
    for folder, plain in ((eps_folder, eps_model), (twins("sdxl"), twin_model("sdxl"))):
        model = load_model(ModelSpec(path=str(folder), clip_skip=1), device="cpu")
        assert torch.equal(model.embed_nothing().hidden, plain.embed_nothing().hidden)
        both = [one.embed_negative(["a cat"]) for one in (model, plain)]
        assert torch.equal(both[0].hidden, both[1].hidden)
        changed, former = model.embed(["a cat"]), plain.embed(["a cat"])
        assert not torch.allclose(changed.hidden, former.hidden, atol=1e-2)
        if changed.pooled is not None:  # the pooled features are those of the last layer
            assert torch.equal(changed.pooled, former.pooled)


def test_stylealigned_as_a_pipeline_takes_clip_skip() -> None:
    pipe = StyleAlignedPipeline.from_pretrained("tiny")
    pipe.set_progress_bar_config(disable=True)
    model = load_model(ModelSpec(name="tiny", clip_skip=1), device="cpu")
    cells = (model.latent_channels, *[64 // model.latent_factor] * 2)
    noise = draw(SEEDS, cells)

    def latents(skip: int | None) -> Tensor:
        settings = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
        found: Tensor = pipe(PROMPTS, latents=noise, clip_skip=skip, **settings).images
        return found

    first, second = (Samples((text,), (None,), (seed,), cells) for text, seed in zip(PROMPTS, SEEDS, strict=True))  # fmt: skip
    made = StyleAligned(steps=2).render(model, second, beside=first)
    torch.testing.assert_close(
        latents(1), torch.cat([made.reference, made.samples]), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(latents(None), latents(0))
    assert float((latents(None) - latents(1)).abs().max()) > 1e-3
    for wrong in (2, -1):
        with pytest.raises(
            ValueError, match=rf"clip_skip: found {wrong}; accepted by this model: 0 to 1"
        ):
            latents(wrong)


@pytest.mark.parametrize(("name", "most"), [("sd15", 11), ("sdxl", 10)])
def test_clip_skip_leaves_a_layer(name: str, most: int, twins: Callable[[str], Path]) -> None:
    path = str(twins(name))
    assert find_checkpoint(ModelSpec(path=path, clip_skip=most)).clip_skip == most
    with pytest.raises(
        ManifestError, match=rf"model\.clip_skip: found {most + 1}; accepted .* 0 to {most}"
    ):
        find_checkpoint(ModelSpec(path=path, clip_skip=most + 1))
    with pytest.raises(
        ManifestError, match=r"model\.clip_skip: found 99; accepted by this model: 0 to"
    ):
        checkpoint_to_plan(ModelSpec(name="sd15", clip_skip=99))


@pytest.fixture(scope="module")
def toys(
    tmp_path_factory: pytest.TempPathFactory, eps_folder: Path, eps_model: StableDiffusion
) -> StableDiffusion:
    """The small model with tokens of 1, 3 and 17 vectors; its text encoder takes 16 numbers, begin and end among them."""
    folder = tmp_path_factory.mktemp("toys")
    width = eps_model.text_encoder.config.hidden_size
    specs = [
        EmbeddingSpec(
            path=written(folder, f"e{n}", {"emb_params": vectors(n, n, width)}), token=token
        )
        for token, n in (("<one>", 1), ("<three>", 3), ("<long>", 90))
    ]
    model = load_model(ModelSpec(path=str(eps_folder), embeddings=tuple(specs)), device="cpu")
    assert isinstance(model, StableDiffusion)
    return model


WORDS = st.sampled_from(
    [
        "a",
        "cat",
        "houses,",
        "<one>",
        "<three>",
        "<one>s",
        "(<three>)",
        "<three><one>",
        "<three",
        "é",
        "  ",
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, max_size=60).map(" ".join))
def test_tokens_are_those_of_the_stock_pipeline(toys: StableDiffusion, text: str) -> None:
    tokenizer, stock = toys.tokenizer, TextualInversionLoaderMixin()
    flat = [number for group in token_groups(tokenizer, [text])[0] for number in group]
    assert flat == tokenizer(stock.maybe_convert_prompt(text, tokenizer)).input_ids[1:-1]
    assert token_counts(tokenizer, [text]) == [len(flat) + 2] == WordCounts(tokenizer).count([text])


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS | st.just("<long>"), max_size=100).map(" ".join))
def test_windows_hold_all_tokens_and_cut_no_embedding_that_fits(
    toys: StableDiffusion, text: str
) -> None:
    tokenizer = toys.tokenizer
    capacity = tokenizer.model_max_length - 2
    groups = token_groups(tokenizer, [text])[0]
    toys.chunks = True
    try:
        count = toys.num_windows(text)
    finally:
        toys.chunks = False
    ends = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    rows = windows_of_ids(
        tokenizer, [text], [count + 1]
    )  # one window alone is cut as stock cuts it
    assert all(len(row) == capacity + 2 for row in rows)
    kept = [[one for one in row[1:-1] if one not in ends] for row in rows]
    assert [one for row in kept for one in row] == [one for group in groups for one in group]
    assert not kept[-1]  # the surplus window
    borders = set(accumulate(map(len, kept[:-1])))
    for group, end in zip(groups, accumulate(map(len, groups)), strict=True):
        inside = range(end - len(group) + 1, end)
        assert len(group) > capacity or borders.isdisjoint(inside), group


def test_capitals_are_read_as_clip_reads_them(
    tmp_path: Path, eps_folder: Path, eps_model: StableDiffusion
) -> None:
    width = eps_model.text_encoder.config.hidden_size
    path = written(tmp_path, "EasyNegative", {"emb_params": vectors(1, 2, width)})
    model: Any = load_model(
        ModelSpec(path=str(eps_folder), embeddings=(EmbeddingSpec(path=path),)), device="cpu"
    )
    one, two = token_groups(model.tokenizer, ["an EasyNegative", "an easynegative"])
    assert one == two
    assert len(one[-1]) == 2


def refused(model: Path, match: str, *specs: EmbeddingSpec) -> None:
    with pytest.raises(ManifestError, match=match) as caught:
        find_checkpoint(ModelSpec(path=str(model), embeddings=specs))
    assert str(caught.value).startswith(f"model.embeddings: {specs[-1].path}: ")


def test_files_of_other_kinds_are_refused(twins: Callable[[str], Path], tmp_path: Path) -> None:
    def spec(tensors: dict[str, Tensor], token: str | None = "<x>") -> EmbeddingSpec:
        path = written(tmp_path, f"f{len(list(tmp_path.iterdir()))}", tensors)
        return EmbeddingSpec(path=path, token=token)

    one, xl = twins("sd15"), twins("sdxl")
    narrow, wide = vectors(1, 2, 96), vectors(1, 2, 1280)
    down = {
        "unet.to_q.lora_A.weight": vectors(1, 2, 3),
        "unet.to_q.lora_B.weight": vectors(1, 3, 2),
    }
    for model, match, tensors in (
        (one, "found no tensor; accepted: a .safetensors file of a textual inversion", {}),
        (one, r"found unet\.to_q\.lora_A.*LoRA weights belong to `lora`", down),
        (one, "found vectors of 1280 numbers; accepted: 96 for text_encoder", {"<x>": wide}),
        (one, "clip_g: found vectors of 1280 numbers; accepted: 96", {"clip_g": wide, "clip_l": narrow}),
        (xl, r"clip_l: found vectors of 80 numbers; accepted: 48 for text_encoder", {"clip_l": vectors(1, 80)}),
        (one, r"found F32 of shape \(1, 2, 96\)", {"<x>": vectors(1, 1, 2, 96)}),
        (one, r"found I64 of shape \(96,\)", {"<x>": torch.zeros(96, dtype=torch.int64)}),
        (one, r"found F32 of shape \(0, 96\)", {"<x>": vectors(1, 0, 96)}),
        (one, "found 1,001 vectors; accepted: up to 1,000", {"<x>": vectors(1, 1001, 96)}),
    ):  # fmt: skip
        refused(model, match, spec(tensors))
    for token in ("two words", " ", "a\tb", "a\x07b"):
        refused(
            one, "found the token .*; accepted: one without blanks", spec({"<x>": narrow}, token)
        )
    missing = EmbeddingSpec(path=str(tmp_path / "none.safetensors"))
    refused(one, r"cannot be read \(.*No such file", missing)
    whole = Path(spec({"<x>": narrow}).path)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-5])
    refused(one, "its header describes", EmbeddingSpec(path=str(tmp_path / "cut.safetensors")))
    with pytest.raises(
        ValueError, match=r"`path`: found 'bad\.pt', pickled weights, which may run any code"
    ):
        EmbeddingSpec(path="bad.pt")
    broken = spec({"<x>": torch.full((96,), torch.inf)})
    with pytest.raises(ManifestError, match=r"model\.embeddings: .* not finite in float32"):
        load_model(ModelSpec(path=str(one), embeddings=(broken,)), device="cpu")


def test_tokens_that_clash_are_refused(twins: Callable[[str], Path], tmp_path: Path) -> None:
    model = twins("sd15")

    def spec(name: str, token: str, count: int = 1) -> EmbeddingSpec:
        return EmbeddingSpec(
            path=written(tmp_path, name, {"x": vectors(1, count, 96)}), token=token
        )

    for word in ("a", "A", "<|endoftext|>", "th"):
        refused(
            model,
            "which is in the vocabulary, so that prompts could mean the word",
            spec("w", word),
        )
    refused(model, "whose vector <A> .*/a.safetensors has too", spec("a", "<a>"), spec("b", "<A>"))
    # the second vector of the first is called as the second token
    refused(model, "whose vector <a>_1", spec("a", "<a>", 2), spec("b", "<a>_1"))
    refused(model, "whose vector <a>_1", spec("b", "<a>_1"), spec("a", "<a>", 3))
    find_checkpoint(
        ModelSpec(path=str(model), embeddings=(spec("a", "<a>", 2), spec("b", "<a>_2")))
    )


def prompts(folder: Path, *rows: str, **model: Any) -> Path:
    """A manifest of text to image on the embedded model."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text("\n".join(["prompt", *rows]) + "\n")
    manifest = folder / "run.yaml"
    manifest.write_text(
        json.dumps(
            {
                "prompts": {"path": "rows.csv"},
                "method": {"name": "text2img", "steps": 2, "guidance": 2.0},
                "model": {"name": "tiny", **model},
                "image": {"size": 32},
                "engine": {"threads": 1},
                "output": {"path": str(folder / "out")},
            }
        )
    )
    return manifest


def test_prompts_that_name_none_and_changed_embeddings_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("<ink>", 1), ("<wash>", 2)):
        written(tmp_path, name.strip("<>"), {name: vectors(seed, 2, 64)})
    given = [{"path": "ink.safetensors"}, {"path": "wash.safetensors"}]
    rows = ["a red <INK> texture", "blue", "<ink> " * 8]
    manifest = prompts(tmp_path, *rows, embeddings=given)
    assert main(["run", str(manifest)]) == 0
    told = capsys.readouterr()
    note = "model.embeddings: 1 row of 3 name no embedding (<ink>, <wash>); no row names <wash>"
    assert note in told.out + told.err
    assert (
        "1 row has a text of more tokens than the text encoder's 16, up to 18"
        in told.out + told.err
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`tiny`, textual inversion ink.safetensors, textual inversion wash.safetensors (" in card
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [one["path"] for one in record["spec"]["model"]["embeddings"]] == [f"{tmp_path}/{one['path']}" for one in given]  # fmt: skip
    for changes, line in (
        ({"embeddings": given[:1]}, "model.embeddings: "),
        ({"embeddings": given, "clip_skip": 1}, "model.clip_skip: 0 -> 1"),
    ):
        prompts(tmp_path, *rows, **changes)
        assert main(["plan", str(manifest)]) == 4
        assert line in capsys.readouterr().err
    save_file({"<ink>": vectors(9, 2, 64)}, tmp_path / "ink.safetensors")
    prompts(tmp_path, *rows, embeddings=given)
    assert main(["plan", str(manifest)]) == 4
    assert "the model's files changed" in capsys.readouterr().err


def test_styles_in_a_cache_know_no_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What prompts alone use changes the plan's digest, and no key of a style."""
    manifest = small_manifest(tmp_path, contents=2, styles=1)
    plain = json.loads(manifest.read_text()) | {"features": {"cache": str(tmp_path / "cache")}}
    path = written(tmp_path, "x", {"<x>": vectors(1, 64)})
    for number, model in enumerate(({}, {"clip_skip": 1, "embeddings": [{"path": path}]})):
        output = plain["output"] | {"path": str(tmp_path / f"out{number}")}
        manifest.write_text(
            json.dumps(plain | {"model": {"name": "tiny", **model}, "output": output})
        )
        assert main(["run", str(manifest)]) == 0
        told = capsys.readouterr()
    assert (
        "model.embeddings and model.clip_skip change nothing: method styleid takes no prompts"
        in told.out + told.err
    )
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1
    first, second = (
        json.loads((tmp_path / f"out{n}" / "run.json").read_text())["identity"] for n in range(2)
    )
    assert second["fingerprint_without_prompts"] == first["model_fingerprint"]
    assert second["model_fingerprint"] != first["model_fingerprint"]
    assert "fingerprint_without_prompts" not in first


def test_inspect_says_what_a_file_is_and_where_it_goes(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = eps_folder / "vae" / "diffusion_pytorch_model.safetensors"
    for path, told in (
        (written(tmp_path, "x", {"emb_params": vectors(1, 3, 32)}), ("textual inversion", "embeddings: [{path: ")),
        (str(vae), ("autoencoder (VAE)", f"vae: {vae}")),
    ):  # fmt: skip
        assert main(["inspect", path]) == 0
        found = capsys.readouterr().out
        assert all(text in found for text in told), found


def test_the_fingerprint_follows_vectors_and_token(eps_folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path, "x", {"<x>": vectors(1, 32)})
    moved = shutil.copy(path, tmp_path / "y.safetensors")
    width = json.loads((eps_folder / "text_encoder" / "config.json").read_text())["hidden_size"]
    assert width == 32

    def fingerprint(*specs: EmbeddingSpec) -> str:
        return find_checkpoint(ModelSpec(path=str(eps_folder), embeddings=specs)).fingerprint

    one = fingerprint(EmbeddingSpec(path=path))
    assert fingerprint(EmbeddingSpec(path=str(moved))) == one
    assert len({one, fingerprint(), fingerprint(EmbeddingSpec(path=path, token="<z>"))}) == 3
