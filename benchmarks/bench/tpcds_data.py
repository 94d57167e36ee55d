"""TPC-DS's tables and queries, by DuckDB's `tpcds` extension as PyPI has it.

    python tpcds_data.py --scale 1 FOLDER

Runs in a Python environment of its own, for the extension is for an older DuckDB than the one that is compared with.
Leaves a Parquet file a table, decimals and dates as the specification has them, and the query texts as `queries.json`.
"""

import argparse
import json
from pathlib import Path

import duckdb
import duckdb_extension_tpcds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    (extension,) = Path(duckdb_extension_tpcds.__file__).parent.glob("extensions/*/tpcds.duckdb_extension")
    # On disk, so that the generator needs little memory.
    database = options.folder / "generating.duckdb"
    connection = duckdb.connect(str(database), config={"threads": 1, "memory_limit": "1GB"})
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"CALL dsdgen(sf = {options.scale})")
    for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        connection.execute(f"COPY {table} TO '{options.folder}/{table}.parquet' (FORMAT parquet, COMPRESSION snappy)")
    queries = dict(connection.execute("SELECT query_nr, query FROM tpcds_queries()").fetchall())
    connection.close()
    database.unlink()
    # Last: it says that all is there.
    (options.folder / "queries.json").write_text(json.dumps({f"q{n:02}": text for n, text in sorted(queries.items())}))


if __name__ == "__main__":
    main()
