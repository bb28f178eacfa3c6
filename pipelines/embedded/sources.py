"""The freely licensed pictures of the embedded model's training and of the demo.

Every function below reads one package and the place where it states licences. A picture is used only if its licence is public
domain, CC0 or CC-BY; pictures of the demo are held out of training by name.
"""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from pipelines.embedded.packages import (
    is_clean,
    licence_of,
    read_copyright,
    read_notes,
    read_qt_resource,
)

DEBIAN = (
    "gcompris-qt-data",
    "endless-sky-data",
    "lomiri-wallpapers-16.04",
    "opencv-doc",
    "openclipart-png",
    "supertuxkart-data",
)


@dataclass(frozen=True)
class Picture:
    """One picture with its origin, author, licence and caption."""

    name: str
    package: str
    path: str
    author: str
    licence: str
    kind: str
    caption: str
    payload: bytes

    def image(self) -> Image.Image:
        """Decode to RGB, transparency over white."""
        picture = Image.open(io.BytesIO(self.payload))
        rgba = picture.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, "white")
        paper.alpha_composite(rgba)
        return paper.convert("RGB")


DEMO_CONTENTS = {
    ("scikit-image", "skimage/data/chelsea.png"): "animal/cat",
    ("gcompris-qt-data", "explore_world_animals/resource/animals/scarlet_macaw.webp"): (
        "animal/macaw"
    ),
    ("scikit-image", "skimage/data/astronaut.png"): "person/astronaut",
    (
        "gcompris-qt-data",
        "explore_monuments/resource/germany/neuschwansteinCastle.webp",
    ): "building/castle",
    ("lomiri-wallpapers-16.04", "picosdeeuropa_by_Aitzol_Berasategi.jpg"): "landscape/mountains",
    ("scikit-image", "skimage/data/coffee.png"): "object/coffee",
}
DEMO_STYLES = {
    ("opencv-doc", "data/starry_night.jpg"): "starry_night",
    ("gcompris-qt-data", "details/resource/image/Van_Gogh_The_Night_Cafe_background.webp"): (
        "night_cafe"
    ),
    ("gcompris-qt-data", "details/resource/image/VincentVanGoghBridge_background.webp"): (
        "langlois_bridge"
    ),
    ("supertuxkart-data", "tracks/endcutscene/carpet.jpg"): "carpet",
    ("supertuxkart-data", "textures/rockwaterfall.jpg"): "cracked_rock",
    ("openclipart-png", "recreation/holiday/fireworks_ganson2.png"): "fireworks",
}

SPARE = (
    ("scikit-learn", "sklearn/datasets/images/china.jpg"),
    ("scikit-learn", "sklearn/datasets/images/flower.jpg"),
    ("supertuxkart-data", "tracks/black_forest/forest_floor.jpg"),
    ("openclipart-png", "plants/sun_flower_ganson.png"),
)
HELD_OUT = frozenset((*DEMO_CONTENTS, *DEMO_STYLES, *SPARE))
"""Never used in training: the demo, and four spare pictures for further checks."""


def fetch(root: Path, packages: Sequence[str] = DEBIAN) -> None:
    """Download and unpack Debian packages below ``root``; no administrator rights needed."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if (root / package).exists():
            continue
        subprocess.run(["apt-get", "download", package], cwd=root, check=True)
        (archive,) = root.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(root / package)], check=True)


def words(stem: str) -> str:
    """Turn a file stem such as ``greatWall2`` into ``great wall``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    return " ".join(re.sub(r"[^A-Za-z]+", " ", spaced).lower().split())


def _gcompris(root: Path) -> Iterator[Picture]:
    """Photographs and Van Gogh paintings; licences from the notes beside the files."""
    folder = root / "gcompris-qt-data/usr/share/gcompris-qt/rcc"
    for archive in sorted(folder.glob("*.rcc")):
        items = dict(read_qt_resource(archive))
        for note in (path for path in items if path.endswith("README")):
            base = note.rsplit("/", 1)[0]
            for name, stanza in read_notes(items[note].decode(errors="replace")).items():
                path = f"{base}/{name}"
                short = path.split("activities/")[-1]
                # cut-out animals and details of paintings: not whole pictures
                sprite = "clickgame" in path and not Path(name).stem.startswith("sea")
                detail = "/details/" in path and "background" not in name
                if path not in items or not is_clean(stanza.licence) or sprite or detail:
                    continue
                painting = "Van Gogh" in stanza.comment
                subject = words(Path(name).stem)
                yield Picture(
                    name=Path(short).stem + "_" + short.split("/")[-2],
                    package="gcompris-qt-data",
                    path=short,
                    author="Vincent van Gogh" if painting else stanza.author,
                    licence=stanza.licence,
                    kind="painting" if painting else "photo",
                    caption="a painting in the style of van gogh"
                    if painting
                    else f"a photo of {subject}",
                    payload=items[path],
                )


def _endless_sky(root: Path) -> Iterator[Picture]:
    """Landscapes; files that carry an author's handle are share-alike and left out."""
    package = root / "endless-sky-data"
    stanzas = read_copyright(package / "usr/share/doc/endless-sky-data/copyright")
    base = package / "usr/share/games/endless-sky"
    for folder in ("images/land", "images/scene"):
        for file in sorted((base / folder).glob("*.jpg")):
            path = str(file.relative_to(base))
            stanza = licence_of(stanzas, path)
            if stanza is None or not is_clean(stanza.licence) or "-" in file.stem:
                continue
            yield Picture(
                name=f"{file.stem}_{folder[7:]}",
                package="endless-sky-data",
                path=path,
                author=stanza.author,
                licence=stanza.licence,
                kind="photo",
                caption=f"a photo of {words(file.stem)}",
                payload=file.read_bytes(),
            )


def _lomiri(root: Path) -> Iterator[Picture]:
    package = root / "lomiri-wallpapers-16.04"
    stanzas = read_copyright(package / "usr/share/doc/lomiri-wallpapers-16.04/copyright")
    for file in sorted((package / "usr/share/backgrounds").glob("*.jpg")):
        stanza = licence_of(stanzas, f"16.04/{file.name}")
        if stanza is not None and is_clean(stanza.licence):
            subject = words(file.stem.split("_by_")[0])
            yield Picture(
                name=words(file.stem).replace(" ", "_"),
                package="lomiri-wallpapers-16.04",
                path=file.name,
                author=stanza.author,
                licence=stanza.licence,
                kind="photo",
                caption=f"a photo of {subject}",
                payload=file.read_bytes(),
            )


def _supertuxkart(root: Path) -> Iterator[Picture]:
    """Surface textures: opaque, at least 256 px, not maps of normals or gloss."""
    package = root / "supertuxkart-data"
    stanzas = read_copyright(package / "usr/share/doc/supertuxkart-data/copyright")
    base = package / "usr/share/games/supertuxkart"
    sheets = re.compile(
        r"nm|nrm|normal|gloss|mask|alpha|shadow|screenshot|antlers|astro|leaves\.|stktex|tree|Fudji"
        r"|roadRound|towel|door|wall1b",
        re.I,
    )
    for file in sorted([*(base / "data/textures").glob("*"), *(base / "data/tracks").rglob("*")]):
        if file.suffix not in (".jpg", ".png") or sheets.search(file.name):
            continue
        stanza = licence_of(stanzas, str(file.relative_to(base)))
        if stanza is None or not is_clean(stanza.licence):
            continue
        # transparent ones are sprites and decals
        with Image.open(file) as picture:
            if picture.mode != "RGB" or min(picture.size) < 256:
                continue
        yield Picture(
            name=f"{file.stem}_{file.parent.name}",
            package="supertuxkart-data",
            path=str(file.relative_to(base / "data")),
            author=stanza.author,
            licence=stanza.licence,
            kind="texture",
            caption=f"a texture of {words(file.stem)}",
            payload=file.read_bytes(),
        )


def _openclipart(root: Path, every: int = 24) -> Iterator[Picture]:
    """A thin sample of public-domain drawings, and the two that the demo shows."""
    base = root / "openclipart-png/usr/share/openclipart/png"
    topics = ("animals", "plants", "food", "buildings", "transportation", "recreation")
    files = [f for topic in topics for f in sorted((base / topic).rglob("*.png"))]
    wanted = {path for package, path in HELD_OUT if package == "openclipart-png"}
    for index, file in enumerate(files):
        path = str(file.relative_to(base))
        # drawings that resemble the two of the demo
        twin = "firework" in path or "sun_flower" in path
        if path not in wanted and (index % every or twin):
            continue
        yield Picture(
            name=f"clip_{file.stem}"[:40],
            package="openclipart-png",
            path=path,
            author="see the text file beside the picture",
            licence="public-domain",
            kind="drawing",
            caption=f"a drawing of {words(file.stem)}"[:40],
            payload=file.read_bytes(),
        )


def _python_packages(_: Path) -> Iterator[Picture]:
    """Sample pictures of scikit-image and scikit-learn; licences as in their documentation. Raises ModuleNotFoundError."""
    nasa, skimage, sklearn = "NASA", "scikit-image", "scikit-learn"
    rows = (
        (skimage, "skimage/data/chelsea.png", "Stefan van der Walt", "CC0", "photo", "cat"),
        (skimage, "skimage/data/coffee.png", "Rachel Michetti", "CC0", "photo", "coffee"),
        (skimage, "skimage/data/astronaut.png", nasa, "public-domain", "photo", "astronaut"),
        (skimage, "skimage/data/rocket.jpg", "SpaceX", "public-domain", "photo", "rocket"),
        (skimage, "skimage/data/hubble_deep_field.jpg", nasa, "public-domain", "photo", "stars"),
        (skimage, "skimage/data/brick.png", "CC0Textures", "CC0", "texture", "brick"),
        (skimage, "skimage/data/grass.png", "linolafett", "CC0", "texture", "grass"),
        (skimage, "skimage/data/gravel.png", "CC0Textures", "CC0", "texture", "gravel"),
        (sklearn, "sklearn/datasets/images/china.jpg", "danielbuechele", "CC-BY-2.0", "photo", ""),
        (sklearn, "sklearn/datasets/images/flower.jpg", "vultilion", "CC-BY-2.0", "photo", ""),
    )
    for package, path, author, licence, kind, subject in rows:
        spec = find_spec(path.split("/")[0])
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"{package}: not installed, and {path} comes with it. Next: pip install -e '.[lab]'"
            )
        file = Path(spec.origin).parent.parent / path
        caption = f"a {kind} of {subject or file.stem}"
        yield Picture(
            f"{file.stem}_{package}", package, path, author, licence, kind, caption,
            file.read_bytes(),
        )  # fmt: skip


def pictures_of(root: Path, packages: Sequence[str]) -> Iterator[Picture]:
    """Pictures of some of the Debian packages, without those of the demo. Raises KeyError for a package that has no rule."""
    rules = {
        "gcompris-qt-data": _gcompris,
        "endless-sky-data": _endless_sky,
        "lomiri-wallpapers-16.04": _lomiri,
        "supertuxkart-data": _supertuxkart,
        "openclipart-png": _openclipart,
    }
    for package in packages:
        yield from (one for one in rules[package](root) if (package, one.path) not in HELD_OUT)


def pictures(root: Path) -> Iterator[Picture]:
    """Every picture of every source, those of the demo included."""
    opencv = root / "opencv-doc/usr/share/doc/opencv-doc/examples/data/starry_night.jpg"
    yield Picture(
        "starry_night", "opencv-doc", "data/starry_night.jpg", "Vincent van Gogh (1889)",
        "public-domain", "painting", "a painting in the style of van gogh", opencv.read_bytes(),
    )  # fmt: skip
    for rule in (
        _gcompris, _endless_sky, _lomiri, _supertuxkart, _openclipart, _python_packages,
    ):  # fmt: skip
        yield from rule(root)
