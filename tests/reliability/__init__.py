"""Long runs that must end as if nothing had happened; each prints one line of JSON and fails by its exit code."""
