-- The views of the result lake besides those of endpoint_views.sql, for DuckDB; $every_summary is what each endpoint's summaries cost,
-- $every_result what they are results of, $every_newest the newest sessions; $endpoint_outcomes and $endpoint_joins are two columns and a join for each endpoint.
-- The line above each view goes into docs/data-dictionary.md.

-- The attempts that failed or were refused, whatever became of their objects later.
CREATE VIEW failures AS
SELECT * FROM attempts WHERE outcome IN ('failed', 'refused');

-- The segments of the newest result of each object version at each endpoint.
CREATE VIEW segments_latest AS
SELECT segments.*
FROM ($every_newest) AS newest
JOIN segments ON segments.object_id = newest.object_id AND segments.session_id = newest.session_id;

-- What each day cost, by the UTC day on which the sessions began: settled_ms for results, possible_ms sent without one.
CREATE VIEW spend_daily AS
WITH summaries AS (
    $every_summary
),
spent AS (
    SELECT CAST(started_at AS DATE) AS day, org, endpoint, greatest(coalesce(duration_ms, 0), covered_ms) AS settled_ms, 0 AS possible_ms
    FROM summaries
    UNION ALL
    SELECT CAST(started_at AS DATE), org, endpoint, 0, audio_sent_ms FROM attempts WHERE outcome <> 'done'
)
SELECT day, org, endpoint, CAST(sum(settled_ms) AS BIGINT) AS settled_ms, CAST(sum(possible_ms) AS BIGINT) AS possible_ms
FROM spent
GROUP BY day, org, endpoint;

-- The objects that need a person, for each endpoint and set of parameters: quarantined and not released since.
CREATE VIEW quarantined_now AS
SELECT object_id, endpoint, params_hash, reason, detail, org, bucket, key, version_id, etag, run_id, happened_at
FROM quarantine
QUALIFY event = 'quarantined'
    AND row_number() OVER (PARTITION BY object_id, endpoint, params_hash ORDER BY happened_at DESC, event) = 1;

-- The objects with a music result and neither a result nor a quarantine of the AI-music endpoint, but for those that the cascade of the newest run which planned them left out: what passes its threshold. Where no run had a cascade: all, so filter by music_pct.
CREATE VIEW cascade_backlog AS
WITH left_out AS (
    SELECT object_id, params_hash
    FROM plan
    WHERE endpoint = 'ai_music' AND run_id IN (SELECT run_id FROM runs)
    QUALIFY row_number() OVER (PARTITION BY object_id, params_hash ORDER BY run_id DESC) = 1 AND reason IS NOT DISTINCT FROM 'second_stage'
)
SELECT object_id, object_key_id, org, bucket, key, version_id, etag, duration_ms, music_pct, primary_label, finished_at
FROM music_latest AS music
WHERE NOT EXISTS (FROM ai_music_summaries AS ai_music WHERE ai_music.object_id = music.object_id)
    AND NOT EXISTS (FROM quarantined_now AS held WHERE held.object_id = music.object_id AND held.endpoint = 'ai_music')
    AND NOT EXISTS (FROM left_out WHERE left_out.object_id = music.object_id AND left_out.params_hash = music.params_hash);

-- Each run once: as it ended, or as it began where it has not ended.
CREATE VIEW runs_latest AS
SELECT * FROM runs
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY finished_at DESC NULLS LAST) = 1;

-- What has become by now of each object and endpoint that a run planned: done also where another run has done it; pending is for a later run.
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
            WHEN planned.decision = 'skip' AND planned.reason <> 'not_reached' THEN 'skipped'
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
CREATE VIEW catalogue_latest AS
WITH listings AS (
    SELECT max(run_id) AS run_id
    FROM runs_latest
    WHERE run_id IN (SELECT run_id FROM manifests)
    GROUP BY org, source
),
listed AS (
    SELECT * FROM manifests
    WHERE run_id IN (FROM listings)
    QUALIFY row_number() OVER (PARTITION BY object_key_id ORDER BY run_id DESC, last_modified DESC) = 1
),
known AS (
    SELECT * FROM outcomes WHERE run_id IN (FROM listings)
)
SELECT listed.*, $endpoint_outcomes
FROM listed $endpoint_joins;
