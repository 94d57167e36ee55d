# What there is to do here; `make` alone shows it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test verify release bench bench-peers drivers interop interop-matrix services-up services-down slt

# Where cargo builds, as it would choose itself.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What `benchmarks/run streaming --peers spark` installs.
SPARK_PYTHON ?= $(HOME)/.cache/tidemill/benchmarks/spark/bin/python
DELTA_JARS ?= $(HOME)/.cache/tidemill/benchmarks/jars/spark
# The readers of `interop-matrix`, from PyPI.
INTEROP := $(HOME)/.cache/tidemill/interop
# For the program that a target runs: make demo ARGS='--seconds 20'
ARGS ?=

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## installs what the build needs from the system (Debian, Ubuntu), if it is missing
	@deploy/setup.sh

demo: setup ## the main job from end to end; STACK=1 on Apache Kafka, S3 and ClickHouse, with two executors
	cargo build --profile demo --locked -p tidemill
ifeq ($(STACK),1)
	deploy/demo-stack $(TARGET)/demo/tidemill $(ARGS)
else
	$(TARGET)/demo/tidemill demo $(ARGS)
endif

test: setup ## all tests; what needs a service that cannot be had is named as skipped
	deploy/test $(ARGS)

slt: setup ## DataFusion's own published test files on the in-process and the pipelined engine
	deploy/slt $(ARGS)

verify: setup ## formatting, lints, licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	deploy/deny

# Processors since about 2015 (AVX2). Arrow's loops are twice as wide with it.
release: setup ## the program as it should run: target/release/tidemill
	RUSTFLAGS="$(strip $(RUSTFLAGS) $(if $(filter x86_64,$(shell uname -m)),-C target-cpu=x86-64-v3))" \
		cargo build --release --locked -p tidemill

bench: release ## TPC-H, latency and Kafka to Delta, in a release build; PEERS='spark flink' runs them beside it
	benchmarks/run tpch --program $(TARGET)/release/tidemill
	benchmarks/run latency --program $(TARGET)/release/tidemill
	deploy/services/up kafka
	. "$${TIDEMILL_SERVICES_DIR:-.services}/env" && benchmarks/run streaming --brokers "$$TIDEMILL_KAFKA" \
		--program $(TARGET)/release/tidemill --peers $(PEERS)

bench-peers: release ## TPC-H at scale factors 1 and 10 beside DataFusion, Sail, Spark and DuckDB, two cores each; needs Java
	benchmarks/run tpch --program $(TARGET)/release/tidemill --scale 1 --peers datafusion sail spark duckdb $(ARGS)
	benchmarks/run tpch --program $(TARGET)/release/tidemill --scale 10 --rounds 1 --warm-up 1 --memory-gib 12 --peer-memory-gib 4 \
		--peers datafusion sail spark duckdb $(ARGS)

drivers: ## Flight SQL drivers against a server: JDBC, ADBC in Python and Go, SQLAlchemy; writes the matrix
	cargo build --locked -p tidemill
	tests/clients/matrix --program $(TARGET)/debug/tidemill $(ARGS)

interop: ## lets Spark write the Delta tables of tests/interop again; SPARK_PYTHON has pyspark, DELTA_JARS Delta's jars
	$(SPARK_PYTHON) tests/interop/write_tables.py tests/interop/tables --jars $(DELTA_JARS)

interop-matrix: ## Delta tables that Tidemill, Spark, delta-rs and DuckDB write and read; writes the matrix; Java 17
	cargo build --locked -p tidemill
	test -x $(INTEROP)/bin/python || python3 -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install -q -r tests/interop/requirements.txt
	$(INTEROP)/bin/python tests/interop/matrix.py --binary $(TARGET)/debug/tidemill --jars $(DELTA_JARS) \
		--report benchmarks/results/interop.md $(ARGS)

services-up: ## starts Apache Kafka, an S3 store and ClickHouse on loopback, for tests and the demo
	deploy/services/up

services-down: ## stops them; their data stays
	deploy/services/down
