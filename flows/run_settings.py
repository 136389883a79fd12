"""The settings of one run: those of the organisation that it names, which holds the sources, and nothing of any other."""

from collections.abc import Callable, Sequence

from connectors.s3 import S3Uri
from flows.organisation import KEY_REFERENCES
from flows.request import Request
from flows.settings import Settings
from flows.sources import prefixes_of
from moderation.errors import AccessDeniedError, ConfigurationError


def run_settings(settings: Settings, sources: Sequence[str], *, needs_key: bool = True) -> Settings:
    """What counts for a run over some sources (flows.sources).

    Raises ConfigurationError for an organisation that is not named or not known, and for a source that is not its own;
    AccessDeniedError for one without a key, where the run needs one.
    """
    own = organisation_of(settings, needs_key=needs_key)
    for prefix in prefixes_of(sources):
        check_source(settings, prefix)
    return own


def as_begun(settings: Settings, request: Request) -> Settings:
    """The settings of a run: its endpoints and its cascade are those that it began with, whoever goes on with it."""
    if request.begun is None:
        return settings
    return settings.model_copy(update={"endpoints": list(request.begun.endpoints), "cascade": request.begun.cascade})


def ownership(settings: Settings) -> Callable[[str, str], bool] | None:
    """Whether what lies at a bucket and key is the named organisation's own; None where nobody has roots.

    It belongs to the innermost root that it lies in; what lies in none belongs to organisations without roots.
    """
    named = settings.organisations.get(settings.org)
    own = [S3Uri.parse(root) for root in (settings.roots if named is None else named.roots)]
    others = [S3Uri.parse(root) for name, each in settings.organisations.items() if name != settings.org for root in each.roots]
    if not own and not others:
        return None

    def belongs(bucket: str, key: str) -> bool:
        place = S3Uri(bucket, key)
        mine, theirs = (max((len(root.prefix) for root in roots if _inside(place, root)), default=-1) for roots in (own, others))
        return mine > theirs if own else theirs < 0

    return belongs


def organisation_of(settings: Settings, *, needs_key: bool = True) -> Settings:
    """The settings of the organisation that is named; as they are where there is but one."""
    if not settings.organisations:
        return settings
    known = f"the settings have {', '.join(settings.organisations)}"
    if "org" not in settings.model_fields_set:
        raise ConfigurationError(f"which organisation? Name it with --org, or with the setting org: {known}")
    own = settings.organisations.get(settings.org)
    if own is None:
        raise ConfigurationError(f"there is no organisation {settings.org!r}: {known}")
    if needs_key and not own.key_references:
        raise AccessDeniedError(
            f"organisation {settings.org} has no API key, and never uses another's: set one of {', '.join(KEY_REFERENCES)} "
            f"in [organisations.{settings.org}]"
        )
    return settings.of(settings.org)


def check_source(settings: Settings, source: S3Uri) -> None:
    """Refuse a source that is not all inside the roots of the organisation that is named, or that reaches into another's.

    Where roots lie inside each other a source belongs to the innermost.
    """
    named = settings.organisations.get(settings.org)
    own = [S3Uri.parse(root) for root in (settings.roots if named is None else named.roots)]
    if own and not any(_inside(source, root) for root in own):
        slash = S3Uri(source.bucket, f"{source.prefix}/")
        hint = f": as a prefix it also covers its neighbours, {slash} does not" if any(_inside(slash, root) for root in own) else ""
        raise ConfigurationError(f"{source} is outside the roots of organisation {settings.org}, {', '.join(map(str, own))}{hint}")
    nearest = max((len(root.prefix) for root in own if _inside(source, root)), default=-1)
    for name, other in settings.organisations.items():
        for root in map(S3Uri.parse, other.roots):
            is_the_others = _inside(source, root) and len(root.prefix) >= nearest
            if name != settings.org and (is_the_others or _reaches_into(source, root)):
                raise ConfigurationError(f"{source} is, or reaches into, {root} of organisation {name}: a run scans what is its own")


def _inside(source: S3Uri, root: S3Uri) -> bool:
    return source.bucket == root.bucket and source.prefix.startswith(root.prefix)


def _reaches_into(source: S3Uri, root: S3Uri) -> bool:
    return source.bucket == root.bucket and root.prefix.startswith(source.prefix)
