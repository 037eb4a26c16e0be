use clap::CommandFactory;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};

use super::travel::{Until, from, grace, scope, until};
use super::*;
use crate::directory::explain::{Rule, Step};
use crate::record::{AfterFetch, Part, Scope, Takes, WindowState};
use crate::request::{
    BadRow, DeadLetterView, Destination, FolderView, Found, GatewayView, Imported, Line, Progress, Reading,
    RecipientView, RevisedView, RevisionView, Settings, Started, Status, WindowView,
};

const AT: u64 = 1_795_333_263_250;
const ID: &str = "01KAN0Q5WJ8J1V9Z8G8Q4T7RXE";
/// What a stranger might write anywhere: a cursor movement, a title, a forged line, a turned line.
const HOSTILE: &str = "x\x1b[2J\x1b]0;t\x07\u{9b}2J\r\nforged  row\u{202e}";

fn parsed(line: &str) -> Result<Command, clap::Error> {
    let arguments = std::iter::once(NODE).chain(line.split_whitespace());
    Cli::try_parse_from(arguments).map(|cli| cli.command)
}

#[test]
fn the_definitions_are_sound() {
    let definition = Cli::command();
    assert!(definition.get_about().is_some_and(|about| about.to_string().contains("inside")));
    definition.debug_assert();
}

#[test]
fn what_can_be_typed() {
    for line in [
        "init",
        "check --topology other.toml",
        "doctor --json",
        "serve",
        "pair sallypost1:abc",
        "pair - --json",
        "verify --rebuild",
        "person add alice --display Alice --alias a@example.com --alias b@example.com --attachments passthru --account 7",
        "person list --json",
        "person show alice@example.com",
        "person remove alice",
        "person add carl --pop3 no --forward c@remote.example --forward d@remote.example --keep-copy",
        "person set alice --display A --add-alias x@example.com --remove-alias y@example.com --attachments site",
        "person set alice --account al.ice",
        "person set alice --account none --pop3 passthru --forward c@remote.example --keep-copy no",
        "person set alice --no-forward",
        "person import people.csv --dry-run --json",
        "person export",
        "mail amend X --as alice --append --to bob --to carol --reason late --base 1 --attach f --text more",
        "mail amend X --as alice --withdraw --reason wrong",
        "mail history X --as alice",
        "shadow add carol carol@remote.example --display Carol --alias c@example.com",
        "shadow set carol --address c@remote.example",
        "shadow import s.csv",
        "group add team --member alice --member x@remote.example --display Team --alias t@example.com",
        "group set team --add-member bob --remove-member alice",
        "group list --json",
        "group show team",
        "group remove team",
        "nickname add bobby bob --as alice",
        "nickname set bobby carol@remote.example --as alice",
        "nickname list --as alice --json",
        "nickname show bobby --as alice",
        "nickname remove bobby --as alice",
        "explain bob --as alice --json",
        "explain bob@example.com",
        "mail list --as alice --folder undeliverable --max 5",
        "mail list --as alice --folder Travel --before ID",
        "mail read ID.2 --as alice --output FILE",
        "mail read ID --as alice --raw",
        "mail send --as bob --to a@b.example --to alice --cc c@d.example --subject S --attach F --attach G --text T",
        "mail reply ID --as alice --all --text T",
        "mail reply ID --as alice --list --quote --attach F --text T",
        "mail forward ID --as alice --to bob --cc c@d.example --without 1 --without 2 --attach F --text T",
        "mail forward ID --as alice --to bob --as-attachment --text T",
        "mail return ID --as alice --text T",
        "mail return ID --as alice --to bob --subject S --without 1 --text T",
        "mail draft save --as alice --text T",
        "mail draft save --as alice --draft ID --keep 1 --to bob --cc cj --subject S --attach F --text T",
        "mail draft save --as alice --reply ID --all --text T",
        "mail draft save --as alice --forward ID --as-attachment --to bob --text T",
        "mail draft save --as alice --return ID --without 1 --text T",
        "mail draft list --as alice --json",
        "mail draft show ID --as alice",
        "mail draft send ID --as alice",
        "mail search two words --as alice --folder Travel --max 9",
        "mail thread ID --as alice --json",
        "mail folder add Travel --as alice",
        "mail list",
        "nickname list",
        "mail folder list --as alice",
        "mail folder rename Travel Trips --as alice",
        "mail folder remove Trips --as alice",
        "mail move ID Travel --as alice",
        "mail mark ID --as alice --unread",
        "mail watch --as alice --seen 7 --json",
        "mail save ID --as alice",
        "mail save ID.2 --as alice --all --to DIR",
        "mail save ID --as alice --part 1 --part 2.1",
        "mail send --as bob --to a@b.example --subject S --report F --ebcdic 1047 --record-length 133 --name N",
        "mail delete ID --as alice",
        "desk --as alice",
        "desk --topology t.toml",
        "mail status ID --as alice --json",
        "travel start alice --until standing --scope 7d --after-fetch delete",
        "travel start alice --from 2026-12-01 --until 2026-12-10 --headers-first --max-size 5M --quota 1G",
        "travel start alice --until standing --settings DIR --qr --json",
        "travel extend alice --until standing",
        "travel rotate alice --grace 24h --settings DIR",
        "travel list --all",
        "travel list --as alice --json",
        "travel end alice --revoke",
        "queue list",
        "link status --json --topology t.toml",
        "trace ID",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {}", parsed(line).expect_err("a refusal"));
    }
}

#[test]
fn what_cannot_be_typed() {
    for line in [
        "",
        "pair",
        "person add",
        "person add alice --attachments apart",
        "person add alice --account a:b",
        "person add alice --pop3 maybe",
        "person set alice --forward x@remote.example --no-forward",
        "person import",
        "shadow add carol",
        "explain",
        "mail reply ID --as alice --all --list",
        "mail forward ID --as alice",
        "mail forward ID --as alice --to bob --as-attachment --without 1",
        "mail draft save --as alice --keep 1",
        "mail draft save --as alice --reply ID --forward ID",
        "mail draft save --as alice --all",
        "mail search --as alice",
        "mail move ID --as alice",
        "mail read ID --as alice --raw --json",
        "mail save ID --as alice --all --part 1",
        "mail save ID --as alice --part x",
        "mail send --as bob --to a@b.example --subject S --ebcdic 037",
        "mail send --as bob --to a@b.example --subject S --report F --ebcdic 850",
        "mail send --as bob --to a@b.example --subject S --report F --record-length 80",
        "mail send --as bob --to a@b.example --subject S --report F --ebcdic 037 --record-length 0",
        "mail send --as bob --subject S",
        "mail send --as bob --to a@b.example",
        "travel start alice",
        "travel start alice --until tomorrow",
        "travel start alice --until standing --scope 0d",
        "travel start alice --until standing --max-size 5X",
        "travel start alice --until standing --from standing",
        "travel extend alice",
        "travel rotate alice --grace 7",
        "travel start alice --until standing --after-fetch burn",
    ] {
        let refusal = parsed(line).expect_err(line);
        assert_eq!(refusal.exit_code(), 2, "{line}");
    }
}

#[test]
fn every_mail_command_is_for_a_person_by_option_variable_or_account() {
    let mut definition = Cli::command();
    definition.build();
    let mail = definition.find_subcommand("mail").expect("mail");
    let commands = mail.get_subcommands().filter(|command| command.get_name() != "help");
    let leaves = commands.flat_map(|command| match command.has_subcommands() {
        true => command.get_subcommands().filter(|command| command.get_name() != "help").collect(),
        false => vec![command],
    });
    for command in leaves {
        let person =
            command.get_arguments().find(|argument| argument.get_long() == Some("as")).expect("--as");
        assert!(!person.is_required_set());
        assert_eq!(person.get_env(), Some("SALLYPOST_AS".as_ref()));
    }
}

#[test]
fn ends_of_windows() {
    assert_eq!(until("standing"), Ok(Until::Standing));
    assert_eq!(until("1970-01-01"), Ok(Until::Time(86_399_999)));
    assert_eq!(until("1970-01-02T01:00:00+01:00"), Ok(Until::Time(86_400_000)));
    assert_eq!(until("1970-01-02T00:00:00.5Z"), Ok(Until::Time(86_400_500)));
    for text in
        ["", "tomorrow", "2026-13-01", "2026-02-29", "1969-12-30", "2026-12-10T18:00:00", "12/10/2026"]
    {
        assert!(until(text).is_err_and(|mend| mend.starts_with("write 2026-12-10")), "{text}");
    }
}

#[test]
fn scopes_of_windows() {
    assert_eq!(scope("new"), Ok(Scope::New));
    assert_eq!(scope("all"), Ok(Scope::All));
    assert_eq!(scope("7d"), Ok(Scope::Days(7)));
    assert_eq!(scope("3653d"), Ok(Scope::Days(3653)));
    for text in ["", "d", "7", "0d", "-1d", "3654d", "99999999999d", "old"] {
        assert!(scope(text).is_err(), "{text}");
    }
}

fn lines() -> Vec<Line> {
    let message = Line {
        id: ID.into(),
        part: 0,
        at: AT,
        from: "Carol <carol@elsewhere.example>".into(),
        to: vec![],
        subject: "minutes".into(),
        size: 2048,
        content_type: None,
        read: false,
        answered: true,
        forwarded: false,
        folder: "in".into(),
        depth: 0,
        late: false,
        revision: 0,
        amended: false,
        withdrawn: false,
        suspect: false,
        thread: ID.into(),
    };
    let part = Line {
        id: format!("{ID}.1"),
        part: 1,
        subject: "report.pdf".into(),
        size: 900,
        content_type: Some("application/pdf".into()),
        ..message.clone()
    };
    vec![message, part]
}

#[test]
fn a_folder() {
    assert_eq!(
        show::folder(&lines(), "in"),
        "id                              at (UTC)          marks         size     from                             subject\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE      2026-11-22 07:41  new answered  2.0 KiB  Carol <carol@elsewhere.example>  minutes\n  \
           01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.1                                  900 B    application/pdf                  report.pdf\n"
    );
    assert_eq!(show::folder(&[], "trash"), "nothing in folder trash\n");
}

#[test]
fn conversations_searches_and_folders() {
    let cover = lines().swap_remove(0);
    let answer = Line {
        depth: 1,
        folder: "sent".into(),
        answered: false,
        to: vec!["c@d.example".into()],
        ..cover.clone()
    };
    assert_eq!(
        show::thread(&[cover.clone(), answer]),
        "id                          at (UTC)          marks         folder  from                             subject\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE  2026-11-22 07:41  new answered  in      Carol <carol@elsewhere.example>  minutes\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE  2026-11-22 07:41                sent    c@d.example                        minutes\n"
    );
    let found = Found { lines: Vec::new(), looked_at: 3, unread_texts: 1, behind: None };
    let nothing = "nothing found\n\n3 messages looked at, of 1 of them not the text.\n";
    assert_eq!(show::looked(&found), nothing);
    let found = Found { lines: vec![cover.clone()], looked_at: 3, unread_texts: 0, behind: Some(ID.into()) };
    assert_eq!(show::looked(&found), "\n3 messages looked at; older ones were not (1 are found).\n");
    let first = show::found(&found.lines, true);
    assert!(first.starts_with("id ") && first.lines().count() == 2, "{first}");
    assert_eq!(first.lines().nth(1), show::found(&found.lines, false).lines().next());
    let folders = [("in", false, 3), ("Travel", true, 0)];
    let folders =
        folders.map(|(name, own, messages)| FolderView { name: name.into(), own, messages, unread: 0 });
    assert_eq!(
        show::folders(&folders),
        "folder  messages  unread  own\nin      3         0\nTravel  0         0       yes\n"
    );
}

fn message() -> Reading {
    Reading {
        id: ID.into(),
        from: vec!["Carol <carol@elsewhere.example>".into()],
        to: vec!["alice@example.com".into(), "bob@example.com".into()],
        cc: vec![],
        subject: "minutes".into(),
        at: AT,
        text: "As agreed.\n\n-- \nCarol\n\n".into(),
        parts: vec![Part {
            number: 1,
            index: 1,
            name: Some("report.pdf".into()),
            content_type: "application/pdf".into(),
            size: 900,
        }],
        unparsed: None,
        answered: false,
        forwarded: false,
        folder: "in".into(),
        revision: 0,
        latest: None,
        amended: false,
        withdrawn: false,
        parent: None,
        verdicts: vec![],
        part_name: None,
        content_type: None,
    }
}

#[test]
fn a_message() {
    assert_eq!(
        show::reading(&message(), "alice"),
        "From        Carol <carol@elsewhere.example>\n\
         To          alice@example.com, bob@example.com\n\
         Date        2026-11-22 07:41 UTC\n\
         Subject     minutes\n\
         Id          01KAN0Q5WJ8J1V9Z8G8Q4T7RXE\n\
         \n\
         attachment                    size   kind             name\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.1  900 B  application/pdf  report.pdf\n\
         Save: big-node mail save 01KAN0Q5WJ8J1V9Z8G8Q4T7RXE --as alice --to DIR\n\
         \n\
         As agreed.\n\n-- \nCarol\n"
    );
}

fn recipient() -> RecipientView {
    RecipientView {
        via: None,
        forwarder: None,
        gateway: None,
        address: "carol@elsewhere.example".into(),
        state: DeliveryState::Deferred,
        at: AT,
        host: Some("mx.elsewhere.example".into()),
        tls: Some("TLS 1.3".into()),
        relay: None,
        status: "4.7.1".into(),
        text: "450 later".into(),
        host_reports: false,
        in_doubt: false,
        next_attempt_at: Some(AT + 60_000),
        redirect: None,
        revised: None,
    }
}

fn waiting() -> Queue {
    Queue {
        units: [0, 0, 3, 0],
        messages: vec![Status {
            id: ID.into(),
            subject: "hello".into(),
            late: false,
            recipients: vec![recipient()],
        }],
        dead_letters: vec![DeadLetterView {
            id: "f00d".into(),
            lane: "inter".into(),
            head_bytes: 7,
            with_body: false,
            inbound: false,
            reason: "unknown window".into(),
            at: AT,
        }],
    }
}

#[test]
fn only_what_a_host_answered_in_clear_is_said_to_be() {
    let said = |text: &str| {
        show::said(&RecipientView { tls: None, text: text.into(), next_attempt_at: None, ..recipient() })
    };
    assert_eq!(said("450 later"), "mx.elsewhere.example in clear: 4.7.1 450 later");
    assert_eq!(said("it offers no TLS"), "mx.elsewhere.example: 4.7.1 it offers no TLS");
}

#[test]
fn a_queue() {
    assert_eq!(
        show::queue(&waiting()),
        "inter       3 units wait for the edge\n\
         \n\
         message     01KAN0Q5WJ8J1V9Z8G8Q4T7RXE\n\
         subject     hello\n\
         \n\
         recipient                state     since (UTC)       what was said\n\
         carol@elsewhere.example  deferred  2026-11-22 07:41  mx.elsewhere.example under TLS 1.3: 4.7.1 450 later \
         (next attempt 2026-11-22 07:42)\n\
         \n\
         The edge refused:\n\
         id    at (UTC)          lane   why\n\
         f00d  2026-11-22 07:41  inter  unknown window\n"
    );
    assert_eq!(
        show::queue(&Queue { units: [0; 4], messages: vec![], dead_letters: vec![] }),
        "nothing waits\n"
    );
}

fn window() -> WindowView {
    WindowView {
        id: "0a".into(),
        person: "alice".into(),
        from: AT,
        until: Some(AT),
        scope: Scope::Days(7),
        after_fetch: AfterFetch::Keep,
        headers_first: false,
        size_max: None,
        quota: None,
        state: WindowState::Open,
        ended_at: None,
        filed: 0,
        fetched: 0,
        deleted: 0,
        waiting: 0,
        too_large: 0,
        bytes: 0,
        back_fill: (0, 0),
        last_login: None,
    }
}

#[test]
fn windows_and_how_far_they_are() {
    let open = WindowView {
        headers_first: true,
        size_max: Some(5 << 20),
        quota: Some(100 << 20),
        filed: 415,
        deleted: 3,
        waiting: 2,
        too_large: 1,
        bytes: 3 << 20,
        back_fill: (412, 3000),
        last_login: Some(AT),
        ..window()
    };
    let ending = WindowView { until: None, state: WindowState::Ending, ended_at: Some(AT), ..window() };
    let text = show::windows(&[open, ending]);
    for told in [
        "412 of 3000",
        "412 (3.0 MiB of 100.0 MiB)",
        "7d, small first, up to 5.0 MiB (1 larger)",
        "ending, not confirmed since 2026-11-22 07:41",
        "never",
        "standing",
    ] {
        assert!(text.contains(told), "{told} in\n{text}");
    }
}

#[test]
fn what_came_late_is_said_in_its_status() {
    let status =
        |late| Status { id: ID.into(), subject: "hello".into(), late, recipients: vec![recipient()] };
    assert!(show::status(&status(true)).contains("late        submitted on the road"));
    assert!(!show::status(&status(false)).contains("submitted on the road"));
}

#[test]
fn beginnings_sizes_and_graces() {
    assert_eq!(from("1970-01-02"), Ok(86_400_000));
    assert_eq!(from("1970-01-02T01:00:00+01:00"), Ok(86_400_000));
    assert!(["", "standing", "tomorrow", "1969-12-30"].iter().all(|text| from(text).is_err()));
    let sizes = [("1024", 1024), ("500K", 512_000), ("5M", 5 << 20), ("1G", 1 << 30)];
    assert!(sizes.iter().all(|(text, octets)| travel::size(text) == Ok(*octets)));
    let bad = ["", "K", "-1", "5MM", "5 M", "5m", "99999999999999G"];
    assert!(bad.iter().all(|text| travel::size(text).is_err()));
    let graces = [("0m", 0), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)];
    assert!(graces.iter().all(|(text, seconds)| grace(text).map(|grace| grace.as_secs()) == Ok(*seconds)));
    assert!(["", "7", "d", "-1d", "1w", "99999999999999999d"].iter().all(|text| grace(text).is_err()));
}

#[test]
fn credentials_with_everything_a_client_asks_for() {
    let window = window();
    let settings = Settings {
        host: "mx.example.com".into(),
        pop3: vec!["127.0.0.1:2110".into()],
        pop3s: vec!["[::1]:2995".into()],
        submission: vec![":587".into()],
        submissions: vec!["127.0.0.1:2465".into()],
    };
    let started = Started {
        window,
        user: "alice@example.com".into(),
        password: "abcd-efgh".into(),
        backfilled: 2,
        address: "alice@example.com".into(),
        display: "Alice".into(),
        settings,
    };
    assert_eq!(
        show::started(&started),
        "alice travels until 2026-11-22 07:41 UTC; 2 messages are on their way.\n\
         \n\
         user name   alice@example.com\n\
         password    abcd-efgh\n\
         \n\
         The password is shown this once and stored nowhere. It does not work on big-node.\n\
         \n\
         for                server          port  security  address\n\
         POP3 (collecting)  mx.example.com  2995  SSL/TLS   [::1]\n\
         POP3 (collecting)  mx.example.com  2110  STARTTLS  127.0.0.1\n\
         SMTP (sending)     mx.example.com  2465  SSL/TLS   127.0.0.1\n\
         SMTP (sending)     mx.example.com  587   STARTTLS\n\
         \n\
         Authentication is by normal password. Take one line for collecting and one for sending.\n"
    );
}

#[test]
fn a_stranger_can_neither_drive_the_terminal_nor_forge_a_line() {
    let mut list = lines();
    for line in &mut list {
        (line.subject, line.from, line.content_type) = (HOSTILE.into(), HOSTILE.into(), Some(HOSTILE.into()));
    }
    let mut reading = message();
    let names = [&mut reading.from, &mut reading.to, &mut reading.cc];
    names.into_iter().for_each(|name| *name = vec![HOSTILE.into()]);
    (reading.subject, reading.text) = (HOSTILE.into(), HOSTILE.into());
    for part in &mut reading.parts {
        (part.name, part.content_type) = (Some(HOSTILE.into()), HOSTILE.into());
    }
    let mut queue = waiting();
    let told = &mut queue.messages[0];
    told.subject = HOSTILE.into();
    (told.recipients[0].host, told.recipients[0].text) = (Some(HOSTILE.into()), HOSTILE.into());

    let texts = [
        (show::folder(&list, "in"), show::folder(&lines(), "in")),
        (show::queue(&queue), show::queue(&waiting())),
        (show::thread(&list), show::thread(&lines())),
        // The text of a message has lines; they come last.
        (show::reading(&reading, "alice").replace("\nforged", ""), show::reading(&reading, "alice")),
    ];
    for (text, _) in &texts {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }
    for (hostile, plain) in &texts[..3] {
        assert_eq!(hostile.lines().count(), plain.lines().count());
    }
    assert!(!texts[3].0.lines().any(|line| line.starts_with("forged")));
}

#[test]
fn only_text_goes_to_a_terminal() {
    assert_eq!(mail::for_terminal(b"a\r\n\tb\xe2\x80\xae\n").as_deref(), Some("a\n        b\n"));
    for bytes in [&b"%PDF\x00"[..], b"\x1b[2J", b"caf\xe9", "\u{9b}2J".as_bytes()] {
        assert_eq!(mail::for_terminal(bytes), None);
    }
}

#[test]
fn an_attachment_without_a_name_shows_the_one_it_would_have() {
    let part = |number, content_type: &str| Part {
        number,
        index: number,
        name: None,
        content_type: content_type.into(),
        size: 900,
    };
    let parts = vec![part(1, "message/rfc822"), part(2, "image/png"), part(3, "multipart/related")];
    let reading = Reading {
        id: format!("{ID}.2"),
        subject: "inner".into(),
        text: String::new(),
        parts,
        content_type: Some("message/rfc822".into()),
        ..message()
    };
    assert_eq!(
        show::reading(&reading, "alice"),
        "From        Carol <carol@elsewhere.example>\n\
         To          alice@example.com, bob@example.com\n\
         Date        2026-11-22 07:41 UTC\n\
         Subject     inner\n\
         Id          01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.2\n\
         Attachment  message, (message-2.eml)\n\
         \n\
         attachment                      size   kind                name\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.2.1  900 B  message             (message-2.1.eml)\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.2.2  900 B  image/png           (image-2.2.png)\n\
         01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.2.3  900 B  page with pictures  (page-2.3.mht)\n\
         Save: big-node mail save 01KAN0Q5WJ8J1V9Z8G8Q4T7RXE.2 --all --as alice --to DIR\n\
         \n\
         (no text)\n"
    );
}

#[test]
fn input_stops_at_the_largest_message() {
    assert_eq!(mail::read_at_most(&b"12345"[..], 5).expect("it fits"), b"12345");
    assert!(mail::read_at_most(&b"123456"[..], 5).is_err());
    assert!(mail::read_at_most(std::io::repeat(0), 5).is_err());
}

#[test]
fn an_import() {
    let bad = BadRow { line: 7, name: HOSTILE.into(), reason: "no".into() };
    let report = Imported { rows: 3, added: 0, dry_run: false, bad: vec![bad] };
    let shown = show::imported(&report);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!((lines.len(), lines[2]), (3, "1 of 3 rows are wrong; nothing was changed"), "{shown}");
    assert!(lines[1].starts_with("7     x") && !shown.contains('\x1b'), "{shown}");
    let good = Imported { added: 3, bad: Vec::new(), ..report };
    assert_eq!(show::imported(&good), "3 of 3 rows were added\n");
    let tried = Imported { dry_run: true, added: 0, ..good };
    assert_eq!(show::imported(&tried), "3 rows could be added; nothing was changed\n");
    let bar = |done, total| directory::bar(Progress { done, total });
    assert_eq!(bar(0, 0), format!("[{}]   0 %", " ".repeat(40)));
    assert_eq!(bar(1, 2), format!("[{}{}]  50 %", "#".repeat(20), " ".repeat(20)));
    assert_eq!(bar(9, 3), format!("[{}] 100 %", "#".repeat(40)));
}

#[test]
fn an_explanation() {
    let explanation = Explanation {
        typed: "em".into(),
        address: Some("emma@example.com".into()),
        refused: None,
        steps: vec![Step::new(Rule::PartOfName, "emma is a person in the directory")],
        recipients: vec![Destination {
            address: "emma@example.com".into(),
            to: "the mailbox of emma".into(),
            failed: false,
            forwarder: None,
        }],
        rcpt: Some(250),
    };
    assert_eq!(
        show::explanation(&explanation),
        "typed       em\n\
         address     emma@example.com\n\
         RCPT        the edge answers 250\n\
         \n\
         rule          what it does\n\
         part-of-name  emma is a person in the directory\n\
         \n\
         recipient         its copy goes to\n\
         emma@example.com  the mailbox of emma\n"
    );
    let refused = Explanation { refused: Some("two are meant".into()), address: None, ..explanation };
    assert!(show::explanation(&refused).contains("refused     two are meant\n"));
}

#[test]
fn gateways_and_what_goes_by_them() {
    let gateway = |name: &str, kind: &str| GatewayView {
        name: name.into(),
        kind: kind.into(),
        hosts: vec![],
        drop: None,
        pickup: None,
        domains: vec!["example.net".into(), "example.org".into()],
        takes: Takes::Any,
        listed: 0,
        waiting: 3,
        restart: false,
    };
    let lmtp =
        GatewayView { hosts: vec!["10.0.0.5:24".into(), "10.0.0.6:24".into()], ..gateway("dovecot", "lmtp") };
    let (drop, pickup) = (Some("/out".into()), Some("/back".into()));
    let files = GatewayView {
        drop,
        pickup,
        domains: vec![],
        waiting: 0,
        takes: Takes::Listed,
        listed: 12,
        ..gateway("files", "drop")
    };
    assert_eq!(
        show::gateways(&[lmtp, files]),
        "name     kind  waiting  where                     recipients   takes the domains\n\
         dovecot  lmtp  3        10.0.0.5:24, 10.0.0.6:24  any          example.net, example.org\n\
         files    drop  0        /out, back from /back     listed (12)\n"
    );
    assert!(show::gateways(&[]).contains("`big-node gateway add NAME --lmtp HOST:PORT --domain DOMAIN`"));
    let by = RecipientView { gateway: Some("dovecot".into()), ..recipient() };
    let status = Status { id: ID.into(), subject: "hello".into(), late: false, recipients: vec![by] };
    assert!(show::status(&status).contains("\n/dovecot carol@elsewhere.example  deferred"));
}

#[test]
fn a_revision() {
    let revised = RevisedView {
        revision: 2,
        result: ReviseResult::NoticeSent,
        at: AT,
        text: "it had left already; a notice was sent as X".into(),
    };
    let by = RecipientView { revised: Some(revised), next_attempt_at: None, ..recipient() };
    let status = Status { id: ID.into(), subject: "hello".into(), late: false, recipients: vec![by] };
    let shown = show::status(&status);
    let said =
        "450 later (revision 2 notice-sent 2026-11-22 07:41: it had left already; a notice was sent as X)\n";
    assert!(shown.ends_with(said), "{shown}");

    let lines = [Line { amended: true, ..lines().remove(0) }, Line { withdrawn: true, ..lines().remove(0) }];
    let shown = show::folder(&lines, "in");
    assert!(shown.contains("new answered amended ") && shown.contains("new answered withdrawn "), "{shown}");
    let reading = Reading { revision: 3, amended: true, ..message() };
    assert!(show::reading(&reading, "alice").contains("Revision    3 (amended by its author)\n"));

    let original = RevisionView {
        revision: 0,
        at: AT,
        mode: None,
        reason: None,
        author: "alice".into(),
        subject: "hello".into(),
        difference: String::new(),
    };
    let revision = RevisionView {
        revision: 1,
        mode: Some(ReviseMode::Replace),
        reason: Some("a mistake".into()),
        difference: "-at noon\n+at one\u{1b}[2J\n".into(),
        ..original.clone()
    };
    assert_eq!(
        revise::shown(&[original, revision]),
        "Revision 0  original, 2026-11-22 07:41 UTC\n\
         By          alice\n\
         Subject     hello\n\
         \n\
         Revision 1  replace, 2026-11-22 07:41 UTC\n\
         By          alice\n\
         Subject     hello\n\
         Reason      a mistake\n\
         \n\
         -at noon\n+at one\u{241b}[2J\n"
    );
}
