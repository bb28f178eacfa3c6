"""Rows and templates of prompts: what they become, and what is said about those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.methods.method import BlockSize
from stylebatch.methods.plain.options import WindowOptions
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from stylebatch.spec import METHOD_OPTIONS, json_schema
from tests.support.images import picture
from tests.support.planned import prompts_planned

LOOKS = {
    "template": "{animal} in {look}",
    "values": {"animal": {"cat": ["a cat", "a kitten"], "dog": ["a dog"]}, "look": ["oil", "ink"]},
}


def manifest(folder: Path, **sections: Any) -> Path:
    path = folder / "run.yaml"
    data = {"model": "tiny", "method": "text2img", "output": {"path": str(folder / "out")}}
    path.write_text(yaml.safe_dump(data | sections))
    return path


def planned(folder: Path, **sections: Any) -> Plan:
    path = manifest(folder, **sections)
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())
    return plan(load_spec(path))


def refusal(folder: Path, **sections: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        plan(load_spec(manifest(folder, **sections)))
    return str(caught.value)


def rows(folder: Path, text: str, name: str = "rows.csv") -> dict[str, str]:
    (folder / name).write_text(text)
    return {"path": name}


def test_a_template_is_every_combination_with_labels(tmp_path: Path) -> None:
    found = planned(tmp_path, prompts=LOOKS | {"label": "animal", "caption": "{animal}"})
    assert [(row.prompt, row.label, row.caption) for row in prompts_planned(found)] == [
        (f"{text} in {look}", label, text)
        for label, text in (("cat", "a cat"), ("cat", "a kitten"), ("dog", "a dog"))
        for look in ("oil", "ink")
    ]
    assert found.labels == ("cat", "dog")
    assert (
        len({row.id for row in prompts_planned(found)})
        == len({row.seed for row in prompts_planned(found)})
        == 6
    )


def test_rows_that_are_added_change_no_other_seed(tmp_path: Path) -> None:
    few = planned(tmp_path, prompts=rows(tmp_path, "prompt\na cat\na cat\na dog\n"))
    more = planned(
        tmp_path, prompts=rows(tmp_path, "prompt\na bird\na cat\na cat\na dog\na fish\n")
    )
    assert [(row.id, row.seed) for row in prompts_planned(few)] == [
        (row.id, row.seed) for row in prompts_planned(more)[1:4]
    ]
    assert prompts_planned(few)[0].seed != prompts_planned(few)[1].seed
    other = planned(tmp_path, prompts=rows(tmp_path, "prompt\na cat\n"), seed=1)
    assert prompts_planned(other)[0].seed != prompts_planned(few)[0].seed


def test_seeds_are_given_or_drawn_and_counted_up(tmp_path: Path) -> None:
    text = "prompt\tseed\tid\na cat\t7\tx\na dog\t\ty\n"
    found = planned(tmp_path, prompts=rows(tmp_path, text, "rows.tsv") | {"per_prompt": 3})
    assert [row.seed for row in prompts_planned(found)[:3]] == [7, 8, 9]
    assert [row.id for row in prompts_planned(found)] == ["x/0", "x/1", "x/2", "y/0", "y/1", "y/2"]
    assert len({row.seed for row in prompts_planned(found)}) == 6


def test_rows_of_every_format_are_the_same(tmp_path: Path) -> None:
    columns = {"prompt": ["a cat", "a dog"], "seed": [None, 5], "negative_prompt": [None, "grey"]}
    text = "prompt,seed,negative_prompt\na cat,,\na dog,5,grey\n"
    lines = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    pq.write_table(pa.table(columns | {"seed": pa.array([None, 5.0])}), tmp_path / "floats.parquet")
    sources = [
        rows(tmp_path, text),
        rows(tmp_path, text.replace(",", "\t"), "rows.tsv"),
        rows(tmp_path, "\n".join(map(json.dumps, lines)), "rows.jsonl"),
        {"path": "rows.parquet"},
        {"path": "floats.parquet"},
    ]
    plans = [planned(tmp_path, prompts=source) for source in sources]
    assert len({found.digest for found in plans}) == 1
    assert (
        prompts_planned(plans[0])[0].negative_prompt,
        prompts_planned(plans[0])[1].negative_prompt,
    ) == (
        None,
        "grey",
    )
    assert prompts_planned(plans[0])[1].seed == 5


def test_contents_bring_their_masks_to_inpainting(tmp_path: Path) -> None:
    for folder in ("photos/cat", "photos/dog", "masks/cat", "masks/dog"):
        (tmp_path / folder).mkdir(parents=True)
        picture(3).save(tmp_path / folder / "1.png")
    prompts = rows(tmp_path, "prompt\nsand\nsnow\n")
    contents = {"path": "photos", "masks": "masks"}
    found = planned(tmp_path, method="inpaint", contents=contents, prompts=prompts)
    assert [(row.prompt, row.image, row.mask) for row in prompts_planned(found)] == [
        (prompt, f"{label}/1.png", f"../masks/{label}/1.png")
        for label in ("cat", "dog")
        for prompt in ("sand", "snow")
    ]
    mask = found.images(0)[1].mask
    assert mask is not None
    assert Path(mask.place).samefile(tmp_path / "masks/dog/1.png")
    both = refusal(
        tmp_path, method="inpaint", contents=contents, prompts=prompts | {"mask": "masks/cat/1.png"}
    )
    assert "mask: found 'masks/cat/1.png' beside the mask of content 'cat/1.png'" in both
    text = refusal(tmp_path, method="img2img", contents=contents, prompts=prompts)
    assert "contents.masks: method img2img takes none" in text


def test_contents_meet_every_prompt_and_lend_their_labels(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        picture(3).save(tmp_path / "photos" / label / "1.png")
    source = {"template": "a {look} of a {label}", "values": {"look": ["sketch", "print"]}}
    found = planned(tmp_path, method="img2img", contents={"path": "photos"}, prompts=source)
    assert [(row.prompt, row.label, row.image) for row in prompts_planned(found)] == [
        (f"a {look} of a {label}", label, f"{label}/1.png")
        for label in ("cat", "dog")
        for look in ("sketch", "print")
    ]
    assert Path(found.images(0)[1].ref.place).samefile(tmp_path / "photos/dog/1.png")
    picture(4).save(tmp_path / "photos" / "loose.png")
    text = refusal(tmp_path, method="img2img", contents={"path": "photos"}, prompts=source)
    assert "found {label}, which is in no list of `values`, and image loose.png has none" in text


def test_sets_keep_their_rows_together_and_repeat_the_reference(tmp_path: Path) -> None:
    text = "prompt,style\n" + "".join(f"p{i},{'ab'[i % 2]}\n" for i in range(14))
    method = {"name": "stylealigned", "steps": 2, "guidance": 3}
    sections = {"method": method, "engine": {"batch": 8}}
    found = planned(tmp_path, prompts=rows(tmp_path, text), **sections)
    assert [row.prompt for row in prompts_planned(found)[:7]] == [f"p{i}" for i in range(0, 14, 2)]
    blocks = [found.grid.block(i) for i in range(found.grid.num_blocks)]
    assert [len(block.rows) for block in blocks] == [4, 3, 4, 3]
    assert [block.columns for block in blocks] == [(0,), (0,), (1,), (1,)]
    # 4 rows of 2 in the first block; the reference beside 3 others in the second
    assert found.evaluations == 2 * 2 * (4 + 4 + 4 + 4)


def test_the_cost_of_images_windows_and_references(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    text = "prompt,image\nx,a.png\ny,a.png\n"
    method = {"name": "img2img", "steps": 10, "strength": 0.55, "guidance": 1}
    assert planned(tmp_path, prompts=rows(tmp_path, text), method=method).evaluations == 2 * 5
    wide = {"width": 512}
    method = {"name": "text2img", "steps": 10, "guidance": 2, "windows": {"stride": 8}}
    one = {"template": "x {y}", "values": {"y": ["z"]}}
    assert planned(tmp_path, prompts=one, method=method, image=wide).evaluations == 10 * 2 * 13
    text = "prompt,style,reference,reference_prompt\nx,a,a.png,stripes\ny,a,a.png,stripes\n"
    method = {"name": "stylealigned", "steps": 10, "guidance": 2, "inversion_guidance": 1}
    found = planned(tmp_path, prompts=rows(tmp_path, text), method=method)
    assert (found.layout.column_evaluations, found.evaluations) == (10, 10 + 10 * 2 * (2 + 1))


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize(("height", "width", "size", "stride"), [(32, 128, 32, 8), (40, 90, 16, 7)])
def test_windows_are_counted_as_they_are_cut(
    circular: bool, height: int, width: int, size: int, stride: int
) -> None:
    windows = pytest.importorskip("stylebatch.diffusion.windows").Windows(size, stride, circular)
    options = WindowOptions(size=size, stride=stride, circular=circular)
    assert options.num_views(height, width, 99) == len(windows.views(height, width))


def test_every_option_of_every_method_is_described_and_has_a_default() -> None:
    for name, options in METHOD_OPTIONS.items():
        assert options().model_dump()["name"] == name  # type: ignore[attr-defined]
        fields = options.model_fields.items()
        assert [n for n, field in fields if not field.description and n != "name"] == []
    size = BlockSize(samples=3, height=16, width=16, batch=8, native=16)
    assert METHOD_OPTIONS["text2img"]().evaluations(size) == 3 * 2 * 50  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "prompt,seed\na cat,1.5\n",
            "rows.csv: row 1: seed: found '1.5'; accepted: a whole number",
        ),
        ("prompt,seed\na cat,-1\n", "row 1: seed: found '-1'; accepted: a whole number"),
        ("prompt,seed\na cat,9223372036854775808\n", "row 1: seed: found '9223372036854775808'"),
        ("prompt,seed\na cat,\n,7\n", "rows.csv: row 2: prompt: found nothing; accepted: a text"),
        ("promt\na cat\n", "rows.csv: the header: found column `promt`; did you mean `prompt`?"),
        ("prompt,mask\na,b.png\n", "found column `mask`, which has no use here"),
        ("prompt,id\na,x\nb,y\nc,x\n", "rows.csv: row 3: id: found 'x', which stands there twice"),
        (
            "prompt\na,b,c\n",
            "row 1: found 3 cells, the header names 1 column: the cell 'b' stands beyond",
        ),
        ("prompt\n", "rows.csv: found no rows; accepted: at least one"),
    ],
)
def test_bad_rows_name_file_row_and_field(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, prompts=rows(tmp_path, text))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, "prompts is missing, which method text2img renders"),
        ({"prompts": {"path": "none.csv"}}, "prompts.path: found"),
        (
            {"prompts": LOOKS, "method": "img2img"},
            "image: found nothing; accepted: the path of an image",
        ),
        (
            {"prompts": LOOKS, "method": {"name": "text2img", "strenght": 1}},
            "method.strenght: unknown key",
        ),
        ({"prompts": LOOKS, "method": {"name": "text2img", "steps": 0}}, "method.steps: found 0"),
        (
            {"prompts": LOOKS, "method": {"name": "text2img", "windows": {"stride": 0}}},
            "method.windows.stride: found 0; input should be greater than or equal to 1",
        ),
        (
            {"prompts": LOOKS, "method": {"name": "paint"}},
            'method.name: found "paint"; accepted: styleid',
        ),
        (
            {"prompts": LOOKS, "features": {"codec": "x8"}},
            "features: about styles of method styleid",
        ),
        ({"prompts": LOOKS, "features": {"cache": "c"}}, "accepted with method text2img: none"),
        ({"prompts": LOOKS, "pairing": {"mode": "zip"}}, "pairing: for method styleid"),
        ({"prompts": LOOKS, "styles": {"path": "."}}, "styles: for method styleid"),
        (
            {"prompts": LOOKS, "contents": {"path": "."}},
            "contents: method text2img takes no images",
        ),
        ({"prompts": LOOKS, "method": "styleid"}, "prompts: method styleid renders none"),
        (
            {"prompts": LOOKS | {"template": "{x} {animal}"}},
            "template: found x; accepted: the names of",
        ),
        ({"prompts": LOOKS | {"template": "{animal}"}}, "values: look is used nowhere"),
        ({"prompts": LOOKS | {"template": "{animal!r} {look}"}}, "template: found {animal!r}"),
        ({"prompts": LOOKS | {"template": "{animal} {look"}}, "write {{ for a brace"),
        (
            {"prompts": {"template": "a {label}"}},
            "prompts.template: found {label}, which is in no list",
        ),
        ({"prompts": LOOKS | {"style": "look"}}, "prompts.style: method text2img makes no sets"),
        ({"prompts": LOOKS | {"path": "rows.csv"}}, "give either `path` (rows) or `template`"),
        (
            {"prompts": LOOKS, "image": {"width": 100}},
            "image.width: found 100; accepted by this model",
        ),
        (
            {"prompts": LOOKS, "method": {"name": "text2img", "windows": {"size": 30}}},
            "method.windows: found size 30, stride 8; accepted by this model",
        ),
        (
            {
                "prompts": {"template": "{n}", "values": {"n": [f"p{i}" for i in range(9)]}},
                "method": {"name": "stylealigned", "full_attention_share": True},
            },
            "method.full_attention_share: found set '' of 8 samples beside its reference; accepted: up to 7",
        ),
    ],
)
def test_what_does_not_fit_together_is_said(
    tmp_path: Path, sections: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(tmp_path, **sections)


def test_more_samples_than_can_be_planned_are_counted_not_made(tmp_path: Path) -> None:
    letters = {name: list("abcdefghijklmnopqrst") for name in "abcde"}
    bomb = {"template": "{a} {b} {c} {d} {e}", "values": letters}
    assert "prompts: found 3,200,000 samples" in refusal(tmp_path, prompts=bomb)
    many = {"template": "{a}", "values": {"a": letters["a"]}, "per_prompt": 1_000_000}
    assert "prompts: found 20,000,000 samples" in refusal(tmp_path, prompts=many)
    listed = rows(tmp_path, "prompt\na\nb\nc\n") | {"per_prompt": 1_000_000}
    assert "prompts: found 3,000,000 samples" in refusal(tmp_path, prompts=listed)


def test_a_set_has_one_reference(tmp_path: Path) -> None:
    text = "prompt,style,reference\na,s,x.png\nb,s,y.png\n"
    found = refusal(tmp_path, prompts=rows(tmp_path, text), method="stylealigned")
    assert (
        "rows.csv: row 2: reference: found 'y.png' in set 's', whose first row has 'x.png'" in found
    )


def test_styleid_takes_no_width(tmp_path: Path) -> None:
    for name in ("c", "s"):
        (tmp_path / name).mkdir()
    sections = {"method": "styleid", "contents": {"path": "c"}, "styles": {"path": "s"}}
    assert "give `size` alone" in refusal(tmp_path, **sections, image={"width": 256})


def test_a_preview_shows_references_first(tmp_path: Path) -> None:
    source = {
        "template": "{a} {b}",
        "values": {"a": ["x", "y"], "b": ["1", "2", "3"]},
        "style": "a",
    }
    spec = load_spec(manifest(tmp_path, prompts=source, method="stylealigned"))
    found = plan(spec, limit=3)
    assert [row.prompt for row in prompts_planned(found)] == ["x 1", "x 2", "y 1"]
    assert found.spec.output.path.endswith("out-preview-3")
