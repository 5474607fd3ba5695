"""README.md and the pages of docs/: their examples run, what they name exists, the site builds."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forks import COMMAND as COMMAND_OF_ALTRELU
from forks import Forked
from typer.main import get_command

from altrelu_dist.cli.app import app
from altrelu_dist.data import convert

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = [
    ROOT / "README.md",
    *(path for path in sorted(DOCS.rglob("*.md"))
      if not {"_build", "generated"} & {*path.relative_to(DOCS).parts}),
]  # fmt: skip
ELSEWHERE = [
    *(ROOT / name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "examples" / "benchmarks" / "README.md",
    *sorted(ROOT.glob("deploy/*/README.md")),
]
ON_A_CLUSTER = ["docs/guides/clusters.md", "docs/guides/jobs.md"]
LONGEST_README = 6 * 1024  # bytes
FENCE = re.compile(r"(?:^<!-- not run: (.+?) -->\n)?^```(\S*)\n(.*?)^```$", re.M | re.S)
JOB = "1f0c5a7e"  # of the examples
COMMAND = get_command(app)


@dataclass(frozen=True)
class Example:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def lines(self) -> list[str]:
        """The commands of a shell block, each on one line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def examples(page: Path) -> list[Example]:
    text = page.read_text()
    return [
        Example(page, text[: found.start()].count("\n") + 1, found[2], found[3], found[1])
        for found in FENCE.finditer(text)
    ]


def to_run(page: Path) -> list[Example]:
    return [
        example
        for example in examples(page)
        if example.language in ("bash", "python") and example.not_run is None
    ]


def make_data(folder: Path, *, store: bool) -> None:
    """The tables that the examples read, small ones."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(400, 3)), columns=["dep_delay", "distance", "hour"])
    table["arr_delay"] = np.abs(table["dep_delay"]) + table["distance"] ** 2
    table.to_parquet(folder / "flights.parquet")
    table.drop(columns="arr_delay").to_parquet(folder / "new.parquet")
    (folder / "parts").mkdir()
    for part in range(2):
        table[part::2].to_csv(folder / "parts" / f"{part}.csv", index=False)
    table.mask(random.uniform(size=table.shape) < 0.05).to_csv(folder / "gaps.csv", index=False)
    if store:
        convert(folder / "flights.parquet", folder / "flights.zarr", target="arr_delay")


class Reader:
    """Runs the examples of a page, one after the other, in one folder and one namespace."""

    def __init__(self, folder: Path, replaced: dict[str, str]) -> None:
        self.folder = folder
        self.replaced = replaced
        self.names = {"__name__": "__main__"}
        scripts = str(Path(sys.executable).parent)
        self.environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}

    def run(self, example: Example) -> None:
        if example.language == "python":
            place = f"{name(example.page)}, line {example.line}"
            exec(compile(self._here(example.text), place, "exec"), self.names)
            return
        for line in example.lines():
            command = self._here(line)
            with self._start(command) as process:
                stdout, stderr = process.communicate(timeout=300)
            told = f"{name(example.page)}: {command}\n{stdout}{stderr}"
            assert process.returncode == 0, told
            if command.startswith("altrelu submit"):
                self.replaced[JOB] = re.findall(r"[0-9a-f]{8}", stdout)[0]

    def _start(self, command: str) -> Forked | subprocess.Popen[str]:
        """Start a line, with a shell if it is more than a call of `altrelu`."""
        if command.startswith("altrelu ") and not re.search(r"[|&;<>$`*?~#(){}\[\]!\n]", command):
            return Forked(COMMAND_OF_ALTRELU, shlex.split(command)[1:], env=self.environment)
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _here(self, text: str) -> str:
        if not self.replaced:
            return text
        pattern = "|".join(map(re.escape, self.replaced))
        return re.sub(pattern, lambda found: self.replaced[found[0]], text)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    return Reader(tmp_path, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [path for path in WRITTEN if to_run(path) and name(path) not in ON_A_CLUSTER],
    ids=name,
)
def test_the_examples_of_a_page_run(page, reader, tmp_path):
    make_data(tmp_path, store="convert flights.parquet flights.zarr" not in page.read_text())
    for example in to_run(page):
        reader.run(example)


@pytest.mark.cluster
@pytest.mark.parametrize("page", ON_A_CLUSTER)
def test_the_examples_run_on_a_cluster(page, reader, tmp_path, process_client):
    make_data(tmp_path, store=True)
    reader.replaced |= {
        "tcp://10.0.0.1:8786": process_client.scheduler.address,
        "s3://bucket/": f"{tmp_path}/shared/",
        "/shared/flights": f"{tmp_path}/flights",
    }
    (tmp_path / "shared").mkdir()
    convert(tmp_path / "flights.parquet", tmp_path / "shared/flights.zarr", target="arr_delay")
    ran = to_run(ROOT / page)
    assert ran
    for example in ran:
        reader.run(example)


def test_what_does_not_run_has_a_reason():
    """Only installations, what needs a cluster that is elsewhere, and what takes long."""
    idle = [one for page in WRITTEN for one in examples(page) if one.not_run is not None]
    assert all(len(one.not_run.split()) >= 3 for one in idle)
    # A Python example always runs.
    assert [one for one in idle if one.language == "python"] == []
    known = {"", "bash", "python", "text", "yaml", "{toctree}", "{eval-rst}"}
    assert {one.language for page in WRITTEN for one in examples(page)} <= known
    # Without a language: the two first commands of the README, which other tests run.
    assert {name(one.page) for page in WRITTEN for one in examples(page) if not one.language} == {
        "README.md"
    }


def test_the_two_commands_of_the_readme():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= LONGEST_README
    [demo, tests] = [one.text.strip() for one in examples(ROOT / "README.md") if not one.language]
    assert demo.endswith(".venv/bin/altrelu demo")
    assert f"{tests} || exit" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_promise_names_the_tier_that_holds_it():
    marks = {"slow": "slow", "cluster": "cluster", "alone": "alone", "by hand": "by_hand"}
    rows = [
        [cell.strip() for cell in line.split(" | ")]
        for line in (DOCS / "guarantees.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| promise |")
    ]
    assert len(rows) > 30
    for promise, test, tiers, *_ in rows:
        files = [ROOT / "tests" / file for file in re.findall(r"`(test_\w+\.py)", test)]
        assert files, promise
        text = "".join(file.read_text() for file in files)
        for tier in tiers.split(", "):
            assert tier == "quick" or f"mark.{marks[tier]}" in text, f"{promise}: {tier}"


def commands():
    """Every line of an example that calls `altrelu`, of all pages."""
    for page in [*WRITTEN, *ELSEWHERE]:
        for example in examples(page):
            if example.language in ("", "bash"):
                for line in example.lines():
                    if line.strip().startswith("altrelu "):
                        yield page, line.strip()


def parsed(words: list[str]) -> None:
    """Parse a command line as `altrelu` does, and run nothing."""
    group = COMMAND.context_class(COMMAND, info_name="altrelu")
    COMMAND.parse_args(group, [*words])
    _, command, rest = COMMAND.resolve_command(group, [*group._protected_args, *group.args])
    command.parse_args(command.context_class(command, info_name=command.name, parent=group), rest)


def test_every_command_has_the_options_it_is_given():
    found = list(commands())
    assert len(found) > 30
    for page, line in found:
        words = shlex.split(line, comments=True)[1:]
        if "..." in words or any(word in "<>|&" for word in words):
            words = words[: next(i for i, word in enumerate(words) if word in "...<>|&")]
        try:
            parsed(words)
        except Exception as error:  # noqa: BLE001 - of a library that typer does not export
            pytest.fail(f"{name(page)}: {line}: {error!r} {error}")


def test_a_command_that_is_wrong_is_found():
    parsed(shlex.split("info flights.zarr"))
    for line in ("inform flights.zarr", "info flights.zarr --nosuch", "train a.zarr --hidden x"):
        with pytest.raises(Exception, match=r"(?i)no such|valid"):
            parsed(shlex.split(line))


def test_inline_commands_and_options_exist():
    options = {
        option
        for command in (COMMAND, *COMMAND.commands.values())
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    others = {"--install-completion", "--quick", "--held-out", "--results", "--force-exclude"}
    for page in WRITTEN:
        if page.parent.name == "benchmarks":
            continue
        for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text())):
            words = span.split()
            if words[0].startswith("--"):
                assert words[0] in options | others, f"{name(page)}: {span}"
            named = [word for word in words[1:2] if words[0] == "altrelu" and word.islower()]
            for word in named:
                assert word in COMMAND.commands or word in options, f"{name(page)}: {span}"


def test_links_between_files_lead_somewhere():
    for page in [*WRITTEN, *ELSEWHERE]:
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
            if "generated/" in target:
                continue  # made when the site is built, which says what is missing
            assert (page.parent / target).exists(), f"{name(page)}: {target}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for needed in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme", "sphinx_gallery"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is missing (pip install 'altrelu-dist[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "trees"]
    done = subprocess.run(
        [*map(str, command), str(DOCS), str(folder / "html")],
        capture_output=True, text=True, env=os.environ | {"ROWS": "70000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_and_needs_no_network(site):
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 35
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+"|'
        r'<link[^>]+rel="(?:stylesheet|preload)"[^>]+href="(?:https?:)?//[^"]+"'
    )
    for page in pages:
        assert loaded.findall(page.read_text()) == [], page.name


@pytest.mark.slow
def test_the_command_reference_has_every_option(site):
    text = (site / "generated" / "commands.html").read_text()
    for command, one in COMMAND.commands.items():
        [section] = re.findall(rf'<section id="altrelu-{command}">(.*?)</section>', text, re.S)
        for parameter in one.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in section, f"{command}: {option}"
