"""Mistakes that a type checker must find: each marked line has an error with that text, no other has one.

Read by `test_typing.py`; never imported or run.
"""

import requests

import crm_guard
from crm_guard import NotAprovedErr  # E: no attribute "NotAprovedErr"
from crm_guard.settings import origins
from crm_guard.testing import simulated_zoho

session = requests.Session()
print(NotAprovedErr)

# Names that are none.
crm_guard.mount_gaurd(session)  # E: no attribute "mount_gaurd"
try:
    session.put("https://www.zohoapis.com/crm/v8/Leads")
except crm_guard.NotAprovedError:  # E: no attribute "NotAprovedError"
    pass
except crm_guard.GuardError as error:
    print(error.raport)  # E: no attribute "raport"
    print(error.hint + error.retry_after)  # E: Unsupported operand types

# Keyword arguments that are none.
crm_guard.mount_guard(session, setings={"timeout": 5})  # E: Unexpected keyword argument "setings"
crm_guard.mount_guard(session, pool_maxsiz=5)  # E: Unexpected keyword argument "pool_maxsiz"
crm_guard.install(setings={"timeout": 5})  # E: Unexpected keyword argument "setings"
crm_guard.GuardAdapter(setings={"timeout": 5})  # E: "GuardAdapter"
crm_guard.load_settings(timeot=3)  # E: Unexpected keyword argument "timeot"
origins(timeot=3)  # E: Unexpected keyword argument "timeot"
simulated_zoho(tokn="secret")  # E: Unexpected keyword argument "tokn"
crm_guard.GuardSettings(timeot=3)  # E: Unexpected keyword argument "timeot"

crm_guard.write_records(session, "PUT", "https://www.zohoapis.com/crm/v8/Leads", [{}], worker=5)  # E: "worker"

# Settings where an adapter's arguments belong.
crm_guard.mount_guard(session, timeout=5)  # E: Unexpected keyword argument "timeout"
crm_guard.install(timeout=5)  # E: Unexpected keyword argument "timeout"
crm_guard.GuardAdapter(timeout=5)  # E: "GuardAdapter"
crm_guard.mount_guard(session, lock_registry="redis://localhost")  # E: incompatible type "str"

# Values of a wrong type.
crm_guard.mount_guard(requests)  # E: incompatible type Module
crm_guard.mount_guard(session, pool_maxsize="5")  # E: incompatible type "str"
crm_guard.mount_guard(session, hooks=[len])  # E: List item 0 has incompatible type
crm_guard.mount_guard(session, clock=3.0)  # E: incompatible type "float"
crm_guard.load_settings(timeout="3")  # E: incompatible type "str"
crm_guard.load_settings(raise_on="allways")  # E: incompatible type
crm_guard.GuardSettings(attempts="3")  # E: incompatible type "str"
crm_guard.GuardAdapter(crm_guard.GuardSettings(), 20)  # E: No overload variant
crm_guard.GuardAdapter(10, "20")  # E: No overload variant
crm_guard.GuardAdapter(10, pool_connections=20)  # E: No overload variant
crm_guard.write_records(session, "PUT", "https://www.zohoapis.com/crm/v8/Leads", 5)  # E: incompatible type "int"
for result in crm_guard.write_records(session, "DELETE", "https://www.zohoapis.com/crm/v8/Leads", ["1"]):
    print(result.row + 1, result.succeded)  # E: "RowResult[str]" has no attribute "succeded"
