"""Options that several commands share, one by one and in groups."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

from altrelu_dist.cli.cluster import ClusterChoice, TlsFiles
from altrelu_dist.runs.training import TrainOptions

__all__ = [
    "RESUMING", "Categorical", "Categories", "Classes", "Connection", "Data", "Drop", "Hidden",
    "Interval", "JobId", "Json", "MaxSize", "Memory", "Method", "Missing", "Model", "Only",
    "Overwrite", "Profile", "Quiet", "Target", "Threads", "Training", "Weight", "Workers",
]  # fmt: skip

_CLUSTER = "Cluster"
RESUMING = "Carrying on"

Data = Annotated[
    str,
    typer.Argument(
        help="Zarr, Parquet, Arrow, CSV, TSV, JSONL, NPZ or NPY: a file, a folder, a quoted glob.",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Argument(help="A network that train saved.", show_default=False)]
Target = Annotated[
    list[str] | None,
    typer.Option(help="Column to be predicted; repeat it for several. A store knows its own."),
]
Weight = Annotated[str | None, typer.Option(help="Column of sample weights.")]
Categorical = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Take each number of this column, a code say, as a level of its own, as text always "
        "is; repeat it for several.",
        show_default=False,
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Leave this column out of the features; repeat it for several.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Take no other columns than this as features; repeat it for several.",
        show_default=False,
    ),
]
Missing = Annotated[
    Literal["keep", "error"],
    typer.Option(help="Whether missing features are taken as such, or refused."),
]
Categories = Annotated[
    Literal["learn", "error"],
    typer.Option(help="Whether columns of text are taken, as levels, or refused."),
]
Classes = Annotated[
    bool | None,
    typer.Option(
        "--classes/--no-classes",
        help="Whether the target is classes (default: text and booleans are); the numbers of a "
        "column are with --classes, and booleans are numbers with --no-classes.",
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there, once the new one is complete.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Use the Dask cluster at this address, for example tcp://10.0.0.1:8786 "
        "(default: Dask's own setting, DASK_SCHEDULER_ADDRESS).",
        rich_help_panel=_CLUSTER,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Use the cluster of this name in Dask's configuration (altrelu: clusters:).",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
TlsCaFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Certificate of who signed the scheduler's, for a tls:// address "
        "(default: Dask's own settings, distributed.comm.tls).",
        rich_help_panel=_CLUSTER,
    ),
]
TlsCert = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="This client's certificate.", rich_help_panel=_CLUSTER),
]
TlsKey = Annotated[
    str | None, typer.Option(metavar="FILE", help="Its key.", rich_help_panel=_CLUSTER)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes on this machine; 0 works inside this process "
        "(default: from the number of cores; 0 for small data).",
        rich_help_panel=_CLUSTER,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Threads of each worker.", rich_help_panel=_CLUSTER),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit of each worker, for example 2GiB (default: its share of the machine).",
        rich_help_panel=_CLUSTER,
    ),
]

Hidden = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Train one plain network of so many hidden neurons (default: a committee for new "
        "rows, which chooses them).",
        show_default=False,
    ),
]
MaxSize = Annotated[
    int | None,
    typer.Option(min=1, help="Most neurons of a committee's network.", show_default=False),
]
Interval = Annotated[
    float | None,
    typer.Option(
        metavar="LEVEL",
        help="Level of prediction intervals, above 0 and below 1: the chance that the target of a "
        "new row lies within.",
        show_default=False,
    ),
]
Loss = Annotated[
    Literal["squared_error", "huber", "quantile", "poisson"],
    typer.Option(
        help="What is made small, of targets that are numbers: huber is for heavy tails, quantile "
        "for quantiles, poisson for counts."
    ),
]
Levels = Annotated[
    list[float] | None,
    typer.Option(
        "--quantile",
        metavar="LEVEL",
        help="Level of --loss quantile (0.5), above 0 and below 1; repeat it for several of one "
        "target, which do not cross.",
        show_default=False,
    ),
]
Extrapolate = Annotated[
    bool,
    typer.Option(
        "--extrapolate",
        help="Let a committee predict far beyond the range of the training targets "
        "(default: cut off at a quarter of it beyond).",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        help="Where the network goes (a Zarr folder, also at s3://...).", show_default=False
    ),
]
Method = Annotated[
    Literal["committee", "search", "kronecker", "damped", "alternating"] | None,
    typer.Option(
        help="committee (default without --hidden) is for new rows; search (default with it) is "
        "the deepest; kronecker is its descents from one start, without a search; alternating is "
        "the paper's plain algorithm.",
        show_default=False,
    ),
]
Ridge = Annotated[float | None, typer.Option(min=0.0, help="Ridge penalty of both layers.")]
NegativeSlope = Annotated[
    float | None, typer.Option(min=0.0, help="Slope left of the kink, below 1 (leaky ReLU).")
]
MaxIter = Annotated[
    int | None, typer.Option(min=1, help="Most iterations; of a committee the rounds.")
]
MaxTime = Annotated[float | None, typer.Option(min=0.0, help="Most seconds.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
TestFraction = Annotated[
    float | None,
    typer.Option(help="Hold out this share of the rows, at random, and score on them too."),
]
EarlyStopping = Annotated[
    bool,
    typer.Option(
        "--early-stopping",
        help="Hold rows out, keep the network that is best on them, stop when none is better. A "
        "committee always stops by its folds: nothing changes.",
    ),
]
ValidationFraction = Annotated[
    float | None,
    typer.Option(
        help="Share of the rows that --early-stopping holds out (0.1).", show_default=False
    ),
]
WarmStart = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Begin with this plain network, of the same columns, on these data or on further "
        "ones; give --hidden.",
        rich_help_panel=RESUMING,
    ),
]
CheckpointInterval = Annotated[
    float,
    typer.Option(min=0, help="Most seconds between two checkpoints.", rich_help_panel=RESUMING),
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Of a job, as submit and jobs print it, or the address of its output.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Connection:
    """Of every command that can work on a cluster: which one."""

    profile: Profile = None
    scheduler: Scheduler = None
    tls_ca_file: TlsCaFile = None
    tls_cert: TlsCert = None
    tls_key: TlsKey = None

    def __post_init__(self) -> None:
        if self.profile is not None:
            from altrelu_dist.cli.profiles import use_profile

            use_profile(self.profile)

    def cluster(
        self, workers: int | None = None, threads: int | None = None, memory: str | None = None
    ) -> ClusterChoice:
        """The choice, checked."""
        tls = TlsFiles(self.tls_ca_file, self.tls_cert, self.tls_key)
        return ClusterChoice(self.scheduler, workers, threads, memory, tls)


@dataclass(frozen=True)
class Training:
    """Of the commands that train: on what, how, and where the network goes."""

    store: Data = ""
    hidden: Hidden = None
    out: Out = None
    method: Method = None
    max_size: MaxSize = None
    extrapolate: Extrapolate = False
    loss: Loss = "squared_error"
    quantile: Levels = None
    ridge: Ridge = None
    negative_slope: NegativeSlope = None
    max_iter: MaxIter = None
    max_time: MaxTime = None
    seed: Seed = 0
    test_fraction: TestFraction = None
    early_stopping: EarlyStopping = False
    validation_fraction: ValidationFraction = None
    target: Target = None
    weight: Weight = None
    categorical: Categorical = None
    drop: Drop = None
    only: Only = None
    missing: Missing = "keep"
    categories: Categories = "learn"
    classes: Classes = None
    warm_start: WarmStart = None
    checkpoint_interval: CheckpointInterval = 60.0
    overwrite: Overwrite = False

    def options(self, checkpoint: str | None = None) -> TrainOptions:
        """What is to be run.

        Raises
        ------
        typer.BadParameter
            If something is missing that has no default.
        """
        required = {"STORE": self.store, "--out": self.out}
        missing = ", ".join(name for name, value in required.items() if not value)
        if missing:
            raise typer.BadParameter(f"missing {missing}")
        return TrainOptions(**asdict(self), checkpoint=checkpoint)
