"""Whether an answer is right, by DuckDB's, where SQL leaves some of it open.

Rows whose ORDER BY keys are equal may come in any order, and of those at the edge of a LIMIT any may be there. So
DuckDB is asked without the limit and with the keys; an answer is cut into runs of equal keys, and each run must hold
the rows that DuckDB has for that key. One engine averages decimals, another floats: numbers may differ a little.
"""

import datetime
import decimal
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import sqlglot
from sqlglot import expressions

RELATIVE = 1e-9
# DataFusion cuts an average of decimals off after six digits.
ABSOLUTE = 2e-6
# An answer without its limit that is larger stays in DuckDB, and only rows like ours are taken out of it.
LARGE = 100_000
TABLE = "answer_without_limit"


def plain(value: Any) -> Any:
    """Values of one meaning as one: a date may come as midnight, a text as bytes, and nested ones as text."""
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=None)
        return value.date() if value.time() == datetime.time() else value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value) if isinstance(value, list | dict) else value


def rows(table: pyarrow.Table) -> list[tuple]:
    columns = [list(map(plain, column.to_pylist())) for column in table.columns]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def same_value(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) or isinstance(theirs, float):
        if not isinstance(ours, int | float) or not isinstance(theirs, int | float):
            return False
        if ours != ours or theirs != theirs:  # NaN
            return ours != ours and theirs != theirs
        return ours == theirs or abs(ours - theirs) <= ABSOLUTE + RELATIVE * abs(theirs)
    return ours == theirs


def same_row(ours: tuple, theirs: tuple) -> bool:
    return all(map(same_value, ours, theirs))


def texts(row: tuple) -> tuple:
    """What of a row is no number: those may differ a little, and of one column some be whole and others not."""
    return tuple(None if isinstance(value, int | float) else value for value in row)


def unmatched(ours: list[tuple], theirs: list[tuple]) -> list[tuple]:
    """Those of our rows that have no partner among theirs, each of which may be taken once."""
    if len(ours) == len(theirs) and all(map(same_row, ours, theirs)):
        return []
    waiting: dict[tuple, list[tuple]] = defaultdict(list)
    for row in theirs:
        waiting[texts(row)].append(row)
    alone = []
    for row in ours:
        candidates = waiting[texts(row)]
        partner = next((number for number, each in enumerate(candidates) if same_row(row, each)), None)
        if partner is None:
            alone.append(row)
        else:
            candidates.pop(partner)
    return alone


class Expected:
    """DuckDB's answer to one query. It holds the connection's temporary table: one at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        self.connection = connection
        tree = sqlglot.parse_one(query, read="duckdb")
        names = [column[0].lower() for column in connection.execute(f"DESCRIBE {query}").fetchall()]
        self.width = len(names)
        order = tree.args.get("order")
        # Where nulls come by default is read as Postgres and DataFusion have it.
        ways = sqlglot.parse_one(query, read="postgres").args.get("order")
        limits = " ".join(tree.args[part].sql("duckdb") for part in ("limit", "offset") if tree.args.get(part))
        self.limited = bool(limits)
        for part in ("order", "limit", "offset"):
            tree.set(part, None)
        # For each key its column, and in which direction.
        keys: list[tuple[int, str]] = []
        for ordered, way in zip(order.expressions, ways.expressions, strict=True) if order else []:
            place = position(tree, ordered.this, names)
            if place is None:
                place = self.width + sum(each >= self.width for each, _ in keys)
                hidden = expressions.alias_(ordered.this.copy(), f"hidden_key_{place}")
                tree = tree.select(hidden, copy=False)
            keys.append((place, direction(way)))
        self.visible = [place for place, _ in keys if place < self.width]
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {TABLE} AS {tree.sql('duckdb')}")
        described = connection.execute(f"DESCRIBE {TABLE}").fetchall()
        self.columns = ['"{}"'.format(column[0].replace('"', '""')) for column in described]
        # Those that all engines have alike, so that rows can be looked up by them.
        self.alike = [
            place for place, column in enumerate(described[: self.width])
            if column[1] in ("VARCHAR", "DATE", "BIGINT", "INTEGER", "SMALLINT")
        ]  # fmt: skip
        ((self.size,),) = connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall()
        by = ", ".join(f"{place + 1} {way}" for place, way in keys)
        found = rows(
            connection.sql(f"SELECT * FROM {TABLE} {f'ORDER BY {by}' if by else ''} {limits}").to_arrow_table()
        )
        self.window = [row[: self.width] for row in found]
        self.hidden = [row[self.width :] for row in found]
        self.keys = [tuple(row[place] for place, _ in keys) for row in found]

    def difference(self, ours: pyarrow.Table) -> str | None:
        """What is not the same; `None` if the answer is right."""
        if ours.num_columns != self.width:
            return f"{ours.num_columns} columns instead of {self.width}"
        if ours.num_rows != len(self.window):
            return f"{ours.num_rows} rows instead of {len(self.window)}"
        our_rows = rows(ours)
        for number, (our_row, their_row) in enumerate(zip(our_rows, self.window, strict=True)):
            if not all(same_value(our_row[place], their_row[place]) for place in self.visible):
                return f"row {number}: {our_row} where {their_row} was expected"
        for begin, end in self._runs():
            mine = our_rows[begin:end]
            alone = unmatched(mine, self.window[begin:end])
            if alone and self.limited:
                # There are others of this key beyond the limit.
                alone = unmatched(mine, self._beyond(ours.slice(begin, end - begin), self.hidden[begin]))
            if alone:
                return f"rows {begin} to {end - 1}: unexpected {alone[0]}, beside {self.window[begin]}"
        return None

    def _runs(self) -> Iterator[tuple[int, int]]:
        """From where to where keys are the same, as far as engines that count differently can tell."""
        begin = 0
        for place, (before, key) in enumerate(itertools.pairwise(self.keys), start=1):
            if not same_row(before, key):
                yield begin, place
                begin = place
        if self.keys:
            yield begin, len(self.keys)

    def _beyond(self, ours: pyarrow.Table, hidden: tuple) -> list[tuple]:
        """All rows with this hidden key (the visible ones are compared already); of many only those like ours."""
        conditions = [f"{column} IS NOT DISTINCT FROM ?" for column in self.columns[self.width :]]
        if self.size > LARGE and self.alike:
            self.connection.register("ours", ours.rename_columns([f"c{place}" for place in range(ours.num_columns)]))
            same = " AND ".join(f"{self.columns[place]} IS NOT DISTINCT FROM c{place}" for place in self.alike)
            conditions.append(f"EXISTS (SELECT 1 FROM ours WHERE {same})")
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        found = self.connection.sql(f"SELECT * FROM {TABLE} {where}", params=list(hidden)).to_arrow_table()
        return [row[: self.width] for row in rows(found)]


def direction(ordered: expressions.Ordered) -> str:
    nulls = "FIRST" if ordered.args.get("nulls_first") else "LAST"
    return f"{'DESC' if ordered.args.get('desc') else 'ASC'} NULLS {nulls}"


def position(tree: expressions.Expression, key: expressions.Expression, names: list[str]) -> int | None:
    """Which column of the answer the key is, if it is one."""
    if isinstance(key, expressions.Literal) and key.is_int:
        return int(key.this) - 1
    selects = getattr(tree, "selects", [])
    for place, selected in enumerate(selects):
        if selected.unalias() == key and not selected.is_star:
            return place
    if isinstance(key, expressions.Column) and not key.table and key.name.lower() in names:
        return names.index(key.name.lower())
    if isinstance(tree, expressions.SetOperation) or tree.args.get("distinct"):
        raise ValueError(f"ORDER BY {key.sql()} is no column of the answer")
    return None


def connect(tables: dict[str, Path], cores: int, scratch: Path) -> duckdb.DuckDBPyConnection:
    """The judge: not one of those that are measured, and closed before they are."""
    connection = duckdb.connect(
        config={
            "threads": cores,
            "memory_limit": "3GiB",
            "temp_directory": str(scratch),
            "preserve_insertion_order": False,
        }
    )
    connection.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
    for name, path in tables.items():
        files = f"{path}/*.parquet" if path.is_dir() else path
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}')")
    return connection
