"""python -m tests.fuzz --inputs N [--first SEED]: the long run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for `support`, as pytest does
    from .run import run

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input (repeats a finding)")
    options = parser.parse_args()
    began = time.monotonic()
    counts, findings = run(options.first, options.inputs, keep_going=True, progress=10)
    for line in findings:
        print(line[:2000])
    total = sum(counts.values())
    print(f"{total} inputs in {time.monotonic() - began:.0f} s, {len(findings)} findings")
    for word, count in sorted(counts.items()):
        print(f"  {word}: {count}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
