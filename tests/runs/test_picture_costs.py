"""What pictures may cost: memory, time, and files that are none."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from stylebatch import RunSpec, run
from stylebatch.data.images import load_picture
from stylebatch.data.pictures.decoding import decode
from stylebatch.data.pictures.icc import gray_profile
from stylebatch.errors import SampleError
from stylebatch.progress import Event, Progress
from tests.support.encodings import COLOURS, P3, chunk, encoded, tiff


def icon_of(png: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(png), 22) + png


def test_pictures_that_cost_too_much_are_refused_by_their_headers() -> None:
    """Within the bound of pixels, beyond that of bytes: tiles as large as a city, an icon inside an icon."""
    plain = ((258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1))
    tiles = ((322, 4, 1, 65536), (323, 4, 1, 65536), (324, 4, 1, 8), (325, 4, 1, 9))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 13000, 13000, 8, 6, 0, 0, 0))
    huge = {
        "tiles": tiff((256, 4, 1, 40), (257, 4, 1, 40), *plain, *tiles),
        "sides": tiff(
            (256, 4, 1, 2**31), (257, 4, 1, 2**31), *plain, (273, 4, 1, 8), (279, 4, 1, 9)
        ),
        "icon": icon_of(b"\x89PNG\r\n\x1a\n" + header + bytes(40)),
    }
    for name, data in huge.items():
        with pytest.raises(SampleError) as caught:
            decode(data, name)
        assert caught.value.code == "too_large", name


@pytest.mark.slow
def test_large_pictures_of_several_threads_stay_within_the_bound_of_one(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from PIL import Image
        from stylebatch.data.images import load_picture
        def peak():
            return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) / 1e6
        with ThreadPoolExecutor(4) as pool:
            shown = list(pool.map(lambda path: load_picture(path, 64).pixels, sys.argv[1:]))
        for pixels in shown:
            assert 100 < pixels.mean() < 160, pixels.mean()
        assert peak() < 1.5, peak()
    """
    Image.new("F", (13000, 13000), 0.5).save(tmp_path / "a.tif", compression="tiff_deflate")
    Image.new("RGB", (13300, 13000), (128, 128, 128)).save(tmp_path / "b.jpg")
    Image.new("LA", (11000, 11000), (128, 255)).save(tmp_path / "c.png", compress_level=1)
    Image.new("RGB", (12000, 12000), (128, 128, 128)).save(tmp_path / "d.jpg", progressive=True)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)


def test_pipes_devices_and_folders_named_as_pictures_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe", "zero", "loop", "folder"):
        with pytest.raises(SampleError, match=f"{name}.png: ") as caught:
            load_picture(tmp_path / f"{name}.png", 32)
        assert caught.value.code == "decode"


def test_a_read_that_never_ends_does_not_keep_the_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code = """if True:
        import os, signal, sys, threading
        from stylebatch.engine.decoders import Decoders
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with Decoders(2) as decoders:
            waiting = [decoders.submit(lambda: open(sys.argv[1]).read()) for _ in range(5)]
            waiting[-1].result()
    """
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "pipe")], timeout=60)
    assert ended.returncode == 143


class Listening(Progress):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def event(self, event: Event) -> None:
        self.told.append(event.text)


def test_a_run_tells_each_note_about_pictures_once_and_keeps_it_in_its_stats(
    tmp_path: Path,
) -> None:
    for folder, number in (("contents", 2), ("styles", 1)):
        (tmp_path / folder).mkdir()
        for i in range(number):
            data = encoded(COLOURS, icc_profile=gray_profile(1.0) if folder == "styles" else P3)
            (tmp_path / folder / f"{i}.png").write_bytes(data)
    spec = RunSpec.model_validate(
        {
            "contents": {"path": str(tmp_path / "contents")},
            "styles": {"path": str(tmp_path / "styles")},
            "image": {"size": 32},
            "method": {"name": "styleid", "steps": 2},
            "output": {"path": str(tmp_path / "out"), "shard_size": 1},
        }
    )
    listening = Listening()
    run(spec, progress=listening)
    assert len([text for text in listening.told if "colour profile" in text]) == 1
    stats = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("*_stats.json")]
    assert stats
    assert all("0.png: its colour profile is not used" in one["notes"][0] for one in stats)


def test_only_listed_formats_are_opened_and_no_program_is_started(tmp_path: Path) -> None:
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    script.chmod(0o755)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n%%EndComments\nshowpage\n"
    for number, data in enumerate(
        (postscript, b"\xd7\xcd\xc6\x9a" + bytes(60), b"SIMPLE  = T".ljust(2880))
    ):
        (tmp_path / f"{number}.png").write_bytes(data)
    code = """if True:
        import sys
        from stylebatch.data.images import load_picture
        from stylebatch.errors import SampleError
        for path in sys.argv[1:]:
            try:
                load_picture(path, 32)
            except SampleError as error:
                assert error.code == "decode" and "accepted: JPEG, PNG" in str(error), error
            else:
                raise SystemExit(path)
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    paths = [str(path) for path in tmp_path.glob("*.png")]
    subprocess.run([sys.executable, "-c", code, *paths], env=environment, check=True)
    assert not (tmp_path / "started").exists()
