"""The first start on an empty state directory: an admin is made, and told how to log in."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from realtime import __version__
from realtime.audit import Audit, own_name
from realtime.errors import Conflict
from realtime.names import ADMIN_ROLE, DEFAULT_ROLES
from realtime.settings import Settings
from realtime.stores import make_stores, state_directory


async def add_first_user(settings: Settings, reactor: Any, password: str) -> bool:
    """Make an admin where there is no user; answer whether one was made."""
    audit = Audit.beside(settings.audit_log, reactor, standard=1)
    stores = make_stores(state_directory(settings.state), reactor)
    await stores.database.open()
    try:
        if await stores.accounts.list():
            return False
        roles = (ADMIN_ROLE, *DEFAULT_ROLES)
        user = await stores.accounts.create("admin", password, roles)
        about = {"user": user.user_id, "username": user.username, "roles": ",".join(user.roles)}
        audit.note("user_add", actor=own_name(), **about)
        return True
    except Conflict:  # Another process, started at the same time, was quicker.
        return False
    finally:
        await stores.close()
        audit.close()


def welcome(settings: Settings, port: int, password: str) -> None:
    """Tell, this once, how to log in."""
    state = os.path.abspath(settings.state)
    print(
        f"realtime-server {__version__}: first start, state in {state}\n"
        f"  Log in as: admin\n"
        f"  Password:  {password}   (shown this once)\n"
        f"  Change it: python -m realtime --state {shlex.quote(state)} user passwd admin\n"
        f"  Open:      {page_url(settings, port)}",
        file=sys.stdout,
        flush=True,
    )


def page_url(settings: Settings, port: int) -> str:
    """Where this machine finds the page of the server."""
    if settings.unix is not None:
        return f"unix:{settings.unix}"
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "localhost"
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
