"""What a device was measured to do with a model: `stylebatch doctor MODEL` writes it, `stylebatch plan` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash
from pydantic import TypeAdapter, ValidationError

from stylebatch.errors import StorageError
from stylebatch.folder import Folder, Place

MAX_BYTES = 1 << 16
SUFFIX = ".profile.json"
MIN_SIZE = 8


@dataclass(frozen=True)
class Profile:
    """Seconds of one model on one device, for square pictures of `size` pixels.

    `row_s`: of a row of a network evaluation, by rows at once; `related_row_s`: where rows share attention with a reference
    (StyleAligned), those of all evaluations that go side by side; `encode_s`, `decode_s`: of a picture in the autoencoder;
    `sample_s`: of a sample outside both; `load_s`: of loading the model. `measured`: date, as 2026-01-31.
    """

    model: str
    fingerprint: str
    device: str
    name: str
    dtype: str
    threads: int
    size: int
    row_s: Mapping[int, float]
    related_row_s: Mapping[int, float]
    encode_s: float
    decode_s: float
    sample_s: float
    load_s: float
    measured: str

    @property
    def file(self) -> str:
        """A later profile of the same model, device, dtype, size and threads takes its place."""
        # by name too: a home may be shared by machines with other devices
        name = xxhash.xxh3_64_hexdigest(self.name.encode())[:8]
        parts = (self.fingerprint[:16], self.size, self.dtype, self.device, self.threads, name)
        return "-".join(map(str, parts)) + SUFFIX

    def row_seconds(self, batch: int, *, related: bool = False) -> float:
        """Of a row where `batch` rows are evaluated at once: those of the nearest number of rows that was measured."""
        measured = self.related_row_s if related else self.row_s
        return measured[min(measured, key=lambda rows: (abs(rows - batch), rows))]


_CHECKED = TypeAdapter(Profile)


def profiles_folder() -> str:
    """Where the profiles of this user's machine lie."""
    return str(Path.home() / ".cache" / "stylebatch" / "profiles")


def save_profile(place: Place, profile: Profile) -> None:
    """Write a profile. Raises StorageError."""
    text = json.dumps(asdict(profile), indent=1)
    Folder.at(place).write(profile.file, text.encode())


def find_profile(
    place: Place, fingerprint: str, size: int, *, device: str = "", dtype: str = ""
) -> Profile | None:
    """The profile of a model that was measured nearest to `size`, of several the last; None where there is none.

    `device`, `dtype`: kind of device and numbers of the network; of any without. Files that are no profiles are passed over: they
    are a convenience, and no reason to fail a plan.
    """
    folder = Folder.at(place)
    try:
        names = [name for name in folder.names() if name.startswith(fingerprint[:16])]
        found = [_read(folder, name) for name in names if name.endswith(SUFFIX)]
    except (StorageError, OSError):
        return None
    profiles = [
        one
        for one in found
        if one is not None
        and one.fingerprint == fingerprint
        and device in ("", one.device)
        and dtype in ("", "auto", one.dtype)
    ]
    # ISO dates sort as texts
    profiles.sort(key=lambda one: one.measured, reverse=True)
    return min(profiles, key=lambda one: abs(one.size - size), default=None)


def _read(folder: Folder, name: str) -> Profile | None:
    try:
        data: Any = json.loads(folder.read(name, MAX_BYTES))
        found = _CHECKED.validate_python(data)
    except (StorageError, OSError, ValueError, ValidationError):
        return None
    of_rows = (found.row_s, found.related_row_s)
    times = (
        *(s for one in of_rows for s in one.values()),
        found.encode_s,
        found.decode_s,
        found.sample_s,
        found.load_s,
    )
    # an edited file must not make a plan say minus one hour, nor stop it
    is_sane = found.size >= MIN_SIZE and all(rows > 0 for one in of_rows for rows in one)
    is_sane &= all(0.0 <= time < 1e6 for time in times) and all(
        any(one.values()) for one in of_rows
    )
    return found if is_sane else None
