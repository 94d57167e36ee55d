"""The streaming benchmark on Flink SQL: a Kafka topic into Parquet files by one-minute windows.

Parquet and not Delta, for Maven Central has no Delta connector for Flink 2. The filesystem connector gives the same
guarantee: a file becomes visible with the checkpoint that covers it, exactly once. It leaves out what a commit to a
Delta log costs, in Flink's favour.
"""

import argparse
import os
from pathlib import Path

import pyarrow.compute
import pyarrow.dataset
from py4j.java_gateway import JavaObject, JVMView
from pyflink.common import Configuration
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment
from pyflink.version import __version__

import peer

# No idle timeout: every partition has events, and one that was read to its end no longer holds the watermark back.
# Only the fields that the query needs: Flink's JSON format skips the others.
SOURCE = """CREATE TEMPORARY TABLE events (
  `timestamp` TIMESTAMP_LTZ(3),
  data ROW<price DOUBLE, quantity BIGINT>,
  {key_fields},
  WATERMARK FOR `timestamp` AS `timestamp` - INTERVAL '5' SECOND)
WITH (
  'connector' = 'kafka',
  'topic' = '{topic}',
  'properties.bootstrap.servers' = '{brokers}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601')"""
KEY_FIELDS = {"few": "event_type STRING, metadata ROW<region STRING>", "many": "user_id STRING"}

SINK = """CREATE TEMPORARY TABLE {table} (window_start TIMESTAMP(3), {columns}, events BIGINT, revenue DOUBLE)
WITH ('connector' = 'filesystem', 'path' = 'file://{path}', 'format' = 'parquet')"""
COLUMNS = {"few": "region STRING, event_type STRING", "many": "user_id STRING"}

JOB = """INSERT INTO {table}
SELECT window_start, {keys}, count(*), sum(e.data.price * e.data.quantity)
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(`timestamp`), INTERVAL '1' MINUTE)) AS e
GROUP BY window_start, window_end, {keys}"""
KEYS = {"few": "e.metadata.region, event_type", "many": "user_id"}


def settings(options: argparse.Namespace) -> dict[str, str]:
    # Aggregation in two phases and in mini-batches is what the planner chooses for windows by itself.
    return {
        "parallelism.default": str(options.cores),
        "taskmanager.memory.managed.size": "512m",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.bind-port": "0",
        # The last files wait for a checkpoint after the last event, so a longer interval would not be faster.
        "execution.checkpointing.interval": "1 s",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": f"file://{options.out.absolute()}/flink-checkpoints",
        "state.backend.type": "hashmap",
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
    }


def start_jvm(options: argparse.Namespace) -> JVMView:
    # Throughput counts here, and G1 took more CPU on two cores.
    os.environ["JVM_ARGS"] = f"-Xmx{options.memory} -XX:+UseParallelGC"
    # Named after Hadoop, but simply more of the class path.
    os.environ["HADOOP_CLASSPATH"] = ":".join(str(jar) for jar in sorted((peer.JARS / "flink").glob("*.jar")))
    return get_gateway().jvm


def start_cluster(jvm: JVMView, options: argparse.Namespace) -> JavaObject:
    """One cluster for all runs, in this JVM. By default every job gets its own, and its start would count."""
    configuration = jvm.org.apache.flink.configuration.Configuration()
    for key, value in settings(options).items():
        configuration.setString(key, value)
    minicluster = jvm.org.apache.flink.runtime.minicluster
    cluster = minicluster.MiniCluster(
        minicluster.MiniClusterConfiguration.Builder()
        .setConfiguration(configuration)
        .setNumTaskManagers(1)
        .setNumSlotsPerTaskManager(options.cores)
        .build()
    )
    cluster.start()
    return cluster


def table_environment(options: argparse.Namespace, cluster: JavaObject) -> TableEnvironment:
    configuration = Configuration()
    for key, value in settings(options).items():
        configuration.set_string(key, value)
    configuration.set_string("execution.target", "remote")
    configuration.set_string("rest.port", str(cluster.getRestAddress().get().getPort()))
    environment = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    tables = TableEnvironment.create(environment)
    key_fields = KEY_FIELDS[options.groups]
    tables.execute_sql(SOURCE.format(key_fields=key_fields, topic=options.topic, brokers=options.brokers))
    return tables


def job(jvm: JVMView, cluster: JavaObject, tables: TableEnvironment, statement: str) -> float:
    """Returns the job's net running time in seconds."""
    client = tables.execute_sql(statement).get_job_client()
    # Asks the cluster itself, for the client polls, up to two seconds apart.
    job_id = jvm.org.apache.flink.api.common.JobID.fromHexString(str(client.get_job_id()))
    outcome = cluster.requestJobResult(job_id).get()
    # Throws what the job failed with.
    outcome.toJobExecutionResult(jvm.java.lang.Thread.currentThread().getContextClassLoader())
    return outcome.getNetRuntime() / 1000


def events_in(jvm: JVMView, brokers: str, topic: str) -> int:
    """As the broker says: counting records by Flink's metrics would miss the last ones."""
    kafka = jvm.org.apache.flink.kafka.shaded.org.apache.kafka
    properties = jvm.java.util.Properties()
    properties.setProperty("bootstrap.servers", brokers)
    bytes_as_they_are = kafka.common.serialization.ByteArrayDeserializer
    consumer = kafka.clients.consumer.KafkaConsumer(properties, bytes_as_they_are(), bytes_as_they_are())
    partitions = jvm.java.util.ArrayList()
    for partition in consumer.partitionsFor(topic):
        partitions.add(kafka.common.TopicPartition(topic, partition.partition()))
    events = sum(consumer.endOffsets(partitions).values()) - sum(consumer.beginningOffsets(partitions).values())
    consumer.close()
    return events


def output(path: Path) -> peer.Output:
    """All events: at the end of a bounded source the watermark goes to its maximum and every window comes out.

    Files that no checkpoint covers have names with a leading dot, which pyarrow passes over.
    """
    table = pyarrow.dataset.dataset(path, format="parquet").to_table(columns=["events"])
    return peer.Output(table.num_rows, pyarrow.compute.sum(table["events"]).as_py() or 0)


def main() -> None:
    options = peer.arguments(__doc__)
    jvm = start_jvm(options)
    cluster = start_cluster(jvm, options)
    tables = table_environment(options, cluster)
    runs = []
    for number in range(options.runs):
        table, path = f"windows_{number}", options.out.absolute() / f"flink-{number}"
        tables.execute_sql(SINK.format(table=table, path=path, columns=COLUMNS[options.groups]))
        statement = JOB.format(table=table, keys=KEYS[options.groups])
        seconds_processing, run = peer.measure(lambda: job(jvm, cluster, tables, statement))
        runs.append(peer.Run(run.seconds, run.cpu_seconds, seconds_processing))
    events = events_in(jvm, options.brokers, options.topic)
    cluster.close()
    peer.write_result(options, "flink", __version__, events, runs, output(path))


if __name__ == "__main__":
    main()
