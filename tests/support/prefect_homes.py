"""Homes for the embedded Prefect whose database is migrated already: that takes 8 s of CPU, and test_embedded_prefect shows it."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from flows.embedded_prefect import _database

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / ".pytest_cache" / "prefect"
MIGRATE = (
    "import sys, pathlib; from flows.embedded_prefect_server import _prepare_database; _prepare_database(pathlib.Path(sys.argv[1]), None)"
)


def migrated_home(state_dir: Path) -> Path:
    """Give a state directory a Prefect home with a database that needs no migration; returns the home."""
    home = state_dir / "prefect"
    home.mkdir(parents=True)
    shutil.copyfile(_template(), _database(home))
    return home


def _template() -> Path:
    """The migrated, empty database of this version of Prefect, made by the first of all test processes that needs it."""
    TEMPLATES.mkdir(parents=True, exist_ok=True)
    template = _database(TEMPLATES)
    with (TEMPLATES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            partial = template.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            settings = {
                "PREFECT_HOME": str(TEMPLATES / "home"),
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{partial}",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "DO_NOT_TRACK": "1",
            }
            subprocess.run([sys.executable, "-c", MIGRATE, str(partial)], env=os.environ | settings, cwd=ROOT, check=True)
            partial.replace(template)
    return template
