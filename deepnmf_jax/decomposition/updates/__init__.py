"""How factors are improved: one file a rule, one table of solvers, one loop."""
