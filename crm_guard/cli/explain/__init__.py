"""`crm-guard explain`: what pasted answers of CRM mean for each record, and what to do about it.

Give it a file, a pipe, or a code alone:

    crm-guard explain answer.json
    grep crm_guard app.log | crm-guard explain
    curl -v https://www.zohoapis.com/crm/v8/Leads/1 ... 2>&1 | crm-guard explain
    crm-guard explain NOT_APPROVED --method DELETE --path /crm/v8/Leads

It reads JSON (also in a list, in strings of JSON, line by line, or cut off), the `repr` of Python,
log lines, tracebacks and texts of exceptions (the guard's, those of Zoho's SDK and of `requests`),
`curl -i` and `curl -v`, HAR files, Markdown and HTML around them. Its first line says what it
understood; several answers give several explanations. A code alone lists all that it can mean.

Which record an item is about, and what to do, depends on the call. Where the text does not tell it,
it is guessed, and said to be: `--method`, `--path`, `--status` and `--request FILE` (the body of
the request) make it certain, and `--state` tells a record's `$approval_state`.

`--json` prints one document, `{"answers": [...]}`. Exit status: 0 explained, 2 empty, foreign or
not understood. Headers, tokens and field values are not shown.
"""

from crm_guard.cli.explain.meaning import Explanation, Question, explain
from crm_guard.cli.explain.show import run_explain
from crm_guard.cli.explain.source import read_source, read_text

__all__ = ["Explanation", "Question", "explain", "read_source", "read_text", "run_explain"]
