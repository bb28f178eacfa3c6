"""Prompts beyond the text encoder's context: counted, told in every record, cut, encoded in windows or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from stylebatch.cli import main
from stylebatch.methods.plain.algorithm import Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.tokens import WordCounts, load_tokenizer, token_counts
from stylebatch.models.unet.stable_diffusion import StableDiffusion

LONG = "red blue green yellow purple brown " * 3
ROWS = f'prompt,seed\n"{LONG}cat",3\na cat,3\n"{LONG}dog on the moon",3\n'


@pytest.fixture(scope="module")
def tiny() -> StableDiffusion:
    torch.set_num_threads(1)
    return load_model("tiny", device="cpu")


def run(folder: Path, policy: str | None, rows: str = ROWS) -> tuple[int, Path]:
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text(rows, "utf-8")
    prompts = {"path": "rows.csv"} | ({} if policy is None else {"long_prompts": policy})
    manifest = {"name": "m", "prompts": prompts, "model": "tiny", "image": {"size": 32}}
    manifest |= {
        "method": {"name": "text2img", "steps": 2},
        "engine": {"name": "local", "threads": 1},
    }
    manifest |= {"output": {"path": str(folder / "out"), "image": {"format": "png"}}}
    (folder / "m.yaml").write_text(json.dumps(manifest), "utf-8")
    return main(["run", str(folder / "m.yaml")]), folder / "out"


def records(output: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(
        output / "metadata" / "train-00000.parquet"
    ).to_pylist()
    return rows


def test_what_is_cut_is_told_and_windows_keep_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = run(tmp_path / "cut", None)
    assert code == 0
    assert "2 rows have a text of more tokens than the text encoder's 16" in capsys.readouterr().out
    cut = records(output)
    assert [row["prompt_truncated"] for row in cut] == [True, False, True]
    assert cut[0]["sha256"] == cut[2]["sha256"]
    code, output = run(tmp_path / "chunk", "chunk")
    kept = records(output)
    assert [row["prompt_truncated"] for row in kept] == [False] * 3
    assert kept[0]["sha256"] != kept[2]["sha256"]


def test_short_prompts_are_the_same_in_windows(tmp_path: Path) -> None:
    short = "prompt,seed\na cat,3\na red barn,4\n"
    one, other = (
        records(run(tmp_path / policy, policy, short)[1]) for policy in ("truncate", "chunk")
    )
    assert [row["sha256"] for row in one] == [row["sha256"] for row in other]


def test_long_prompts_are_refused_with_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = run(tmp_path / "m", "refuse")
    assert code == 2
    told = capsys.readouterr().err
    assert "rows.csv: row 1, prompt: found " in told
    assert "tokens; accepted: up to 16" in told
    assert not output.exists()
    assert run(tmp_path / "short", "refuse", "prompt\na cat\n")[0] == 0


def rendered(model: StableDiffusion, texts: list[str], negative: list[str | None]) -> torch.Tensor:
    seeds = tuple(range(len(texts)))
    samples = Samples(tuple(texts), tuple(negative), seeds, (model.latent_channels, 8, 8))
    return Text2Img(steps=2, guidance=3.0).render(model, samples)


def test_rows_of_different_length_do_not_change_each_other(tiny: StableDiffusion) -> None:
    """A batch of one, two and three windows gives what each row gives by itself, negative prompts included."""
    texts = ["a cat", f"{LONG}cat", LONG * 2, "a dog"]
    negative: list[str | None] = [None, "blurry", None, f"{LONG}fog"]
    tiny.chunks = True
    try:
        together = rendered(tiny, texts, negative)
        for row in range(len(texts)):
            samples = Samples((texts[row],), (negative[row],), (row,), (tiny.latent_channels, 8, 8))
            alone = Text2Img(steps=2, guidance=3.0).render(tiny, samples)
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    finally:
        tiny.chunks = False


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_windows_are_what_the_encoder_says_of_their_texts(
    name: str, twin_model: Callable[[str], StableDiffusion]
) -> None:
    """75 tokens of a prompt, encoded by themselves; pooled features are those of the first."""
    model = twin_model(name)
    first, second = "a " * 75, "b c d"
    model.chunks = True
    try:
        both = model.embed([first + second])
    finally:
        model.chunks = False
    alone = model.embed([first, second])
    torch.testing.assert_close(both.hidden[0], alone.hidden.flatten(0, 1), rtol=1e-4, atol=1e-5)
    if both.pooled is not None and alone.pooled is not None:
        torch.testing.assert_close(both.pooled, alone.pooled[:1], rtol=1e-4, atol=1e-5)


def test_words_are_counted_as_whole_texts_are() -> None:
    tokenizer = load_tokenizer(TINY / "tokenizer", Checkpoint(TINY).fields("text_encoder"))
    draw = np.random.default_rng(0)
    pieces = [
        "don't",
        "a",
        "Ünïcödé",
        "ca\u0301t",
        "123",
        "!?",
        "<|endoftext|>",
        "猫",
        "x" * 40,
        "\t",
        "\u3000",
        "👩‍🚀",
    ]
    texts = [" ".join(draw.choice(pieces, size=9)) for _ in range(200)] + ["", "   "]
    assert WordCounts(tokenizer).count(texts) == token_counts(tokenizer, texts)
