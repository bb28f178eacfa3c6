"""No credential leaves the program as text, wherever a URL stood; what is no credential stays as it is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.errors import SampleError, StorageError
from stylebatch.folder import Folder
from stylebatch.masking import CleanedStream, masked, safe_text
from stylebatch.progress import Event, JsonProgress, PlainProgress
from stylebatch.store.ledger import Ledger

SECRET = "hunter2Xq"
URLS = (
    "{scheme}://user:{s}@host/cache", "{scheme}://:{s}@host:6379", "{scheme}://{s}@host/x", "{scheme}://k:a@{s}@host/x",
    "{scheme}://k:a/{s}@bucket/x", "{scheme}:/user:{s}@host/x", "simplecache::{scheme}://k:{s}@bucket/x.png",
    "{scheme}://h/a?X-Amz-Signature={s}&v=1", "{scheme}://h/a?v=1&sig={s}", "{scheme}://h/a?access_token={s}#x",
    "{scheme}://h/a?X-Amz-Security-Token={s}", "{scheme}://h/a?key={s}", "{scheme}://h/a#token={s}",
    "{scheme}://h:8265/a?AWSAccessKeyId=x&Signature={s}", "{scheme}://[::1]:8265/?password={s}",
)  # fmt: skip
BARE = (
    "/user:{s}@host/cache/x.tar",
    "user:{s}@host:10001",
    "host/a?sig={s}",
    "secret_key={s}",
    "{{'token': '{s}'}}",
)
AROUND = (
    "{}",
    "'{}'",
    "({})",
    "cannot read {}: no",
    "[{}, 1]",
    "a={}",
    '{{"url": "{}"}}',
    "<{}>",
    "`{}`\n next",
)


@given(
    st.sampled_from(URLS),
    st.sampled_from(["s3", "https", "hf", "memory", "RAY", "git+ssh", "abfs"]),
    st.sampled_from(AROUND),
    st.text("abcXYZ019_.~%+-=", min_size=1, max_size=40).map(lambda text: SECRET + text),
)
def test_secret_of_a_url_is_masked(url: str, scheme: str, around: str, secret: str) -> None:
    text = around.format(url.format(scheme=scheme, s=secret))
    for found in (masked(text), safe_text(text)):
        assert SECRET not in found
        assert scheme in found
    assert masked(masked(text)) == masked(text)
    if text.startswith('{"'):
        assert json.loads(safe_text(text))


@pytest.mark.parametrize("bare", BARE)
def test_secret_without_its_scheme_is_masked_in_messages(bare: str) -> None:
    assert SECRET not in safe_text(f"it failed: {bare.format(s=SECRET)}, twice")


@pytest.mark.parametrize(
    "text",
    [
        "photos/16:9@2x.png", "a photo of a cat, 4k", "hf://datasets/owner/name@main/x.png", "http://head:8265/", "C:/x@y.png",
        "https://host/a.png?v=2", "author=Bob, tokenizer=clip, key=value", "ray://[::1]:10001", "https://h:80/a@2x.png",
    ],
)  # fmt: skip
def test_text_without_secrets_is_stored_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_what_follows_a_secret_is_told() -> None:
    text = "https://h/a.png?X-Amz-Signature=abc: no such file"
    assert safe_text(text) == "https://h/a.png?X-Amz-Signature=***: no such file"


def test_long_texts_cost_no_more_than_their_length() -> None:
    """Each of these would take minutes with a pattern that looks ahead to the end from every place."""
    for piece in ("a.;", "a:", "@a.-token", "https://a?b=c&", "secret-", "x:y"):
        safe_text(piece * 30_000)


def test_errors_and_progress_and_records_tell_no_secret(tmp_path: Path) -> None:
    url = f"s3://user:{SECRET}@bucket/x"
    assert SECRET not in str(StorageError(f"{url}: gone"))
    assert SECRET not in str(SampleError("missing", f"{url}: gone"))
    stream = io.StringIO()
    for progress in (
        PlainProgress(stream),
        JsonProgress(stream),
        PlainProgress(CleanedStream(stream)),
    ):  # type: ignore[arg-type]
        progress.note(f"reading {url}\x1b[2J")
        progress.event(Event("retry", f"again: {url}", facts={"cause": url}))
    Ledger(Folder.at(tmp_path)).poison("train-00000", {"reason": f"OSError: {url}", "attempts": 3})
    for text in (stream.getvalue(), (tmp_path / "metadata/train-00000_poison.json").read_text()):
        assert "bucket/x" in text
        assert SECRET not in text
        assert "\x1b" not in text
