"""What a run did: counts, overlaps, reports and plots."""
