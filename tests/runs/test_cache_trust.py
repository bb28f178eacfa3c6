"""Whatever lies in a cache's folder, a render gets the features of its own styles, or makes them again."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stylebatch.features.cache_index import MissingStyleError
from stylebatch.features.codecs import Codec, CodecName
from stylebatch.features.style_bank import StyleBank
from stylebatch.features.style_cache import StyleCache
from stylebatch.methods.styleid.features import Inverted
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.styleid import styleid
from tests.support.styles import PICTURES

Damage = Callable[[Path, Path], object]


class Bench:
    """Two styles in a cache, and what a render reads of them."""

    def __init__(
        self,
        model: StableDiffusion,
        root: str,
        local: Path | None = None,
        *,
        codec: CodecName = "x8",
    ) -> None:
        self.model, self.root, self.local = model, root, local
        self.codec = Codec(codec, "float32")
        self.expected = self.read(self.bank())

    def bank(self, model_name: str = "f", root: str | None = None) -> StyleBank:
        cache = StyleCache(root or self.root, local=self.local)
        return StyleBank(cache, self.codec, styleid(), self.model, model_fingerprint=model_name)

    def read(self, bank: StyleBank) -> list[torch.Tensor]:
        inverted = bank.inverted([bank.style(p.pixels, f"{i}.png") for i, p in enumerate(PICTURES[:2])])  # fmt: skip
        return [inverted.latent, *features(inverted, bank)]

    def check(self, what: object) -> int:
        """Assert that a new reader gets the right numbers, and leaves a whole cache; how many styles it made."""
        bank = self.bank()
        found = self.read(bank)
        same = [torch.equal(*both) for both in zip(found, self.expected, strict=True)]
        assert all(same), f"wrong numbers after {what}"
        return bank.num_built


def features(inverted: Inverted, bank: StyleBank) -> list[torch.Tensor]:
    path = bank.method.trajectory(bank.model)
    return [
        tensor
        for step in path.reverse
        for _, tensors in sorted(inverted.features.at(step.t).items())
        for _, tensor in sorted(tensors.items())
    ]


@pytest.fixture(scope="module")
def whole(eps_model: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the two styles."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    Bench(eps_model, str(folder))
    return folder


@pytest.fixture
def bench(eps_model: StableDiffusion, whole: Path, tmp_path: Path) -> Bench:
    return Bench(eps_model, str(shutil.copytree(whole, tmp_path / "cache")))


def fuzz(bench: Bench, flips: int) -> None:
    """Flip a bit of an index or a tar, `flips` times, each in a whole cache; some also lose their end."""
    folder, draw = Path(bench.root), random.Random(14)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = sorted(name for name in whole if not name.startswith("."))
    made = 0
    for _ in range(flips):
        name = draw.choice(names)
        data = bytearray(whole[name])
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        data[place] ^= 1 << bit
        (folder / name).write_bytes(data[: place + 1] if draw.random() < 0.1 else data)
        built = bench.check((name, place, bit))
        assert built == 0 or name.endswith(".tar"), "an index is made from its tar"
        made += built
        for path in folder.iterdir():
            path.unlink()
        for other, content in whole.items():
            (folder / other).write_bytes(content)
    assert made > flips / 10, "the flips met the tensors"


def test_flipped_bit_never_gives_wrong_features(bench: Bench) -> None:
    fuzz(bench, 15)


def test_flipped_bit_never_gives_wrong_latents(eps_model: StableDiffusion, tmp_path: Path) -> None:
    fuzz(Bench(eps_model, str(tmp_path / "cache"), codec="trajectory"), 15)


@pytest.mark.slow
def test_many_flipped_bits_never_give_wrong_features(bench: Bench) -> None:
    fuzz(bench, 200)


def exchange(one: Path, two: Path) -> None:
    spare = one.with_suffix(".spare")
    one.rename(spare), two.rename(one), spare.rename(two)


def edited(column: str, values: list[object]) -> Damage:
    """The index with other values in a column, written by Parquet with all metadata kept."""

    def damage(index: Path, _: Path) -> None:
        table = pq.read_table(index)
        place = table.schema.get_field_index(column)
        field = table.schema.field(place)
        cells = pa.array((values * len(table))[: len(table)], field.type)
        pq.write_table(table.set_column(place, field, cells), index)

    return damage


def rewritten(change: Callable[[list[tuple[str, bytes]], list[tuple[str, bytes]]], None]) -> Damage:
    """The first tar with other members, well-formed; its index is lost."""

    def damage(one: Path, two: Path) -> None:
        members = [read_members(path.with_suffix(".tar")) for path in (one, two)]
        change(*members)
        with tarfile.open(one.with_suffix(".tar"), "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in members[0]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        one.unlink()

    return damage


def read_members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(m.name, file.read()) for m in tar if (file := tar.extractfile(m)) is not None]


def rename_members(ours: list[tuple[str, bytes]], _: list[tuple[str, bytes]]) -> None:
    (a, one), (b, two) = ours[:2]
    ours[:2] = [(a, two), (b, one)]


def borrow_all_but_the_entry(ours: list[tuple[str, bytes]], theirs: list[tuple[str, bytes]]) -> None:  # fmt: skip
    ours[:] = [*theirs[:-1], ours[-1]]


def replaced(suffix: str, put: Callable[[Path], object]) -> Damage:
    def damage(one: Path, _: Path) -> None:
        path = one.with_suffix(suffix)
        path.unlink()
        put(path)

    return damage


def cut_at_a_member(one: Path, _: Path) -> None:
    path = one.with_suffix(".tar")
    with tarfile.open(path) as tar:
        place = list(tar)[2].offset
    path.write_bytes(path.read_bytes()[:place] + bytes(1024))


DAMAGES: dict[str, tuple[int, Damage]] = {
    "tars exchanged": (2, lambda a, b: exchange(a.with_suffix(".tar"), b.with_suffix(".tar"))),
    "indexes exchanged": (0, exchange),
    "both exchanged": (2, lambda a, b: [exchange(a.with_suffix(s), b.with_suffix(s)) for s in (".tar", ".parquet")]),
    "copied over": (1, lambda a, b: [shutil.copy(b.with_suffix(s), a.with_suffix(s)) for s in (".tar", ".parquet")]),
    "dtype edited": (0, edited("dtype", ["int32"])),
    "checksums edited": (0, edited("xxh3", [1])),
    "offsets edited": (0, edited("offset", [512, 1024])),
    "timesteps edited": (0, edited("timestep", [1, 2, 3])),
    "another program's table": (0, lambda a, _: pq.write_table(pa.table({"x": [1]}), a)),
    "index emptied": (0, lambda a, _: a.write_bytes(b"")),
    "index of text": (0, lambda a, _: a.write_text("see the other folder")),
    "tar emptied": (1, lambda a, _: a.with_suffix(".tar").write_bytes(b"")),
    "tar cut at a member": (1, cut_at_a_member),
    "tar cut, index lost": (1, lambda a, b: (cut_at_a_member(a, b), a.unlink())),
    "a member less": (1, rewritten(lambda ours, _: ours.pop(1))),
    "members renamed": (1, rewritten(rename_members)),
    "a member of the other": (1, rewritten(lambda ours, theirs: ours.__setitem__(1, theirs[1]))),
    "all but the entry of the other": (1, rewritten(borrow_all_but_the_entry)),
    "a member twice": (1, rewritten(lambda ours, _: ours.insert(1, ours[0]))),
    "pipe as index": (0, replaced(".parquet", os.mkfifo)),
    "pipe as tar": (1, replaced(".tar", os.mkfifo)),
    "folder as index": (0, replaced(".parquet", Path.mkdir)),
    "folder as tar": (1, replaced(".tar", Path.mkdir)),
    "link to itself as index": (0, replaced(".parquet", lambda p: p.symlink_to(p))),
    "link to itself as tar": (1, replaced(".tar", lambda p: p.symlink_to(p))),
    "link to nothing as tar": (1, replaced(".tar", lambda p: p.symlink_to("nowhere"))),
    "folders as both": (1, lambda a, b: [replaced(s, Path.mkdir)(a, b) for s in (".tar", ".parquet")]),
    "folder as tar, index lost": (1, lambda a, b: (replaced(".tar", Path.mkdir)(a, b), a.unlink())),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_files_of_a_cache_are_not_taken_at_their_word(bench: Bench, kind: str) -> None:
    made, damage = DAMAGES[kind]
    damage(*sorted(Path(bench.root).glob("*.parquet")))
    assert bench.check(kind) == made
    assert list(StyleCache(bench.root).verify()) == []


def test_style_of_another_model_under_this_key_is_made_again(bench: Bench, tmp_path: Path) -> None:
    other = bench.bank("another model", str(tmp_path / "other"))
    bench.read(other)
    ours, theirs = (sorted(folder.glob("*.parquet")) for folder in (Path(bench.root), other.cache.folder))  # fmt: skip
    for one, two in zip(ours, theirs, strict=True):
        for suffix in (".tar", ".parquet"):
            shutil.copy(two.with_suffix(suffix), one.with_suffix(suffix))
    assert bench.check("a copy") == 2


def test_remote_styles_are_not_taken_at_their_word(
    eps_model: StableDiffusion, tmp_path: Path
) -> None:
    root = f"memory://styles-{uuid4().hex}"
    bench = Bench(eps_model, root, tmp_path / "one")
    files, path = fsspec.core.url_to_fs(root)
    stems = sorted(name[:-4] for name in files.ls(path, detail=False) if name.endswith(".tar"))
    for suffixes, made in (((".tar",), 2), ((".parquet",), 0), ((".tar", ".parquet"), 2)):
        for suffix in suffixes:
            contents = [files.cat_file(stem + suffix) for stem in stems]
            for stem, data in zip(stems, reversed(contents), strict=True):
                files.pipe_file(stem + suffix, data)
        bench.local = tmp_path / f"copy of {suffixes}"
        assert bench.check(suffixes) == made
        assert list(StyleCache(root, local=bench.local).verify()) == []


def test_folder_in_the_place_of_a_file_is_kept(bench: Bench) -> None:
    """It may be somebody's: it is renamed, not removed."""
    index, _ = sorted(Path(bench.root).glob("*.parquet"))
    index.unlink()
    index.mkdir()
    (index / "notes.txt").write_text("mine")
    assert [f.repair for f in StyleCache(bench.root).verify(repair=True)] == ["rebuilt"]
    assert index.with_name(f"{index.stem}.damaged-1.parquet").joinpath("notes.txt").exists()
    with pytest.raises(MissingStyleError):
        StyleCache(bench.root).open("0" * 32)
