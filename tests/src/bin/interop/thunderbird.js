// Thunderbird reads this as its AutoConfig script, which runs with all rights; the first line has to be a comment.
// It makes an account as its settings dialogue would, fetches, sends a file if there is one, and ends.
(function () {
  const set = name => Services.env.get("INTEROP_" + name);
  const say = text => dump("INTEROP " + text + "\n");
  const socketType = () => (set("WAY") == "Upgrade" ? 2 : 3);

  // As an organisation gives its own authority to its computers.
  function trust() {
    const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
    database.addCertFromBase64(set("CERTIFICATE"), "CT,,");
  }

  function newAccount(services) {
    const server = services.accounts.createIncomingServer(set("USER"), set("HOST"), "pop3");
    server.port = Number(set("POP3"));
    server.socketType = socketType();
    server.authMethod = 3;
    const account = services.accounts.createAccount();
    const identity = services.accounts.createIdentity();
    identity.email = set("ADDRESS");
    identity.doFcc = false;
    account.addIdentity(identity);
    account.incomingServer = server;
    const outgoing = services.outgoingServer.createServer("smtp");
    outgoing.QueryInterface(Ci.nsISmtpServer);
    outgoing.hostname = set("HOST");
    outgoing.port = Number(set("SMTP"));
    outgoing.username = set("USER");
    outgoing.authMethod = 3;
    outgoing.socketType = socketType();
    identity.smtpServerKey = outgoing.key;
    services.outgoingServer.defaultServer = outgoing;
    return account;
  }

  function fetchMail(services, account) {
    const server = account.incomingServer;
    const pop3 = server.QueryInterface(Ci.nsIPop3IncomingServer);
    pop3.leaveMessagesOnServer = set("DELETE") != "true";
    pop3.deleteMailLeftOnServer = !pop3.leaveMessagesOnServer;
    const inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
    return new Promise((resolve, reject) => {
      const listener = {
        OnStartRunningUrl() {},
        OnStopRunningUrl(_, status) {
          status ? reject(new Error("fetching: " + status.toString(16))) : resolve(inbox.filePath.path);
        },
      };
      services.pop3.GetNewMail(null, listener, inbox, server);
    });
  }

  function sendMail(account) {
    const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
    file.initWithPath(set("MESSAGE"));
    const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
    fields.from = set("ADDRESS");
    fields.to = set("TO");
    const sender = Cc["@mozilla.org/messengercompose/send;1"].createInstance(Ci.nsIMsgSend);
    return new Promise((resolve, reject) => {
      const listener = {
        QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
        onStartSending() {},
        onProgress() {},
        onStatus() {},
        onSendNotPerformed() {},
        onGetDraftFolderURI() {},
        onTransportSecurityError() {},
        onStopSending(_, status, text) {
          status ? reject(new Error("sending: " + status.toString(16) + " " + text)) : resolve();
        },
      };
      const now = Ci.nsIMsgSend.nsMsgDeliverNow;
      sender.sendMessageFile(
        account.defaultIdentity, account.key, fields, file, false, false, now, null, listener, null, "");
    });
  }

  async function run() {
    const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
    trust();
    const known = [...MailServices.accounts.accounts].find(account => account.incomingServer.type == "pop3");
    const account = known || newAccount(MailServices);
    account.incomingServer.password = set("PASSWORD");
    MailServices.outgoingServer.defaultServer.password = set("PASSWORD");
    say("inbox " + (await fetchMail(MailServices, account)));
    if (set("MESSAGE")) {
      await sendMail(account);
    }
  }

  const topic = "mail-startup-done";
  Services.obs.addObserver(function started() {
    Services.obs.removeObserver(started, topic);
    run()
      .then(() => say("done"), error => say("failed " + error))
      .then(() => Services.startup.quit(Ci.nsIAppStartup.eForceQuit));
  }, topic);
})();
