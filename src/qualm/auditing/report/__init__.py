"""The report of a run: one page that loads nothing, the same as Markdown and JSON, and the rows beside it."""

from qualm.auditing.report.content import Answer, Report, Stage, Subject
from qualm.auditing.report.write import write_report

__all__ = ["Answer", "Report", "Stage", "Subject", "write_report"]
