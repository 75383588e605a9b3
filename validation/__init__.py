"""Validation: row rules, the Great Expectations gate on the tables of a night, and the report of a night."""
