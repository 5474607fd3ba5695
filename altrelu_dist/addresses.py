"""Addresses as they may be shown: without the passwords, keys and signatures that some carry."""

from __future__ import annotations

import re

__all__ = ["without_secrets"]

_PASSWORD = re.compile(r"(://[^\s/:@]*):[^\s@]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*\?)[^\s'\"]*=[^\s'\"]*")


def without_secrets(text: str) -> str:
    """A text with stars for what follows a user's name or a question mark in the addresses in it.

    Parameters
    ----------
    text : str
        An address, or a message or a traceback that may hold some.
    """
    return _QUERY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))
