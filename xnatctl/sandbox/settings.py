"""What can be set on a sandbox: users, durations, and switches where servers differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that shapes a running sandbox; durations are in seconds.

    `users` are logins with their passwords, made (or given this password) at every start; the
    login `admin` is a site administrator. `require_login=False` makes an anonymous request run as
    `guest` instead of failing with 401.
    """

    users: Mapping[str, str] = field(default_factory=lambda: {"admin": "admin"})
    site_id: str = "SANDBOX"
    version: str = "1.8.10"
    context: str = ""
    discard_bodies: bool = False
    require_login: bool = True

    session_timeout_s: float = 900.0
    idle_build_s: float = 300.0
    sweep_s: float = 60.0
    build_s: float = 0.0
    archive_s: float = 0.0
    queue_s: float = 0.0
    autorun_s: float = 0.0
    archive_timeout_s: float = 600.0
    permission_lag_s: float = 0.0
    token_life_s: float = 172_800.0
    lock_s: float = 3600.0
    shutdown_s: float = 1.0

    prefix_routing: bool = True
    """An unknown suffix is answered by the longest known route (else 404)."""
    silent_refusal: bool = True
    """A file upload without edit right answers 200 and stores nothing (else 403)."""
    flat_put_ignored: bool = True
    """A PUT of fields to /data/experiments/ID answers 200 without effect."""
    catalog_race: bool = True
    """Overlapping uploads into one resource: the later one answers 500, its file uncatalogued."""
    mangle_paths: bool = True
    """File paths in URLs are decoded twice, so names with + % ; cannot be addressed."""
    mangle_entries: bool = True
    """A folder inside a scan that is called like the scan gets its type, too, in archives."""
    escape_query: bool = True
    """Query values are stored XML-escaped."""
    checksums: bool = True
    """File lists carry MD5 digests."""
    unstable_pages: bool = True
    """Pages of a list that is not sorted may overlap and miss rows."""
    merge_rate: int = 0
    """Bytes a second at which a merge copies the whole destination session first; 0: at once."""
    max_body: int | None = None
    """The largest request body in bytes, beyond which a proxy would answer 413."""
    anonymize_site: bool = True
    """The site's anonymisation script, when one is set, runs on every import."""
    rewrite_meta: bool = True
    """An import writes its own file meta information, so sizes and digests change."""
    import_flags: bool = True
    """`prevent_auto_commit` and `SOURCE` of an import are honoured."""
    site_auto_archive: bool = True
    """Projects may be set to archive by themselves."""
    overwrite_delete_prunes: bool = False
    """`overwrite=delete` also drops archived files that the new data lack."""
    pipelines: tuple[str, ...] = ()
    """Names of pipelines that every project has; nothing is run."""
    containers: bool = False
    """The container service is installed, with one command that does nothing."""
    initialized: bool = True
    """The site has been set up; before, everything leads to /setup."""
    expired_passwords: tuple[str, ...] = ()
    """Logins whose password has expired: 403."""
    max_failures: int = 20
    """Failed logins in a row after which a user is locked out for `lock_s`."""
    require_reason: bool = False
    """Changes need an `event_reason`: without, 403 for deleting and archiving, 500 for PUTs."""
    restrict_user_list: bool = False
    """Only administrators may list users."""
    max_sessions: int = 1000
    """Sessions a user may hold; the login beyond it fails with 401."""
