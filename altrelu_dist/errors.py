"""The errors this package raises, each also of a builtin type that scikit-learn's users expect."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from altrelu_dist.addresses import without_secrets

__all__ = [
    "AltReLUError",
    "CheckpointError",
    "ClusterError",
    "DataError",
    "ExistsError",
    "JobError",
    "MissingTargetsError",
    "MissingValuesError",
    "ModelFileError",
    "ParameterError",
    "Remedy",
]


_LONGEST = 1000  # characters: a library may quote half of a damaged file


class Remedy(Enum):
    """What a user can do about an error, in Python's words; the command has its own for each."""

    CATEGORICAL = "if it holds text, say so with categorical=[NAME]"
    CLASSES = "take its values as classes with classes=True"
    ONE_TARGET = "name one target, if it is classes"
    CONVERT = "convert it first (altrelu_dist.convert)"
    CONVERT_WITH_TARGET = "convert it again with target=NAME"
    DROP_MISSING = "leave such rows out with drop_missing=True"
    DROP_ROWS = "drop these rows"
    DROP_COLUMNS = "leave such columns out with drop=[NAME]"
    ENCODE = (
        "encode such columns as numbers, for example with sklearn.preprocessing.OneHotEncoder, "
        "or leave them out"
    )
    FLOAT64 = "use dtype='float64'"
    GO_ON = "a run with a checkpoint goes on by resume=True, a job by resume(), on any cluster"
    IMPUTE = "impute them, for example with sklearn.impute.SimpleImputer"
    IMPUTE_MEAN = "fill features with impute='mean'"
    OVERWRITE = "use overwrite=True to replace it"
    RESUME = "go on with it by resume=True"
    TARGET = "name it with target=NAME"
    WORKER_MEMORY = "start workers with more memory each, or fewer of them"


class AltReLUError(Exception):
    """Base of every error raised on purpose: its text is one line that a user can act on.

    Parameters
    ----------
    finding : str
        What was found, and what was expected. What is not printable in it, from a file say, is
        escaped; what is too long is cut; secrets in addresses are not shown.
    *remedies : Remedy
        What can be done about it: any one of these.
    parameter : str, optional
        The parameter that is at fault; the finding continues a sentence that begins with it.

    Attributes
    ----------
    finding, parameter, remedies
        As above. ``str(error)`` puts them together in Python's words.
    """

    def __init__(self, finding: str, *remedies: Remedy, parameter: str | None = None) -> None:
        text = without_secrets(finding)
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        self.finding = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
        self.parameter = parameter
        self.remedies = remedies
        super().__init__(self.worded(str, lambda remedy: remedy.value))

    def worded(self, name: Callable[[str], str], cure: Callable[[Remedy], str]) -> str:
        """The error as one line.

        Parameters
        ----------
        name : callable
            Gives the words for a parameter.
        cure : callable
            Gives the words for a remedy.

        Returns
        -------
        str
        """
        found = self.finding if self.parameter is None else f"{name(self.parameter)} {self.finding}"
        cures = ", or ".join(map(cure, self.remedies))
        return f"{found}; {cures}" if cures else found


class DataError(AltReLUError, ValueError):
    """The data cannot be trained on, read or converted as it is."""


class MissingValuesError(DataError):
    """Features are missing where none may be."""


class MissingTargetsError(DataError):
    """Targets are missing in some rows; nothing else is wrong with them.

    Attributes
    ----------
    counts : dict of str to int
        How many, by the name or the number of a target.
    rows : int
        That lack one target at least.
    """

    counts: dict[str, int]
    rows: int

    @property
    def remark(self) -> str:
        """What is said where such rows are left out."""
        counts = ", ".join(f"{name} ({count:,})" for name, count in self.counts.items())
        return f"rows without a target are left out: {counts}"


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
