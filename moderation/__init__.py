"""What soundcheck knows: the wire protocol, rules, identities and limits. No I/O, clock or randomness: they are arguments."""
