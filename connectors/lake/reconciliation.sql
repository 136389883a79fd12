-- Catalogue, ledger and lake held against each other, in DuckDB's SQL. Made before: wanted(source), asked(run_id, endpoint), forced(run_id),
-- buried(id), whys(why, rank, is_explained), and booked, the sessions of the ledger. $every_result and $every_count are the summaries
-- and the numbers of items of each session; $since is when the ledger was read. Every table is made once: from S3 a file is read once for each.

CREATE TEMP TABLE listings AS
SELECT run_id, state, exit_code, pending
FROM (
    SELECT *, row_number() OVER (PARTITION BY org, source ORDER BY run_id DESC) AS recency
    FROM runs_latest
    WHERE run_id IN (SELECT DISTINCT run_id FROM manifests)
        AND (source IN (SELECT source FROM wanted) OR NOT EXISTS (SELECT 1 FROM wanted))
) AS ranked
WHERE recency = 1;

CREATE TEMP TABLE expected AS
WITH catalogue AS (
    SELECT run_id, object_id, object_key_id, bucket, key
    FROM (
        SELECT *, row_number() OVER (PARTITION BY object_key_id ORDER BY run_id DESC, last_modified DESC) AS recency
        FROM manifests
        WHERE run_id IN (SELECT run_id FROM listings)
    ) AS ranked
    WHERE recency = 1
),
planned AS (
    SELECT run_id, object_id, endpoint, params_hash, decision, reason FROM plan WHERE run_id IN (SELECT run_id FROM listings)
)
SELECT catalogue.*, asked.endpoint, planned.params_hash, planned.decision, planned.reason
FROM catalogue
JOIN asked ON asked.run_id = catalogue.run_id
LEFT JOIN planned
    ON planned.run_id = catalogue.run_id AND planned.object_id = catalogue.object_id AND planned.endpoint = asked.endpoint;

CREATE TEMP TABLE identities AS
WITH results AS (
    $every_result
),
counts AS (
    $every_count
),
compared AS (
    SELECT
        coalesce(results.endpoint, booked.endpoint) AS endpoint,
        coalesce(results.object_id, booked.object_id) AS object_id,
        coalesce(results.params_hash, booked.params_hash) AS params_hash,
        coalesce(results.run_id, booked.run_id) AS run_id,
        results.bucket,
        results.key,
        CASE
            WHEN results.session_id IS NULL AND booked.state = 'published' THEN 'LOST'
            WHEN results.session_id IS NULL AND booked.state = 'finished' THEN 'UNPUBLISHED'
            WHEN results.session_id IS NULL THEN 'STREAMS'
            WHEN booked.state = 'erased' OR of_object.id IS NOT NULL OR of_key.id IS NOT NULL THEN 'ERASED'
            WHEN booked.session_id IS NULL AND results.started_at >= CAST('$since' AS TIMESTAMPTZ) THEN 'MEANWHILE'
            WHEN booked.session_id IS NULL THEN 'UNBOOKED'
            WHEN (booked.endpoint, booked.object_id, booked.params_hash) <> (results.endpoint, results.object_id, results.params_hash)
                THEN 'OTHER_OBJECT'
            WHEN booked.state NOT IN ('published', 'finished', 'streaming') THEN 'OTHER_STATE'
            WHEN booked.booked_ms <> results.booked_ms THEN 'OTHER_COST'
            WHEN coalesce(counts.items, 0) <> results.items_received THEN 'OTHER_ITEMS'
            WHEN booked.state <> 'published' THEN 'UNCONFIRMED'
            ELSE 'DONE'
        END AS why
    FROM results
    FULL JOIN booked ON booked.session_id = results.session_id
    LEFT JOIN counts ON counts.session_id = results.session_id AND counts.endpoint = results.endpoint
    LEFT JOIN buried AS of_object ON of_object.id = results.object_id
    LEFT JOIN buried AS of_key ON of_key.id = results.object_key_id
    WHERE results.session_id IS NOT NULL OR booked.state IN ('published', 'finished', 'streaming')
),
grouped AS (
    SELECT
        endpoint, object_id, params_hash,
        any_value(bucket) AS bucket,
        any_value(key) AS key,
        arg_min(compared.why, rank) AS why,
        count(*) FILTER (compared.why IN ('DONE', 'UNCONFIRMED') AND run_id NOT IN (SELECT run_id FROM forced)) AS unasked
    FROM compared JOIN whys ON whys.why = compared.why
    GROUP BY endpoint, object_id, params_hash
)
SELECT * REPLACE (CASE WHEN unasked > 1 AND why IN ('DONE', 'UNCONFIRMED') THEN 'TWICE' ELSE why END AS why) FROM grouped;

DROP TABLE booked;

CREATE TEMP TABLE unlisted AS
SELECT *
FROM identities ANTI JOIN expected USING (endpoint, object_id, params_hash)
WHERE NOT EXISTS (SELECT 1 FROM wanted);

CREATE TEMP TABLE listed_before AS
SELECT DISTINCT object_id FROM manifests WHERE object_id IN (SELECT object_id FROM unlisted);

CREATE TEMP TABLE reconciled AS
WITH every AS (
    SELECT
        expected.endpoint, expected.object_id, expected.bucket, expected.key,
        CASE
            WHEN NOT whys.is_explained THEN identities.why
            WHEN held.reason IS NOT NULL THEN 'HELD'
            WHEN identities.why IS NOT NULL THEN identities.why
            WHEN of_object.id IS NOT NULL OR of_key.id IS NOT NULL THEN 'SKIPPED'
            WHEN expected.decision IS NULL THEN 'UNPLANNED'
            WHEN expected.decision = 'skip' AND expected.reason IN ('not_reached', 'changed') THEN 'NOT_REACHED'
            WHEN expected.decision = 'skip' THEN 'SKIPPED'
            WHEN expected.decision = 'done' THEN 'VANISHED'
            WHEN expected.decision = 'quarantined' OR held_once.object_id IS NOT NULL THEN 'RELEASED'
            WHEN listings.exit_code IS NULL THEN 'UNENDED'
            WHEN listings.pending > 0 OR listings.state <> 'Completed' THEN 'DEFERRED'
            ELSE 'UNTOLD'
        END AS why,
        coalesce(held.reason, expected.reason, CASE WHEN listings.state <> 'Completed' THEN listings.state END) AS reason
    FROM expected
    JOIN listings ON listings.run_id = expected.run_id
    LEFT JOIN identities
        ON identities.endpoint = expected.endpoint
        AND identities.object_id = expected.object_id
        AND identities.params_hash = expected.params_hash
    LEFT JOIN whys ON whys.why = identities.why
    LEFT JOIN quarantined_now AS held
        ON held.endpoint = expected.endpoint AND held.object_id = expected.object_id AND held.params_hash = expected.params_hash
    LEFT JOIN (SELECT DISTINCT endpoint, object_id, params_hash FROM quarantine) AS held_once
        ON held_once.endpoint = expected.endpoint
        AND held_once.object_id = expected.object_id
        AND held_once.params_hash = expected.params_hash
    LEFT JOIN buried AS of_object ON of_object.id = expected.object_id
    LEFT JOIN buried AS of_key ON of_key.id = expected.object_key_id
    UNION ALL
    SELECT
        endpoint, object_id, bucket, key,
        CASE
            WHEN why <> 'DONE' THEN why
            WHEN object_id IN (SELECT object_id FROM listed_before) THEN 'EARLIER'
            ELSE 'UNLISTED'
        END,
        NULL
    FROM unlisted
)
SELECT
    endpoint, object_id,
    any_value(bucket) AS bucket,
    any_value(key) AS key,
    arg_min(every.why, rank) AS why,
    arg_min(coalesce(reason, ''), rank) AS reason
FROM every JOIN whys ON whys.why = every.why
GROUP BY endpoint, object_id;
