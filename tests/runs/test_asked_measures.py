"""Measures by a network: what a run records, by whose eyes, whatever blocks it comes in; and what is refused."""

from __future__ import annotations

import importlib.util
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from stylebatch.data.images import load_picture
from stylebatch.engine.measure import network_threads
from stylebatch.engine.run import run
from stylebatch.engine.sight import Sight
from stylebatch.engine.worker import Worker
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.methods.user_code import UserCodeError
from stylebatch.planning.resolve import plan
from stylebatch.quality.asked import Seen, agreement_rank, asked_columns, feature_distance
from stylebatch.quality.classifiers import load_classifier
from stylebatch.quality.imagenet_network import load_network
from stylebatch.spec.quality import QualitySpec
from tests.support.eyes import EYES
from tests.support.images import write_inputs, write_manifest
from tests.support.samples import samples_of

NAMES = ["agreement", "feature_content", "feature_style"]
COLUMNS = ["agreement", "agreement_rank", "agreement_content", "feature_content", "feature_style"]
PAIRS = {"method": {"name": "styleid", "steps": 2}}


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Callable[..., Path]:
    """`manifest(quality)`: 2 contents x 1 style, two shards, PNG; `eyes.py` stands beside it."""
    write_inputs(tmp_path, contents=2, styles=1)
    (tmp_path / "eyes.py").write_text(EYES)
    output = {"path": str(tmp_path / "out"), "shard_size": 1, "image": {"format": "png"}}

    def write(quality: Any, **changes: Any) -> Path:
        given = PAIRS | {"output": output, "quality": quality} | changes
        return write_manifest(tmp_path, eps_folder, **given)

    return write


def _records(output: Path) -> list[dict[str, Any]]:
    files = sorted(output.glob("metadata/train-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def _pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_records_have_what_the_network_says_of_the_stored_pictures(
    manifest: Callable[..., Path], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    spec = load_spec(manifest(NAMES))
    assert run(spec).exit_code == 0
    records, network = _records(tmp_path / "out"), load_network()
    assert [name for name in records[0] if name in COLUMNS] == COLUMNS
    for record, sample in zip(records, samples_of(tmp_path / "out"), strict=True):
        results, probabilities = network.seen([_pixels(sample["png"])])
        square = load_picture(tmp_path / "contents" / record["content_id"], 64).pixels
        features, content = network.seen([square])
        top = int(content[0].argmax())
        assert record["agreement"] == pytest.approx(float(probabilities[0, top]), rel=1e-4)
        assert record["agreement_content"] == pytest.approx(float(content[0].max()), rel=1e-4)
        cosine = results[0] @ features[0] / np.linalg.norm(results[0]) / np.linalg.norm(features[0])
        assert record["feature_content"] == pytest.approx(1 - float(cosine), abs=1e-5)
        assert record["agreement_rank"] >= 1
        assert json.loads(sample["json"])["agreement"] == record["agreement"]
    # a shard alone, in a worker that has seen nothing else, has the same bytes
    other = tmp_path / "other"
    made = plan(spec)
    with Worker(made, Folder.at(str(other)), threads=1) as worker:
        worker.render(1)
    for name in ("data/train-00001.tar", "metadata/train-00001.parquet"):
        assert (other / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert "agreement" in (tmp_path / "out/README.md").read_text()
    assert "agreement_rank" in (tmp_path / "out/gallery.html").read_text()


def test_numbers_do_not_depend_on_the_threads_of_an_engine() -> None:
    quality = QualitySpec(measures=("agreement", "feature_content"))
    noise = np.random.default_rng(0).integers(0, 256, (2, 128, 160, 3), np.uint8)

    def seen(threads: int) -> dict[str, float]:
        with network_threads(threads):
            sight = Sight(asked_columns(quality.measures), quality, [], torch.device("cpu"))
            return sight.measured(noise[0], {"content": noise[1]}, "")

    # by two threads the network alone gives other last bits than by one
    assert seen(2) == seen(1)


def test_a_users_function_looks_in_its_place(manifest: Callable[..., Path], tmp_path: Path) -> None:
    quality = {
        "measures": NAMES,
        "classifier": "eyes.py:mean_colour",
        "labels": {"cat": "Scarlet", "dog": 2},
    }
    assert run(load_spec(manifest(quality))).exit_code == 0
    for record, sample in zip(
        _records(tmp_path / "out"), samples_of(tmp_path / "out"), strict=True
    ):
        means = _pixels(sample["png"]).reshape(-1, 3).mean(0) + 1
        number = {"cat": 0, "dog": 2}[record["label"]]
        assert record["agreement"] == pytest.approx(float(means[number] / means.sum()), rel=1e-5)
    # other eyes, other numbers: such an output is not continued
    (tmp_path / "eyes.py").write_text(EYES + "\n# changed")
    with pytest.raises(PlanChangedError, match="quality"):
        run(load_spec(manifest(quality)))


@pytest.mark.parametrize(
    ("quality", "text"),
    [
        ("feature_stile", "did you mean 'feature_style'"),
        (["agreement", "agreement"], "found agreement twice"),
        ([], "at least 1"),
        ({"measures": NAMES, "classifier": "nobody.py:f"}, "no file .*nobody.py"),
        ({"measures": NAMES, "classifier": "contents"}, "no file .*contents/config.json"),
        ({"measures": NAMES, "classifier": "s3://bucket/model"}, "of this machine"),
        ({"measures": NAMES, "classifier": "eyes.py:mean_color"}, "no such name"),
        ({"measures": NAMES, "classifier": "eyes.py:alone"}, "eyes.py:alone returns none; accepted: agreement"),
        ({"measures": NAMES, "classifier": "eyes.py:mean_colour", "labels": {"kat": 1}}, "did you mean 'cat'"),
        ({"measures": NAMES, "classifier": "eyes.py:mean_colour", "labels": {"cat": 3}}, "from 0 to 2"),
        ({"measures": ["agreement"], "classifier": "eyes.py:misnamed"}, "3 names for 2 classes"),
        ({"measures": ["agreement"], "classifier": "eyes.py:counted"}, "class_names: found int; accepted: a list or tuple"),
        ({"measures": NAMES, "classifier": "eyes.py:mean_colour", "labels": {"cat": "gren"}}, "did you mean 'green'"),
        ({"measures": NAMES, "labels": {"cat": "crane"}}, "classes 134, 517 are called; accepted: one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_anything_is_rendered(
    quality: Any, text: str, manifest: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=text):
        run(load_spec(manifest(quality)))
    assert not (tmp_path / "out").exists()


def test_prompts_have_no_content_to_agree_with(tmp_path: Path, eps_folder: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt\na cat\n")
    given = {
        "contents": None,
        "styles": None,
        "prompts": {"path": "rows.csv"},
        "quality": "agreement",
    }
    path = write_manifest(tmp_path, eps_folder, **given, method={"name": "text2img", "steps": 2})
    with pytest.raises(
        ManifestError, match=r"agreement compares with .* method text2img are made from none"
    ):
        plan(load_spec(path))


def test_the_missing_extra_is_named_by_a_plan(
    manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if "lite0" in name else real(name, *a)
    )
    with pytest.raises(ManifestError, match=r"pip install 'stylebatch\[quality\]'"):
        plan(load_spec(manifest(NAMES)))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise KeyError('tench')", r"eyes.py:2: KeyError: 'tench'"),
        ("return None", "NoneType for 1 picture"),
        ("return [0.5, 0.5]", "list for 1 picture"),
        ("import numpy; return numpy.zeros((7, 3))", r"shape \(7, 3\) for 1 picture"),
        ("import numpy; return numpy.array([[3.0, -2.0]])", "apply softmax"),
        ("return [[float('nan'), 1.0]]", "apply softmax"),
        ("return {'probabilities': [[0.5, 0.5]], 'features': [1.0]}", "features list"),
        ("import sys; sys.exit(0)", "ends the process"),
    ],
)
def test_what_a_users_function_does_wrong_is_told_with_its_place(
    body: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "eyes.py").write_text(f"def look(images, device):\n    {body}\n")
    classifier = load_classifier(f"{tmp_path}/eyes.py:look", "cpu")
    with pytest.raises(UserCodeError, match=text) as error:
        classifier.seen([np.zeros((8, 8, 3), np.uint8)])
    assert "eyes.py:" in str(error.value)


def test_a_folder_of_transformers_looks_in_its_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16,
        id2label={0: "cat", 1: "dog", 2: "macaw"},
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    processor = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2,
        "do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    classifier = load_classifier(str(tmp_path / "vit"), "cpu")
    assert classifier.class_names == ("cat", "dog", "macaw")
    random = np.random.default_rng(0)
    images = [
        random.integers(0, 256, (32, 32, 3), np.uint8),
        random.integers(0, 256, (3, 40, 3), np.uint8),
    ]
    features, probabilities = classifier.seen(images)
    assert features is not None
    assert (features.shape, probabilities.shape) == ((2, 32), (2, 3))
    inputs = torch.from_numpy(images[0]).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = model(inputs).logits.softmax(-1)[0]
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-5)
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    with pytest.raises(ManifestError, match="cannot be loaded"):
        load_classifier(str(tmp_path / "vit"), "cpu")
    (tmp_path / "vit" / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ManifestError, match=r"architectures: found .*BertModel"):
        load_classifier(str(tmp_path / "vit"), "cpu")


def test_ranks_and_distances() -> None:
    def seen(*probabilities: float, features: tuple[float, ...] = (1.0, 0.0)) -> Seen:
        return Seen(np.array(probabilities, np.float32), np.array(features, np.float32))

    content = seen(0.1, 0.7, 0.2)
    assert [
        agreement_rank(one, content)
        for one in (seen(0.1, 0.6, 0.3), seen(0.5, 0.2, 0.3), seen(0.4, 0.4, 0.2))
    ] == [1, 3, 1]
    assert agreement_rank(seen(0.5, 0.2, 0.3), content.about(0)) == 1
    assert feature_distance(seen(1), seen(1, features=(3.0, 0.0))) == 0
    assert feature_distance(seen(1), seen(1, features=(0.0, 2.0))) == 1
    assert feature_distance(seen(1), seen(1, features=(0.0, 0.0))) == 1
    assert math.isclose(feature_distance(seen(1), seen(1, features=(-1.0, 0.0))), 2)
