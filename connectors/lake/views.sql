-- The views of the result lake besides those of endpoint_views.sql, for DuckDB; $every_summary is what each endpoint's summaries cost.
-- The line above each view goes into docs/data-dictionary.md.

-- The attempts that failed or were refused, whatever became of their objects later.
CREATE VIEW failures AS
SELECT * FROM attempts WHERE outcome IN ('failed', 'refused');

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

-- The objects with a music result and neither a result nor a quarantine of the AI-music endpoint; filter by music_pct.
CREATE VIEW cascade_backlog AS
SELECT object_id, object_key_id, org, bucket, key, version_id, etag, duration_ms, music_pct, primary_label, finished_at
FROM music_latest AS music
WHERE NOT EXISTS (FROM ai_music_summaries AS ai_music WHERE ai_music.object_id = music.object_id)
    AND NOT EXISTS (FROM quarantined_now AS held WHERE held.object_id = music.object_id AND held.endpoint = 'ai_music');

-- Each run once: as it ended, or as it began where it has not ended.
CREATE VIEW runs_latest AS
SELECT * FROM runs
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY finished_at DESC NULLS LAST) = 1;

-- The objects in the newest manifest of each organisation and source; a manifest is there only when it is complete.
CREATE VIEW catalogue_latest AS
WITH listings AS (
    SELECT max(run_id) AS run_id
    FROM runs_latest
    WHERE run_id IN (SELECT run_id FROM manifests)
    GROUP BY org, source
)
SELECT * FROM manifests
WHERE run_id IN (FROM listings)
QUALIFY row_number() OVER (PARTITION BY object_key_id ORDER BY run_id DESC, last_modified DESC) = 1;
