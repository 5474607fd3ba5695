"""Addresses, and messages that hold some, as they may be shown: without passwords and signatures.

Where an address ends cannot be told if its password holds spaces, quotes or separators. In doubt
more is hidden than is secret, and never less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

__all__ = ["has_secret", "values_without_secrets", "without_secrets"]

_HIDDEN = "***"


def _mark(plain: str, code: str) -> str:
    """Pattern of a separator, plain or percent-encoded, perhaps more than once."""
    return rf"(?:{plain}|%(?:25)*{code})"


_AT, _COLON = _mark("@", "40"), _mark(":", "3A")
_SLASH = _mark(r"\\*/", "2F")  # JSON may escape it
# `pathlib` makes one slash of two; only after these, for a local path may hold a colon too.
_REMOTE = (
    "abfss?|adl|az|dbfs|ftps?|gc?s|hdfs|hf|https?|oci|oss|r2|s3[an]?|scp|sftp|smb|ssh|"
    "tcp|tls|wasbs?|webdavs?|webhdfs|wss?"
)
_START = re.compile(
    rf"(?<![\w+.-])(?P<scheme>[\w+.-]*+){_COLON}{_SLASH}{{2}}"
    rf"|(?<![\w+.-])(?P<one>{_REMOTE}):/(?!/)"
    r"|\burl: (?=/)",  # as urllib3 tells of a request: the host stands elsewhere
    re.IGNORECASE,
)
_AUTHORITY = re.compile(r"[^/?#\n]*")
# A secret that was read from a file may end in a newline.
_USER = re.compile(rf"(?P<user>[^/?#\n]*|[^/?#\n]*\n[^\s/?#@]*)(?P<at>{_AT})", re.IGNORECASE)
_USER_PASSWORD = re.compile(rf"(?P<user>[^\n]*|[^\n]*\n[^\s@]*)(?P<at>{_AT})", re.IGNORECASE)
_LATE = re.compile(f"{_mark('[?]', '3F')}|{_mark('#', '23')}|{_mark(';', '3B')}", re.IGNORECASE)
# In these a name without a password is no secret: an account or a container.
_NAMED = {"abfs", "abfss", "adl", "hdfs", "scp", "sftp", "smb", "ssh", "wasb", "wasbs", "webhdfs"}
_NAME = re.compile(r"[\w.+-]+")
_LOCAL = {"file", "local"}
_ARCHIVES = {"libarchive", "tar", "zip"}
_QUOTE = re.compile(r"\\*['\"`]\Z")
_CLOSES = r"(?=[\s,.:;)\]}>]|\Z)"  # what follows a quotation mark that ends a quotation
_DATA = "arrow|bz2|csv|feather|gz|jsonl?|np[yz]|parquet|pq|tsv|txt|xz|zarr|zip|zst"
# What follows a question mark that stands for a character of a file's name.
_PATTERN = re.compile(
    rf"[]\[*?/]*|(?:[^=&;:@%]*|[^=&;:@%/]*/[^&;:@%]*)\.(?:{_DATA})/?", re.IGNORECASE
)

_FIELD = re.compile(
    r"(?<![\w-])(?P<key>[\w-]++)(?P<quote>\\*['\"])?\s*+(?P<is>=>|[=:>]|%(?:25)*3D)\s*+",
    re.IGNORECASE,
)
_IN_PATH = re.compile(r"(?<=/)(?P<key>[\w-]++)(?P<is>=)(?P<value>[^/\s]*)")
_BEARER = re.compile(r"\b(Bearer +)[^\s'\",;]+", re.IGNORECASE)
_OPENING = re.compile(r"[bfru]{0,2}(\\*['\"])", re.IGNORECASE)
_BARE = re.compile(r";|\n|, |:(?=\s|\Z)|\Z")
_SECRETS = (
    "accesskey", "accountkey", "apikey", "authorization", "connectionstring", "cookie",
    "credential", "credentials", "passphrase", "passwd", "password", "privatekey", "pwd", "secret",
    "sharedaccess", "sharedkey", "signature", "token",
)  # fmt: skip
_SHORT = {"auth", "jwt", "key", "otp", "pass", "sas", "sessionid", "sig"}
# Names of errors in camel case are none: "ExpiredToken: ..."
_ALONE = re.compile(r"[\da-z_-]+|[\dA-Z_-]+|[A-Z][\da-z]*(?:-[A-Z][\da-z]*)*")


def without_secrets(text: str) -> str:
    """A text with stars for the passwords, tokens and signatures in it.

    Hidden are the user and password of an address, its query, fragment and parameters, and the
    values of fields whose names say that they are secret, as in connection strings, dictionaries,
    JSON and headers. Paths of this machine stay as they are.

    Parameters
    ----------
    text : str
        An address, or a message or a traceback that may hold some.
    """
    shown, done = [], 0
    starts = list(_START.finditer(text))
    for start, following in pairwise([*starts, None]):
        assert start is not None
        stop = len(text) if following is None else following.start()
        quote = _QUOTE.search(text[max(done, start.start() - 8) : start.start()])
        scheme = (start["scheme"] or start["one"] or "http").lower()
        address = _address(scheme, text[start.end() : stop], quote[0] if quote else "")
        shown += [text[done : start.end()], address]
        done = stop
    return _BEARER.sub(rf"\1{_HIDDEN}", _fields("".join([*shown, text[done:]])))


def values_without_secrets(value: Any) -> Any:
    """The same for each text in lists and dictionaries, but their keys."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: values_without_secrets(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [values_without_secrets(each) for each in value]
    return value


def has_secret(address: str) -> bool:
    """Whether an address holds what is not to be shown."""
    return without_secrets(address) != address


def _address(scheme: str, rest: str, quote: str) -> str:
    """What follows the scheme of an address, up to the next one."""
    local = scheme in _LOCAL and rest[:1] in ("", "/", "\\")
    if local or (scheme in _ARCHIVES and "::" in rest):  # a member, and an archive's path
        return rest
    authority = _AUTHORITY.match(rest)
    assert authority is not None
    with_password = re.search(_COLON, authority[0], re.IGNORECASE)
    found = (_USER_PASSWORD if with_password else _USER).match(rest)
    shown = ""
    if found is not None:
        user, rest = found["user"], rest[found.end() :]
        if _LATE.search(user.replace(";", "")):  # a password, or a query with an address in it
            return _HIDDEN + rest[_end(rest, 0, quote) :]
        kept = scheme in _NAMED and _NAME.fullmatch(user)
        shown = f"{user if kept else _HIDDEN}{found['at']}"
    web = scheme.endswith(("http", "https"))
    end = _end(rest, 0, quote)
    for late in _LATE.finditer(rest, 0, end):
        if _hides(late[0], rest[late.end() : end], web=web):
            return f"{shown}{_path(rest[: late.start()], web)}{late[0]}{_HIDDEN}{rest[end:]}"
    return f"{shown}{_path(rest[:end], web)}{rest[end:]}"


def _end(rest: str, start: int, quote: str) -> int:
    """Where an address ends in a text: before a colon and a space, or its quotation mark."""
    marks = [r":(?=\s|\Z)", r"\n", r"(?<!\s)\s*+(?:::)?\Z", r"\Z"]
    if quote:
        marks.append(rf"(?<!\\){re.escape(quote)}{_CLOSES}")
    found = re.compile("|".join(marks)).search(rest, start)
    assert found is not None
    return found.start()


def _hides(mark: str, following: str, *, web: bool) -> bool:
    """Whether a secret may follow a question mark, a hash or a semicolon in an address."""
    word = re.split(r"\s", following, maxsplit=1)[0].rstrip("'\"`,.:;)]}>")
    if not word:  # a sentence goes on
        return False
    if mark[0] == ";" or mark.upper().endswith("3B"):
        return web or "=" in word
    return web or not _PATTERN.fullmatch(word)


def _path(path: str, web: bool) -> str:
    def value(found: re.Match[str]) -> str:
        return f"{found['key']}={_HIDDEN}" if _is_secret(found["key"], "=") else found[0]

    return _IN_PATH.sub(value, path) if web else path  # elsewhere it is a partition of data


def _fields(text: str) -> str:
    """A text without the values of secret fields."""
    shown, done, start = [], 0, 0
    while found := _FIELD.search(text, start):
        start = found.end()
        before = text[: found.start()][-1:]
        key = found["key"][2:] if before == "%" else found["key"]
        if before in ("/", "~") or not _is_secret(key, found["is"], quoted=bool(found["quote"])):
            continue
        end, value = _value(text, start, found["is"])
        shown += [text[done:start], value]
        start = done = end
    return "".join([*shown, text[done:]])


def _is_secret(key: str, sign: str, *, quoted: bool = False) -> bool:
    plain = re.sub("[_-]", "", key).lower()
    if sign == ":" and not quoted:
        return bool(_ALONE.fullmatch(key)) and plain.endswith(_SECRETS)
    return any(word in plain for word in _SECRETS) or plain in _SHORT or plain.endswith("key")


def _value(text: str, start: int, sign: str) -> tuple[int, str]:
    """Where the value of a field ends, and what is shown of it."""
    opening = _OPENING.match(text, start)
    if opening is not None:
        quote = re.escape(opening[1])
        escapes = r"(?<!\\)(?:\\\\)*" if len(opening[1]) == 1 else r"(?<!\\)"
        closing = re.compile(f"{escapes}(?P<quote>{quote}){_CLOSES}").search(text, opening.end())
        end = len(text) if closing is None else closing.start("quote")
        return end, (opening[0] + _HIDDEN)
    if text[start : start + 1] in ("(", "[", "{"):
        ending = re.compile(r"\n|\Z").search(text, start)
    else:
        ending = (re.compile(r"<|\Z") if sign == ">" else _BARE).search(text, start)
    assert ending is not None
    return ending.start(), _HIDDEN if ending.start() > start else ""
