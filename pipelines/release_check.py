"""Proves a release: builds it, looks at what it holds, installs the wheel in a fresh environment and renders the demo there.

    make release-check                                  (ten minutes on 2 cores, half of it installing)
    python -m pipelines.release_check --python python3.13 --steps 5

Every check is a line; the exit code is 1 if one failed. Needs the package registry, and the extra `dev`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
BESIDE = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "MANIFEST.in"}  # fmt: skip
"""Files of the source distribution beside the package."""
MADE = {"PKG-INFO", "setup.cfg"}
OURS = {".py", ".json", ".md", ".yaml", ".html", ".css", ".js", ".csv", ".typed", ""}
"""Suffixes of what is written here and under our licence; of all else a card says whose it is."""
CARDS = ("SOURCES.md", "MODEL_CARD.md")
FREE = re.compile(r"\b(CC0|public[- ]domain|CC-BY-\d|Apache-2\.0|MIT|BSD|OFL-1\.1)", re.IGNORECASE)


def tracked(root: Path) -> set[str]:
    """The files of the package that are under version control."""
    command = ["git", "-C", str(root), "ls-files", "stylebatch"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(told.splitlines())


def sdist_faults(names: Iterable[str], package: set[str]) -> Iterator[str]:
    """What a source distribution has too much or too little; `names`: without its first folder."""
    found = {name for name in names if not name.startswith("stylebatch.egg-info/")}
    yield from (f"lacks {name}" for name in sorted((package | BESIDE) - found))
    yield from (f"holds {name}" for name in sorted(found - package - BESIDE - MADE))


def wheel_faults(names: Iterable[str], package: set[str]) -> Iterator[str]:
    """As `sdist_faults`, of a wheel: the package, and what installers need."""
    found = set(names)
    of_installers = {name for name in found if ".dist-info/" in name}
    yield from (f"lacks {name}" for name in sorted(package - found))
    yield from (f"holds {name}" for name in sorted(found - package - of_installers))
    ends = {name.partition(".dist-info/")[2] for name in of_installers}
    yield from (
        f"lacks {name} of its metadata"
        for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")
        if name not in ends
    )


def licence_faults(package: Iterable[str], read: Mapping[str, str]) -> Iterator[str]:
    """Shipped pictures, weights and fonts that no card names with a free licence, and lines of cards for nothing.

    `read`: text of the cards by name. A card stands in the file's folder or above: SOURCES.md has a row for each file,
    MODEL_CARD.md one for each part, under the licence at its head.
    """
    names = set(package)
    rows = {card: dict(_rows(text)) for card, text in read.items()}
    for name in sorted(names):
        if PurePosixPath(name).suffix in OURS:
            continue
        card = next(iter(_cards(name, rows)), None)
        if card is None:
            yield f"{name}: no card"
            continue
        below = PurePosixPath(name).relative_to(PurePosixPath(card).parent)
        is_part = card.endswith("MODEL_CARD.md")
        row = rows[card].get(below.parts[0] if is_part else str(below))
        if row is None:
            yield f"{name}: {card} has no line for it"
        elif not FREE.search(_head(read[card]) if is_part else row):
            yield f"{name}: {card} tells no free licence"
    for card, named in rows.items():
        folder = PurePosixPath(card).parent
        if card.endswith("SOURCES.md"):
            gone = [one for one in named if str(folder / one) not in names]
            yield from (f"{card}: a line for {one}, which is not there" for one in gone)


def _cards(name: str, rows: Mapping[str, object]) -> Iterator[str]:
    for folder in PurePosixPath(name).parents:
        yield from (card for one in CARDS if (card := str(folder / one)) in rows)


def _rows(text: str) -> Iterator[tuple[str, str]]:
    """First cell and last cell of the rows of Markdown tables, heads left out."""
    table = re.compile(r"^\| *`?([^|`]+?)`? *\|(.*)\| *$")
    lines = text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        found = table.match(line)
        if found and not set(found[1]) <= set("-: ") and not re.match(r"^\|[-| :]+$", after):
            yield found[1], found[2].rpartition("|")[2].strip()


def _head(text: str) -> str:
    return text.split("---")[1] if text.startswith("---") else ""


def changelog_faults(text: str, version: str, *, final: bool) -> Iterator[str]:
    """What the changelog lacks for `version`: an entry that says something; until it is `final`, under Unreleased."""
    entries = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    of_version = [one for one in entries if re.match(rf"\[?v?{re.escape(version)}\b(?!\.)", one)]
    found = of_version or [one for one in entries if one.lower().startswith("unreleased")]
    if not of_version and (final or not found):
        yield f"no heading `## {version}`"
    yield from (f"nothing under `## {one.splitlines()[0]}`" for one in found if "- " not in one)


def _environment() -> dict[str, str]:
    """Without what would lead Python back to this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"OMP_WAIT_POLICY": "PASSIVE"}


def _call(*words: str | Path, cwd: Path) -> str:
    """What a command prints. Raises RuntimeError with its messages where it fails."""
    done = subprocess.run(
        [str(one) for one in words],
        cwd=cwd, env=_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def _archives(dist: Path, package: set[str], version: str) -> Iterator[tuple[str, list[str]]]:
    """Builds both; checks of what they hold."""
    shutil.rmtree(dist, ignore_errors=True)
    _call(
        sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=ROOT
    )  # the wheel from the sdist
    (source,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(source) as tar:
        names = [one.name.partition("/")[2] for one in tar.getmembers() if one.isfile()]
    yield f"{source.name}, {source.stat().st_size / 1e6:.1f} MB", list(sdist_faults(names, package))
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
        (facts,) = (one for one in held if one.endswith(".dist-info/METADATA"))
        told = Metadata.from_email(archive.read(facts), validate=True)
    yield f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", list(wheel_faults(held, package))
    yield "its version", [] if str(told.version) == version else [f"found {told.version}"]


def _installed(
    dist: Path, here: Path, options: argparse.Namespace
) -> Iterator[tuple[str, list[str]]]:
    """Checks of the wheel in an environment of its own, in the folder `here`."""
    (wheel,) = dist.glob("*.whl")
    _call(options.python, "-m", "venv", here / "venv", cwd=here)
    programs, started = here / "venv/bin", time.monotonic()
    constraints = ["-c", options.constraints] if options.constraints else []
    _call(programs / "pip", "install", "--quiet", *constraints, wheel, cwd=here)
    size = sum(one.stat().st_size for one in (here / "venv").rglob("*") if one.is_file() and not one.is_symlink())  # fmt: skip
    count = len(_call(programs / "pip", "list", "--format", "freeze", cwd=here).split())
    seconds = time.monotonic() - started
    yield f"installed in {seconds:.0f} s: {count} packages, {size / 1e6:,.0f} MB", []
    yield "requirements agree", _call(programs / "pip", "check", cwd=here).count("requires") * ["see pip check"]  # fmt: skip
    steps = ["--set", f"method.steps={options.steps}"] if options.steps else []
    started = time.monotonic()
    told = _call(programs / "stylebatch", "demo", *steps, cwd=here)
    (device,) = re.findall(r"^device: .*$", told, re.MULTILINE)
    yield (
        f"demo in {time.monotonic() - started:.0f} s on {device}",
        [] if "36 of 36" in told else [told],
    )
    _call(programs / "stylebatch", "verify", "outputs/demo", cwd=here)
    yield "its output verifies", []


def main() -> int:
    """Run all checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the fresh environment"
    )
    parser.add_argument(
        "--constraints", default=str(ROOT / "constraints.txt"), help="'' for the newest versions"
    )
    parser.add_argument("--steps", type=int, help="of the demo; default its own 50")
    parser.add_argument("--final", action="store_true", help="the changelog must name the version")
    options = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    package, failed = tracked(ROOT), 0

    def checks() -> Iterator[tuple[str, list[str]]]:
        cards = {one: (ROOT / one).read_text("utf-8") for one in package if one.endswith(CARDS)}
        yield "licences of shipped data", list(licence_faults(package, cards))
        changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
        yield "changelog", list(changelog_faults(changelog, version, final=options.final))
        yield from _archives(ROOT / "dist", package, version)
        with tempfile.TemporaryDirectory(prefix="stylebatch-release-") as here:
            yield from _installed(ROOT / "dist", Path(here), options)

    try:
        for name, faults in checks():
            print(
                f"{'FAILED' if faults else 'ok    '}  {name}", *faults, sep="\n        ", flush=True
            )
            failed += bool(faults)
    except RuntimeError as error:
        print(f"FAILED  {error}")
        failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
