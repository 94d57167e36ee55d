"""The interop matrix: who reads what whom wrote. Writes what was tried and how it went.

    python tests/interop/matrix.py --binary target/debug/tidemill [--jars FOLDER] [--only changes …] [--report FILE]

Needs the packages of requirements.txt, of which pyspark only with `--jars`, the folder of delta-spark's jars and what
they need; Spark runs on Java 17. `changes`, `maintenance` and `written` are files here: what Tidemill's statements
leave, read by itself, delta-rs, DuckDB and Spark, and what the others write, read and changed by Tidemill. Rows
are compared as values. Ends with an error if a cell of the table failed that is not known to be the reader's own limit.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import changes
import maintenance
import written
from parties import Parties, Report

PARTS = {"changes": changes.run, "maintenance": maintenance.run, "written": written.run}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--jars", type=Path, help="of delta-spark and what it needs; without them Spark is left out")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--report", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidemill-interop-") as name:
        with Parties(options.binary, options.jars, Path(name)) as parties:
            for part in options.only:
                with report.guard(parties, f"{part} as a whole"):
                    PARTS[part](parties, report)
    text, failed = report.text(), report.failed()
    if options.report:
        options.report.write_text(text)
    print(text)
    for cell in failed:
        print(f"failed: {cell}", file=sys.stderr)
    print(f"{len(report.cells)} cells, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
