"""The names of Zoho's hosts, for which a simulated CRM stands in."""

from __future__ import annotations

import re
from typing import Final

_CENTRES: Final = "com|eu|in|com.au|jp|ca|sa|com.cn|uk|ae|sg".replace(".", r"\.")
"""Where Zoho has data centres: below any other country, `zoho` may be somebody else's name.

As the `Environment` classes of Zoho's Python SDK (2026) and the multi-DC page of the CRM API name them.
"""

_HOST: Final = rf"(?:[a-z0-9_-]+\.)*(?:zoho\.(?:{_CENTRES})|zoho(?:apis|cloud)(?:\.[a-z]{{2,3}}){{1,2}})\.?"

ZOHO: Final = re.compile(f"(?i){_HOST}")
"""Every host below `zoho.com`, `zohoapis.eu`, `zohocloud.ca` and so on: CRM, accounts, uploads.

`zohoapis` and `zohocloud` in any country, so that none is called by mistake.
"""

ZOHO_URLS: Final = re.compile(rf"(?i)https?://{_HOST}(?::\d+)?(?:[/?#]|$)")
"""How a URL on one of these hosts begins."""
