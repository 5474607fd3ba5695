"""Addresses as they may be shown: without the passwords, keys and signatures that some carry."""

from __future__ import annotations

import re

__all__ = ["without_secrets"]

_PASSWORD = re.compile(r"(://[^\s/:@]*):[^\s'\"]*@")  # to the last @: a password may hold some
_TOKEN = re.compile(r"(https?://)[^\s/:@]+@")  # in place of a user's name
_QUERY = re.compile(r"(://[^\s?'\"]*\?)[^\s'\"]*=[^\s'\"]*")


def without_secrets(text: str) -> str:
    """A text with stars for passwords, tokens and queries in the addresses in it.

    Parameters
    ----------
    text : str
        An address, or a message or a traceback that may hold some.
    """
    text = _PASSWORD.sub(r"\1:***@", _TOKEN.sub(r"\1***@", text))
    return _QUERY.sub(r"\1***", text)
