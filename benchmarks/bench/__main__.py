"""`benchmarks/run NAME`: one benchmark; `NAME --help` says more."""

import argparse
from pathlib import Path

from . import clickbench, commits, concurrency, events, latency, memory, streaming, tpcds, tpch

BENCHMARKS = {
    "tpch": tpch, "tpcds": tpcds, "clickbench": clickbench, "events": events, "latency": latency,
    "concurrency": concurrency, "commits": commits, "memory": memory, "streaming": streaming,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    choice = parser.add_subparsers(required=True, metavar="|".join(BENCHMARKS))
    for name, benchmark in BENCHMARKS.items():
        options = choice.add_parser(name, help=benchmark.__doc__.splitlines()[0], description=benchmark.__doc__)
        options.add_argument("--program", type=Path, required=True, help="the release binary")
        options.add_argument("--results", type=Path, default=Path(__file__).parent.parent / "results")
        benchmark.options(options)
        options.set_defaults(run=benchmark.run)
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    arguments.run(arguments)


main()
