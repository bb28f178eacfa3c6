"""`stylebatch init`: proposes a manifest, shows its plan, and writes the file last, so that a refusal leaves nothing behind."""

from __future__ import annotations

import shlex
from pathlib import Path

from stylebatch.cli.messages import print_problem
from stylebatch.cli.planned import Bounds, tell
from stylebatch.doctor.machine import devices
from stylebatch.documents import parse
from stylebatch.errors import ManifestError
from stylebatch.local_files import create_exclusive, write_bytes
from stylebatch.manifest import spec_of
from stylebatch.survey.manifest_text import manifest_text
from stylebatch.survey.proposal import drafted
from stylebatch.survey.roles import Places
from stylebatch.survey.wishes import Wishes

TAIL = "Every other field has a default, and `stylebatch schema` prints all with what they accept. Often wanted:"
OF_PAIRS = (
    "features: {cache: style_cache}        # styles are inverted once, for later runs too",
    "method: {name: styleid, gamma: 0.5}   # less of the content, more of the style; preset: fast takes 16 steps",
    'gates: {reject: "structure < 0.3"}    # keeps bad pictures out (docs/quality.md)',
)
OF_PROMPTS = (
    "method: {name: NAME, guidance: 5, steps: 20}   # guidance: how much the prompt counts",
    "model: {name: sd15, lora: [{path: FILE}]}      # LoRA weights on top (docs/models.md)",
)


def write_manifest(places: Places, wishes: Wishes, *, force: bool, dry_run: bool = False) -> None:
    """`dry_run`: show it. Raises ManifestError for what no run could be made of, and what a run of the manifest would raise."""
    draft = drafted(places, wishes, devices())
    file = shlex.quote(wishes.manifest)
    head = (
        "Written by `stylebatch init`. Inputs are relative to this file, the output to the working directory.",
        f"  stylebatch plan {file}  (what a run would do)",
        f"  stylebatch run {file} --limit 8  (a preview)",
        f"  stylebatch run {file}  (all of it)",
    )
    text = manifest_text(
        draft.data,
        draft.comments,
        head,
        (TAIL, *(OF_PROMPTS if "prompts" in draft.data else OF_PAIRS)),
    )
    for reason in places.reasons:
        print(reason)
    for doubt in draft.doubts:
        print_problem(doubt, as_json=False)
    tell(spec_of(parse(text), wishes.manifest), Bounds(None, None, None))
    path = Path(wishes.manifest)
    if dry_run:
        print(f"would write {path}:\n\n{text}")
        return
    if force:
        write_bytes(path, text.encode())
    elif not create_exclusive(path, text.encode()):
        raise ManifestError(
            f"{path}: somebody made it meanwhile; accepted: a new file. Next: name another one with --manifest FILE"
        )
    print(f"wrote {path}. Next: stylebatch run {file}, or a preview of it: --limit 8")
