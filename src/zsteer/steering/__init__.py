"""Move a generator's noise so that one attribute of its images changes and nothing else does."""
