"""Validation: row rules, the Great Expectations gate on `examples`, and the report of a night."""
