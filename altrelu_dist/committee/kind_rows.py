"""Rows as each kind of members takes them: which columns, made uncorrelated, or without zeros."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from altrelu_dist.committee.focus import factors
from altrelu_dist.committee.members import Group
from altrelu_dist.committee.settings import CommitteeSettings, Kind
from altrelu_dist.committee.tiles import EncodedTiles, Encoding, Pace, whitening, with_hats
from altrelu_dist.encoding import ColumnSketch, Encoder, RawColumns, numeric
from altrelu_dist.moments.rows import Array, Rows, Scaler

__all__ = ["KindRows", "learnt"]


class KindRows:
    """Tiles of the rows in memory, and of those that judge members, for each kind.

    They are kept encoded, as long as there is room.

    Parameters
    ----------
    encoder : Encoder
        Of the columns of all kinds.
    scaler : Scaler
    settings : CommitteeSettings
    pace : Pace
    rows : Rows
        Those in memory.
    judged : Rows
        The first of them; the same for all rows that follow.
    """

    def __init__(
        self,
        encoder: Encoder,
        scaler: Scaler,
        settings: CommitteeSettings,
        pace: Pace,
        rows: Rows,
        judged: Rows,
    ) -> None:
        self.encoder, self.scaler, self.settings, self.pace = encoder, scaler, settings, pace
        self.sparse = True  # whether members may take rows as hats
        self._whitenings: dict[tuple[int, ...], Array] = {}  # by blocks of the encoder
        self._factors: Array | None = None  # of focused columns, once there are members
        self._encodings: dict[Kind, Encoding] = {}
        self._tiles: dict[tuple[str, int], EncodedTiles] = {}  # by columns and number of rows
        self.hold(rows, judged, 0)

    def hold(self, rows: Rows, judged: Rows, part: int) -> None:
        """Take another part of all rows, by its number."""
        self.rows, self.judged, self._part = rows, judged, part
        self._tiles.clear()

    def blocks(self, kind: Kind) -> tuple[int, ...]:
        """Those of the encoder that members of a kind take."""
        if kind.values:
            return self.encoder.with_pieces(kind.pieces, self.encoder.n_pieces)
        return self.encoder.with_pieces(kind.pieces)

    def n_columns(self, kind: Kind) -> int:
        """Encoded columns that members of a kind take."""
        return self.encoder.take(self.blocks(kind)).n_columns

    def width(self, kind: Kind) -> int:
        """Dense columns whose products take as long."""
        return self._of_members(kind).width

    def tiles(self, kind: Kind, *, judged: bool = False) -> EncodedTiles:
        """The rows in memory, or those that judge, as members of a kind take them."""
        return self._made(kind, self._of_members(kind), judged=judged)

    def dense_tiles(self, kind: Kind, *, judged: bool = False) -> EncodedTiles:
        """The same with all their zeros, for the lines."""
        return self._made(kind, self._dense(kind), judged=judged)

    def forget_others(self, kinds: Iterable[Kind]) -> None:
        """Make room for the tiles of some kinds."""
        names = {_name(kind, self._of_members(kind)) for kind in kinds}
        self._tiles = {
            key: tiles for key, tiles in self._tiles.items() if key[0] in names and tiles.kept_bytes
        }

    def focus(self, kind: Kind, group: Group, slope: float) -> None:
        """Learn what each column of focused kinds is multiplied by, from members of a kind."""
        settings = self.settings
        encoding = self.tiles(kind, judged=True).encoding
        few = self.judged.part(0, min(settings.compared_rows, len(self.judged.X)))
        x = self._dense(kind)(few).x
        seen = group._replace(W=encoding.hidden_weights(group.W).astype(np.float32))
        sources = np.concatenate([block.sources for block in encoding.encoder.blocks])
        self._factors = factors(x, seen, sources, slope, settings.focus_floor)

    def _dense(self, kind: Kind) -> Encoding:
        """The encoded columns that members of a kind take, neither whitened nor focused."""
        encoder = self.encoder.take(self.blocks(kind))
        return Encoding(encoder, self.scaler, with_hats(encoder) if kind.values else None)

    def _of_members(self, kind: Kind) -> Encoding:
        """The same, as hats where that takes less time."""
        if kind not in self._encodings:
            encoding = self._dense(kind)
            dense = kind.mixed or not self.sparse
            self._encodings[kind] = encoding if dense else encoding.sparse()
        return self._encodings[kind]

    def _made(self, kind: Kind, encoding: Encoding, *, judged: bool) -> EncodedTiles:
        """Tiles in which the columns are whitened and focused too; in every round the same."""
        rows = self.judged if judged else self.rows
        name = _name(kind, encoding)
        key = name, len(rows.X)
        if key in self._tiles:
            return self._tiles[key]
        settings = self.settings
        size = settings.rows_of_tile(len(self.rows.X))
        assert encoding.form is None or not kind.mixed
        if kind.whitened:
            blocks = self.blocks(kind)
            if blocks not in self._whitenings:
                plain = EncodedTiles(self.judged, encoding, size, 0, pace=self.pace)
                self._whitenings[blocks] = whitening(plain.all(), settings.floor)
            turned = self._whitenings[blocks]
            mixing = turned if encoding.mixing is None else encoding.mixing @ turned
            encoding = replace(encoding, mixing=mixing)
        if kind.focused:
            encoding = replace(encoding, factors=self._factors)
        left = settings.encoded_bytes - sum(tiles.kept_bytes for tiles in self._tiles.values())
        made = EncodedTiles(rows, encoding, size, left, f"{self._part}-{name}", self.pace)
        self._tiles[key] = made
        return made


def _name(kind: Kind, encoding: Encoding) -> str:
    """Of the columns that a kind takes, and of how."""
    how = {"whitened": kind.whitened, "focused": kind.focused, "values": kind.values}
    how["hats"] = encoding.form is not None
    return "-".join([str(kind.pieces), *(name for name, is_so in how.items() if is_so)])


def learnt(
    sketch: ColumnSketch, n_rows: int, settings: CommitteeSettings, raw: RawColumns | None
) -> tuple[Encoder, int]:
    """Standardised columns, pieces as fine as the number of columns allows, and repeated values.

    And how many blocks of pieces there are, but for that of the values.
    """
    distinct = np.where(sketch.exact, sketch.counts, np.iinfo(np.intp).max)
    cut = (distinct > 2) & (sketch.deviation > 0) & (True if raw is None else numeric(raw))

    def count(intervals: int) -> int:
        return int(np.minimum(distinct - 1, intervals)[cut].sum())

    intervals = settings.intervals(count)
    seen = n_rows * sketch.total / np.maximum(sketch.total + sketch.missing, 1e-300)
    repeated = cut & (distinct > settings.coarse + 1) & (distinct <= seen / settings.rows_a_value)
    encoder = Encoder.learn(
        sketch,
        intervals,
        raw,
        repeated=np.flatnonzero(repeated).tolist() if intervals else (),
        most_values=settings.value_columns,
    )
    return encoder, len(intervals)
