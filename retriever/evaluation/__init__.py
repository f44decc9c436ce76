"""Evaluation: question sets, measures, runs of the whole engine over them, and a report of what came out."""
