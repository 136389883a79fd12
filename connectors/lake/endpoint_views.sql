-- The views of one endpoint's results, for DuckDB; $endpoint, $summaries, $items and $items_view are names from schemas.py.
-- A join names summaries before items: files are listed in that order, and a summary is only ever there after its items.
-- The line above each view goes into docs/data-dictionary.md.

-- The newest result of the $endpoint endpoint for each object version.
CREATE VIEW ${endpoint}_latest AS
SELECT * FROM $summaries
QUALIFY row_number() OVER (PARTITION BY object_id ORDER BY finished_at DESC, session_id DESC) = 1;

-- The result of the $endpoint endpoint for the newest version of each object.
CREATE VIEW ${endpoint}_current AS
SELECT * FROM ${endpoint}_latest
QUALIFY row_number() OVER (PARTITION BY object_key_id ORDER BY last_modified DESC, finished_at DESC, session_id DESC) = 1;

-- The rows of $items for ${endpoint}_latest: each object version once, however often it was scanned.
CREATE VIEW $items_view AS
SELECT items.*
FROM ${endpoint}_latest AS latest
JOIN $items AS items ON items.object_id = latest.object_id AND items.session_id = latest.session_id;

-- ${endpoint}_latest without quality flags and with sufficient evidence.
CREATE VIEW clean_${endpoint} AS
SELECT * FROM ${endpoint}_latest WHERE quality_flags = '' AND evidence = 'sufficient';
