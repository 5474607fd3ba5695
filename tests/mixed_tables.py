"""A table with a column of each kind, as files, and the numbers that it becomes."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pyarrow.feather as feather

from altrelu_dist.data import open_dataset
from altrelu_dist.encoding.raw import RawColumn

ROWS = 120
NAN = np.nan
DAYS = pd.to_datetime("2024-02-28") + pd.to_timedelta(np.arange(ROWS) * 5_000, unit="s")
KNOWN = (
    RawColumn(),
    RawColumn("levels", ("Rome", "Bern", "Oslo")),
    RawColumn("levels", ("2", "7")),
    RawColumn(),
    RawColumn("time"),
)
NAMES = ("size", "town", "code", "flag", "day")


def make_table() -> pd.DataFrame:
    """One column of each kind, an id, and gaps; no name of a level is in the order of its rows."""
    i = np.arange(ROWS)
    town = np.select([i % 7 == 0, i % 3 == 0], ["Oslo", "Bern"], "Rome").astype(object)
    town[5] = None
    frame = pd.DataFrame(
        {
            "size": np.where(i == 3, NAN, i / 4),
            "town": town,
            "code": np.where(i % 4 == 0, 7, 2),
            "flag": i % 2 == 0,
            "day": DAYS,
            "id": [f"id-{7 * k % ROWS}" for k in i],
            "y": i.astype(float),
        }
    )
    frame.loc[9, "day"] = pd.NaT
    return frame


def expected_matrix(frame: pd.DataFrame) -> np.ndarray:
    """By dictionaries and datetime, row by row."""
    towns, codes = ({level: k for k, level in enumerate(KNOWN[j].levels)} for j in (1, 2))
    epoch = datetime.datetime(1970, 1, 1)
    return np.array(
        [
            [
                size,
                towns.get(town, NAN),
                codes[str(code)],
                flag,
                NAN if pd.isna(day) else (day.to_pydatetime() - epoch).total_seconds(),
            ]
            for size, town, code, flag, day in frame[list(NAMES)].itertuples(index=False)
        ]
    )


FILES = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "parquet": lambda frame, path: frame.to_parquet(path, row_group_size=50),
    "feather": lambda frame, path: feather.write_feather(frame, str(path), chunksize=50),
    "jsonl": lambda frame, path: frame.to_json(
        path, orient="records", lines=True, date_format="iso", double_precision=15
    ),
}


def written(frame, kind, folder, name="t"):
    path = folder / f"{name}.{kind}"
    FILES[kind](frame, path)
    return path


def opened(address, **options):
    data = open_dataset(address, **({"target": "y"} | options))
    return data, data.X.compute(scheduler="sync")
