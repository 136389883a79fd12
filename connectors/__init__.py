"""What soundcheck talks to: the Velma service, S3, the result lake, the ledger, and local stand-ins for two of them. Never imports Prefect."""
