"""Whether two answers are the same, though one engine averages decimals and another floats."""

import datetime
import decimal

import pyarrow

RELATIVE = 1e-9
# DataFusion cuts an average of decimals off after six digits.
ABSOLUTE = 2e-6


def rows(table: pyarrow.Table) -> list[tuple]:
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))


def same_value(ours: object, theirs: object) -> bool:
    numbers = (int, float, decimal.Decimal)
    if isinstance(ours, numbers) and isinstance(theirs, numbers):
        difference = abs(float(ours) - float(theirs))
        return difference <= ABSOLUTE + RELATIVE * abs(float(theirs))
    if isinstance(ours, datetime.datetime) and isinstance(theirs, datetime.date):
        ours = ours.date()
    return ours == theirs


def difference(ours: pyarrow.Table, theirs: pyarrow.Table) -> str | None:
    """What is not the same, the order of rows included; `None` if all is."""
    if ours.num_columns != theirs.num_columns:
        return f"{ours.num_columns} columns instead of {theirs.num_columns}"
    if ours.num_rows != theirs.num_rows:
        return f"{ours.num_rows} rows instead of {theirs.num_rows}"
    for number, (our_row, their_row) in enumerate(zip(rows(ours), rows(theirs), strict=True)):
        if not all(map(same_value, our_row, their_row)):
            return f"row {number}: {our_row} instead of {their_row}"
    return None
