"""Results and what to make of them: findings, summaries, ArviZ data, metrics and plots."""
