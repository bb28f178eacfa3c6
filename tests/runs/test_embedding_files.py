"""What cannot be meant by files of textual inversions is refused; a run tells, records and fingerprints them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stylebatch.cli import main
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec, recorded_spec
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.models.finite import not_finite
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import EmbeddingSpec, ModelSpec
from stylebatch.spec import json_schema
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
    spoiled = vectors(1, 2, 48).index_fill(1, torch.tensor([7]), torch.nan)
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
        (one, "<x>: found 76 vectors; accepted: up to 75, which text_encoder of 77 tokens", {"<x>": vectors(1, 76, 96)}),
        (one, "<x>: found 96 of 192 numbers that are not finite, first NaN; accepted: finite", {"<x>": half_of(torch.nan)}),
        (one, "<x>: found 96 of 192 numbers that are not finite, first inf", {"<x>": half_of(-torch.inf).bfloat16()}),
        (xl, "clip_l: found 2 of 96 numbers that are not finite", {"clip_g": vectors(1, 2, 80), "clip_l": spoiled}),
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
    large = ModelSpec(
        path=str(one), dtype="float16", embeddings=(spec({"<x>": torch.full((96,), 1e6)}),)
    )
    with pytest.raises(ManifestError, match=r"model\.embeddings: .* not finite in float16"):
        load_model(large, device="cpu")


def half_of(value: float) -> Tensor:
    """Two vectors, the second of that value."""
    return torch.stack([vectors(1, 96), torch.full((96,), value)])


@pytest.mark.parametrize("key", ["emb_param", "Emb_Params", "embparams", "clip_1", "clip-g"])
def test_a_key_that_is_nearly_one_of_trainers_is_no_token(
    twins: Callable[[str], Path], tmp_path: Path, key: str
) -> None:
    path = written(tmp_path, "x", {key: vectors(1, 2, 96)})
    said = f"found the key {key}, nearly (emb_params|clip_[lg]), .*Next: set `token`"
    refused(twins("sd15"), said, EmbeddingSpec(path=path))
    named = find_checkpoint(
        ModelSpec(path=str(twins("sd15")), embeddings=(EmbeddingSpec(path=path, token="<x>"),))
    )
    assert [one.token for one in named.family.embeddings] == ["<x>"]


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"]
)
@pytest.mark.parametrize("value", [1.0, 448.0, torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_found_as_torch_finds_them(
    tmp_path: Path, dtype: str, value: float
) -> None:
    stored = torch.tensor([-448.0, value, 0.0]).to(getattr(torch, dtype))
    path = Path(written(tmp_path, "x", {"other": torch.full((3,), torch.nan), "x": stored}))
    assert bool(not_finite(path, "x")) != bool(stored.float().isfinite().all())


def test_plan_refuses_vectors_that_no_prompt_can_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, tensor, said in (
        ("nan", torch.full((64,), torch.nan), "<nan>: found 64 of 64 numbers that are not finite"),
        ("long", vectors(1, 15, 64), "<long>: found 15 vectors; accepted: up to 14"),
    ):
        written(tmp_path, name, {f"<{name}>": tensor})
        manifest = prompts(tmp_path, "a", embeddings=f"{name}.safetensors")
        assert main(["plan", str(manifest)]) == 2
        assert f"model.embeddings: {tmp_path}/{name}.safetensors: {said}" in capsys.readouterr().err
    written(tmp_path, "fits", {"<fits>": vectors(1, 14, 64)})
    assert main(["plan", str(prompts(tmp_path, "a <fits>", embeddings="fits.safetensors"))]) == 0


@pytest.mark.parametrize("field", ["lora", "embeddings"])
def test_a_path_or_a_mapping_alone_is_a_list_of_one(tmp_path: Path, field: str) -> None:
    schema = jsonschema.Draft202012Validator(json_schema())
    option = {"lora": {"scale": 0.5}, "embeddings": {"token": "<x>"}}[field]
    for options in ({}, option):
        full = {"path": "x.safetensors", **options}
        shorter: list[Any] = [[full], full] + [["x.safetensors"], "x.safetensors"] * (not options)
        wanted = None
        for value in shorter:
            manifest = prompts(tmp_path, "a", **{field: value})
            schema.validate(json.loads(manifest.read_text()))
            spec = load_spec(manifest)
            wanted = wanted or spec
            assert spec == wanted
        (one,) = getattr(spec.model, field)
        assert one.path == str(tmp_path / "x.safetensors")
        overridden = load_spec(prompts(tmp_path, "a"), [f"model.{field}={json.dumps(shorter[-1])}"])
        assert overridden == wanted
    two = load_spec(prompts(tmp_path, "a", **{field: ["x.safetensors", {"path": "y.safetensors"}]}))
    assert [Path(one.path).name for one in getattr(two.model, field)] == ["x.safetensors", "y.safetensors"]  # fmt: skip
    assert recorded_spec(json.loads(two.model_dump_json()), "run.json") == two


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora": {"path": "x", "weight": 1}}, "model.lora.0.weight: unknown key with value 1; did you mean 'scale'?"),
        ({"lora": [{"path": "x", "strength": 1}]}, "did you mean 'scale'?"),
        ({"embeddings": {"file": "x"}}, "did you mean 'path'?"),
        ({"embeddings": ["a", {"path": "x", "name": "y"}]}, "model.embeddings.1.name: unknown key with value \"y\"; did you mean 'token'?"),
        ({"lora": 3}, "model.lora: found 3; accepted: LoRA weights that are added, in this order: {path: FILE, scale: 0.8}, a path alone"),
        ({"lora": None}, "model.lora: found null; accepted: LoRA weights"),
        ({"lora": ["x", 3]}, "model.lora.1: found 3; accepted: a mapping with path, scale"),
        ({"embeddings": "s3://bucket/x"}, "model.embeddings.0.path: is an address; accepted: a path of this machine"),
        ({"embeddings": "x.pt"}, "model.embeddings.0: `path`: found"),
    ],
)  # fmt: skip
def test_other_values_are_told_what_is_meant(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    manifest = prompts(tmp_path, "a", **given)
    with pytest.raises(ManifestError) as caught:
        load_spec(manifest)
    assert said in str(caught.value)


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
