-- The first schema: tasks, what waits, what runs, what ended, and what operators need.
--
-- Rules that hold in here (see docs/ARCHITECTURE.md):
--  * every statement can be run again, because DDL commits by itself and a crash may come between any two;
--  * times are microseconds since the epoch in UTC, read once a transaction; no column has a time as its default;
--  * names are compared byte by byte;
--  * a row that is updated holds no payload: the binary log writes the whole row twice at each update.

-- What changes while a task lives. No secondary index: the other tables are its indexes. What a claim and a settle write has its
-- place from the beginning and is never NULL: a row that grows is moved within its page, and pages that are full are split.
CREATE TABLE IF NOT EXISTS queue_task (
    id BIGINT UNSIGNED NOT NULL,
    type_id INT UNSIGNED NOT NULL,
    queue_id INT UNSIGNED NOT NULL,
    priority_rank TINYINT NOT NULL COMMENT 'the priority, negated',
    status TINYINT UNSIGNED NOT NULL COMMENT '0 queued, 1 running, 2 completed, 3 failed',
    reason TINYINT UNSIGNED NULL COMMENT 'why it failed',
    attempt SMALLINT UNSIGNED NOT NULL,
    max_attempts SMALLINT UNSIGNED NOT NULL,
    losses SMALLINT UNSIGNED NOT NULL COMMENT 'how often in a row its worker was lost',
    claims INT UNSIGNED NOT NULL COMMENT 'the fence: it only rises',
    claim_id BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'the claim that holds it, or that ended last; 0 none',
    run_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL DEFAULT 0 COMMENT '0 never',
    completed_at BIGINT NOT NULL DEFAULT 0 COMMENT '0 not yet',
    deadline_at BIGINT NULL,
    progress TINYINT UNSIGNED NULL,
    progress_message VARCHAR(200) NULL,
    PRIMARY KEY (id),
    CONSTRAINT queue_task_reason CHECK ((status = 3) = (reason IS NOT NULL)),
    CONSTRAINT queue_task_end CHECK ((status IN (2, 3)) = (completed_at <> 0)),
    CONSTRAINT queue_task_run CHECK (status <> 1 OR (claim_id <> 0 AND started_at <> 0))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What never changes: all that the producer said, and the bytes.
CREATE TABLE IF NOT EXISTS queue_payload (
    task_id BIGINT UNSIGNED NOT NULL,
    nonce INT UNSIGNED NOT NULL COMMENT 'tells a repeated enqueue from another task',
    policy_id INT UNSIGNED NOT NULL,
    created_at BIGINT NOT NULL,
    budget BIGINT NULL,
    content_type TINYINT UNSIGNED NOT NULL,
    body_bytes INT UNSIGNED NOT NULL,
    body MEDIUMBLOB NOT NULL,
    PRIMARY KEY (task_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A row for each queued task, due or later, in the order of claiming. A lane is (queue, suspect, rank). At the end of each lane of
-- queue_lane stands one that never comes due, with task 0: a search that found nothing stops there.
CREATE TABLE IF NOT EXISTS queue_ready (
    queue_id INT UNSIGNED NOT NULL,
    suspect TINYINT UNSIGNED NOT NULL,
    priority_rank TINYINT NOT NULL,
    run_at BIGINT NOT NULL COMMENT 'when it is due or its budget is spent, whichever comes first',
    task_id BIGINT UNSIGNED NOT NULL,
    type_id INT UNSIGNED NOT NULL,
    deadline_at BIGINT NULL,
    body_bytes INT UNSIGNED NOT NULL,
    again TINYINT UNSIGNED NOT NULL COMMENT 'whether it was claimed before',
    PRIMARY KEY (queue_id, suspect, priority_rank, run_at, task_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The queues and priorities in use, so that looking for work is one seek for each.
CREATE TABLE IF NOT EXISTS queue_lane (
    queue_id INT UNSIGNED NOT NULL,
    priority_rank TINYINT NOT NULL,
    PRIMARY KEY (queue_id, priority_rank)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A batch of tasks taken by a session. Without members: a claim that must never be committed.
CREATE TABLE IF NOT EXISTS queue_claim (
    id BIGINT UNSIGNED NOT NULL,
    session_id BIGINT UNSIGNED NOT NULL,
    created_at BIGINT NOT NULL,
    members BLOB NOT NULL COMMENT 'task ids, 8 bytes each, big-endian',
    PRIMARY KEY (id),
    KEY queue_claim_session (session_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS queue_session (
    id BIGINT UNSIGNED NOT NULL,
    name VARCHAR(64) NOT NULL,
    host VARCHAR(64) NOT NULL,
    version VARCHAR(32) NOT NULL,
    opened_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    fenced_at BIGINT NULL,
    drain TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Running tasks that shall be cancelled: a row of its own, because the task's may be held by a user's transaction.
CREATE TABLE IF NOT EXISTS queue_signal (
    session_id BIGINT UNSIGNED NOT NULL,
    task_id BIGINT UNSIGNED NOT NULL,
    claim_id BIGINT UNSIGNED NOT NULL,
    requested_at BIGINT NOT NULL,
    PRIMARY KEY (session_id, task_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What has ended, in the order of its end: for lists and for pruning.
CREATE TABLE IF NOT EXISTS queue_finished (
    status TINYINT UNSIGNED NOT NULL,
    completed_at BIGINT NOT NULL,
    task_id BIGINT UNSIGNED NOT NULL,
    type_id INT UNSIGNED NOT NULL,
    queue_id INT UNSIGNED NOT NULL,
    reason TINYINT UNSIGNED NULL,
    PRIMARY KEY (status, completed_at, task_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Failed attempts only: a success costs nothing here.
CREATE TABLE IF NOT EXISTS queue_attempt (
    task_id BIGINT UNSIGNED NOT NULL,
    fence INT UNSIGNED NOT NULL,
    attempt SMALLINT UNSIGNED NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    outcome VARCHAR(32) NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (task_id, fence)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS queue_result (
    task_id BIGINT UNSIGNED NOT NULL,
    dropped_bytes BIGINT UNSIGNED NULL COMMENT 'the size of a result that was too large to keep',
    body MEDIUMBLOB NULL,
    PRIMARY KEY (task_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Kept until the task is pruned, and for 24 h at least.
CREATE TABLE IF NOT EXISTS queue_idempotency (
    type_id INT UNSIGNED NOT NULL,
    idempotency_key VARBINARY(128) NOT NULL,
    task_id BIGINT UNSIGNED NOT NULL,
    digest BINARY(32) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NULL COMMENT 'set when the task is pruned before the key may go',
    PRIMARY KEY (type_id, idempotency_key),
    KEY queue_idempotency_task (task_id),
    KEY queue_idempotency_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS queue_type (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT,
    name VARCHAR(64) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY queue_type_name (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS queue_queue (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT,
    name VARCHAR(64) NOT NULL,
    paused_at BIGINT NULL,
    paused_by VARCHAR(64) NULL,
    paused_why VARCHAR(200) NULL,
    PRIMARY KEY (id),
    UNIQUE KEY queue_queue_name (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Each distinct retry policy once, in its one textual form.
CREATE TABLE IF NOT EXISTS queue_policy (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT,
    backoff VARBINARY(2048) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY queue_policy_backoff (backoff)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS queue_audit (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    at BIGINT NOT NULL,
    actor VARCHAR(64) NOT NULL,
    action VARCHAR(32) NOT NULL,
    subject VARCHAR(64) NULL COMMENT 'the queue or the session, where it is one',
    changed BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The next free task id. Reserved from outside any user's transaction.
CREATE TABLE IF NOT EXISTS queue_id_block (
    one TINYINT UNSIGNED NOT NULL,
    next_id BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (one),
    CONSTRAINT queue_id_block_one CHECK (one = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO queue_id_block (one, next_id) VALUES (1, 1);
