"""Attack a real server in every way we know, while a bystander wants to be served.

    python -m tests.hostile [--seconds N] [--only NAME]

Each attack has a server of its own, and goes on for N seconds, or as long as it takes once. What
the attackers get has to be documented (docs/protocol.rst, docs/security.rst), 99 of 100
publications of the bystander have to come back to it within 100 ms, health has to be told, and
memory has to return to within 5 MB of what it was. The exit status is 1 where one of these fails.
The attackers are at the lowest priority, as they would be on machines of their own.
"""

from __future__ import annotations

import argparse
import resource

from bench.report import table
from tests.hostile.attack import Issuer
from tests.hostile.catalogue import ATTACKS
from tests.hostile.rig import HEADINGS, measure


def main() -> int:
    """Run them; answer the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="how long each attack lasts")
    parser.add_argument("--only", metavar="NAME", action="append", help="attacks with this in them")
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    issuer = Issuer()
    rows, failed = [], 0
    for attack in ATTACKS:
        if given.only and not any(name in attack.name for name in given.only):
            continue
        outcome = measure(attack, issuer, given.seconds)
        rows.append(outcome.row())
        failed += bool(outcome.problems)
        print("  ".join(outcome.row()), flush=True)
    print(table(HEADINGS, rows))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
