"""Makes text safe to show: credentials become `***`, control characters are spelt out.

`masked` is for data that is stored and read again: it changes URLs alone. `safe_text` is for messages.
"""

from __future__ import annotations

import re
from typing import Any, TextIO

MASK = "***"
_SECRET_NAME = (
    r"[\w.-]{0,40}(?:token|secret|signature|passwo?r?d|pwd|credentials?|api[-_]?key|(?:secret|private|access)[-_]?(?:access[-_]?)?key(?:id)?"
    r"|account[-_]?key|authorization)"
)
_IN_QUERY = re.compile(
    rf"(?i)(?:{_SECRET_NAME}|x-(?:amz|goog)-.*|key|key-pair-id|sig|sign|sas|policy|code|auth|jwt|hmac|session\w*)"
)
_URL = re.compile(r"""(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]+:/{1,3})([^\s"<>`\\]+)""")
_PARAMETER = re.compile(r"""([?&;#])([^=&;#\s"'?]+)=([^&;#\s"'<>`\\)\],]*[^&;#\s"'<>`\\)\],:])""")
_LONG = 16
"""Query values of this length or more are masked whatever their name: they may be keys."""
# Lengths are bounded, here and below: an unbounded run of characters before `:` makes long texts quadratic.
_USER = re.compile(
    r"""(?<![\w.:%+~-])[^\s:/@"'<>`\\(\[{,=]{1,256}:[^\s/@"'<>`\\]{1,2000}@(?=[\w\[*.-])"""
)
_ASSIGNED = re.compile(
    rf"""(?i)\b({_SECRET_NAME})(["']?\s*[=:]\s*["']|=)([^\s"'&;,<>\\)\]}}]*[^\s"'&;,<>\\)\]}}:])"""
)
_TOKEN = re.compile(
    r"(?i:\b(bearer\s+)[\w.~+/=-]{16,})|\b(hf_|gh[pousr]_|github_pat_|sk-|xox[abp]-)\w[\w-]{15,}"
)
_CONTROL = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)  # fmt: skip


def masked(text: str) -> str:
    """`text` with `***` in place of user, password and secret query values of every URL in it."""
    if ":/" in text:
        text = _URL.sub(_masked_url, text)
    return _PARAMETER.sub(_masked_parameter, text) if "=" in text else text


def masked_values(value: Any) -> Any:
    """A JSON value with every text in it masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(inner) for inner in value]
    return value


def safe_text(text: str) -> str:
    """A message with credentials masked, also outside whole URLs, and control characters spelt out."""
    text = masked(text)
    if "@" in text:
        text = _USER.sub(f"{MASK}@", text)  # libraries quote URLs without their scheme
    text = _ASSIGNED.sub(rf"\1\2{MASK}", text)
    text = _TOKEN.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)
    return printable(text)


def printable(text: str) -> str:
    r"""`text` with control characters, direction marks and lone surrogates as `\x1b`; line ends and tabs stay."""
    return text if text.isprintable() else _CONTROL.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""As `printable`, with line ends and tabs spelt out too: for a name within a line."""
    return re.sub(r"[\t\r\n]", _escaped, printable(text))


class CleanedStream:
    """A text stream that writes `safe_text` of everything; `bare` is the stream underneath."""

    def __init__(self, bare: TextIO) -> None:
        self.bare = bare

    def write(self, text: str) -> int:
        # A terminal in ASCII or Latin-1 would raise for a file name; backslashes are better than a lost message.
        encoding = getattr(self.bare, "encoding", None) or "utf-8"
        self.bare.write(safe_text(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)  # callers compare it with what they gave

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


def _masked_url(found: re.Match[str]) -> str:
    scheme, rest = found[1], found[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = f"{MASK}@{rest[authority.rindex('@') + 1 :]}"
    elif "@" in rest and re.search(r":(?!\d+$)", authority) and not authority.startswith("["):
        rest = f"{MASK}@{rest[rest.rindex('@') + 1 :]}"  # a password that holds / ? or #
    query = re.sub(_PARAMETER, _masked_long_parameter, rest)
    return scheme + query


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if _IN_QUERY.fullmatch(found[2]) else found[0]


def _masked_long_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if len(found[3]) >= _LONG else _masked_parameter(found)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
