"""The streaming benchmark on Spark Structured Streaming: a Kafka topic into a Delta table by one-minute windows."""

import argparse
from pathlib import Path

import pyspark
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

import peer

KEYS = {"few": ["metadata.region", "event_type"], "many": ["user_id"]}
# Only the fields that the query needs: Spark's JSON parser skips the others.
KEY_FIELDS = {"few": "event_type STRING, metadata STRUCT<region: STRING>", "many": "user_id STRING"}
FIELDS = "timestamp TIMESTAMP, data STRUCT<price: DOUBLE, quantity: BIGINT>"

# One batch holds the whole topic (no maxOffsetsPerTrigger): every further one would cost a commit. Aggregation before
# the shuffle keeps it small in memory.
KAFKA = {
    "startingOffsets": "earliest",
    # After every poll Spark asks for the partition's first and last offset and throws away what the consumer has
    # fetched ahead. So a poll returns a whole fetch, fetches are large, and none waits long at the end of the topic.
    "kafka.max.poll.records": "1000000",
    "kafka.max.partition.fetch.bytes": str(8 << 20),
    "kafka.fetch.max.wait.ms": "10",
}


def session(options: argparse.Namespace) -> SparkSession:
    jars = sorted((peer.JARS / "spark").glob("*.jar"))
    settings = {
        "spark.driver.memory": options.memory,
        # Throughput counts here, and G1 took more CPU on two cores.
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
        "spark.jars": ",".join(str(jar) for jar in jars),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # One task per core after the shuffle; the default of 200 is for clusters.
        "spark.sql.shuffle.partitions": str(options.cores),
        # The same for Delta's replay of its log, 50 by default.
        "spark.databricks.delta.snapshotPartitions": str(options.cores),
        # State stays in Spark's default store, on the JVM's heap: with RocksDB many groups took a quarter longer.
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(options.out.absolute() / "spark-local"),
        "spark.sql.warehouse.dir": str(options.out.absolute() / "spark-warehouse"),
    }
    builder = SparkSession.builder.master(f"local[{options.cores}]").appName("streaming-benchmark")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def windows(spark: SparkSession, options: argparse.Namespace) -> DataFrame:
    reader = spark.readStream.format("kafka").options(**KAFKA)
    records = reader.option("kafka.bootstrap.servers", options.brokers).option("subscribe", options.topic).load()
    fields = f"{FIELDS}, {KEY_FIELDS[options.groups]}"
    events = records.select(F.from_json(F.col("value").cast("string"), fields).alias("event")).select("event.*")
    return (
        events.withWatermark("timestamp", "5 seconds")
        .groupBy(F.window("timestamp", "1 minute"), *KEYS[options.groups])
        .agg(F.count("*").alias("events"), F.sum(F.col("data.price") * F.col("data.quantity")).alias("revenue"))
        .withColumn("window_start", F.col("window.start"))
        .drop("window")
    )


def job(spark: SparkSession, options: argparse.Namespace, table: Path) -> StreamingQuery:
    """Appends to a table of its own, exactly once: the sink knows by the batch's number what it has already."""
    query = (
        windows(spark, options)
        .writeStream.format("delta")
        .outputMode("append")
        .option("checkpointLocation", f"{table}-checkpoint")
        .trigger(availableNow=True)
        .start(str(table))
    )
    query.awaitTermination()
    return query


def processing_seconds(query: StreamingQuery) -> float:
    return sum(batch["durationMs"]["triggerExecution"] for batch in query.recentProgress) / 1000


def output(spark: SparkSession, table: Path) -> peer.Output:
    """Fewer events than were read: in append mode a window comes out when the watermark has passed its end.

    The watermark stops five seconds behind the last event, so the last window or two stay in the state.
    """
    found = spark.read.format("delta").load(str(table)).agg(F.count("*"), F.coalesce(F.sum("events"), F.lit(0)))
    rows, sum_events = found.first()
    return peer.Output(rows, sum_events)


def main() -> None:
    options = peer.arguments(__doc__)
    spark = session(options)
    runs = []
    for number in range(options.runs):
        table = options.out.absolute() / f"spark-{number}"
        query, run = peer.measure(lambda: job(spark, options, table))
        runs.append(peer.Run(run.seconds, run.cpu_seconds, processing_seconds(query)))
    events = sum(batch["numInputRows"] for batch in query.recentProgress)
    peer.write_result(options, "spark", pyspark.__version__, events, runs, output(spark, table))
    spark.stop()


if __name__ == "__main__":
    main()
