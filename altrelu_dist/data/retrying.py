"""Reading again what storage could not give at once: a mount or a server may be away a while."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from altrelu_dist.addresses import without_secrets

__all__ = ["patiently"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PAUSES = (0.1, 0.4, 1.6, 6.4)  # seconds before each further attempt
_FINAL = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500  # of HTTP, from here on


def patiently(read: Callable[[], T]) -> T:
    """What ``read`` gives, tried up to five times where storage fails in a way that may pass."""
    for pause in _PAUSES:
        try:
            return read()
        except Exception as error:
            if not _may_pass(error):
                raise
            _log.warning("%s; trying again in %.1f s", without_secrets(str(error)), pause)
        time.sleep(pause)
    return read()


def _may_pass(error: BaseException | None) -> bool:
    """Whether an error, or what it comes from, is of storage and may not be there next time."""
    while error is not None:
        if isinstance(error, TimeoutError | ConnectionError):
            return True
        if isinstance(error, OSError) and error.errno is not None:  # without: of a damaged file
            return error.errno not in _FINAL
        status = getattr(error, "status", None)
        if isinstance(status, int) and (status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS):
            return True
        # Libraries of storages raise their own from what the network said, and not all say so.
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
