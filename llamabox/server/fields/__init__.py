"""Fields of request bodies, one checker a rule. Every number is checked here before it can reach C."""
