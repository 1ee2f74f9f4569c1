"""Every route of XNAT, spelled once. Pure: a `Ref` in, a percent-encoded path out.

Sessions are addressed flat by accession ID wherever it is known: `/projects/P/experiments/E/scans`
is not a route, XNAT matches by prefix and answers the experiment instead (1.8). Writes of fields
need the subject-scoped form, since the flat one answers 200 without keeping them (seen on 1.9.2).
"""

from __future__ import annotations

from urllib.parse import quote

from xnatctl.errors import UsageError
from xnatctl.model import PrearchiveEntry, Ref

JSESSION = "/data/JSESSION"
BUILD_INFO = "/xapi/siteConfig/buildInfo"
PROJECTS = "/data/projects"
PREARCHIVE = "/data/prearchive"
PREARCHIVE_SERVICES = "/data/services/prearchive"
IMPORT = "/data/services/import"
ARCHIVE = "/data/services/archive"
REFRESH = "/data/services/refresh/catalog"
ELEMENTS = "/data/search/elements"
PLUGINS = "/xapi/plugins"
USERS = "/xapi/users"
WORKFLOWS = "/data/services/workflows"
SITE_CONFIG = "/xapi/siteConfig"
ACTIVE_USERS = "/xapi/users/active"
TOKENS = "/data/services/tokens"
COMMANDS = "/xapi/commands"
CONTAINERS = "/xapi/containers"
SITE_ANONYMISATION = "/xapi/anonymize/site/enabled"
INVESTIGATORS = "/xapi/investigators"
SCRATCH = "/data/user/cache/resources/xnatctl/files/check"


# In the order in which they are written: the prearchive code last.
SETTINGS = (
    "accessibility",
    "quarantine_code",
    "scan_type_mapping",
    "anonymisation",
    "series_filter",
    "prearchive_code",
)
SETTINGS_IN_PATH = frozenset(
    ("accessibility", "quarantine_code", "scan_type_mapping", "prearchive_code")
)


def setting(project_id: str, name: str) -> str:
    if name == "anonymisation":
        return f"/xapi/anonymize/projects/{segment(project_id)}"
    if name == "series_filter":
        return f"{project(project_id)}/config/seriesImportFilter/config"
    return f"{project(project_id)}/{name}"


def segment(text: str) -> str:
    """One path segment. XNAT stands `[SLASH]` for a slash inside a scan ID or type.

    Raises UsageError for a name that would address something else: an empty one its parent.
    """
    if text in ("", ".", ".."):
        raise UsageError(f"{text!r} is not a name of anything in XNAT")
    return _quoted(text.replace("/", "[SLASH]"), safe="[]" if "/" in text else "")


def tail(path: str) -> str:
    """A relative path of several segments, each encoded by itself."""
    parts = path.split("/")
    if {"", ".", ".."}.intersection(parts):
        raise UsageError(f"{path!r} is not the path of a file in XNAT")
    return "/".join(_quoted(part) for part in parts)


def _quoted(text: str, safe: str = "") -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} cannot stand in a URL: it is not text") from error


def project(project_id: str) -> str:
    return f"{PROJECTS}/{segment(project_id)}"


def subjects(project_id: str) -> str:
    return f"{project(project_id)}/subjects"


def subject(project_id: str, label: str) -> str:
    return f"{subjects(project_id)}/{segment(label)}"


def subject_by_id(subject_id: str) -> str:
    return f"/data/subjects/{segment(subject_id)}"


def experiments(project_id: str, subject_label: str | None = None) -> str:
    if subject_label is None:
        return f"{project(project_id)}/experiments"
    return f"{subject(project_id, subject_label)}/experiments"


def experiment(session_id: str) -> str:
    return f"/data/experiments/{segment(session_id)}"


def session(ref: Ref) -> str:
    if ref.session_id:
        return experiment(ref.session_id)
    if ref.subject is None or ref.session is None:
        raise UsageError(f"{ref} does not name a session with its subject")
    return f"{experiments(ref.project, ref.subject)}/{segment(ref.session)}"


def scans(session_id: str) -> str:
    return f"{experiment(session_id)}/scans"


def scan(session_id: str, scan_id: str) -> str:
    return f"{scans(session_id)}/{segment(scan_id)}"


def shares(owner_path: str, project_id: str | None = None) -> str:
    """The projects that what stands at a path belongs to, or its share in one of them."""
    return f"{owner_path}/projects" + (f"/{segment(project_id)}" if project_id else "")


def member(project_id: str, group: str, login: str) -> str:
    return f"{project(project_id)}/users/{segment(group)}/{segment(login)}"


def owner(ref: Ref) -> str:
    """The thing that a resource hangs on."""
    if ref.session or ref.session_id:
        path = session(ref)
        if ref.level and ref.item:
            path += f"/{ref.level}/{segment(ref.item)}"
            if ref.side:
                path += f"/{ref.side}"
        return path
    if ref.subject:
        return subject(ref.project, ref.subject)
    return project(ref.project)


def resources(ref: Ref) -> str:
    return f"{owner(ref)}/resources"


def resource(ref: Ref) -> str:
    if not ref.resource:
        raise UsageError(f"{ref} does not name a resource")
    return f"{resources(ref)}/{segment(ref.resource)}"


def files(ref: Ref) -> str:
    return f"{resource(ref)}/files" if ref.resource else f"{owner(ref)}/files"


def file(ref: Ref, path: str) -> str:
    return f"{resource(ref)}/files/{tail(path)}"


def user(login: str, *more: str) -> str:
    return "/".join((USERS, segment(login), *map(segment, more)))


def workflow(number: str) -> str:
    return f"/data/workflows/{segment(number)}"


def pipelines(project_id: str) -> str:
    return f"{project(project_id)}/pipelines"


def pipeline_run(project_id: str, step: str, session_id: str) -> str:
    return f"{pipelines(project_id)}/{segment(step)}/experiments/{segment(session_id)}"


def wrapper_launch(project_id: str, wrapper: str, root: str) -> str:
    home = f"/xapi/projects/{segment(project_id)}/wrappers/{segment(wrapper)}"
    return f"{home}/root/{segment(root)}/launch"


def archive_uri(ref: Ref) -> str:
    """The address that services such as the catalog refresh take: `/archive/…` without `/data`."""
    return owner(ref).replace("/data/", "/archive/", 1)


def prearchive(project_id: str) -> str:
    return f"{PREARCHIVE}/projects/{segment(project_id)}"


def prearchive_entry(entry: PrearchiveEntry) -> str:
    return f"{prearchive(entry.project)}/{segment(entry.timestamp)}/{segment(entry.folder)}"


def prearchive_src(entry: PrearchiveEntry) -> str:
    """The entry as the archive service wants it: not encoded, without `/data`."""
    return f"/prearchive/projects/{entry.project}/{entry.timestamp}/{entry.folder}"
