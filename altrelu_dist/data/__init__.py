"""Data: opening it as Dask arrays, converting it to the package's own format, describing it."""

from altrelu_dist.data.conversion import Conversion, convert
from altrelu_dist.data.dataset import DataSet, open_dataset
from altrelu_dist.data.description import ColumnSummary, Description, describe

__all__ = [
    "ColumnSummary",
    "Conversion",
    "DataSet",
    "Description",
    "convert",
    "describe",
    "open_dataset",
]
