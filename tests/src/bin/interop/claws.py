# An account of what `travel start` prints; then claws-mail collects or sends. It keeps passwords enciphered, under a
# key that follows from a fixed word unless its user chooses another one.
import base64, hashlib, os, pathlib, signal, subprocess, sys, time

ADDRESS, USER, PASSWORD = (os.environ["INTEROP_" + name] for name in ("ADDRESS", "USER", "PASSWORD"))
HOST, POP3, SMTP, WAY = (os.environ["INTEROP_" + name] for name in ("HOST", "POP3", "SMTP", "WAY"))
DELETE = os.environ["INTEROP_DELETE"] == "true"
WITHIN = 40
home = pathlib.Path(os.environ["HOME"])
settings, mail = home / ".claws-mail", home / "Mail"
for folder in ("inbox", "sent", "draft", "queue", "trash"):
    (mail / folder).mkdir(parents=True, exist_ok=True)
settings.mkdir(exist_ok=True)

salt = os.urandom(64)
key = hashlib.pbkdf2_hmac("sha1", b"passkey0", salt, 50000, 32)
# The first block is noise and is left out when it is read.
text = os.urandom(16) + PASSWORD.encode().ljust(128, b"\0")
cipher = ["openssl", "enc", "-aes-256-cbc", "-nopad", "-K", key.hex(), "-iv", "00" * 16]
enciphered = subprocess.run(cipher, input=text, capture_output=True, check=True).stdout
stored = "{AES-256-CBC,50000}" + base64.b64encode(enciphered).decode()
tls = 1 if WAY == "Implicit" else 2

def write(name, lines):
    (settings / name).write_text("\n".join(lines) + "\n")

write("clawsrc", [
    "[Common]", "config_version=4", "use_master_passphrase=0", "master_passphrase_pbkdf2_rounds=50000",
    "master_passphrase_salt=" + base64.b64encode(salt).decode(), "skip_ssl_cert_check=0",
    "no_receive_error_panel=1", "send_dialog_mode=1", "receive_dialog_mode=2", "confirm_on_exit=0",
    "clean_on_exit=0", "warn_queued_on_exit=0", "warn_sending_many_recipients_num=0", "work_offline=0"])
write("accountrc", [
    "[Account: 1]", "config_version=4", "account_name=road", "is_default=1", "name=Traveller",
    "address=" + ADDRESS, "protocol=0", "receive_server=" + HOST, "smtp_server=" + HOST, "user_id=" + USER,
    f"ssl_pop={tls}", f"ssl_smtp={tls}", "set_popport=1", "pop_port=" + POP3, "set_smtpport=1",
    "smtp_port=" + SMTP, "use_smtp_auth=1", "smtp_auth_method=0", "smtp_user_id=", "receive_at_get_all=1",
    f"remove_mail={int(DELETE)}", "message_leave_time=0", "message_leave_hour=0", "inbox=#mh/Mailbox/inbox",
    "local_inbox=#mh/Mailbox/inbox", "ssl_certs_auto_accept=1"])
write("passwordstorerc", ["[config_version:4]", "", "[account:1]", "recv " + stored, "send " + stored])
if not (settings / "folderlist.xml").exists():
    write("folderlist.xml", [
        '<?xml version="1.0"?>', "<folderlist>", '<folder type="mh" name="Mailbox" path="Mail">',
        '<folderitem type="inbox" path="inbox" name="inbox"/>',
        '<folderitem type="outbox" path="sent" name="sent"/>',
        '<folderitem type="draft" path="draft" name="draft"/>',
        '<folderitem type="queue" path="queue" name="queue"/>',
        '<folderitem type="trash" path="trash" name="trash"/>', "</folder>", "</folderlist>"])

def messages(folder):
    return [path for path in (mail / folder).iterdir() if path.name.isdigit()]

if "INTEROP_MESSAGE" in os.environ:
    content = pathlib.Path(os.environ["INTEROP_MESSAGE"]).read_bytes().replace(b"\r\n", b"\n")
    head = ["AF:", "NF:0", "PS:10", "SRH:1", "SFN:", "DSR:", "MID:", "CFG:", "PT:0", "S:" + ADDRESS, "RQ:",
            "SSV:" + HOST, "NSV:", "SSH:", "R:<" + os.environ["INTEROP_TO"] + ">", "MAID:1", "RRCPT:0",
            "SCF:#mh/Mailbox/sent", "X-Claws-End-Special-Headers: 1", ""]
    (mail / "queue" / "1").write_bytes("\n".join(head).encode() + content)
    what, done = "--send", lambda: not messages("queue")
else:
    what, done = "--receive-all", lambda: "POP> QUIT" in said() and "POP< +OK bye" in said()

output = home / "said"
def said():
    return output.read_text(errors="replace") if output.exists() else ""

with open(output, "w") as to:
    command = ["xvfb-run", "-a", "dbus-run-session", "claws-mail", "--debug", what]
    # All that it starts is of one group, which is ended whatever happens.
    running = subprocess.Popen(command, stdout=to, stderr=to, stdin=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + WITHIN
    while not done() and time.monotonic() < until and running.poll() is None:
        time.sleep(0.1)
    good = done()
    try:
        subprocess.run(["claws-mail", "--quit"], stdout=to, stderr=to, timeout=20)
        running.wait(20)
    except subprocess.TimeoutExpired:
        good = False
    finally:
        try:
            os.killpg(running.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
if not good:
    sys.exit(said()[-3000:])
