"""The review page: a small web server on this machine, by which people look at decisions, listen, and answer."""
