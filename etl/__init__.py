"""Spark and Delta: raw logs -> tables -> snapshots and scores."""
