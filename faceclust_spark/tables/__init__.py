"""Delta tables: columns and schemas, reads and writes, the ledger of runs."""
