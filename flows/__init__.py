"""When soundcheck does it: settings, wiring, the flows and the command line."""

import os

# Arrow and polars read these as they are loaded: what a stage lets go of is the system's again, and the next one does not add to it
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
