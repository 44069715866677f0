"""All that is measured on a GPU, in one command of under 25 minutes: `make gpu`.

    python benchmarks/gpu.py [--minutes 24] [--out runs/gpu]

One after the other, each as a process of its own: the tests that need a GPU; `benchmarks/throughput.py`, which leaves
results/throughput.md; and the phantom at 256 pixels with as many rows, directions and seeds as time allows, first
AttENT and what it is measured against, both directions, then further seeds. What is not reached is left out and can be had by
starting the command again, which goes on where it was. What each part took and how it ended is in results/gpu.md.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
RESULT = HERE / "results" / "gpu.md"
SHARES = (("tests", 0.2), ("throughput", 0.3))
"""Parts of the time that the first two may take at most; the phantom has the rest."""
SECONDS_TO_END = 60.0
"""Left to a part that is told to stop; they count as part of the time."""
ROWS = "source_only,attent,supervised", "cyclegan,ada_output,entropy"
PHANTOM = ("--set", "translate_steps=2000", "--set", "segment_steps=1500")


def main() -> int:
    """0 if all parts ended well, 1 without a GPU or if one did not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=24.0)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    options = parser.parse_args()
    began, bad = time.monotonic(), False
    import torch

    if not torch.cuda.is_available():
        print(
            "make gpu needs a CUDA device, and there is none here: start it on a machine with a GPU.", file=sys.stderr
        )
        return 1
    from attent_kit.engine.run.device import in_words

    lines = [
        "# On a GPU",
        "",
        f"`make gpu`, {in_words(torch.device('cuda'))}, {date.today()}, torch {torch.__version__}, CUDA {torch.version.cuda}.",
        "",
        "| part | minutes | ended |",
        "|---|---:|---|",
    ]
    for name, command, limit in parts(options.minutes, options.out):
        left = options.minutes * 60 - (time.monotonic() - began) - SECONDS_TO_END
        seconds, code = taken(command, min(limit, left))
        bad = bad or code not in (0, None)
        ended = "when its time was over" if code is None else "well" if code == 0 else f"with exit code {code}"
        lines.append(f"| {name} | {seconds / 60:.1f} | {ended} |")
        print(lines[-1], flush=True)
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(bad)


def parts(minutes: float, out: Path) -> list[tuple[str, list[str], float]]:
    """Name, command and most seconds of each part."""
    most = {name: share * minutes * 60 for name, share in SHARES}
    python = sys.executable
    found = [
        ("tests", [python, "-m", "pytest", "-q", str(HERE.parent / "tests/test_gpu.py")], most["tests"]),
        (
            "throughput",
            [python, str(HERE / "throughput.py"), "--device", "cuda", "--seconds", "10", "--write"],
            most["throughput"],
        ),
    ]
    seeds = ("0", "0,1,2")
    attentkit = [
        python,
        "-m",
        "attent_kit",
        "compare",
        str(HERE / "phantom.toml"),
        "--variant",
        "full",
        "--device",
        "cuda",
    ]
    for rows in ROWS:
        for seed in seeds:
            words = ["--alignments", rows, "--directions", "mr2ct,ct2mr", "--seeds", seed, "--out", str(out), *PHANTOM]
            found.append((f"phantom: {rows}, seeds {seed}", [*attentkit, *words], minutes * 60))
    return found


def taken(command: Sequence[str], limit: float) -> tuple[float, int | None]:
    """Seconds of a command and its exit code; None if it was told to stop after `limit` seconds, which it does after its step."""
    began = time.monotonic()
    if limit < 1:
        return 0.0, None
    process = subprocess.Popen(command)
    try:
        code = process.wait(limit)
        return time.monotonic() - began, code
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return time.monotonic() - began, None


if __name__ == "__main__":
    sys.exit(main())
