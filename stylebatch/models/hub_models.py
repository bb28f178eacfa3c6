"""Fetches a pipeline folder from the hub, only the files that are read."""

from __future__ import annotations

from pathlib import Path

from stylebatch.errors import ManifestError
from stylebatch.models.configs import read_json
from stylebatch.models.weights import NETWORKS, STEMS, stock_files

_SETTINGS = ("tokenizer", "tokenizer_2", "scheduler", *NETWORKS)


def snapshot(repo_id: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a hub id in the local cache. Parts without the variant are fetched plain. Raises ManifestError."""
    # By pattern: a repository often holds the same weights several times (fp16, pickled, single files).
    settings = [f"{part}/{name}" for part in _SETTINGS for name in ("*.json", "*.txt")]
    patterns = ["model_index.json", *settings, *_weights(NETWORKS, variant)]
    folder = _download(repo_id, revision, patterns)
    if variant is None:
        return folder
    # Only after the first download is it known which parts lack the variant.
    without = [
        part
        for part in NETWORKS
        if (folder / part).is_dir() and not stock_files(folder / part, part, variant)
    ]
    return _download(repo_id, revision, _weights(without, None)) if without else folder


def is_cached(repo_id: str, variant: str | None) -> bool:
    """Whether the local cache has the configs and weights of every network of a hub id. Asks no network."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(repo_id, local_files_only=True))
        named = read_json(folder / "model_index.json")
        parts = [part for part in NETWORKS if isinstance(named.get(part), list)]
        return all(
            (folder / part / "config.json").is_file()
            and (
                stock_files(folder / part, part, variant) or stock_files(folder / part, part, None)
            )
            for part in parts
        )
    # ManifestError: an index that names files which were not fetched
    except (LocalEntryNotFoundError, ManifestError, OSError, ValueError):
        return False


def _weights(parts: tuple[str, ...] | list[str], variant: str | None) -> list[str]:
    infix = f".{variant}" if variant else ""
    return [
        f"{part}/{STEMS.get(part, 'model')}{infix}{shard}.safetensors"
        for part in parts
        for shard in ("", "-?????-of-?????")
    ]


def _download(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=patterns)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no detail"])[0]
        raise ManifestError(
            f"model.id: {repo_id!r} (revision {revision or 'main'}) could not be fetched from the hub "
            f"({error.__class__.__name__}: {reason}). Accepted: an id that the hub serves to this machine, or a "
            f"local folder: on a machine with access run `hf download {repo_id} --local-dir FOLDER`, copy FOLDER "
            "here, and write `model: {path: FOLDER}`; or try `model: tiny`, which needs no download."
        ) from None
