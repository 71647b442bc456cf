"""Sending a run to a Ray cluster's Jobs API, and watching it from outside."""
