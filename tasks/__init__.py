"""What soundcheck does: list, plan, stream, publish. Plain async functions, with thin Prefect tasks around them."""
