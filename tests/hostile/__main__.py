"""Attack a real server in every way we know, while a bystander wants to be served.

    python -m tests.hostile [NAME ...] [--seconds N]

Each attack, or each with a NAME in its own, has a server of its own, and goes on for N seconds, or
as long as it takes once. What the attackers get has to be documented (docs/security/attacks.rst),
99 of 100 publications of the bystander have to come back to it within 100 ms, /health/ready has to
be told, and memory has to return to within 5 MB of what it was. The exit status is 1 where one of
these fails. The attackers are at the lowest priority, as they would be on machines of their own.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence

from tests.hostile.attack import Attack, Issuer
from tests.hostile.catalogue import ATTACKS
from tests.hostile.rig import HEADINGS, aligned, measure


def parse(words: Sequence[str] | None = None) -> tuple[list[Attack], float]:
    """The attacks that a command line asks for, and for how many seconds each."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="attacks with this in their names")
    parser.add_argument("--seconds", type=float, default=5, help="how long each attack lasts")
    given = parser.parse_args(words)
    names = [name.lower() for name in given.names]
    chosen = [
        attack
        for attack in ATTACKS
        if not names or any(name in attack.name.lower() for name in names)
    ]
    if not chosen:
        parser.error("there is no such attack")
    return chosen, given.seconds


def main() -> int:
    """Run them; answer the exit status."""
    chosen, seconds = parse()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    issuer = Issuer()
    failed = 0
    print(aligned(HEADINGS), flush=True)
    for attack in chosen:
        outcome = measure(attack, issuer, seconds)
        failed += bool(outcome.problems)
        print(aligned(outcome.row()), flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} attacks came to nothing")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
