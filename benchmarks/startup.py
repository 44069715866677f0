"""How long the commands take that import no torch, as whole processes, beside a bare interpreter.

python benchmarks/startup.py [REPEATS]
"""

import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from attent_kit import __version__
from attent_kit.plugins import load

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "attentkit --help": [str(Path(sys.executable).with_name("attentkit")), "--help"],
    "attentkit list": [str(Path(sys.executable).with_name("attentkit")), "list"],
    "attentkit plugins": [str(Path(sys.executable).with_name("attentkit")), "plugins"],
}


def main() -> None:
    """Print a Markdown table: median and range of wall seconds, the commands taken in turn."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    print("# Start-up\n")
    print(
        f"`python benchmarks/startup.py`, {date.today()}, Python {sys.version.split()[0]}, attent-kit {__version__}; ",
        end="",
    )
    print(f"{repeats} repeats in turn after one to warm up. Plugins: {', '.join(p.name for p in load().plugins)}.\n")
    print("| command | median s | range s | of a bare interpreter |\n|---|---:|---:|---:|")
    bare = statistics.median(next(iter(seconds.values()))[1:])
    for name, times in seconds.items():
        middle = statistics.median(times[1:])
        print(f"| {name} | {middle:.3f} | {min(times[1:]):.3f}-{max(times[1:]):.3f} | {middle / bare:.1f} x |")


if __name__ == "__main__":
    main()
