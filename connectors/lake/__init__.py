"""The result lake: Hive-partitioned Parquet, written package by package and read by any query engine (design.md section 7)."""
