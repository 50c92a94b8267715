"""The ledger of the KV memory: slots, what is resident in them, and the prefix cache."""
