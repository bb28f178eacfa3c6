"""What cannot be meant by files of textual inversions is refused; a run tells, records and fingerprints them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stylebatch.cli import main
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import EmbeddingSpec, ModelSpec
from tests.support.embedding_files import vectors, written
from tests.support.runs import small_manifest


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
