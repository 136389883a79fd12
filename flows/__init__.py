"""When soundcheck does it: settings, wiring, the flows and the command line."""
