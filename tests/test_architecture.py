"""The floors of the design, read from the imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "realtime"

FLOORS: tuple[str, ...] = (
    "__init__ errors model interfaces",
    "addresses crowd envelope event_stream frames history idempotency limits metrics names origins"
    " passwords patterns redis_keys redis_url revocations rules samples schemas topics"
    " trace wheel",
    "accounts api_keys audit broker_memory broker_redis cluster_redis cluster_scripts database"
    " durable fanout history_sqlite hub presence_memory presence_redis presence_scripts"
    " login_limits_redis session_scripts sessions_redis sessions_sqlite hooks jwks redis_channels"
    " redis_client redis_endpoint redis_feeds redis_history redis_refusals redis_ring redis_scripts"
    " signed_post signing_keys token_keys tokens webhook_delivery webhook_queue_sqlite webhooks",
    "arrivals auth backends node nodes",
    "admission asking drain handlers peer policy subscribing trace_hooks tracing waiting",
    "answers asyncapi compression console fastpath handshake http http_request openapi page rest"
    " rest_connections rest_console rest_publish rest_requests rest_sessions rest_topics"
    " send_queue sse turns websocket",
    "site",
    "bounds credentials namespaces parse option limit_options option_table settings options memory"
    " outgoing first_run parts stores listening process reload tls"
    " workers service worker check_config doctor load remote commands __main__",
)
FLOOR_OF = {module: floor for floor, modules in enumerate(FLOORS) for module in modules.split()}

# Which modules may import others of their own floor, and which.
NEIGHBOURS = {
    "interfaces": {"errors", "model"},
    "names": set(),
    "rules": {"patterns", "topics"},
    "history": {"wheel"},
    "samples": {"metrics"},
    "trace": {"limits", "names", "topics"},
    "accounts": {"database"},
    "hub": {"fanout"},
    "broker_memory": {"durable"},
    "history_sqlite": {"database"},
    "sessions_sqlite": {"database"},
    "sessions_redis": {"redis_client", "redis_scripts", "session_scripts", "sessions_sqlite"},
    "session_scripts": {"redis_scripts"},
    "login_limits_redis": {"redis_client", "redis_scripts"},
    "redis_client": {"redis_channels", "redis_endpoint", "redis_refusals", "redis_scripts"},
    "redis_ring": {"redis_client"},
    "redis_history": {"redis_client", "redis_ring", "redis_scripts"},
    "presence_redis": {"presence_scripts", "redis_client", "redis_ring"},
    "presence_scripts": {"redis_scripts"},
    "cluster_redis": {"cluster_scripts", "redis_client", "redis_ring"},
    "cluster_scripts": {"redis_scripts"},
    "broker_redis": {"redis_client", "redis_feeds", "redis_history", "redis_ring"},
    "hooks": {"signed_post"},
    "jwks": {"database", "signed_post", "token_keys"},
    "signing_keys": {"token_keys"},
    "tokens": {"token_keys"},
    "credentials": {"settings"},
    "webhook_delivery": {"signed_post"},
    "webhook_queue_sqlite": {"database", "webhook_delivery"},
    "webhooks": {"signed_post", "webhook_delivery"},
    "fastpath": {"send_queue", "websocket"},
    "websocket": {"answers", "compression", "handshake", "send_queue"},
    "node": {"arrivals"},
    "nodes": {"node"},
    "admission": {"asking", "peer", "policy", "waiting"},
    "asking": {"handlers", "waiting"},
    "peer": {"handlers", "policy", "subscribing"},
    "subscribing": {"handlers"},
    "waiting": {"peer"},
    "tracing": {"admission", "trace_hooks"},
    "trace_hooks": {"admission"},
    "rest": {
        *("answers", "asyncapi", "http_request", "openapi", "page", "rest_connections"),
        *("console", "rest_console", "rest_publish"),
        *("rest_sessions", "rest_topics", "sse"),
    },
    "openapi": {"rest_publish"},
    "sse": {"answers", "rest_requests", "send_queue"},
    "rest_connections": {"answers", "rest_requests"},
    "rest_publish": {"answers", "rest_requests"},
    "rest_sessions": {"answers", "rest_requests"},
    "rest_topics": {"answers", "rest_requests"},
    "api_keys": {"database"},
    "backends": {"auth"},
    "page": {"answers"},
    "console": {"page"},
    "rest_console": {"answers", "rest_requests"},
    "http": {"answers", "http_request"},
    "http_request": {"answers"},
    "limit_options": {"option", "parse"},
    "option_table": {"limit_options", "option", "parse"},
    "settings": {"namespaces", "option", "option_table"},
    "options": {"option", "option_table", "settings"},
    "outgoing": {"settings"},
    "parts": {"settings"},
    "worker": {"listening"},
    "workers": {"listening", "settings"},
    "service": {
        *(
            "credentials",
            "bounds",
            "first_run",
            "listening",
            "memory",
            "options",
            "outgoing",
            "parts",
            "process",
            "reload",
            "settings",
            "stores",
        ),
        *("tls", "workers"),
    },
    "bounds": {"settings"},
    "first_run": {"audit", "settings", "stores"},
    "reload": {"credentials", "settings", "tls"},
    "check_config": {"credentials", "option_table", "settings"},
    "remote": {"doctor", "load", "settings"},
    "commands": {"check_config", "credentials", "remote", "settings", "stores"},
    "__main__": {"commands"},
}
MAX_LINES = 400
FRAMEWORKS = ("twisted.", "autobahn.", "klein.")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            if node.module == "realtime":
                yield from (f"realtime.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """The names of our modules that a file imports."""
    names = {name.removeprefix("realtime.") for name in imports(path) if "realtime." in name}
    return {name.partition(".")[0] for name in names} & set(FLOOR_OF)


def is_private(name: str) -> bool:
    """Whether a name is for its owner only."""
    return name.startswith("_") and not name.endswith("__")


def private_names_used(path: Path) -> set[str]:
    """Private attributes and modules that a file uses and that are not ours.

    Ours are those that it defines itself, and those of the modules with its classes' bases.
    """
    used, defined, bases = _names(path)
    for base in bases:
        defined |= _names(base)[1]
    return {name for name in used - defined if is_private(name)}


def _names(path: Path) -> tuple[set[str], set[str], set[Path]]:
    """What a file uses, what it defines, and the files of ours that have bases of its classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used, defined, inherited, origins = set(), set(), set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            inherited |= {
                name.id
                for base in node.bases
                for name in ast.walk(base)
                if isinstance(name, ast.Name)
            }
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("realtime."):
            origin = PACKAGE / f"{(node.module or '').partition('.')[2].replace('.', '/')}.py"
            origins |= {alias.name: origin for alias in node.names}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            (defined if isinstance(node.ctx, ast.Store) else used).add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("realtime"):
            used.update([*(node.module or "").split("."), *(alias.name for alias in node.names)])
    return used, defined, {origins[name] for name in inherited & origins.keys()}


def foreign_names_overridden(module: str) -> set[str]:
    """Private names of the frameworks' classes that classes of a module of ours define anew."""
    found = set()
    for owner in vars(import_module(f"realtime.{module}")).values():
        if isinstance(owner, type) and owner.__module__ == f"realtime.{module}":
            bases = [base for base in owner.__mro__ if base.__module__.startswith(FRAMEWORKS)]
            theirs = {name for base in bases for name in vars(base) if is_private(name)}
            found |= theirs & set(vars(owner))
    return found


class ArchitectureTests(SynchronousTestCase):
    """Imports go down."""

    def test_every_module_has_a_floor(self) -> None:
        """Every module of the package stands on a floor, and every name there is a module."""
        self.assertEqual({path.stem for path in PACKAGE.glob("*.py")}, set(FLOOR_OF))

    def test_imports_go_down(self) -> None:
        """A module imports from lower floors, and from the neighbours named above."""
        wrong = [
            f"{path.stem} -> {name}"
            for path in PACKAGE.glob("*.py")
            for name in ours(path)
            if FLOOR_OF[name] >= FLOOR_OF[path.stem]
            and name not in NEIGHBOURS.get(path.stem, set())
        ]
        self.assertEqual(wrong, [])

    def test_client_stands_alone(self) -> None:
        """The client's package needs of the server what is pure, and no framework of its."""
        allowed = {"__future__", "realtime.errors", "realtime.topics", "websockets"}
        for path in (PACKAGE / "client").glob("*.py"):
            foreign = {
                name
                for name in imports(path)
                if not name.startswith("realtime.client")
                and name.partition(".")[0] not in sys.stdlib_module_names | allowed
                and name not in allowed
            }
            self.assertEqual(foreign, set(), path.name)

    def test_no_cycles(self) -> None:
        """No module imports itself by way of others."""
        graph = {path.stem: ours(path) - {path.stem} for path in PACKAGE.glob("*.py")}
        TopologicalSorter(graph).prepare()

    def test_words_need_little(self) -> None:
        """Floor 0 imports nothing large: of Twisted only Deferred, for types."""
        for module in FLOORS[0].split():
            with self.subTest(module):
                foreign = {
                    name
                    for name in imports(PACKAGE / f"{module}.py")
                    if name.partition(".")[0] in ("twisted", "autobahn", "klein", "jwt", "treq")
                }
                self.assertLessEqual(foreign, {"twisted.internet.defer"})

    def test_pure_floor_is_pure(self) -> None:
        """Floor 1 imports nothing of Twisted, no clock and no sockets."""
        for module in FLOORS[1].split():
            tops = {name.partition(".")[0] for name in imports(PACKAGE / f"{module}.py")}
            self.assertEqual(
                tops & {"twisted", "time", "socket", "asyncio", "threading"}, set(), module
            )

    def test_no_global_reactor(self) -> None:
        """Only the assembly imports the process's reactor."""
        users = {
            path.stem
            for path in PACKAGE.glob("*.py")
            if "from twisted.internet import reactor" in path.read_text(encoding="utf-8")
        }
        self.assertEqual(users, {"service"})

    def test_only_redis_client_imports_txredisapi(self) -> None:
        """Txredisapi stays behind one module."""
        users = {path.stem for path in PACKAGE.glob("*.py") if "txredisapi" in set(imports(path))}
        self.assertLessEqual(users, {"redis_client"})

    def test_private_names_stay_in_one_module(self) -> None:
        """Private names of the frameworks are used in fastpath.py and turns.py alone."""
        for path in PACKAGE.glob("*.py"):
            if path.stem not in ("fastpath", "turns", "__main__"):
                self.assertLessEqual(private_names_used(path), {"_exit"}, path.name)  # os._exit
                self.assertEqual(foreign_names_overridden(path.stem), set(), path.name)

    def test_modules_are_short(self) -> None:
        """No module has more than 400 lines."""
        long = {
            path.name: lines
            for path in PACKAGE.glob("*.py")
            if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
        }
        self.assertEqual(long, {})

    def test_the_plugin_imports_nothing_of_ours(self) -> None:
        """Twistd reads every plugin at each start: ours only names a module."""
        plugin = ROOT / "twisted" / "plugins" / "realtime_plugin.py"
        self.assertEqual(set(imports(plugin)), {"twisted.application.service"})

    def test_twisted_folder_is_no_package(self) -> None:
        """An __init__.py below twisted/ would hide Twisted itself."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
