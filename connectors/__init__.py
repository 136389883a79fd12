"""What soundcheck talks to: Velma, S3, the result lake, the ledger, and local stand-ins for the first two. Never imports Prefect."""
