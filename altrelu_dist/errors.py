"""The errors this package raises, each also of a builtin type that scikit-learn's users expect."""

from __future__ import annotations

from altrelu_dist.addresses import without_secrets

__all__ = [
    "AltReLUError",
    "CheckpointError",
    "ClusterError",
    "DataError",
    "ExistsError",
    "JobError",
    "ModelFileError",
    "ParameterError",
]


_LONGEST = 1000  # characters: a library may quote half of a damaged file


class AltReLUError(Exception):
    """Base of every error raised on purpose: its text is one line that a user can act on.

    Parameters
    ----------
    text : str
        What is not printable in it, from a file say, is escaped; what is too long is cut; secrets
        in addresses are not shown.
    """

    def __init__(self, text: str) -> None:
        text = without_secrets(text)
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}...")


class DataError(AltReLUError, ValueError):
    """The data cannot be trained on, read or converted as it is."""


class ParameterError(AltReLUError, ValueError):
    """A parameter has a value that it cannot have."""


class CheckpointError(AltReLUError, ValueError):
    """A checkpoint is damaged, in use, or of another run."""


class ModelFileError(AltReLUError, ValueError):
    """A saved model is damaged, not a model, or of a newer format."""


class ClusterError(AltReLUError, RuntimeError):
    """The Dask cluster cannot be reached or cannot do the work."""


class JobError(AltReLUError, RuntimeError):
    """There is no such job, or it did not end with a network."""


class ExistsError(AltReLUError, FileExistsError):
    """An output exists already and was not to be overwritten."""
