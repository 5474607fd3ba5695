"""A warning about schedulers without TLS that others can reach."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

from altrelu_dist.addresses import without_secrets

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["exposure", "warn_of_exposure"]

_log = logging.getLogger(__name__)
_SAFE = {"inproc", "tls", "wss"}
_told: set[str] = set()  # of this process: each scheduler is warned of once


def exposure(address: str) -> str:
    """A warning about a scheduler, once in each process; empty if there is nothing to warn of.

    Parameters
    ----------
    address : str
        As Dask has it; without a protocol it is at ``tcp://``.
    """
    protocol, mark, place = address.partition("://")
    if not mark:
        protocol, place = "tcp", address
    if protocol in _SAFE or _on_loopback(place) or address in _told:
        return ""
    _told.add(address)
    return (
        f"warning: everybody who reaches the scheduler at {without_secrets(address)} can run code "
        "there and on its workers: use TLS (an address at tls:// and certificates), or bind it to "
        "127.0.0.1 and use an ssh tunnel"
    )


def warn_of_exposure(client: Client | None) -> None:
    """Log the warning about the scheduler of a client."""
    scheduler = getattr(client, "scheduler", None)
    if scheduler is not None and (warning := exposure(scheduler.address)):
        _log.warning("%s", warning.removeprefix("warning: "))


def _on_loopback(place: str) -> bool:
    host, _, port = place.rpartition(":")
    names = [place, host] if port.isdecimal() else [place]
    return any(_is_loopback(name.strip("[]").partition("%")[0]) for name in names)


def _is_loopback(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback
