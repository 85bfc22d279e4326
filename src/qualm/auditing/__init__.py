"""Measure, prove, compare, record, report."""
