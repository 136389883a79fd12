-- The ledger has a database of its own beside Prefect's.
CREATE DATABASE soundcheck;
