-- The views of the result lake besides those of endpoint_views.sql, in SQL that DuckDB, Athena and Trino all take; $every_summary is what each
-- endpoint's summaries cost, $every_result what they are results of, $every_newest the newest sessions; $endpoint_outcomes and $endpoint_joins
-- are two columns and a join for each endpoint, $runs_columns and the like the columns of a table, $evidence_columns and $evidence_source made in evidence.py, $start_day the UTC day of started_at.
-- The lines above each view go into docs/data-dictionary.md.

-- The attempts that failed or were refused, whatever became of their objects later.
-- Example: SELECT started_at, cause, http_status, close_code, error_text FROM failures ORDER BY started_at DESC LIMIT 20
CREATE VIEW failures AS
SELECT * FROM attempts WHERE outcome IN ('failed', 'refused');

-- The failures of each UTC day on which their sessions began, by what the error is a fault of and its cause, with the audio that they had sent.
-- Example: SELECT cause, sum(sessions) AS sessions FROM failures_by_cause WHERE endpoint = 'music' GROUP BY cause ORDER BY sessions DESC
CREATE VIEW failures_by_cause AS
SELECT day, org, endpoint, scope, cause, count(*) AS sessions, CAST(sum(audio_sent_ms) AS BIGINT) AS audio_sent_ms
FROM (
    SELECT $start_day AS day, org, endpoint, scope, cause, audio_sent_ms FROM failures
) AS failed
GROUP BY day, org, endpoint, scope, cause;

-- How fast each run was at each endpoint: the sessions with a result, hours of their audio in an hour in which at least one of them was open (null where that took no time; pauses do not count), and the mean seconds of one.
-- Example: SELECT run_id, endpoint, audio_hours_per_hour FROM throughput ORDER BY run_id DESC LIMIT 10
CREATE VIEW throughput AS
WITH stretches AS (
    SELECT
        run_id, org, endpoint, audio_sent_ms, started_at, finished_at,
        max(finished_at) OVER (
            PARTITION BY run_id, org, endpoint ORDER BY started_at, session_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS open_until
    FROM attempts
    WHERE outcome = 'done'
),
spans AS (
    SELECT
        run_id, org, endpoint,
        count(*) AS sessions,
        CAST(sum(audio_sent_ms) AS BIGINT) AS audio_sent_ms,
        CAST(sum(CASE
            WHEN open_until IS NULL OR open_until <= started_at THEN date_diff('millisecond', started_at, finished_at)
            WHEN open_until < finished_at THEN date_diff('millisecond', open_until, finished_at)
            ELSE 0
        END) AS BIGINT) AS busy_ms,
        avg(date_diff('millisecond', started_at, finished_at)) AS mean_session_ms
    FROM stretches
    GROUP BY run_id, org, endpoint
)
SELECT
    run_id, org, endpoint, sessions, audio_sent_ms, busy_ms,
    CAST(audio_sent_ms AS DOUBLE) / nullif(busy_ms, 0) AS audio_hours_per_hour,
    mean_session_ms / 1000 AS mean_session_seconds
FROM spans;

-- The segments of the newest result of each object version at each endpoint.
-- Example: SELECT kind, sum(end_time_ms - start_time_ms) / 3.6e6 AS hours FROM segments_latest GROUP BY kind
CREATE VIEW segments_latest AS
SELECT segments.*
FROM ($every_newest) AS newest
JOIN segments ON segments.object_id = newest.object_id AND segments.session_id = newest.session_id;

-- What each day cost, by the UTC day on which the sessions began: settled_ms for results, possible_ms sent without one.
-- Example: SELECT day, sum(settled_ms) / 3.6e6 AS hours, sum(possible_ms) / 3.6e6 AS possible_hours FROM spend_daily GROUP BY day ORDER BY day
CREATE VIEW spend_daily AS
WITH summaries AS (
    $every_summary
),
spent AS (
    SELECT $start_day AS day, org, endpoint, greatest(coalesce(duration_ms, 0), covered_ms) AS settled_ms, 0 AS possible_ms
    FROM summaries
    UNION ALL
    SELECT $start_day, org, endpoint, 0, audio_sent_ms FROM attempts WHERE outcome <> 'done'
)
SELECT day, org, endpoint, CAST(sum(settled_ms) AS BIGINT) AS settled_ms, CAST(sum(possible_ms) AS BIGINT) AS possible_ms
FROM spent
GROUP BY day, org, endpoint;

-- The objects that need a person, for each endpoint and set of parameters: quarantined and not released since.
-- Example: SELECT endpoint, reason, count(*) AS objects FROM quarantined_now GROUP BY endpoint, reason
CREATE VIEW quarantined_now AS
SELECT object_id, endpoint, params_hash, reason, detail, org, bucket, key, version_id, etag, run_id, happened_at
FROM (
    SELECT *, row_number() OVER (PARTITION BY object_id, endpoint, params_hash ORDER BY happened_at DESC, event) AS recency
    FROM quarantine
) AS ranked
WHERE recency = 1 AND event = 'quarantined';

-- The objects with a music result and neither a result nor a quarantine of the AI-music endpoint, but for those that the cascade of the newest run which planned them left out: what passes its threshold. Where no run had a cascade: all, so filter by music_pct.
-- Example: SELECT count(*) AS objects, sum(duration_ms) / 3.6e6 AS hours FROM cascade_backlog WHERE music_pct >= 10
CREATE VIEW cascade_backlog AS
WITH left_out AS (
    SELECT object_id, params_hash
    FROM (
        SELECT object_id, params_hash, reason, row_number() OVER (PARTITION BY object_id, params_hash ORDER BY run_id DESC) AS recency
        FROM plan
        WHERE endpoint = 'ai_music' AND run_id IN (SELECT run_id FROM runs)
    ) AS ranked
    WHERE recency = 1 AND reason = 'second_stage'
)
SELECT object_id, object_key_id, org, bucket, key, version_id, etag, duration_ms, music_pct, primary_label, finished_at
FROM music_latest AS music
WHERE NOT EXISTS (SELECT 1 FROM ai_music_summaries AS ai_music WHERE ai_music.object_id = music.object_id)
    AND NOT EXISTS (SELECT 1 FROM quarantined_now AS held WHERE held.object_id = music.object_id AND held.endpoint = 'ai_music')
    AND NOT EXISTS (SELECT 1 FROM left_out WHERE left_out.object_id = music.object_id AND left_out.params_hash = music.params_hash);

-- Each run once: as it ended, or as it began where it has not ended.
-- Example: SELECT run_id, flow, source, state, exit_code, done, pending FROM runs_latest ORDER BY run_id DESC LIMIT 10
CREATE VIEW runs_latest AS
SELECT $runs_columns
FROM (
    SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY finished_at DESC NULLS LAST) AS recency
    FROM runs
) AS ranked
WHERE recency = 1;

-- What has become by now of each object and endpoint that a run planned: done also where another run has done it; pending is for a later run.
-- Example: SELECT run_id, endpoint, outcome, count(*) AS objects FROM outcomes GROUP BY run_id, endpoint, outcome ORDER BY run_id DESC
CREATE VIEW outcomes AS
WITH results AS (
    $every_result
),
known AS (
    SELECT
        planned.run_id,
        planned.object_id,
        planned.endpoint,
        planned.params_hash,
        CASE
            WHEN held.object_id IS NOT NULL THEN 'quarantined'
            WHEN done.object_id IS NOT NULL THEN 'done'
            WHEN planned.decision = 'skip' AND planned.reason NOT IN ('not_reached', 'changed') THEN 'skipped'
            ELSE 'pending'
        END AS outcome,
        planned.reason AS planned_reason,
        held.reason AS held_reason
    FROM plan AS planned
    LEFT JOIN (SELECT DISTINCT object_id, endpoint, params_hash FROM results) AS done
        ON done.object_id = planned.object_id AND done.endpoint = planned.endpoint AND done.params_hash = planned.params_hash
    LEFT JOIN quarantined_now AS held
        ON held.object_id = planned.object_id AND held.endpoint = planned.endpoint AND held.params_hash = planned.params_hash
)
SELECT
    run_id, object_id, endpoint, params_hash, outcome,
    CASE outcome WHEN 'quarantined' THEN held_reason WHEN 'skipped' THEN planned_reason END AS reason
FROM known;

-- The objects in the newest manifest of each organisation and source, a manifest being there only when it is complete, with their outcomes as in the view outcomes: null where that run did not plan the endpoint and nobody has done it.
-- Example: SELECT music_outcome, ai_music_outcome, count(*) AS objects FROM catalogue_latest GROUP BY music_outcome, ai_music_outcome
CREATE VIEW catalogue_latest AS
WITH listings AS (
    SELECT max(run_id) AS run_id
    FROM runs_latest
    WHERE run_id IN (SELECT run_id FROM manifests)
    GROUP BY org, source
),
listed AS (
    SELECT $manifests_columns
    FROM (
        SELECT *, row_number() OVER (PARTITION BY object_key_id ORDER BY run_id DESC, last_modified DESC) AS recency
        FROM manifests
        WHERE run_id IN (SELECT run_id FROM listings)
    ) AS ranked
    WHERE recency = 1
),
known AS (
    SELECT * FROM outcomes WHERE run_id IN (SELECT run_id FROM listings)
)
SELECT listed.*, $endpoint_outcomes
FROM listed $endpoint_joins;

-- What is known of each object version that has a result or is quarantined: the newest result of each endpoint side by side, its own facts under the endpoint's name, what segments add up to. The conditions of a policy are over it.
-- Example: SELECT key, primary_label, music_longest_ms, primary_verdict FROM evidence_latest WHERE ai_vocal_segments > 0
CREATE VIEW evidence_latest AS
SELECT object_id,
    $evidence_columns
FROM $evidence_source;

-- The last decision of a policy on each object version, without what people say.
-- Example: SELECT decision, rule_id, count(*) AS objects FROM decisions_latest GROUP BY decision, rule_id
CREATE VIEW decisions_latest AS
SELECT $decisions_columns
FROM (
    SELECT *, row_number() OVER (PARTITION BY object_id ORDER BY decided_at DESC, run_id DESC) AS recency
    FROM decisions
) AS ranked
WHERE recency = 1;

-- The last answer on each object version that decides: one that is not unsure.
-- Example: SELECT answer, count(*) AS objects FROM answers_latest GROUP BY answer
CREATE VIEW answers_latest AS
SELECT $answers_columns
FROM (
    SELECT *, row_number() OVER (PARTITION BY object_id ORDER BY answered_at DESC, reviewer, answer DESC) AS recency
    FROM review_answers
    WHERE answer <> 'unsure'
) AS ranked
WHERE recency = 1;

-- What counts for each object version: the answer of a person where there is one, else the last decision of a policy, which is policy_decision. superseded are versions of whose key another one was first decided later.
-- Example: SELECT bucket, key, etag FROM decisions_now WHERE decision = 'block'
CREATE VIEW decisions_now AS
SELECT decided.object_id, decided.object_key_id, decided.org, decided.bucket, decided.key, decided.version_id, decided.etag,
    coalesce(answered.answer, decided.decision) AS decision,
    decided.decision AS policy_decision,
    decided.policy, decided.policy_hash, decided.decided_at, decided.rule_id, decided.held_back, decided.reason, decided.priority,
    decided.evidence_sessions, decided.evidence_start_ms, decided.evidence_end_ms, decided.run_id,
    answered.reviewer, answered.answered_at, answered.note,
    versions.superseded
FROM decisions_latest AS decided
JOIN (
    SELECT object_id, org, first_at < max(first_at) OVER (PARTITION BY org, object_key_id) AS superseded
    FROM (
        SELECT object_id, org, object_key_id, min(decided_at) AS first_at FROM decisions GROUP BY object_id, org, object_key_id
    ) AS firsts
) AS versions ON versions.object_id = decided.object_id AND versions.org = decided.org
LEFT JOIN answers_latest AS answered ON answered.object_id = decided.object_id;

-- How often people agree with each rule of an organisation, by the UTC month of their answers: the share of what it sends to review or blocks that they block, or of what it allows that they allow. What was held back counts only where it was a sample of what is allowed.
-- Example: SELECT month, org, rule_id, agreed, disagreed, agreement FROM rule_precision ORDER BY month DESC, org, rule_id
CREATE VIEW rule_precision AS
WITH told AS (
    SELECT
        $answer_day AS day,
        org,
        rule_id,
        answer,
        CASE WHEN decision_before = 'allow' OR held_back = 'hold_out' THEN 'allow' ELSE 'block' END AS expected
    FROM (
        SELECT
            answers.*, decided.org,
            row_number() OVER (
                PARTITION BY answers.object_id, decided.org, answers.rule_id ORDER BY answers.answered_at DESC, answers.reviewer, answers.answer DESC
            ) AS recency
        FROM review_answers AS answers
        JOIN (SELECT DISTINCT object_id, org FROM decisions) AS decided ON decided.object_id = answers.object_id
        WHERE answer <> 'unsure' AND (held_back IS NULL OR held_back = 'hold_out')
    ) AS ranked
    WHERE recency = 1
)
SELECT
    CAST(date_trunc('month', day) AS DATE) AS month,
    org,
    rule_id,
    expected,
    count(CASE WHEN answer = expected THEN 1 END) AS agreed,
    count(CASE WHEN answer <> expected THEN 1 END) AS disagreed,
    CAST(count(CASE WHEN answer = expected THEN 1 END) AS DOUBLE) / count(*) AS agreement
FROM told
GROUP BY CAST(date_trunc('month', day) AS DATE), org, rule_id, expected;
