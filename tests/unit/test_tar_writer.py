"""Tars of samples: the bytes of webdataset's own writer."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.writer import TarWriter as Reference

from stylebatch.store.sinks.tar_writer import TarWriter

FILES = st.dictionaries(
    st.sampled_from(["jpg", "json", "cls", "txt", "content.jpg", "segmentation.png"]),
    st.binary(max_size=40) | st.integers(500, 1600).map(bytes),
    min_size=1,
)


@given(st.lists(FILES, max_size=25))
def test_bytes_are_those_of_webdataset(samples: list[dict[str, bytes]]) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = TarWriter(ours)
    reference = Reference(theirs, user="", group="", mode=0o644, mtime=0.0, encoder=False)
    for index, files in enumerate(samples):
        writer.write(f"{index:09d}", files)
        reference.write({"__key__": f"{index:09d}", **files})
    writer.close()
    reference.close()
    assert ours.getvalue() == theirs.getvalue()


def test_a_name_too_long_for_a_header_is_not_cut() -> None:
    with pytest.raises(AssertionError, match="too long"):
        TarWriter(io.BytesIO()).write("0" * 98, {"jpg": b""})
