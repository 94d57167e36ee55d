"""Runs the right-hand side of every program of docs/from-pyspark.md, in order, against a server.

    python guide.py grpc://127.0.0.1:32010 --lake /path/of/lake.root --brokers 127.0.0.1:9092

Needs adbc-driver-flightsql, datafusion and pyarrow. The topic `events` must be there (`tidemill generate --topic
events`); without --brokers the streaming program is skipped. Use a fresh lake: the programs create their tables.
"""

import argparse
import re
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql

GUIDE = Path(__file__).parents[2] / "docs" / "from-pyspark.md"

TABLES = [
    "CREATE TABLE orders (id BIGINT, customer BIGINT, region VARCHAR, price DOUBLE, quantity BIGINT, day DATE)",
    "INSERT INTO orders VALUES (1, 10, 'north', 10.0, 2, '2026-01-01'), (2, 11, 'south', 4.0, 1, '2026-01-01'),"
    " (3, 10, 'north', 30.0, 1, '2026-01-02'), (4, 12, 'south', 7.0, 3, '2026-01-02')",
    "CREATE TABLE customers (customer BIGINT, name VARCHAR)",
    "INSERT INTO customers VALUES (10, 'Ann'), (11, 'Ben')",
    "CREATE TABLE changes (customer BIGINT, name VARCHAR, gone BOOLEAN)",
    "INSERT INTO changes VALUES (10, 'Anna', false), (11, NULL, true), (12, 'Cleo', false)",
]

# What the last query of a section must give.
EXPECTED = {
    "1": [("rows", 4)],
    "2": [("north", 50.0, 2), ("south", 21.0, 1)],
    "3": [(1, "Ann"), (2, "Ben"), (3, "Ann"), (4, None)],
    "4": [(3, "north"), (4, "south")],
    "5": [(1, 8.4), (2, 3.36), (3, 25.21), (4, 5.88)],
    "7": [(10, "Anna"), (12, "Cleo")],
}


def programs(text):
    """Section, language and code of each block in a right-hand cell."""
    for part in re.split(r"^## ", text, flags=re.M):
        section = part.split(".", 1)[0] if part[0].isdigit() else "0"
        for cells in re.findall(r"<tr><td>(.*?)</td></tr>", part, flags=re.S):
            right = cells.split("</td><td>")[1]
            for language, code in re.findall(r"^```(\w+)\n(.*?)^```", right, flags=re.M | re.S):
                yield section, language, code


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("uri")
    arguments.add_argument("--lake", required=True)
    arguments.add_argument("--brokers")
    given = arguments.parse_args()
    names = {"URI": given.uri}
    last = {}
    with flightsql.connect(given.uri, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in TABLES:
            cursor.execute(statement)
        for section, language, code in programs(GUIDE.read_text()):
            code = code.replace("{lake}", given.lake)
            if "{brokers}" in code:
                if not given.brokers:
                    print(f"SKIPPED {section}: no --brokers")
                    continue
                code = code.replace("{brokers}", given.brokers)
            if language == "python":
                exec(code, names)
            elif language == "sql":
                for statement in filter(str.strip, code.split(";\n")):
                    cursor.execute(statement.strip().rstrip(";"))
                    rows = cursor.fetchall()
                    if statement.lstrip().startswith("SELECT"):
                        last[section] = rows
            else:
                continue
            print(f"ok {section} {language}")
        names["cursor"].close()
        names["connection"].close()
    last["1"] = [("rows", len(last["1"]))]
    for section, rows in EXPECTED.items():
        if last[section] != rows:
            raise SystemExit(f"FAILED {section}: {last[section]}")
    print("ok")


if __name__ == "__main__":
    main()
