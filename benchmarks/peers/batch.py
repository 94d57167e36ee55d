"""One engine in a process of its own, asked over its standard input and output: see ../bench/engines.py.

    python batch.py {datafusion|duckdb|sail|spark} --tables TABLES.json --cores N --scratch FOLDER

The tables file maps names to Parquet files or folders. Each line that comes in is a request, `{"query": …}`; with
`"answer": PATH` too, the answer is written there as an Arrow file. Each line that goes out is what came of it:
`{"seconds": …, "rows": …}` or `{"error": …}`. The clock stops when the whole answer is here as Arrow. The first line,
`{"version": …}`, says that the tables are there.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow

Ask = Callable[[str], pyarrow.Table]


def datafusion(tables: dict[str, str], options: argparse.Namespace) -> tuple[str, Ask]:
    import datafusion

    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(options.cores))
    for name, path in tables.items():
        context.register_parquet(name, path)

    def ask(query: str) -> pyarrow.Table:
        frame = context.sql(query)
        batches = frame.collect()
        # The plan's schema may say less of nulls than the batches do.
        return pyarrow.Table.from_batches(batches, schema=None if batches else frame.schema())

    return datafusion.__version__, ask


def duckdb(tables: dict[str, str], options: argparse.Namespace) -> tuple[str, Ask]:
    import duckdb

    connection = duckdb.connect(
        config={
            "threads": options.cores,
            "memory_limit": f"{options.memory_gib}GiB",
            "temp_directory": str(options.scratch / "duckdb"),
        }
    )
    # As Postgres and DataFusion have it, so that the same texts ask for the same rows.
    connection.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
    for name, path in tables.items():
        files = f"{path}/*.parquet" if Path(path).is_dir() else path
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}')")
    return duckdb.__version__, lambda query: connection.sql(query).to_arrow_table()


def views(session: Any, tables: dict[str, str]) -> Ask:
    for name, path in tables.items():
        session.read.parquet(path).createOrReplaceTempView(name)
    return lambda query: session.sql(query).toArrow()


def sail(tables: dict[str, str], options: argparse.Namespace) -> tuple[str, Ask]:
    os.environ["SAIL_EXECUTION__DEFAULT_PARALLELISM"] = str(options.cores)
    import pysail
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    global _sail_server  # It ends when nobody holds it.
    _sail_server = server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    _, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return pysail.__version__, views(session, tables)


def spark(tables: dict[str, str], options: argparse.Namespace) -> tuple[str, Ask]:
    import pyspark
    from pyspark.sql import SparkSession

    settings = {
        "spark.driver.memory": f"{options.memory_gib}g",
        # Throughput counts here, and G1 takes more CPU on two cores.
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
        "spark.driver.maxResultSize": "2g",
        # One task per core after the shuffle; the default of 200 is for clusters.
        "spark.sql.shuffle.partitions": str(options.cores),
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(options.scratch / "spark-local"),
        "spark.sql.warehouse.dir": str(options.scratch / "spark-warehouse"),
    }
    builder = SparkSession.builder.master(f"local[{options.cores}]").appName("bench")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return pyspark.__version__, views(session, tables)


ENGINES = {"datafusion": datafusion, "duckdb": duckdb, "sail": sail, "spark": spark}


def serve(ask: Ask, request: dict[str, str]) -> dict[str, Any]:
    try:
        begun = time.perf_counter()
        table = ask(request["query"])
        seconds = time.perf_counter() - begun
    except Exception as error:  # every failure is a result here
        return {"error": f"{type(error).__name__}: {error}"}
    if "answer" in request:
        with pyarrow.OSFile(request["answer"], "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return {"seconds": seconds, "rows": table.num_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--memory-gib", type=int, default=5, help="Spark's heap, DuckDB's buffers; the others set no limit"
    )
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    # What libraries and the JVM print must not get between the replies.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    version, ask = ENGINES[options.engine](json.loads(options.tables.read_text()), options)
    print(json.dumps({"version": version}), file=replies)
    for line in sys.stdin:
        print(json.dumps(serve(ask, json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
