"""Read the audit trail: page by page for people, and from a cursor for programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.content.feed import FEED_HORIZON, FEED_SOURCE
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput
from core.service.content.changes import LATEST
from core.service.pagination import Keyset, Page, bounded, encode_cursor, invalid_cursor
from core.service.query_timeout import QuerySlots

KEY = Keyset({"source": "text", "changed_xid": "bigint", "id": "bigint"})
PAGE_KEY = Keyset({"changed_xid": "bigint", "id": "bigint"})

_NO_ORIGIN = ("channel", "actor", "token_id", "address", "request_id")
"""The columns that a user does not see in the acts of others."""

COLUMNS = """a.id, a.changed_xid, a.at, a.act, a.target_type, a.target_id, a.user_id, a.detail,
    a.actor_user_id""" + "".join(
    f", CASE WHEN o.mine THEN a.{column} END AS {column}" for column in _NO_ORIGIN
)
_MINE = """
CROSS JOIN LATERAL (SELECT %(user)s::text IS NULL OR a.actor_user_id = %(user)s AS mine) o
"""
_OF_READER = "(%(user)s::text IS NULL OR a.user_id = %(user)s)"
_FILTERS = f"""
{_OF_READER} AND (%(act)s::text IS NULL OR a.act = %(act)s)
AND (%(target)s::text IS NULL OR a.target_id = %(target)s)
AND (%(since)s::timestamptz IS NULL OR a.at >= %(since)s)
AND (%(until)s::timestamptz IS NULL OR a.at < %(until)s)
"""
# The acts that a page may list. The index on (changed_xid, id) serves them; for the acts of one
# user, the index that begins with the user.
_OF_USER = "(%(of_user)s::text IS NULL OR a.user_id = %(of_user)s)"
_LATER = f"""
FROM audit a WHERE (a.changed_xid, a.id) > (%(changed_xid)s, %(id)s)
  AND a.changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AND {_OF_USER}
"""
_EARLIER = f"""
FROM audit a WHERE ({PAGE_KEY.is_first_page} OR (a.changed_xid, a.id) < {PAGE_KEY.place})
  AND {_OF_USER}
"""
# A page compares the acts up to its end with the other filters. The sort order within the inner
# query keeps the filters out of it.
FEED = f"""
SELECT {COLUMNS} FROM (
    SELECT * {_LATER} AND ({PAGE_KEY.is_endless} OR (a.changed_xid, a.id) <= {PAGE_KEY.end})
    ORDER BY a.changed_xid, a.id OFFSET 0
) a {_MINE} WHERE {_FILTERS} ORDER BY a.changed_xid, a.id LIMIT %(limit)s
"""
END_OF_FEED = f"""
SELECT a.changed_xid, a.id {_LATER} ORDER BY a.changed_xid, a.id OFFSET %(skipped)s LIMIT 1
"""
PAGE_OF_AUDIT = f"""
SELECT {COLUMNS} FROM (
    SELECT * {_EARLIER} AND ({PAGE_KEY.is_endless} OR (a.changed_xid, a.id) >= {PAGE_KEY.end})
    ORDER BY a.changed_xid DESC, a.id DESC OFFSET 0
) a {_MINE} WHERE {_FILTERS} ORDER BY a.changed_xid DESC, a.id DESC LIMIT %(limit)s
"""
END_OF_PAGE = f"""
SELECT a.changed_xid, a.id {_EARLIER}
ORDER BY a.changed_xid DESC, a.id DESC OFFSET %(skipped)s LIMIT 1
"""
# Rows of another cluster whose transactions had higher numbers, after a restore.
RESTAMP_AUDIT = """
UPDATE audit SET changed_xid = pg_current_xact_id()::text::bigint
WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Conditions on acts. None: any value.

    Attributes:
      user: The reader; None for an operator.
      of_user: The user whom the objects belong to.
      target: The id of the object.
      since, until: The range of the time of an act.
    """

    user: str | None = None
    of_user: str | None = None
    act: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    target: str | None = None

    @property
    def params(self) -> Row:
        """The parameters of the statements. The acts of one user have an index."""
        params = {name: getattr(self, name) for name in self.__slots__}
        return params | {"of_user": self.of_user if self.of_user is not None else self.user}


@dataclass(frozen=True, slots=True)
class Acts:
    """Acts after a cursor, and the cursor of those that follow.

    Attributes:
      more: True if the next page may already have acts.
    """

    rows: list[Row]
    cursor: str
    more: bool


def read(
    conn: Conn,
    slots: QuerySlots,
    audit_filter: AuditFilter,
    *,
    after: str | None = None,
    limit: int = 100,
) -> Acts:
    """Return the acts after a cursor, the oldest first. None is missed, and none is listed twice.

    Like the change feed, the list ends before the oldest transaction that is still open. A page
    may have fewer acts than `limit`, or none, although more follow.

    Args:
      conn: A connection.
      slots: The slots of slow queries.
      audit_filter: The conditions on the acts.
      after: The cursor of the page before. None: the oldest act. `LATEST`: only acts after this
        request.
      limit: The maximum number of acts, from 1 to `MAX_PAGE_ROWS`.

    Raises:
      InvalidInput: The cursor is invalid, or belongs to another database; or the query takes too
        long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    source = fetch(conn, FEED_SOURCE, {})[0]["source"]
    horizon = int(fetch(conn, FEED_HORIZON, {})[0]["changed_xid"])
    place = _place(source, horizon, after)
    params = audit_filter.params | {"limit": bounded(limit) + 1}
    params |= {"changed_xid": place[0], "id": place[1]}
    with slots.transaction(conn, user=audit_filter.user):
        page = PAGE_KEY.read_bounded(conn, FEED, END_OF_FEED, params)
    if page.cursor is not None:
        changed_xid, id = PAGE_KEY.decode(page.cursor)
        place = changed_xid, id
    elif page.rows:
        place = page.rows[-1]["changed_xid"], page.rows[-1]["id"]
    return Acts(page.rows, encode_cursor([source, *place]), page.cursor is not None)


def _place(source: str, horizon: int, after: str | None) -> tuple[int, int]:
    if after is None:
        return -1, 0
    if after == LATEST:
        return horizon, -1
    made_by, changed_xid, id = KEY.decode(after)
    if min(changed_xid, id) < -1:
        raise invalid_cursor()
    if made_by != source:
        raise InvalidInput("cursor-outdated")
    return changed_xid, id


def page(
    conn: Conn,
    slots: QuerySlots,
    audit_filter: AuditFilter,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Read one page of acts, the newest first. It may have few acts or none, and a cursor.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    with slots.transaction(conn, user=audit_filter.user):
        params = audit_filter.params | PAGE_KEY.params(limit, after)
        return PAGE_KEY.read_bounded(conn, PAGE_OF_AUDIT, END_OF_PAGE, params)


def repair_horizon(conn: Conn) -> bool:
    """Give rows of another cluster new numbers, after a restore. True if there were such rows."""
    return conn.execute(RESTAMP_AUDIT).rowcount > 0
