-- The views of the result lake over its datasets, for DuckDB. The line above each view goes into docs/data-dictionary.md.
-- A join names summaries before items: files are listed in that order, and a summary is only ever there after its items.

-- The newest music result of each object version.
CREATE VIEW music_latest AS
SELECT * FROM music_summaries
QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY finished_at DESC, session_id DESC) = 1;

-- The newest AI-music result of each object version.
CREATE VIEW ai_music_latest AS
SELECT * FROM ai_music_summaries
QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY finished_at DESC, session_id DESC) = 1;

-- The music result of the newest version of each object.
CREATE VIEW music_current AS
SELECT * FROM music_latest
QUALIFY row_number() OVER (PARTITION BY object_key_id ORDER BY last_modified DESC, finished_at DESC, session_id DESC) = 1;

-- The AI-music result of the newest version of each object.
CREATE VIEW ai_music_current AS
SELECT * FROM ai_music_latest
QUALIFY row_number() OVER (PARTITION BY object_key_id ORDER BY last_modified DESC, finished_at DESC, session_id DESC) = 1;

-- The frames of music_latest: each object version once, however often it was scanned.
CREATE VIEW frames_latest AS
SELECT frames.*
FROM music_latest AS latest
JOIN music_frames AS frames ON frames.object_id = latest.object_id AND frames.session_id = latest.session_id;

-- The windows of ai_music_latest: each object version once, however often it was scanned.
CREATE VIEW windows_latest AS
SELECT windows.*
FROM ai_music_latest AS latest
JOIN ai_music_windows AS windows ON windows.object_id = latest.object_id AND windows.session_id = latest.session_id;

-- music_latest without quality flags and with sufficient evidence.
CREATE VIEW clean_music AS
SELECT * FROM music_latest WHERE quality_flags = '' AND evidence = 'sufficient';

-- ai_music_latest without quality flags and with sufficient evidence.
CREATE VIEW clean_ai_music AS
SELECT * FROM ai_music_latest WHERE quality_flags = '' AND evidence = 'sufficient';

-- The attempts that failed or were refused, whatever became of their objects later.
CREATE VIEW failures AS
SELECT * FROM attempts WHERE outcome IN ('failed', 'refused');

-- What each day cost, by the UTC day on which the sessions began: settled_ms for results, possible_ms sent without one.
CREATE VIEW spend_daily AS
WITH summaries AS (
    SELECT started_at, org, endpoint, duration_ms, covered_ms FROM music_summaries
    UNION ALL
    SELECT started_at, org, endpoint, duration_ms, covered_ms FROM ai_music_summaries
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
    AND row_number() OVER (PARTITION BY object_id, endpoint, params_hash ORDER BY happened_at DESC, event DESC) = 1;

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
