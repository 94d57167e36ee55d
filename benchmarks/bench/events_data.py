"""The table of the `events` benchmark: shop events over 90 days in the order of their time, as Delta.

    python -m bench.events_data --rows 100000000 FOLDER

Made by DuckDB from the row's number alone, so that every run makes the same rows, and written by delta-rs with its
statistics. The tide of a day is in it: at the peak four times as many events a second as at night.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import deltalake
import duckdb
import pyarrow

START = "2026-01-01"
DAYS = 90
USERS = 1_000_000
PRODUCTS = 20_000
SLICE = 1_000_000
FILE_BYTES = 128 << 20
# In percent, the frequent ones first.
TYPES = {
    "page_view": 38, "click": 22, "search": 12, "view_item": 9, "add_to_cart": 6, "scroll": 4, "purchase": 3,
    "remove_from_cart": 2, "login": 1.5, "logout": 1, "share": 0.9, "refund": 0.6,
}  # fmt: skip
REGIONS = {"eu": 35, "us": 30, "asia": 20, "latam": 10, "africa": 5}
DEVICES = {"mobile": 58, "desktop": 34, "tablet": 8}


def pick(weights: dict[str, float], draw: str) -> str:
    """An SQL expression that turns a draw from [0, 1) into one of the names."""
    total, below, cases = sum(weights.values()), 0.0, ""
    for name, weight in weights.items():
        below += weight / total
        cases += f"WHEN {draw} < {below:.6f} THEN '{name}' "
    return f"CASE {cases}ELSE '{name}' END"


def draw(salt: int) -> str:
    """A number in [0, 1) that looks independent of other salts'. `hash(i, salt)` would not: it is an exclusive or."""
    return f"(hash(i * 16 + {salt}) >> 11) / 9007199254740992.0"


def query(first: int, behind: int, total: int) -> str:
    """Rows `first` to `behind` of `total`."""
    # The sine moves events from night to day, and by so little that their order stays.
    seconds = f"(i + {draw(1)}) * ({DAYS} * 86400.0 / {total})"
    return f"""
WITH numbers AS (SELECT range AS i FROM range({first}, {behind})),
     draws AS (
       SELECT i, {seconds} AS t, {draw(2)} AS type_draw, {draw(3)} AS region_draw, {draw(4)} AS device_draw,
              CAST(floor({USERS} * pow({draw(5)}, 3)) AS INTEGER) AS user_number,
              CAST(floor({PRODUCTS} * pow({draw(6)}, 2)) AS INTEGER) AS product_number,
              CAST(1 + floor(5 * pow({draw(7)}, 3)) AS INTEGER) AS pieces
       FROM numbers)
SELECT format('{{:016x}}', hash(i * 16 + 8)) AS event_id,
       {pick(TYPES, "type_draw")} AS event_type,
       TIMESTAMP '{START}' + to_microseconds(CAST((t + 8200 * sin(t * (2 * pi() / 86400))) * 1e6 AS BIGINT)) AS ts,
       'user' || user_number AS user_id,
       'p' || product_number AS product,
       round(1 + (hash(product_number) % 20000) / 100.0, 2) AS price,
       pieces AS quantity,
       {pick(REGIONS, "region_draw")} AS region,
       {pick(DEVICES, "device_draw")} AS device
FROM draws
ORDER BY ts"""


def batches(connection: duckdb.DuckDBPyConnection, rows: int) -> Iterator[pyarrow.RecordBatch]:
    for first in range(0, rows, SLICE):
        made = connection.sql(query(first, min(first + SLICE, rows), rows)).to_arrow_table()
        yield from made.cast(in_utc(made.schema)).to_batches()


def in_utc(schema: pyarrow.Schema) -> pyarrow.Schema:
    """With points in time, as Delta's `timestamp` is; DuckDB would need an extension for those."""
    place = schema.get_field_index("ts")
    return schema.set(place, pyarrow.field("ts", pyarrow.timestamp("us", tz="UTC")))


def make(folder: Path, rows: int) -> None:
    """Makes the table; the marker beside its log says that it is whole."""
    connection = duckdb.connect(config={"threads": 1, "memory_limit": "1GB"})
    schema = in_utc(connection.sql(query(0, 0, rows)).to_arrow_table().schema)
    reader = pyarrow.RecordBatchReader.from_batches(schema, batches(connection, rows))
    deltalake.write_deltalake(
        folder,
        reader,
        mode="overwrite",
        target_file_size=FILE_BYTES,
        writer_properties=deltalake.WriterProperties(compression="ZSTD", compression_level=1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.events_data", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000_000)
    options = parser.parse_args()
    begun = time.monotonic()
    make(options.folder, options.rows)
    table = deltalake.DeltaTable(str(options.folder))
    print(json.dumps({"rows": options.rows, "files": len(table.file_uris()), "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
