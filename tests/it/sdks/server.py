"""What the OpenFeature SDK for Python gets over OFREP: one JSON object on standard output.

Usage: server.py URL TOKEN
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

url, token = sys.argv[1:]


def client(name, token):
    headers = {"Authorization": f"Bearer {token}"}
    api.set_provider(OFREPProvider(url, headers_factory=lambda: headers), name)
    return api.get_client(name)


def told(details):
    error = details.error_code.value if details.error_code else None
    message = details.error_message if error else None
    return [details.value, details.variant, details.reason, error, message]


anna = EvaluationContext("anna", {"plan": "pro", "score": 81, "tags": ["a", "b"]})
flags = client("known", token)
answers = {
    "switch": told(flags.get_boolean_details("switch", False, anna)),
    "off": told(flags.get_boolean_details("off", True, anna)),
    "text": told(flags.get_string_details("text", "default", anna)),
    "whole": told(flags.get_integer_details("whole", 0, anna)),
    "float": told(flags.get_float_details("float", 0.0, anna)),
    "object": told(flags.get_object_details("object", {}, anna)),
    "named": told(flags.get_string_details("named", "default", anna)),
    "rule": told(flags.get_boolean_details("rule", False, anna)),
    "listed": told(flags.get_boolean_details("listed", False, anna)),
    "of another type": told(flags.get_integer_details("text", 7, anna)),
    "unknown": told(flags.get_boolean_details("unknown", True, anna)),
    "nobody": told(flags.get_boolean_details("listed", True)),
    "nobody needed": told(flags.get_boolean_details("switch", False)),
    "metadata": flags.get_boolean_details("switch", False, anna).flag_metadata,
    "wrong token": told(client("unknown", "wrong").get_boolean_details("switch", False, anna)),
}
limited = client("limited", "limited")
for _ in range(40):
    answer = told(limited.get_boolean_details("switch", False, anna))
    if answer[3]:
        break
answers["too often"] = answer
# It pauses by itself for as long as it was told to.
answers["paused"] = told(limited.get_boolean_details("switch", False, anna))
print(json.dumps(answers))
