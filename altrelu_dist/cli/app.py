"""The `altrelu` command's frame: its commands, its version, and how an error reaches the user."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from altrelu_dist.addresses import without_secrets
from altrelu_dist.cli.convert import convert
from altrelu_dist.cli.demo import demo
from altrelu_dist.cli.evaluate import evaluate
from altrelu_dist.cli.export import export
from altrelu_dist.cli.info import info
from altrelu_dist.cli.jobs import cancel, fetch, forget, jobs, logs, status, submit, take_up
from altrelu_dist.cli.options import Profile
from altrelu_dist.cli.plan import plan
from altrelu_dist.cli.predict import predict
from altrelu_dist.cli.report import report
from altrelu_dist.cli.train import train
from altrelu_dist.cli.words import said
from altrelu_dist.errors import AltReLUError
from altrelu_dist.interrupts import Terminated, exit_code, terminable

__all__ = ["app"]

USAGE = 2
# Typer does not export it under its own name.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class _Commands(TyperGroup):
    """Turns what a command raises into one line and an exit code."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().make_context(*args, **kwargs)
        except UsageError as error:
            _fail_usage(error, None)

    def invoke(self, ctx: Any) -> Any:
        try:
            with terminable():
                return super().invoke(ctx)
        except UsageError as error:
            _fail_usage(error, ctx)
        except (AltReLUError, OSError, MemoryError, ImportError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            _fail(_traceback(error) if ctx.params.get("debug") else f"error: {describe(error)}")
        except KeyboardInterrupt:
            _quiet_the_end()
            _fail("interrupted", exit_code(signal.SIGINT))
        except Terminated:
            _quiet_the_end()
            _fail("terminated", exit_code(signal.SIGTERM))
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is one line
            if ctx.params.get("debug"):
                _fail(_traceback(error))
            arguments = " ".join(["altrelu --debug", *sys.argv[1:]])
            _fail(
                f"error: unexpected {type(error).__name__}: {describe(error)} "
                f"(for the traceback: {arguments})"
            )


def describe(error: BaseException) -> str:
    """One line for an error, whoever raised it."""
    if isinstance(error, AltReLUError):
        return said(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {_line(str(error)) or 'use fewer rows at a time or more memory'}"
    if isinstance(error, OSError) and error.errno:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{os.strerror(error.errno)}"
    return _line(str(error)) or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split())


def _fail_usage(error: Exception, ctx: Any) -> NoReturn:
    path = (getattr(error, "ctx", None) or ctx).command_path
    text = _line(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    if not text:  # no command: the help has been shown
        raise typer.Exit(USAGE)
    _fail(f"{path}: {text}; see '{path} --help'", USAGE)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _quiet_the_end() -> None:
    """Let nothing be told of coroutines and event loops that an interrupt left half begun."""
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.unraisablehook = lambda _: None


def _fail(text: str, code: int = 1) -> NoReturn:
    print(without_secrets(text), file=sys.stderr)  # noqa: T201 - plain: no wrapping, no markup
    raise typer.Exit(code)


def _hide_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(record.getMessage()), None
    return True


def _print_version(asked: bool) -> None:
    if asked:
        from altrelu_dist import __version__

        typer.echo(f"altrelu-dist {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="altrelu",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: altrelu demo",
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    profile: Profile = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show log messages, and tracebacks of errors.")
    ] = False,
) -> None:
    """Train two-layer ReLU networks for numbers or classes on data larger than memory, on Dask."""
    del version
    if profile is not None:
        from altrelu_dist.cli.profiles import use_profile

        use_profile(profile)
    if debug:
        logger = logging.getLogger("altrelu_dist")
        logger.setLevel(logging.DEBUG)
        handler = logging.StreamHandler()
        handler.addFilter(_hide_secrets)
        logger.addHandler(handler)


for command, example in (
    (convert, "altrelu convert flights.parquet flights.zarr --target arr_delay"),
    (info, "altrelu info flights.zarr"),
    (plan, "altrelu plan flights.zarr --workers 8 --memory 4GiB"),
    (train, "altrelu train flights.zarr --out flights-model.zarr --test-fraction 0.2"),
    (evaluate, "altrelu evaluate flights-model.zarr flights.zarr"),
    (predict, "altrelu predict flights-model.zarr new.zarr --out predicted.parquet"),
    (report, "altrelu report flights-model.zarr flights.zarr --out report.html"),
    (export, "altrelu export flights-model.zarr --to onnx --out flights.onnx"),
    (demo, "altrelu demo --out altrelu-demo"),
    (submit, "altrelu submit s3://b/flights.zarr --out s3://b/model.zarr"),
    (jobs, "altrelu jobs --scheduler tls://scheduler:8786"),
    (status, "altrelu status 1f0c5a7e --follow"),
    (logs, "altrelu logs 1f0c5a7e --follow"),
    (cancel, "altrelu cancel 1f0c5a7e"),
    (take_up, "altrelu take-up 1f0c5a7e --scheduler tls://scheduler:8786"),
    (fetch, "altrelu fetch 1f0c5a7e model.zarr"),
    (forget, "altrelu forget 1f0c5a7e"),
):
    panel = "Jobs in a cluster" if command.__module__.endswith(".jobs") else None
    app.command(epilog=f"Example: {example}", rich_help_panel=panel)(command)
