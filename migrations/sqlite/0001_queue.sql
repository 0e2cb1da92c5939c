-- The queue's tables. Every time is a number of microseconds since the Unix epoch, UTC, that the library read once a
-- transaction; no column has a default, so that nothing is ever left to the database to make up.

CREATE TABLE queue_id_block (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    next INTEGER NOT NULL CHECK (next > 0)
) STRICT;

INSERT INTO queue_id_block (id, next) VALUES (1, 1);

CREATE TABLE queue_queue (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    paused_at  INTEGER,
    paused_by  TEXT,
    paused_why TEXT,
    CHECK ((paused_at IS NULL) = (paused_by IS NULL) AND (paused_at IS NULL) = (paused_why IS NULL))
) STRICT;

CREATE TABLE queue_type (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Each distinct delay policy once, in the one textual form that the domain knows.
CREATE TABLE queue_policy (
    id      INTEGER PRIMARY KEY,
    backoff TEXT NOT NULL UNIQUE
) STRICT;

-- A task's state: narrow and without a secondary index, because it is rewritten at each step of the task's life. `room` is as
-- many bytes as the values still to be written will take, so that no step makes a row longer: one that outgrows its page would
-- have SQLite write the pages around it as well.
CREATE TABLE queue_task (
    id           INTEGER PRIMARY KEY,
    nonce        INTEGER NOT NULL,
    type_id      INTEGER NOT NULL,
    queue_id     INTEGER NOT NULL,
    rank         INTEGER NOT NULL CHECK (rank BETWEEN -100 AND 100),
    policy_id    INTEGER NOT NULL,
    bytes        INTEGER NOT NULL CHECK (bytes >= 0),
    status       INTEGER NOT NULL CHECK (status BETWEEN 0 AND 3),
    reason       INTEGER,
    attempt      INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL CHECK (max_attempts > 0),
    losses       INTEGER NOT NULL CHECK (losses >= 0),
    claims       INTEGER NOT NULL CHECK (claims >= 0),
    claim_id     INTEGER,
    created_at   INTEGER NOT NULL,
    run_at       INTEGER NOT NULL,
    started_at   INTEGER,
    completed_at INTEGER,
    deadline_at  INTEGER,
    budget       INTEGER CHECK (budget >= 0),
    percent      INTEGER CHECK (percent BETWEEN 0 AND 100),
    message      TEXT,
    room         BLOB,
    CHECK (attempt BETWEEN 0 AND max_attempts),
    CHECK ((status = 3) = (reason IS NOT NULL)),
    CHECK ((status IN (2, 3)) = (completed_at IS NOT NULL)),
    CHECK (status <> 1 OR (claim_id IS NOT NULL AND started_at IS NOT NULL AND attempt > 0)),
    CHECK ((deadline_at IS NULL) = (budget IS NULL))
) STRICT;

CREATE TABLE queue_payload (
    task_id      INTEGER PRIMARY KEY,
    content_type INTEGER NOT NULL,
    body         BLOB NOT NULL
) STRICT;

-- A row for each queued task, due or later. A lane is (queue, suspect, rank); `again` tells a task that was claimed before.
CREATE TABLE queue_ready (
    queue_id    INTEGER NOT NULL,
    suspect     INTEGER NOT NULL CHECK (suspect IN (0, 1)),
    rank        INTEGER NOT NULL,
    run_at      INTEGER NOT NULL,
    task_id     INTEGER NOT NULL,
    type_id     INTEGER NOT NULL,
    deadline_at INTEGER,
    bytes       INTEGER NOT NULL,
    again       INTEGER NOT NULL CHECK (again IN (0, 1)),
    PRIMARY KEY (queue_id, suspect, rank, run_at, task_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE queue_session (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    host        TEXT NOT NULL,
    version     TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    fenced_at   INTEGER,
    drain       INTEGER NOT NULL CHECK (drain IN (0, 1))
) STRICT;

-- One row for each claim that still holds a task. `members` is a JSON array of task ids; `open` says how many of them have
-- not been settled. A claim without members is a tombstone: it was resolved as void and must never be committed.
CREATE TABLE queue_claim (
    id         INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    open       INTEGER NOT NULL,
    members    TEXT NOT NULL
) STRICT;

CREATE INDEX queue_claim_session ON queue_claim (session_id);

-- A request to cancel a running task, for the claim that held it when it was asked for.
CREATE TABLE queue_signal (
    task_id    INTEGER PRIMARY KEY,
    claim_id   INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The ended tasks in the order of their end: lists and pruning without a scan.
CREATE TABLE queue_finished (
    status       INTEGER NOT NULL CHECK (status IN (2, 3)),
    completed_at INTEGER NOT NULL,
    task_id      INTEGER NOT NULL,
    type_id      INTEGER NOT NULL,
    queue_id     INTEGER NOT NULL,
    reason       INTEGER,
    PRIMARY KEY (status, completed_at, task_id),
    CHECK ((status = 3) = (reason IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- Failed attempts only: a success costs nothing here.
CREATE TABLE queue_attempt (
    task_id    INTEGER NOT NULL,
    fence      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    outcome    TEXT NOT NULL,
    error      TEXT NOT NULL,
    PRIMARY KEY (task_id, fence)
) STRICT, WITHOUT ROWID;

-- A value, or the size of one that was dropped because it was too large.
CREATE TABLE queue_result (
    task_id INTEGER PRIMARY KEY,
    body    BLOB,
    dropped INTEGER,
    CHECK ((body IS NULL) <> (dropped IS NULL))
) STRICT;

-- Kept until the task is pruned, and for a day at least: `orphan` marks a key whose task is gone already.
CREATE TABLE queue_idempotency (
    type_id    INTEGER NOT NULL,
    key        TEXT NOT NULL,
    task_id    INTEGER NOT NULL,
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    orphan     INTEGER NOT NULL CHECK (orphan IN (0, 1)),
    PRIMARY KEY (type_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX queue_idempotency_task ON queue_idempotency (task_id);
CREATE INDEX queue_idempotency_orphan ON queue_idempotency (created_at) WHERE orphan = 1;

CREATE TABLE queue_audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    target  TEXT NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
