-- The views of one endpoint's results, in SQL that DuckDB, Athena and Trino all take; $endpoint, $summaries, $items and $items_view are names
-- from schemas.py, $columns those of the summaries.
-- A join names summaries before items: files are listed in that order, and a summary is only ever there after its items.
-- The lines above each view go into docs/data-dictionary.md.

-- The newest result of the $endpoint endpoint for each object version.
-- Example: SELECT key, duration_ms, finished_at FROM ${endpoint}_latest ORDER BY finished_at DESC LIMIT 20
CREATE VIEW ${endpoint}_latest AS
SELECT $columns
FROM (
    SELECT *, row_number() OVER (PARTITION BY object_id ORDER BY finished_at DESC, session_id DESC) AS recency
    FROM $summaries
) AS ranked
WHERE recency = 1;

-- The result of the $endpoint endpoint for the newest version of each object.
-- Example: SELECT org, count(*) AS objects, sum(duration_ms) / 3.6e6 AS hours FROM ${endpoint}_current GROUP BY org
CREATE VIEW ${endpoint}_current AS
SELECT $columns
FROM (
    SELECT *, row_number() OVER (PARTITION BY object_key_id ORDER BY last_modified DESC, finished_at DESC, session_id DESC) AS recency
    FROM ${endpoint}_latest
) AS ranked
WHERE recency = 1;

-- The rows of $items for ${endpoint}_latest: each object version once, however often it was scanned.
-- Example: SELECT * FROM $items_view WHERE object_id IN (SELECT object_id FROM ${endpoint}_latest WHERE key = 'songs/one.mp3') ORDER BY start_time_ms
CREATE VIEW $items_view AS
SELECT items.*
FROM ${endpoint}_latest AS latest
JOIN $items AS items ON items.object_id = latest.object_id AND items.session_id = latest.session_id;

-- ${endpoint}_latest without quality flags and with sufficient evidence.
-- Example: SELECT bucket, key, version_id, etag FROM clean_${endpoint} WHERE duration_ms > 60000
CREATE VIEW clean_${endpoint} AS
SELECT * FROM ${endpoint}_latest WHERE quality_flags = '' AND evidence = 'sufficient';
