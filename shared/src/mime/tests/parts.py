"""The leaves of each message whose path comes on standard input, as Python's standard library reads them."""
import email.header
import email.policy
import json
import sys


def name_of(part):
    name = part.get_filename()
    if name is None or name == "":
        return None
    try:
        return str(email.header.make_header(email.header.decode_header(name))) or None
    except (LookupError, ValueError):
        return name


def leaves(message):
    waiting = [message]
    while waiting:
        part = waiting.pop()
        inner = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(inner, list) and inner:
            waiting.extend(reversed(inner))
            continue
        octets = None
        if not isinstance(inner, list):
            octets = len(part.get_payload(decode=True) or b"")
        yield {"content_type": part.get_content_type(), "name": name_of(part), "octets": octets}


for path in sys.stdin:
    with open(path.rstrip("\n"), "rb") as file:
        # Not from the file: line ends would be changed.
        message = email.message_from_bytes(file.read(), policy=email.policy.compat32)
    print(json.dumps(list(leaves(message))))
