"""Fuzz the quick receive path and the envelope codec.

`python -m tests.fuzz receive|envelope [--runs N] [--corpus DIR]`: the corpus of tests/fuzz/corpus
is where it begins; what is found goes to DIR, if that is given. It needs the package `atheris`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["realtime", "autobahn.websocket"]):
    from tests.fuzz.targets import envelope, receive

CORPUS = Path(__file__).parent / "corpus"
TARGETS = {"receive": receive, "envelope": envelope}


def main() -> None:
    """Run one target; a failure ends the process with its traceback and a status that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--corpus", type=Path, help="where new inputs of interest go")
    given = parser.parse_args()
    found = given.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    atheris.Setup(
        [
            *(sys.argv[0], str(found), str(CORPUS / given.target)),
            f"-artifact_prefix={found}/",
            *(f"-runs={given.runs}", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"),
        ],
        TARGETS[given.target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
