"""What the runs say: queries, regression, selection, reports, registry."""
