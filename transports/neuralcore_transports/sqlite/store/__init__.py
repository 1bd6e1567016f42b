"""The store's logic: synchronous, without a clock, on a plain ``sqlite3`` connection."""
