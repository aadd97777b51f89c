"""`python -m realtime`."""

from realtime.commands import main

raise SystemExit(main())
