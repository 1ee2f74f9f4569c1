"""Users, their rights in projects, login sessions and alias tokens.

Rights are one number a project: 0 nothing, 1 read, 2 edit, 3 delete. Owners and site
administrators hold 3, members 2, collaborators 1; anybody may read a public project. Sessions
live in memory: a restarted server has forgotten every login, as Tomcat would.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from dataclasses import dataclass

from .settings import Settings
from .store import Item, Store

NOTHING, READ, EDIT, DELETE = range(4)
ROLES = {"owner": DELETE, "member": EDIT, "collaborator": READ}
GROUP_NAMES = {"owner": "Owners", "member": "Members", "collaborator": "Collaborators"}


@dataclass(frozen=True, slots=True)
class User:
    """Who makes a request."""

    login: str
    admin: bool = False
    number: int = 0
    firstname: str = ""
    lastname: str = ""
    email: str = ""
    enabled: bool = True

    @property
    def guest(self) -> bool:
        return self.login == "guest"


GUEST = User("guest")


@dataclass(slots=True)
class Session:
    """A login session: whose it is and when it ends without another request."""

    user: str
    ends: float


def _secret(password: str) -> str:
    return hashlib.sha256(b"sandbox:" + password.encode()).hexdigest()


class Accounts:
    """Who may come in, and what they may do."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.sessions: dict[str, Session] = {}
        self.logins = 0
        self.changed: dict[int, float] = {}
        self.failures: dict[str, tuple[int, float]] = {}
        for login, password in settings.users.items():
            self.add(login, password, admin=login == "admin")

    # ---- users ---------------------------------------------------------------------------

    def add(self, login: str, password: str, *, admin: bool = False) -> User:
        """Make a user, or give an existing one this password."""
        self.store.db.execute(
            "INSERT INTO users(login, secret, admin, enabled, firstname, lastname, email) "
            "VALUES(?,?,?,1,?,?,?) ON CONFLICT(login) DO UPDATE SET secret=excluded.secret",
            (login, _secret(password), int(admin), login.title(), "Sandbox", f"{login}@localhost"),
        )
        user = self.user(login)
        if user is None:
            raise KeyError(login)
        return user

    def user(self, login: str) -> User | None:
        """A user by login name."""
        row = self.store.row(
            "SELECT login, admin, id, firstname, lastname, email, enabled FROM users WHERE login=?",
            login,
        )
        if row is None:
            return None
        name, admin, number, first, last, email, enabled = row
        return User(name, bool(admin), number, first, last, email, bool(enabled))

    def users(self) -> list[User]:
        """Every user."""
        rows = self.store.rows("SELECT login FROM users ORDER BY id")
        return [user for user in (self.user(row[0]) for row in rows) if user is not None]

    def change(self, login: str, *, admin: bool | None = None, enabled: bool | None = None) -> None:
        """Make an administrator of a user or no longer, or let him log in or no longer."""
        if admin is not None:
            self.store.db.execute("UPDATE users SET admin=? WHERE login=?", (int(admin), login))
        if enabled is not None:
            self.store.db.execute("UPDATE users SET enabled=? WHERE login=?", (int(enabled), login))
            if not enabled:
                self.end_all(login)

    # ---- rights --------------------------------------------------------------------------

    def role(self, project: Item, login: str) -> str:
        """The role of a user in a project, or the empty text."""
        row = self.store.row(
            "SELECT role FROM members WHERE project=? AND login=?", project.id, login
        )
        return str(row[0]) if row else ""

    def set_role(self, project: Item, login: str, role: str) -> None:
        """Give a role (owner, member, collaborator); the empty text takes it away."""
        self.store.db.execute(
            "DELETE FROM members WHERE project=? AND login=?", (project.id, login)
        )
        if role:
            self.store.db.execute("INSERT INTO members VALUES(?,?,?)", (project.id, login, role))
        self.touch(project)

    def touch(self, project: Item) -> None:
        """Start the time during which the permission caches do not know of a change."""
        self.changed[project.id] = time.monotonic()

    def groups(self, project: Item) -> dict[str, tuple[str, int]]:
        """Names and rights of a project's groups, by role or (those of its own) by ID."""
        own = self.store.records(f"groups:{project.code}")
        return {
            **{role: (GROUP_NAMES[role], rights) for role, rights in ROLES.items()},
            **{ident: (one["displayname"], one["rights"]) for ident, one in own.items()},
        }

    def access(self, project: Item) -> str:
        """public, protected or private."""
        return self.store.setting(project.code, "accessibility", "private")

    def rights(self, user: User, project: Item) -> int:
        """What a user may do in a project: 0 nothing, 1 read, 2 edit, 3 delete."""
        if user.admin:
            return DELETE
        public = READ if self.access(project) == "public" else NOTHING
        since = self.changed.get(project.id)
        lag = self.settings.permission_lag_s
        if since is not None and lag and time.monotonic() - since < lag:
            return public
        role = self.role(project, user.login)
        if role in ROLES or not role:
            return max(ROLES.get(role, NOTHING), public)
        return max(self.groups(project).get(role, ("", NOTHING))[1], public)

    def item_rights(self, user: User, item: Item) -> int:
        """Rights on an item: its primary project's, or reading through a share."""
        owner = self.store.item(item.project)
        rights = self.rights(user, owner)
        if rights == NOTHING:
            shared_by = item
            while shared_by.kind in ("scan", "reconstruction", "assessor") and shared_by.parent:
                if self.store.shares(shared_by):
                    break
                shared_by = self.store.item(shared_by.parent)
            for code, _ in self.store.shares(shared_by):
                project = self.store.find_project(code)
                if project is not None and self.rights(user, project) >= READ:
                    return READ
        return rights

    def visible(self, user: User) -> list[Item]:
        """Projects that a user may see (protected ones are seen, not read)."""
        return [
            project
            for project in self.store.find("kind='project'")
            if self.rights(user, project) >= READ or self.access(project) == "protected"
        ]

    # ---- logins --------------------------------------------------------------------------

    def check(self, login: str, password: str) -> User | None:
        """The user whose password (or alias token) this is; None, too, for one locked out.

        The name may carry a provider: `ldap/alice`.
        """
        login = login.rpartition("/")[2]
        failed, when = self.failures.get(login, (0, 0.0))
        if failed >= self.settings.max_failures:
            if time.monotonic() - when < self.settings.lock_s:
                return None
            failed = 0
        found = self._matching(login, password)
        if found is None:
            self.failures[login] = (failed + 1, time.monotonic())
        else:
            self.failures.pop(login, None)
        return found

    def _matching(self, login: str, password: str) -> User | None:
        row = self.store.row("SELECT secret FROM users WHERE login=? AND enabled=1", login)
        if row is not None and secrets.compare_digest(str(row[0]), _secret(password)):
            return self.user(login)
        token = self.store.row(
            "SELECT login FROM tokens WHERE alias=? AND secret=? AND expires>?",
            login, password, time.time(),
        )  # fmt: skip
        owner = self.user(str(token[0])) if token else None
        return owner if owner is not None and owner.enabled else None

    def open(self, user: User) -> str | None:
        """A new session's id; None when the user holds as many as allowed."""
        if self.held(user.login) >= self.settings.max_sessions:
            return None
        self.logins += not user.guest
        return self.open_anonymous() if user.guest else self._open(user.login)

    def open_anonymous(self) -> str:
        """A session that nobody has logged into."""
        return self._open("guest")

    def _open(self, login: str) -> str:
        ident = secrets.token_hex(16).upper()
        self.sessions[ident] = Session(login, time.monotonic() + self.settings.session_timeout_s)
        return ident

    def resume(self, ident: str) -> User | None:
        """The user of a living session, whose time begins anew; None when it is gone."""
        session = self.sessions.get(ident)
        if session is None:
            return None
        if session.ends <= time.monotonic():
            del self.sessions[ident]
            return None
        session.ends = time.monotonic() + self.settings.session_timeout_s
        return GUEST if session.user == "guest" else self.user(session.user)

    def held(self, login: str) -> int:
        """How many living sessions a user holds."""
        now = time.monotonic()
        return sum(s.user == login and s.ends > now for s in self.sessions.values())

    def end(self, ident: str) -> None:
        """Forget a session."""
        self.sessions.pop(ident, None)

    def end_all(self, login: str | None = None) -> int:
        """Forget every session, or those of one user; how many there were."""
        gone = [key for key, s in self.sessions.items() if login in (None, s.user)]
        for key in gone:
            del self.sessions[key]
        return len(gone)

    # ---- alias tokens --------------------------------------------------------------------

    def issue(self, login: str) -> dict[str, object]:
        """A new alias token, as the token service shows it."""
        alias, secret = str(uuid.uuid4()), secrets.token_urlsafe(40)
        now = time.time()
        self.store.db.execute(
            "INSERT INTO tokens VALUES(?,?,?,?,?)",
            (alias, secret, login, now + self.settings.token_life_s, now),
        )
        return self.tokens(login)[-1]

    def tokens(self, login: str) -> list[dict[str, object]]:
        """A user's living tokens, oldest first."""
        rows = self.store.rows(
            "SELECT alias, secret, login, expires, created FROM tokens WHERE login=? AND expires>? "
            "ORDER BY rowid",
            login, time.time(),
        )  # fmt: skip
        return [
            {
                "alias": alias, "secret": secret, "xdatUserId": owner, "singleUse": False,
                "estimatedExpirationTime": int(expires * 1000), "validIPAddresses": [], "id": 0,
                "enabled": True, "created": int(created * 1000),
                "timestamp": int(created * 1000), "disabled": 0,
            }
            for alias, secret, owner, expires, created in rows
        ]  # fmt: skip
