"""Instance normalisation four ways: forward and backward time on the sizes of a small translator, side by side.

python benchmarks/norms.py [THREADS]
"""

import statistics
import sys
import time
from datetime import date

import torch
from torch.nn.functional import group_norm, instance_norm

SHAPES = ((2, 16, 64, 64), (2, 32, 32, 32), (2, 64, 16, 16))
NORMS = {"group norm": lambda x: group_norm(x, x.shape[1]), "instance norm": instance_norm}
FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def main() -> None:
    """Print a Markdown table: microseconds of one forward and backward, median of 200, taken in turn."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print("# Instance normalisation on a CPU\n")
    print(
        f"`python benchmarks/norms.py`, {date.today()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s); ",
        end="",
    )
    print("microseconds of forward and backward, median of 200, taken in turn.\n")
    ways = [(norm, layout) for norm in NORMS for layout in FORMATS]
    print(f"| shape | type | {' | '.join(', '.join(way) for way in ways)} |\n|---|---|{'---:|' * len(ways)}")
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            microseconds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
            for _ in range(205):
                for norm, layout in ways:
                    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=FORMATS[layout]).requires_grad_()
                    began = time.perf_counter()
                    y = NORMS[norm](x)
                    y.backward(torch.ones_like(y))
                    microseconds[norm, layout].append(1e6 * (time.perf_counter() - began))
            cells = [f"{statistics.median(microseconds[way][5:]):.0f}" for way in ways]
            print(f"| {'x'.join(map(str, shape))} | {str(dtype)[6:]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
