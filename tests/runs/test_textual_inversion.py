"""Textual inversions and clip_skip: the stock pipelines with the same, in the same files."""

from __future__ import annotations

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
from safetensors.torch import load_file
from torch import Tensor

from stylebatch import StyleAlignedPipeline
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
from tests.support.embedding_files import vectors, written

PROMPTS = ["a <cat-toy> on a table", "two houses, ink-wash, in the <cat-toy>s rain"]
NEGATIVE, SEEDS = "badpic, <cat-toy>", [3, 8]


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
    """The small model with tokens of 1, 3 and 90 vectors; its text encoder takes 77 numbers, begin and end among them."""
    folder = tmp_path_factory.mktemp("toys")
    width = eps_model.text_encoder.config.hidden_size
    specs = [
        EmbeddingSpec(
            path=written(folder, f"e{n}", {"emb_params": vectors(n, n, width)}), token=token
        )
        for token, n in (("<one>", 1), ("<three>", 3))
    ]
    model = load_model(ModelSpec(path=str(eps_folder), embeddings=tuple(specs)), device="cpu")
    assert isinstance(model, StableDiffusion)
    # files of so many are refused; a pipeline that diffusers has loaded may have them
    model.tokenizer.add_tokens(["<long>", *(f"<long>_{i}" for i in range(1, 90))])
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
