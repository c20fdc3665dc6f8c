"""What the figures were measured on, as far as it bears on them."""

import importlib.metadata
import os
import platform
import re
import shutil
import sqlite3
import ssl
import subprocess
from pathlib import Path
from typing import Final

import psutil

_LIBRARIES: Final = ("cryptography", "sqlalchemy", "aiomqtt", "amqtt", "msgspec")


def describe() -> dict[str, str]:
    """Hardware, kernel and versions; nothing that names the machine."""
    memory_gib = psutil.virtual_memory().total / 2**30
    found = {
        "cpu": f"{len(os.sched_getaffinity(0))} cores, {_cpu_model()}",
        "memory": f"{memory_gib:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "openssl (Python's)": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "mosquitto": _version("mosquitto", "-h"),
    }
    return found | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def others_load() -> float:
    """How busy the processors are while we do nothing, from 0 to 1."""
    return psutil.cpu_percent(interval=2.0) / 100


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(program: str, option: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        return "none"
    output = subprocess.run([path, option], capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", output)
    return found[0] if found else "unknown"
