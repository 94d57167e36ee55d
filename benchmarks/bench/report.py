"""Results: one JSON file and one Markdown table a benchmark, with the machine they came from."""

import datetime
import json
import math
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any


def machine(program: Path) -> dict[str, Any]:
    with open("/proc/cpuinfo") as info:
        models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "program": version.stdout.strip(),
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    lines.insert(1, "|---" + "|---:" * (len(header) - 1) + "|")
    return "\n".join(lines)


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def save(folder: Path, name: str, program: Path, result: dict[str, Any], text: str) -> str:
    """Returns the text as it was written."""
    where = machine(program)
    (folder / f"{name}.json").write_text(json.dumps({"machine": where, **result}, indent=2) + "\n")
    origin = f"{where['date']}, {where['program']}, {where['cores']} × {where['cpu']}, {where['memory_gib']} GiB"
    text = f"{text}\n\n{origin}\n"
    (folder / f"{name}.md").write_text(text)
    return text


def write(folder: Path, name: str, program: Path, result: dict[str, Any], text: str) -> None:
    print(save(folder, name, program, result, text), end="")
