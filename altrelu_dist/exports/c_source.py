"""C: one file of C99 with constant arrays and a function, which allocates nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from altrelu_dist.encoding.gaps import GapColumns
from altrelu_dist.encoding.levels import LevelColumns
from altrelu_dist.encoding.times import TimeColumns
from altrelu_dist.exports.filling import filling_of
from altrelu_dist.exports.ramps import RAMPS, ramps_of
from altrelu_dist.exports.target import Target
from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from altrelu_dist.encoding import RawColumn
    from altrelu_dist.encoding.block import ColumnBlock
    from altrelu_dist.network import Network

__all__ = ["TARGET"]

_NUMBERS_A_LINE = 4

_FILE = """\
/* A two-layer ReLU network, written by altrelu-dist {version}.

   void predict(const double *x, double *y);

   takes the N_FEATURES features of one row, and gives its N_TARGETS targets. A missing feature is
   NAN. The targets are NAN where a feature that counts is infinite, or is missing though no
   training row lacked it. Any number of threads may call it; it allocates nothing and needs about
   {stack:,} bytes of stack.
{level_of_words}
   cc -std=c99 -O2 -c FILE.c          (not -ffast-math, which takes NAN for a number)
   cc ... -lm                         where it is linked
   cc -Dpredict=other_name ...        where a program has several networks

   x[]: features
{features}

   y[]: targets
{targets}
*/

#include <math.h>
#include <stddef.h>
{string_h}
enum {{
    N_FEATURES = {n_features},
    N_TARGETS = {n_targets},
    N_COLUMNS = {n_columns}, /* that the hidden layer takes */
    N_HIDDEN = {n_hidden}
}};

void predict(const double *x, double *y);
{level_of}
{arrays}
{clip}void predict(const double *x, double *y)
{{
    double column[{column_size}], z[{hidden_size}];
    int i, j;

{encoding}
    for (j = 0; j < N_HIDDEN; j++)
        z[j] = hidden_bias[j];
    for (i = 0; i < N_COLUMNS; i++) {{
        const double *weight = hidden_weights + (size_t)i * N_HIDDEN;
        for (j = 0; j < N_HIDDEN; j++)
            z[j] += column[i] * weight[j];
    }}
    for (j = 0; j < N_TARGETS; j++)
        y[j] = output_bias[j];
    for (i = 0; i < N_HIDDEN; i++) {{
        const double hidden = z[i] < 0 ? {left} : z[i];
        for (j = 0; j < N_TARGETS; j++)
            y[j] += hidden * output_weights[(size_t)i * N_TARGETS + j];
    }}
    for (j = 0; j < N_TARGETS; j++)
        y[j] = {result};
}}
"""

_CLIP = """\
static double clip(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value; /* NAN stays NAN */
}

"""

_COPY = """\
    for (i = 0; i < N_COLUMNS; i++)
        column[i] = x[i];
"""

_NOTHING = """\
    (void)x; /* no column counts */
    column[0] = 0;
"""

_RAMPS = """\
    for (i = 0; i < {count}; i++) {{
        const double from = x[block{number}_source[i]];
        const double value = ((isfinite(from) ? from : NAN) - block{number}_begin[i])
            / block{number}_length[i];
        column[{start} + i] = (clip(value, {low}, {high}) - block{number}_center[i])
            * {factor};
    }}
"""

_LEVELS = """\
    for (i = 0; i < {count}; i++) {{
        const double from = x[block{number}_source[i]];
        const double value = isfinite(from) ? floor(from) == block{number}_place[i] : NAN;
        column[{start} + i] = (value - block{number}_center[i]) / block{number}_scale[i];
    }}
"""

_TIMES = """\
    for (i = 0; i < {count}; i++) {{
        const double from = x[block{number}_source[i]];
        const double turns = (isfinite(from) ? from : NAN) / block{number}_period[i];
        const double wave = sin({circle} * (turns - floor(turns)) + block{number}_phase[i]);
        column[{start} + i] = (wave - block{number}_center[i]) / block{number}_scale[i];
    }}
"""

_GAPS = """\
    for (i = 0; i < {count}; i++) {{
        const double value = isnan(x[block{number}_source[i]]) ? 1 : 0;
        column[{start} + i] = (value - block{number}_share[i]) / block{number}_scale[i];
    }}
"""

_FILLING = """\
    for (i = 0; i < N_COLUMNS; i++) {
        if (isinf(x[source[i]]))
            column[i] = NAN;
        else if (isnan(column[i]) && lacking[i])
            column[i] = 0; /* the mean */
    }
"""

_LEVEL_OF_WORDS = """
   int level_of(int column, const char *text);

   gives the x[column] of a text in UTF-8: the place of its level, -1 where it is none.
"""

_LEVEL_OF = """
int level_of(int column, const char *text);

{arrays}
int level_of(int column, const char *text)
{{
    const char *const *texts;
    const int *places;
    int low = 0, high;

    switch (column) {{
{cases}    default:
        return -1;
    }}
    while (low < high) {{
        const int middle = low + (high - low) / 2;
        const int order = strcmp(text, texts[middle]);
        if (order == 0)
            return places[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }}
    return -1;
}}
"""

_CASE = """\
    case {j}:
        texts = column{j}_texts, places = column{j}_places, high = {count};
        break;
"""


def _array(name: str, values: Any) -> str:
    """A constant array: whole numbers, or hexadecimal ones that are exact."""
    kept = np.ravel(values)
    kind = "int" if kept.dtype.kind == "i" else "double"
    texts = [str(v) if kind == "int" else v.hex() for v in kept.tolist()] or ["0"]  # C has no empty
    lines = (
        ", ".join(texts[at : at + _NUMBERS_A_LINE]) for at in range(0, len(texts), _NUMBERS_A_LINE)
    )
    content = ",\n    ".join(lines)
    return f"static const {kind} {name}[{len(texts)}] = {{\n    {content}\n}};\n"


def _ramps(block: ColumnBlock, number: int, start: int) -> tuple[str, str]:
    """Arrays and statements of a block of ramps."""
    ramps = ramps_of(block)
    ends = {name: float(getattr(ramps, name)).hex() for name in ("low", "high", "factor")}
    statements = _RAMPS.format(count=block.n_columns, number=number, start=start, **ends)
    names = ("source", "begin", "length", "center")
    return _arrays(number, **{name: getattr(ramps, name) for name in names}), statements


def _levels(block: LevelColumns, number: int, start: int) -> tuple[str, str]:
    arrays = _arrays(
        number, source=block.sources, place=block.places, center=block.center, scale=block.scale
    )
    return arrays, _LEVELS.format(count=block.n_columns, number=number, start=start)


def _times(block: TimeColumns, number: int, start: int) -> tuple[str, str]:
    names = ("period", "phase", "center", "scale")
    arrays = _arrays(number, source=block.sources, **{name: getattr(block, name) for name in names})
    circle = (2 * np.pi).hex()
    return arrays, _TIMES.format(count=block.n_columns, number=number, start=start, circle=circle)


def _gaps(block: GapColumns, number: int, start: int) -> tuple[str, str]:
    arrays = _arrays(number, source=block.sources, share=block.share, scale=block.scale)
    return arrays, _GAPS.format(count=block.n_columns, number=number, start=start)


def _arrays(number: int, **values: Any) -> str:
    """Those of a block."""
    return "\n".join(_array(f"block{number}_{name}", array) for name, array in values.items())


_BLOCKS: dict[type[ColumnBlock], Any] = dict.fromkeys(RAMPS, _ramps) | {
    LevelColumns: _levels,
    TimeColumns: _times,
    GapColumns: _gaps,
}


def _level_of(columns: Iterable[RawColumn]) -> str:
    """The function that finds levels, with their texts in order; empty where there are none."""
    arrays, cases = [], []
    for j, column in enumerate(columns):
        if column.kind == "levels":
            places = {text.encode(): place for place, text in enumerate(column.levels)}
            order = sorted(text for text in places if b"\0" not in text)  # C has no such text
            texts = ",\n    ".join(map(_text, order or [b""]))
            arrays.append(
                f"static const char *const column{j}_texts[{len(order) or 1}] = {{\n"
                f"    {texts}\n}};\n"
                + _array(f"column{j}_places", np.array([places[text] for text in order], int))
            )
            cases.append(_CASE.format(j=j, count=len(order)))
    if not cases:
        return ""
    return _LEVEL_OF.format(arrays="\n".join(arrays), cases="".join(cases))


def _text(text: bytes) -> str:
    """A literal of ASCII."""
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text)
    return f'"{"".join(plain)}"'


def _make(network: Network) -> str:
    names = ["hidden_weights", "hidden_bias", "output_weights", "output_bias"]
    arrays = [_array(name, getattr(network, name)) for name in names]
    encoding = [_COPY]
    if network.encoder is not None:
        encoding = []
        for number, block in enumerate(network.encoder.blocks):
            if block.n_columns:
                start = network.encoder.columns_of(number).start
                more, loop = _BLOCKS[type(block)](block, number, start)
                arrays.append(more)
                encoding.append(loop)
        if filling := filling_of(network.encoder):
            arrays += [_array(f.name, getattr(filling, f.name) * 1) for f in fields(filling)]
            encoding.append(_FILLING)
    result = "y[j]"
    if network.target_range is not None:
        for name, values in zip(("least", "greatest"), network.target_range, strict=True):
            arrays.append(_array(name, values))
        result = "clip(y[j], least[j], greatest[j])"
    statements = "".join(encoding) or _NOTHING
    slope = network.negative_slope
    p, h = network.hidden_weights.shape
    level_of = _level_of(network.columns or ())
    return _FILE.format(
        version=__version__,
        stack=8 * (p + h),
        features=_comment(network.feature_names, network.n_features),
        targets=_comment(network.target_names, network.n_targets),
        n_features=network.n_features,
        n_targets=network.n_targets,
        n_columns=p,
        n_hidden=h,
        column_size="N_COLUMNS" if p else 1,
        hidden_size="N_HIDDEN" if h else 1,
        level_of_words=_LEVEL_OF_WORDS if level_of else "",
        string_h="#include <string.h>\n" if level_of else "",
        level_of=level_of,
        arrays="\n".join(arrays),
        clip=_CLIP if "clip(" in statements + result else "",
        encoding=statements,
        left=f"{float(slope).hex()} * z[i]" if slope else "0.0",
        result=result,
    )


def _comment(names: Iterable[str] | None, count: int) -> str:
    """Numbers and names; a name can neither end the comment nor the line."""
    if names is None:
        return f"     {count} without names, in the order of the training columns"
    safe = (
        ascii(name).replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?") for name in names
    )
    return "\n".join(f"     {number:4}  {name}" for number, name in enumerate(safe))


def _encode(text: str, network: Network) -> bytes:
    del network
    return text.encode("ascii")


TARGET = Target(ending=".c", blocks=_BLOCKS, make=_make, encode=_encode)
