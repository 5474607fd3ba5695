"""`altrelu submit`, `jobs`, `status`, `logs`, `cancel`, `fetch`, `forget`, `take-up`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from altrelu_dist.cli.cluster import connect
from altrelu_dist.cli.grouped import grouped
from altrelu_dist.cli.options import Connection, JobId, Json, Overwrite, Training
from altrelu_dist.cli.streams import reader_has_left
from altrelu_dist.cli.words import said
from altrelu_dist.errors import ClusterError, JobError, ParameterError
from altrelu_dist.runs.output import Output, number, seconds_text, table

if TYPE_CHECKING:
    from distributed import Client

    from altrelu_dist.jobs import Job, JobStatus

__all__ = ["cancel", "fetch", "forget", "jobs", "logs", "status", "submit", "take_up"]

_LOOK = 1.0  # seconds between two looks at a log that is followed

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")]


@grouped
def submit(
    training: Training,
    connection: Connection,
    as_json: Json = False,
) -> None:
    """Train in a cluster, print the id of the job, and return at once.

    The options are those of train that say what is trained, and how. Data and output are to be
    where all workers see them.
    """
    from altrelu_dist.jobs import submit_options

    options = training.options()
    output = Output(quiet=True, as_json=as_json)
    with _cluster(connection, output, to_work=True) as client:
        if client is None:
            raise ParameterError(
                "a job is submitted to a cluster: name its --scheduler, or set "
                "DASK_SCHEDULER_ADDRESS, or use a profile (altrelu --cluster NAME submit ...)"
            )
        job = submit_options(options, client)
    Output(as_json=as_json).result({"id": job.id, "out": job.out}, job.id)


@grouped
def jobs(
    *,
    connection: Connection,
    as_json: Json = False,
) -> None:
    """List the jobs that the scheduler knows, and those that were seen from this machine."""
    from altrelu_dist.jobs import jobs as all_jobs

    output = Output(as_json=as_json)
    try:
        with _cluster(connection, output) as client:
            known = all_jobs(client)
    except ClusterError as error:
        output.warn(f"only the jobs that were seen from this machine: {said(error)}")
        known = all_jobs(None)
    found = [(job, job.status()) for job in known]
    shown = table(
        "id", "state", "stage", "by", "loss", "passes", "started", "expected end", "output", words=4
    )
    for job, now in found:
        end = "" if now.ended else _clock(now.expected_end)
        loss = "" if now.loss is None else number(now.loss)
        started = _clock(now.started)
        shown.add_row(
            job.id, now.state, now.stage, job.by, loss, str(now.passes), started, end, job.out
        )
    output.result(
        {"jobs": [_record(job, now) for job, now in found]}, shown if found else "no jobs"
    )


@grouped
def status(
    job_id: JobId,
    follow: Follow = False,
    *,
    connection: Connection,
    as_json: Json = False,
) -> None:
    """Show how far a job is; with --follow until it has ended (exit code 1 if it failed)."""
    output = Output(as_json=as_json)
    with _job(job_id, connection, output) as job:
        now = job.status()
        if follow:
            shown = ""
            for now in job.follow():
                words = _line(now)
                if words != shown:
                    output.note(words)
                shown = words
        output.result(_record(job, now), *_words(job, now))
    if follow and now.state in ("failed", "lost"):
        raise typer.Exit(1)


@grouped
def logs(
    job_id: JobId,
    follow: Follow = False,
    *,
    connection: Connection,
) -> None:
    """Print what a job has said."""
    output = Output()
    with _job(job_id, connection, output) as job:
        shown = 0
        while True:
            ended = not follow or job.status().state not in ("queued", "running")
            text = job.log()
            if len(text) < shown:  # the beginning of a long one is left out
                shown = 0
            typer.echo(text[shown:], nl=False)
            shown = len(text)
            if ended or reader_has_left():
                return
            time.sleep(_LOOK)


@grouped
def cancel(
    job_id: JobId,
    *,
    connection: Connection,
) -> None:
    """Have a job end at its next step; the best network so far is saved."""
    output = Output()
    with _job(job_id, connection, output, of_lost=True) as job:
        before = job.status()
        job.cancel()
        if before.ended:
            output.result({}, f"job {job.id} has ended before: {before.state}")
        elif before.state == "running":
            output.result(
                {}, f"job {job.id} ends at its next step; its best network will be in {job.out}"
            )
        elif job.status().ended:
            output.result({}, f"job {job.id} is cancelled")
        else:
            output.result(
                {}, f"job {job.id} gives no sign of life; it ends at its next step if it goes on"
            )


@grouped
def take_up(
    job_id: JobId,
    *,
    connection: Connection,
) -> None:
    """Go on with a job that was lost, failed or was cancelled, from its checkpoint."""
    output = Output()
    with _job(job_id, connection, output, to_work=True) as job:
        job.resume()
        output.result({}, f"job {job.id} goes on")


@grouped
def fetch(
    job_id: JobId,
    destination: Annotated[str, typer.Argument(help="Where to copy it.", show_default=False)],
    overwrite: Overwrite = False,
    *,
    connection: Connection,
) -> None:
    """Copy the network of a job, or the best so far of one that has not ended."""
    output = Output()
    with _job(job_id, connection, output) as job:
        final = job.fetch(destination, overwrite=overwrite)
        what = "the network" if final else "the best network so far"
        output.result({}, f"saved: {destination} ({what} of job {job.id}, {job.status().state})")


@grouped
def forget(
    job_id: JobId,
    *,
    connection: Connection,
) -> None:
    """Remove what is kept of a job that has ended: log, status, checkpoints; not its output."""
    output = Output()
    with _job(job_id, connection, output, of_lost=True) as job:
        job.forget()
        output.result({}, f"job {job.id} is forgotten; its output, if any, stays: {job.out}")


@contextmanager
def _cluster(
    connection: Connection, output: Output, *, to_work: bool = False
) -> Iterator[Client | None]:
    quiet = Output(quiet=True, as_json=output.as_json)
    choice = connection.cluster()
    with connect(choice, quiet, in_process=True, to_work=to_work) as client:
        yield client


@contextmanager
def _job(
    id_: str,
    connection: Connection,
    output: Output,
    *,
    to_work: bool = False,
    of_lost: bool = False,
) -> Iterator[Job]:
    """A job, found without a scheduler where that is enough.

    `to_work`: it is to be started; `of_lost`: if it is lost, its scheduler is to be asked.
    """
    from altrelu_dist.jobs import Job

    job = None
    if connection.scheduler is None and not to_work:
        try:
            job = Job(id_)
        except JobError:
            if connection.cluster().address is None:
                raise
    lost = of_lost and job is not None and job.status().state == "lost"
    if job is not None and not (lost and connection.cluster().address):
        yield job
        return
    with _cluster(connection, output, to_work=to_work) as client:
        yield Job(id_, client)


def _line(now: JobStatus) -> str:
    parts = [now.state, now.stage, f"iteration {now.iteration}"]
    parts.append(f"loss {'?' if now.loss is None else number(now.loss)}")
    parts += [f"passes {now.passes}", f"{seconds_text(now.seconds)}"]
    if now.expected_end is not None and now.state == "running":
        left = max(0.0, now.expected_end - time.time())
        parts.append(f"about {seconds_text(left)} left")
    return "  ".join(part for part in parts if part)


def _words(job: Job, now: JobStatus) -> list[str]:
    words = [f"job {job.id} by {job.by}: {_line(now)}"]
    if now.attempts > 1:
        words.append(f"begun {now.attempts} times")
    if now.error:
        words.append(said(now.failure))
    if "out" in now.result:
        words.append(f"saved: {now.result['out']}")
    return words


def _record(job: Job, now: JobStatus) -> dict[str, Any]:
    return {"id": job.id, "by": job.by, "out": job.out, "submitted": job.submitted} | asdict(now)


def _clock(when: float | None) -> str:
    if when is None:
        return ""
    try:
        then, now = time.localtime(when), time.localtime()
    except (OverflowError, ValueError, OSError):  # no such year: the file is damaged
        return "?"
    same = then[:3] == now[:3]
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M", then)
