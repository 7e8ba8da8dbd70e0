"""`python -m crm_guard.cli`."""

import sys

from crm_guard.cli import main

if __name__ == "__main__":
    sys.exit(main())
