"""Checks this machine: interpreter, libraries (installed, tested, required), devices, threads, disk, Ray."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.version import Version

from stylebatch.doctor.findings import Finding, note, problem
from stylebatch.doctor.machine import Device, devices
from stylebatch.usable_cores import usable_cores

TESTED: dict[str, str] = {
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "accelerate": "1.15.0",
    "safetensors": "0.8.0",
    "tokenizers": "0.23.3",
    "huggingface_hub": "2.4.0",
    "pyarrow": "26.0.1",
    "fsspec": "2026.9.0",
    "pillow": "13.0.0",
    "numpy": "2.4.6",
    "pydantic": "2.14.3",
    "ray": "2.60.0",
    "webdataset": "1.0.2",
}
"""Versions that the suite was run with."""
OPTIONAL = ("ray", "webdataset")
"""Libraries that a run on one device does without."""
SMALL_DISK = 5 * 10**9


@dataclass(frozen=True)
class Library:
    """A library: its version here ("" if missing), the version that was tested, and the range that the package requires."""

    name: str
    installed: str
    tested: str
    required: str


@dataclass(frozen=True)
class DiskSpace:
    """A folder that runs write to or read from, and bytes free there."""

    use: str
    path: str
    free_bytes: int


@dataclass(frozen=True)
class Environment:
    """What `stylebatch doctor` reports without a model."""

    stylebatch: str
    python: str
    system: str
    libraries: tuple[Library, ...]
    devices: tuple[Device, ...]
    threads: int
    ray: str
    places: tuple[DiskSpace, ...]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        return all(finding.level != "problem" for finding in self.findings)


def inspect_machine(variables: Mapping[str, str]) -> Environment:
    """The environment of this process; `variables`: those of the shell."""
    libraries, found = tuple(_libraries()), tuple(devices())
    places = tuple(_places(variables))
    threads = torch.get_num_threads()
    address = variables.get("RAY_ADDRESS")
    ray = f"joins {address} (RAY_ADDRESS)" if address else "starts its own on this machine"
    if not _installed("ray"):
        ray = "not installed; several GPUs or machines: pip install 'stylebatch[ray]'"
    return Environment(
        _installed("stylebatch") or "not installed (run from a checkout)",
        platform.python_version(),
        platform.platform(),
        libraries,
        found,
        threads,
        ray,
        places,
        tuple(
            [
                *_check_libraries(libraries),
                *_check_threads(threads),
                *_check_devices(found),
                *_check_places(places),
            ]
        ),
    )


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _libraries() -> Iterator[Library]:
    try:
        requirements = [Requirement(line) for line in requires("stylebatch") or ()]
    except PackageNotFoundError:
        requirements = []
    ranges = {
        one.name.lower().replace("-", "_"): str(one.specifier)
        for one in requirements
        # those of extras have a marker, under which an optional library still has its range
        if one.marker is None or one.name in OPTIONAL
    }
    for name, tested in TESTED.items():
        yield Library(name, _installed(name), tested, ranges.get(name, ""))


def _check_libraries(libraries: tuple[Library, ...]) -> Iterator[Finding]:
    for library in libraries:
        requirement = f"{library.name}{library.required}"
        if not library.installed and library.name in OPTIONAL:
            continue
        if not library.installed:
            yield problem(f"{library.name} is missing", f"pip install '{requirement}'")
        # The base version, since torch adds its build (2.13.0+cu126), which no range with == or <= contains.
        elif library.required and not Requirement(requirement).specifier.contains(
            Version(library.installed).base_version, prereleases=True
        ):
            yield problem(
                f"{library.name} {library.installed} is outside {library.required}",
                f"pip install '{requirement}'",
            )
        elif Version(library.installed).base_version != library.tested:
            yield note(
                f"{library.name} {library.installed}; {library.tested} was tested",
                f"if something fails, pip install {library.name}=={library.tested}",
            )


def _check_threads(threads: int) -> Iterator[Finding]:
    cores = usable_cores()
    if threads > cores:
        yield note(
            f"torch uses {threads} threads on {cores} usable cores",
            f"OMP_NUM_THREADS={cores}, or engine.threads in the manifest",
        )


def _check_devices(found: tuple[Device, ...]) -> Iterator[Finding]:
    if torch.version.cuda is not None and not any(device.kind == "cuda" for device in found):
        yield note(
            f"torch is built for CUDA {torch.version.cuda} and sees no GPU",
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES if there is one",
        )


def _places(variables: Mapping[str, str]) -> Iterator[DiskSpace]:
    home = Path(variables.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(variables.get("HF_HUB_CACHE") or home / "hub")
    offline = " (offline: HF_HUB_OFFLINE)" if variables.get("HF_HUB_OFFLINE") == "1" else ""
    for use, path in (
        ("outputs", Path.cwd()),
        ("temporary files", Path(tempfile.gettempdir())),
        (f"hub cache{offline}", hub),
    ):
        # disk_usage raises for a folder that does not exist yet, as a hub cache before the first download.
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        yield DiskSpace(use, str(path), shutil.disk_usage(there).free)


def _check_places(places: tuple[DiskSpace, ...]) -> Iterator[Finding]:
    for place in places:
        if place.free_bytes < SMALL_DISK:
            yield note(
                f"{place.use}: {place.free_bytes / 1e9:.1f} GB free at {place.path}",
                "`stylebatch plan` says how much a run writes; output.path may lie on another disk",
            )
