"""The proof: distortions, queries, metrics and reports that compare samaf with the baselines."""
