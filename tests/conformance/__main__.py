"""Run the Autobahn|Testsuite's fuzzing client against the echo server, and count its verdicts.

`python -m tests.conformance --wstest PATH [--cases 1.*,2.*] [--report DIR]`. The suite needs Python
2.7: `virtualenv -p python2.7 DIR && DIR/bin/pip install autobahntestsuite` gives `DIR/bin/wstest`.
Runs on both paths, without compression (cases 1 to 11) and with it (12 and 13). The exit status
is 1 unless all are OK or informational.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.server import environment, free_port

GOOD = {"OK", "INFORMATIONAL"}
PLAIN = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
COMPRESSED = ["12.*", "13.*"]


def run(wstest: str, cases: list[str], report: Path, *options: str) -> Counter[str]:
    """Run some cases against a server with these options; answer how often each verdict came."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.echo", str(port), *options],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        print(server.stdout.readline().strip(), *options, flush=True)
        report.mkdir(parents=True, exist_ok=True)
        spec = {
            "outdir": str(report),
            "servers": [{"agent": "realtime-server", "url": f"ws://127.0.0.1:{port}"}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (report / "spec.json").write_text(json.dumps(spec))
        subprocess.run(
            [wstest, "-m", "fuzzingclient", "-s", str(report / "spec.json")],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        index = json.loads((report / "index.json").read_text())["realtime-server"]
        verdicts: Counter[str] = Counter()
        for case, result in index.items():
            closing = result["behaviorClose"]
            verdicts[result["behavior"]] += 1
            if result["behavior"] not in GOOD or closing not in GOOD:
                print(f"  {case}: {result['behavior']}, closing {closing}")
                verdicts["BAD"] += 1
        return verdicts
    finally:
        server.kill()
        server.wait()


def main() -> int:
    """Run all; answer the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wstest", required=True, help="the suite's program")
    parser.add_argument("--cases", help="instead of all, with commas")
    parser.add_argument("--report", type=Path, help="where the reports go")
    given = parser.parse_args()
    report = given.report or Path(tempfile.mkdtemp(prefix="conformance-"))
    bad = 0
    for path, options in (("quick", ()), ("public", ("--public",))):
        for name, cases, more in (
            ("plain", PLAIN, ()),
            ("compressed", COMPRESSED, ("--compression",)),
        ):
            if given.cases:
                cases = [
                    case
                    for case in given.cases.split(",")
                    if (case[:2] in ("12", "13")) == bool(more)
                ]
            if not cases:
                continue
            verdicts = run(given.wstest, cases, report / path / name, *options, *more)
            bad += verdicts.pop("BAD", 0)
            print(f"  {dict(verdicts)}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
