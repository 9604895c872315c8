"""`lpm-bench`: scenes x strategies x seeds x caps, the same rules for all, with tables, plots and intervals."""
