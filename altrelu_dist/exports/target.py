"""What a target of an export has to offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """A target of an export; a further one is a file of its own, named in `registry.py`.

    Parameters
    ----------
    ending : str
        Of its files, with the dot.
    blocks : mapping of type to object
        How the target translates each kind of encoded columns. A network with columns of a kind
        that is not in it is refused.
    make : callable
        Takes a network, and gives what stands for it in the target's own library.
    encode : callable
        Takes that and the network, and gives the bytes of the file.
    package : str, optional
        What has to be installed besides what this package needs itself.
    install : str, optional
        The arguments of ``pip install`` for it.
    """

    ending: str
    blocks: Mapping[type[ColumnBlock], Any]
    make: Callable[[Network], Any]
    encode: Callable[[Any, Network], bytes]
    package: str | None = None
    install: str | None = None
