"""`crm-guard explain`: what pasted answers of CRM mean for each record, and what to do about it."""

from crm_guard.cli.explain.meaning import Explanation, Question, explain
from crm_guard.cli.explain.show import run_explain
from crm_guard.cli.explain.source import read_source, read_text

__all__ = ["Explanation", "Question", "explain", "read_source", "read_text", "run_explain"]
