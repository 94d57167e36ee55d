"""Kafka to Delta: a topic filled beforehand, one-minute windows, everything that is there (`available_now`).

Runs the pipeline in process and on two executors of one core each, and with --peers the same work on Spark and
Flink (see ../peers). Each of them runs twice; the second time counts, so that nobody pays for a cold start. CPU
seconds are those of the engine's own processes, without the broker's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import deltalake

from . import report
from .servers import Server

HERE = Path(__file__).parent.parent
KEYS = {"few": "metadata['region'] AS region, event_type", "many": "user_id"}
GROUP_BY = {"few": "metadata['region'], event_type", "many": "user_id"}
PATIENCE_SECONDS = 600


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--brokers", required=True, help="an Apache Kafka; make services-up starts one")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--groups", choices=KEYS, default="few", help="windows × region × type, or × 50,000 users")
    parser.add_argument("--event-rate", type=int, default=10_000, help="events a second of event time")
    parser.add_argument("--peers", nargs="*", choices=["spark", "flink"], default=[])


def fill(arguments: argparse.Namespace) -> str:
    """The topic; filled once for as many events, and found again by its name."""
    topic = f"bench_{arguments.events}_{arguments.partitions}_{arguments.event_rate}"
    marker = Path(os.environ["TIDEMILL_BENCHMARKS"]) / f"{topic}-{arguments.brokers.replace(':', '-')}"
    if not marker.exists():
        subprocess.run(
            [arguments.program, "generate", "--brokers", arguments.brokers, "--topic", topic, "--rate", "0",
             "--partitions", str(arguments.partitions), "--count", str(arguments.events),
             "--event-rate", str(arguments.event_rate), "--start", "2026-01-01T00:00:00Z"],
            check=True,
        )  # fmt: skip
        marker.touch()
    return topic


def source(topic: str, brokers: str) -> str:
    return f"""CREATE SOURCE events (
  event_id VARCHAR NOT NULL,
  event_type VARCHAR NOT NULL,
  "timestamp" TIMESTAMP NOT NULL,
  user_id VARCHAR,
  data STRUCT<product_id VARCHAR, price DOUBLE, quantity BIGINT>,
  metadata STRUCT<region VARCHAR, device VARCHAR>,
  WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '5 seconds')
WITH (connector = 'kafka', topic = '{topic}', 'properties.bootstrap.servers' = '{brokers}')
FORMAT PLAIN ENCODE JSON"""


def pipeline(name: str, groups: str) -> str:
    return f"""CREATE STREAMING TABLE {name} WITH (trigger = 'available_now')
AS SELECT window_start, {KEYS[groups]}, count(*) AS events, sum(data['price'] * data['quantity']) AS revenue
   FROM TUMBLE(events, "timestamp", INTERVAL '1 minute')
   GROUP BY window_start, {GROUP_BY[groups]}"""


def run_pipeline(server: Server, name: str, arguments: argparse.Namespace) -> dict:
    with server.connect() as connection, connection.cursor() as cursor:
        cpu, begun = server.cpu_seconds(), time.monotonic()
        cursor.execute(pipeline(name, arguments.groups))
        while True:
            cursor.execute(f"SELECT status, read, error FROM tidemill.pipelines WHERE name = '{name}'")
            status, read, error = cursor.fetchone()
            if status == "finished":
                break
            if error or time.monotonic() - begun > PATIENCE_SECONDS:
                raise SystemExit(f"{name} is {status} after {read} events: {error}")
            time.sleep(0.02)
        seconds, cpu = time.monotonic() - begun, server.cpu_seconds() - cpu
        cursor.execute(f"STOP PIPELINE {name} WITH DRAIN")
        while status != "drained":
            cursor.execute(f"SELECT status FROM tidemill.pipelines WHERE name = '{name}'")
            (status,) = cursor.fetchone()
            time.sleep(0.02)
    # Read by another Delta implementation, so that nothing but what is committed counts.
    table = deltalake.DeltaTable(str(server.folder / "lake/public" / name)).to_pyarrow_table(columns=["events"])
    events = sum(table["events"].to_pylist())
    if read != arguments.events or events != arguments.events:
        raise SystemExit(f"{name}: {read} events read and {events} windowed instead of {arguments.events}")
    return {"seconds": seconds, "cpu_seconds": cpu, "rows": table.num_rows}


def tidemill(arguments: argparse.Namespace, topic: str, executors: int) -> dict:
    with Server(arguments.program, executors) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(source(topic, arguments.brokers))
        cold = run_pipeline(server, "cold", arguments)
        return {**run_pipeline(server, "warm", arguments), "seconds_cold": cold["seconds"]}


def peer(name: str, arguments: argparse.Namespace, topic: str) -> dict:
    """Runs ../peers/NAME, which has its own Python environment."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        subprocess.run(
            [HERE / "peers" / "run", name, "--brokers", arguments.brokers, "--topic", topic, "--groups",
             arguments.groups, "--out", folder, "--cores", "2", "--memory", "6g", "--result", result],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
        found = json.loads(result.read_text())
    return {
        "version": found["version"],
        "seconds": found["seconds_warm"],
        "cpu_seconds": found["cpu_seconds"],
        "rows": found["rows"],
        "seconds_cold": found["seconds_cold"],
        "sum_events": found["sum_events"],
    }


def run(arguments: argparse.Namespace) -> None:
    topic = fill(arguments)
    found = {"Tidemill, in process": tidemill(arguments, topic, executors=0)}
    found["Tidemill, two executors"] = tidemill(arguments, topic, executors=2)
    for name in arguments.peers:
        outcome = peer(name, arguments, topic)
        found[f"{name.capitalize()} {outcome['version']}"] = outcome
    base = next(iter(found.values()))["seconds"]
    rows = [
        [name, f"{arguments.events / each['seconds']:,.0f}", f"{each['seconds'] / base:.2f}",
         f"{each['cpu_seconds'] / arguments.events * 1e6:.2f}", f"{each['seconds_cold']:.1f}"]
        for name, each in found.items()
    ]  # fmt: skip
    header = ["", "events/s", "time, Tidemill = 1", "CPU s per million events", "first run, s"]
    report.write(
        arguments.results,
        f"streaming-{arguments.groups}",
        arguments.program,
        {"events": arguments.events, "groups": arguments.groups, "runs": found},
        f"# Kafka to Delta, {arguments.groups} groups\n\n{arguments.events:,} events of about 330 bytes in "
        f"{arguments.partitions} partitions, one-minute windows, exactly once.\n\n{report.table(header, rows)}",
    )
