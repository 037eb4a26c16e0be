//! What the corpora begin with: valid samples of everything a target reads, made here and committed.
//!
//! The committed files are compared with these, so they also hold the formats still: a change of a
//! frame's, a unit's or a record's bytes shows as a seed that is not the same any more.

use bytes::Bytes;
use link_proto::frame::{
    Batch, Compare, CompareLane, Confirmed, Credit, Frame, Held, Hello, Refusal, Refused, Resume, Stop,
};
use link_proto::host::{Applied, Identity, Rejection};
use link_proto::unit::{Body, Lane, Position, Unit};
use shared::aggregate::{
    AggregateReport, Counts, DmarcCount, DmarcCounts, DmarcFound, DmarcPolicy, FailureCount, FailureOptions,
    Handling, Override, PolicyCounts, PolicyKind, ResultType, SignatureFound, TlsFailure, TlsPolicy,
};
use shared::credential::Credential;
use shared::inventory::{Holding, Inventory};
use shared::lane::{
    DeadLetter, Decision, DecisionRow, Gone, LanePosition, LaneRow, Missing, NodeIdentity, Parked,
    PartnerRow, QueuedBody, QueuedUnit, Rebase, RejectedRow,
};
use shared::notify::{Notify, Return};
use shared::origin::{Channel, Mailbox, Origin, OriginalRecipient};
use shared::store::sim::Piece;
use shared::store::{BodyKey, Row};
use shared::unit::{self, AddressRow, DeliveryState, ReviseMode, ReviseResult, ToBig, ToEdge};

mod strangers;

/// One file of a corpus.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All of them; the same every time.
pub fn seeds() -> Vec<Seed> {
    let targets = [
        ("hello", hellos()),
        ("frames", streams()),
        ("units", units()),
        ("session", scripts()),
        ("records", segments()),
        ("mime", messages()),
        ("smtp", strangers::clients()),
        ("reply", strangers::hosts()),
        ("pop3", strangers::travellers()),
        ("address", strangers::addresses()),
        ("topology", strangers::topologies()),
    ];
    let named = |(target, files): (&'static str, Vec<(String, Vec<u8>)>)| {
        files.into_iter().map(move |(name, bytes)| Seed { target, name: format!("seed-{name}"), bytes })
    };
    targets.into_iter().flat_map(named).collect()
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let multipart = |kind: &str, parts: &[&str]| {
        let parts: String = parts.iter().map(|part| format!("--b\n{part}\n")).collect();
        format!("MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=b\n\n{parts}--b--\n")
    };
    let text = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\ngr=C3=BC=\n=DFe";
    let file = "Content-Type: application/pdf; name*0*=utf-8''%e2%82%ac; name*1=\"a.pdf\"\n\
                Content-Disposition: attachment; filename=\"=?utf-8?q?..=2F=E2=80=AEx.exe?=\"\n\
                Content-Transfer-Encoding: base64\n\nSGVsbG8=";
    let uu = "Content-Transfer-Encoding: x-uuencode\nContent-Disposition: attachment; filename=con.txt\n\n\
              begin 644 a\n%2&5L;&\\\n`\nend";
    let page =
        multipart("related", &["Content-Type: text/html\n\n<p>a<img src=cid:1>", "Content-ID: <1>\n\nx"]);
    let inner = format!("Content-Type: message/rfc822\n\nSubject: =?iso-2022-jp?b?GyRCJCI=?=\n{page}");
    let signed = multipart("signed; micalg=x", &[text, "Content-Type: application/pgp-signature\n\ns"]);
    let octets = "Content-Transfer-Encoding: binary\n\n\0\n--b\u{1}\n-- ";
    let attached = format!("Content-Type: message/rfc822\n\nMIME-Version: 1.0\n{octets}");
    let binary = multipart("mixed", &[octets, &attached, &multipart("signed", &[text, octets])]);
    let list = [
        ("binary", binary),
        ("plain", "From: a@b.example\nSubject: x\n\n.text\n".to_owned()),
        ("mixed", multipart("mixed", &[text, file, uu])),
        ("alternative", multipart("alternative", &[text, "Content-Type: text/html\n\n<b>t</b>", &page])),
        ("nested", multipart("digest", &["\nSubject: inner\n\nx", &inner])),
        ("signed", signed.replace("=b\n", "=\"b\"\n")),
        ("broken", "Content-Type: multipart/mixed; boundary=\n--\nno field\n\n--b\n--b--".to_owned()),
    ];
    list.into_iter()
        .map(|(name, message)| (name.to_owned(), message.replace('\n', "\r\n").into_bytes()))
        .collect()
}

fn greeting() -> Hello {
    let identity = Identity { node: [8; 16], log_name: [9; 16], generation: 1 };
    Hello { newest: 1, oldest: 1, identity, epoch: 6, proof: None, rotates: false }
}

fn lanes() -> [CompareLane; 4] {
    let position = Position { number: 7, chain: [7; 32] };
    [CompareLane { confirmed: position, next: 9, received: position }; 4]
}

fn sample_units() -> Vec<Unit> {
    let unit =
        |number, after, body| Unit { number, id: [5; 16], after, head: Bytes::from_static(b"head"), body };
    vec![
        unit(1, None, Body::None),
        unit(2, Some([4; 16]), Body::Inline(Bytes::from_static(b"a body"))),
        unit(3, None, Body::Staged { length: 70_000, digest: [6; 32] }),
    ]
}

fn all_frames() -> Vec<Frame> {
    let position = Position { number: 3, chain: [3; 32] };
    let credit = Credit { units: 400, bytes: 1 << 20 };
    let rejection = |number| Rejection { number, reason: "no such mailbox".into() };
    let applied = Applied { refused: vec![rejection(1), rejection(2)], deferred: vec![rejection(3)] };
    vec![
        Frame::Hello(greeting()),
        Frame::Hello(Hello { proof: Some([1; 32]), ..greeting() }),
        Frame::Refused(Refused { why: Refusal::Stale, generation: 2, epoch: 9 }),
        Frame::Welcome(b"a welcome".to_vec()),
        Frame::Compare(Box::new(Compare { held: [2; 16], lanes: lanes() })),
        Frame::Offer(vec![[1; 16], [2; 16]]),
        Frame::Known(vec![true, false]),
        Frame::Resume(Resume { position, rebase: true }),
        Frame::Stopped(Stop::Differs),
        Frame::Batch(Batch { units: sample_units(), chain: [9; 32] }),
        Frame::Confirmed(Confirmed { lane: Lane::Inter, position, applied, credit }),
        Frame::Confirmed(Confirmed { lane: Lane::Event, position, applied: Applied::default(), credit }),
        Frame::Credit(Lane::Batch, credit),
        Frame::BodyPart([1; 16], 100_000),
        Frame::BodyHeld(Held { unit: [1; 16], length: 100_000, digest: [2; 32] }),
        Frame::BodyFailed([1; 16]),
        Frame::Hello(Hello { rotates: true, ..greeting() }),
        Frame::NextKey([7; 32]),
    ]
}

fn file_name(at: usize, what: &str) -> String {
    format!("{at:02}-{}", what.to_lowercase().replace(' ', "-"))
}

fn streams() -> Vec<(String, Vec<u8>)> {
    let frames = all_frames();
    let encoded = |frame: &Frame| frame.encode().concat();
    let single = frames.iter().enumerate().map(|(at, frame)| {
        let cuts = u8::try_from(at).expect("there are few") * 3;
        (file_name(at, frame.name()), [vec![cuts], encoded(frame)].concat())
    });
    let all: Vec<u8> = frames.iter().flat_map(encoded).collect();
    let mut streams: Vec<_> = single.collect();
    streams.push(("all".into(), [vec![0], all.clone()].concat()));
    streams.push(("all-cut".into(), [vec![17], all].concat()));
    streams
}

fn hellos() -> Vec<(String, Vec<u8>)> {
    // As in `hello`: the listener's log name is all twos there.
    let compare = Frame::Compare(Box::new(Compare { held: [2; 16], lanes: lanes() }));
    let newer = Hello { newest: 2, ..greeting() };
    let streams = [
        vec![Frame::Hello(greeting()), compare.clone()],
        vec![
            Frame::Hello(Hello { proof: Some([1; 32]), ..greeting() }),
            Frame::Welcome(vec![1]),
            compare.clone(),
        ],
        vec![Frame::Hello(newer)],
        vec![Frame::Refused(Refused { why: Refusal::LogName, generation: 0, epoch: 0 })],
        vec![Frame::Hello(Hello { rotates: true, ..greeting() }), Frame::NextKey([7; 32]), compare.clone()],
    ];
    let mut hellos = Vec::new();
    // Paired; with another key; adopting; with a ticket; a stranger with a ticket; and none of it.
    for flags in [0b001_0001_u8, 0b001_0011, 0b000_0101, 0b001_1001, 0b010_1000, 0] {
        for (at, stream) in streams.iter().enumerate() {
            let frames: Vec<u8> = stream.iter().flat_map(|frame| frame.encode().concat()).collect();
            hellos.push((format!("{flags:07b}-{at}"), [vec![flags, 1, 5], frames].concat()));
        }
    }
    hellos
}

fn origin() -> Origin {
    let mailbox = |name: &str| Mailbox { name: name.into(), address: format!("{name}@example.org") };
    Origin {
        channel: Channel::Reception { helo: "mx.example.org".into(), client: "192.0.2.1".into(), tls: true },
        accepted_at: 1_790_000_000_000,
        reverse_path: Some("alice@example.org".into()),
        recipients: vec![OriginalRecipient {
            address: "bob@example.com".into(),
            original: Some("rfc822;bob@example.net".into()),
            notify: Some("SUCCESS,FAILURE".into()),
        }],
        envelope_id: None,
        tls_wish: shared::tls_wish::TlsWish::Unsaid,
        return_content: Some("HDRS".into()),
        from: vec![mailbox("alice")],
        reply_to: Vec::new(),
        sender: Vec::new(),
        mail_followup_to: Vec::new(),
        to: vec![mailbox("bob"), mailbox("carol")],
        cc: Vec::new(),
        message_id: Some("1@example.org".into()),
        in_reply_to: vec!["0@example.org".into()],
        references: vec!["0@example.org".into()],
        subject: "Lunch".into(),
        language: None,
        automatic: false,
        verdicts: vec!["spf=none".into()],
        body_8bit: false,
        utf8_header: false,
        trace_bytes: 120,
        size: 1000,
        body: [7; 32],
    }
}

fn to_big() -> Vec<ToBig> {
    let outcome = unit::Outcome {
        message: [1; 16],
        recipient: 0,
        state: DeliveryState::Deferred,
        at: 1_790_000_000_000,
        host: Some("mx.example.org".into()),
        tls: Some("TLS 1.3".into()),
        relay: None,
        text: "451 4.7.1 later".into(),
        status: "4.7.1".into(),
        in_doubt: false,
        host_reports: true,
        next_attempt_at: Some(1_790_000_060_000),
    };
    let act = unit::PopAct {
        window: [1; 16],
        message: [2; 16],
        revision: 1,
        retrieved: true,
        deleted: false,
        at: 1_790_000_000_000,
    };
    let inbound = unit::Inbound {
        message: [1; 16],
        wrapped_key: vec![2; 80],
        sealed_origin: vec![3; 100],
        origin_digest: [4; 16],
        submitted: None,
        filed: vec![[4; 16]],
    };
    vec![
        ToBig::Inbound(inbound),
        ToBig::Outcome(outcome),
        ToBig::PopAct(act),
        ToBig::WindowClosed { window: [1; 16], until: Some(2) },
        ToBig::WindowUsed { window: [1; 16], at: 3 },
        ToBig::Guessing { networks: 1, accounts: 2 },
        ToBig::AggregateReport(Box::new(aggregate_report())),
        ToBig::AggregateReport(Box::new(AggregateReport { counts: of_mail(), ..aggregate_report() })),
    ]
}

fn aggregate_report() -> AggregateReport {
    let failure = TlsFailure::unconnected(ResultType::DnssecInvalid, Some("mx.remote.example"), "SERVFAIL");
    let (text, hosts) = (vec!["3 1 1 AA".into()], Vec::new());
    AggregateReport {
        id: [1; 16],
        domain: "remote.example".into(),
        begin: 1_790_000_000,
        to: vec!["tls@remote.example".into()],
        counts: Counts::Tls(vec![PolicyCounts {
            policy: TlsPolicy { kind: PolicyKind::Tlsa, domain: "mx.remote.example".into(), text, hosts },
            successes: 2,
            failures: 1,
            details: vec![FailureCount { failure, count: 1 }],
        }]),
        left_out: 3,
    }
}

fn of_mail() -> Counts {
    let signature =
        SignatureFound { domain: "a.example".into(), selector: "k".into(), result: "pass".into() };
    let found = DmarcFound {
        source: "192.0.2.1".into(),
        disposition: Handling::Quarantine,
        dkim: false,
        spf: true,
        overridden: Some(Override::LocalPolicy),
        header_from: "a.example".into(),
        envelope_from: "b.example".into(),
        signatures: vec![signature],
        spf_domain: "b.example".into(),
        spf_of_helo: false,
        spf_result: "pass".into(),
    };
    let policy = DmarcPolicy {
        domain: "a.example".into(),
        own: Handling::Reject,
        below: Handling::None,
        dkim_strict: true,
        spf_strict: false,
        failures: FailureOptions::Any,
    };
    Counts::Dmarc(DmarcCounts { policy, records: vec![DmarcCount { found, count: 4 }] })
}

fn window() -> unit::Window {
    let credential = Credential {
        salt: [6; 16],
        iterations: 4096,
        stored_key: [7; 32],
        server_key: [8; 32],
        locked_private_key: vec![9; 48],
    };
    unit::Window {
        logins: vec![[3; 32]],
        senders: vec![[4; 32]],
        from: 1,
        until: Some(2),
        size_max: Some(5_000_000),
        ..unit::Window::new([1; 16], [2; 16], [5; 32], credential)
    }
}

fn to_edge() -> Vec<ToEdge> {
    let outbound = unit::Outbound {
        message: [1; 16],
        revision: 0,
        wrapped_key: vec![2; 80],
        size: 1000,
        reverse_path: Some("alice@example.org".into()),
        recipients: vec![(0, "bob@example.com".into()), (3, "carol@example.com".into())],
        asked: vec![unit::Asked {
            count: 1,
            notify: Some(Notify { success: true, failure: true, delay: false }),
            original: Some("rfc822;bob@example.net".into()),
        }],
        returns: Some(Return::Headers),
        envelope_id: Some("QQ314159".into()),
        tls_wish: shared::tls_wish::TlsWish::Unsaid,
        body_8bit: true,
        utf8_header: false,
        signatures: "DKIM-Signature: v=1; b=c2ln\r\n".into(),
    };
    let copy = unit::WindowCopy {
        window: [1; 16],
        message: [2; 16],
        revision: 1,
        wrapped_key: vec![3; 80],
        size: 9,
        retrieved: true,
    };
    let unsettled = unit::Unsettled {
        from: [0; 16],
        to: [9; 16],
        messages: vec![([1; 16], vec![(0, 0), (2, 1)])],
        generation: 3,
    };
    vec![
        ToEdge::Introduction { sealing_key: [1; 32] },
        ToEdge::Outbound(outbound),
        ToEdge::Copy(copy),
        ToEdge::Address(AddressRow { hash: [1; 32], person: Some([2; 16]) }),
        ToEdge::AddressGone { hash: [1; 32] },
        ToEdge::Window(Box::new(window())),
        ToEdge::WindowEnd { window: [1; 16] },
        ToEdge::CopyGone { window: [1; 16], message: [2; 16] },
        ToEdge::DirectoryBegin,
        ToEdge::DirectoryComplete,
        ToEdge::Unsettled(unsettled),
    ]
}

fn directory_to_big() -> Vec<ToBig> {
    let compared = |differs| ToBig::DirectoryCompared(unit::DirectoryCompared { differs });
    let holding = Holding::copy(&[1; 16], &[2; 16], 0, 9, true);
    let inventory = Inventory { asked: [3; 16], holdings: vec![holding], last: true, cut: false };
    vec![compared(None), compared(Some(vec![[1; 16], [2; 16]])), ToBig::Inventory(inventory)]
}

fn revised() -> ToBig {
    ToBig::Revised(unit::Revised {
        message: [1; 16],
        recipient: 3,
        revision: 2,
        result: ReviseResult::TooLate,
        at: 1_790_000_000_000,
        text: "it does not wait here any more".into(),
    })
}

fn revisions() -> Vec<ToEdge> {
    let revise = |mode| {
        ToEdge::Revise(unit::Revise {
            message: [1; 16],
            revision: 2,
            mode,
            recipients: vec![(0, 0), (3, 1)],
            wrapped_key: vec![2; 80],
            size: 1000,
            body_8bit: false,
            utf8_header: true,
            signatures: "DKIM-Signature: v=1; b=c2ln\r\n".into(),
        })
    };
    let copy = unit::CopyRevision {
        window: [1; 16],
        message: [2; 16],
        revision: 1,
        earlier: Vec::new(),
        mode: ReviseMode::Append,
        recipient: 4,
        wrapped_key: vec![3; 80],
        size: 9,
        comes: true,
        retrieved: false,
    };
    vec![revise(ReviseMode::Replace), revise(ReviseMode::Withdraw), ToEdge::ReviseCopy(copy)]
}

fn directory_to_edge() -> Vec<ToEdge> {
    let row = |hash: u8, person| AddressRow { hash: [hash; 32], person };
    let rows = vec![row(1, None), row(2, Some([3; 16]))];
    let mark = |root| ToEdge::DirectoryMark(unit::DirectoryMark { epoch: 7, root });
    vec![
        ToEdge::DirectoryRows(Box::new(unit::DirectoryRows { from: [0; 32], to: [9; 32], rows })),
        mark(None),
        mark(Some([1; 32])),
        ToEdge::InventoryAsked { asked: [3; 16] },
    ]
}

fn rows() -> Vec<Vec<u8>> {
    let position = LanePosition { number: 3, chain: [3; 32] };
    let lane = LaneRow {
        confirmed: position,
        last: 9,
        trimmed: 1,
        unproved_after: 0,
        unproved_to: 0,
        bytes: 1000,
        rebase: Rebase::From(position),
        own_generation: 1,
        partner_generation: 1,
        received: position,
    };
    let body = QueuedBody::Held { key: [1; 32], length: 70_000, digest: [2; 32] };
    let queued = QueuedUnit { id: [1; 16], lane: 3, after: Some([2; 16]), head: b"head".to_vec(), body };
    let identity = NodeIdentity { node: [1; 16], log_name: [2; 16], generation: 1 };
    let partner =
        PartnerRow { identity, key: vec![3; 44], next_key: None, former_key: None, epoch: 4, adopt: false };
    let decision = DecisionRow {
        lane: 2,
        decision: Decision::Reset,
        after: 1,
        to: 3,
        at: 4,
        outcome: Some("as it was decided".into()),
        damage: false,
        missing: Missing { after: 1, units: 1, octets: 2, named: vec![(2, Gone { id: [1; 16], octets: 2 })] },
    };
    let dead = DeadLetter { unit: queued.clone(), reason: "refused".into(), at: 1, inbound: true };
    vec![
        lane.encode(),
        queued.encode(),
        identity.encode(),
        partner.encode(),
        RejectedRow { later: true, reason: "not now".into() }.encode(),
        Parked { id: [1; 16], lane: 0, head: b"head".to_vec(), at: 1 }.encode(),
        Gone { id: [1; 16], octets: 2 }.encode(),
        decision.encode(),
        dead.encode(),
    ]
}

fn units() -> Vec<(String, Vec<u8>)> {
    // The numbers are those of the table in `units`.
    let mut files = Vec::new();
    files.extend(to_big().iter().map(|head| (0, unit::encode(head))));
    files.extend(to_edge().iter().map(|head| (1, unit::encode(head))));
    files.push((2, origin().encode()));
    files.push((3, AddressRow { hash: [1; 32], person: None }.encode()));
    files.push((4, window().encode()));
    files.push((5, unit::encode(&unit::Welcome { sealing_key: [1; 32], directory_key: [2; 32] })));
    files.extend((6..).zip(rows()));
    files.extend(directory_to_big().iter().map(|head| (0, unit::encode(head))));
    files.extend(directory_to_edge().iter().map(|head| (1, unit::encode(head))));
    files.push((0, unit::encode(&revised())));
    files.extend(revisions().iter().map(|head| (1, unit::encode(head))));
    let file = |(at, (number, bytes)): (usize, (u8, Vec<u8>))| {
        (file_name(at, &format!("type {number}")), [vec![number], bytes].concat())
    };
    files.into_iter().enumerate().map(file).collect()
}

fn scripts() -> Vec<(String, Vec<u8>)> {
    // Steps, as `session` reads them. The opening is six to eight usual steps on either end.
    const USUAL: [u8; 16] = [0; 16];
    /// Each kind of frame of the partner, with the right fields.
    fn frames(lane: u8) -> Vec<u8> {
        (0..14).flat_map(|kind| [[1, kind, lane, 3], [0; 4], [0; 4]].concat()).collect()
    }
    let grow = |lane: u8| [11, lane, 30];
    let credit = |lane: u8| [1, 3, lane, 200, 0, 0, 0];
    let confirm = |lane: u8| [1, 2, lane, 0, 0, 0, 0, 10, 0, 0, 0];
    let exchange: Vec<u8> = (0..4)
        .flat_map(|lane| {
            [&grow(lane)[..], &credit(lane), &confirm(lane), &[1, 0, lane, 9, 0, 0, 0, 0, 0]].concat()
        })
        .collect();
    let bodies: Vec<u8> =
        [&credit(3)[..], &[15, 13, 0, 1, 8, 3, 0, 0, 0, 0, 0], &USUAL, &[14, 250, 14, 250, 13, 1, 0]]
            .concat();
    let lies: Vec<u8> = (0..10).flat_map(|kind| [10, 0, kind, 0, 3, 0]).collect();
    let mut scripts = Vec::new();
    // Either role; with a ticket; adopting; a node that lies; restored nodes.
    for flags in
        [0_u8, 1, 0b10_0000, 0b10_0001, 0b110, 0b111, 0b1000, 0b1001, 0b1100_0000, 0b1100_0001, 0b1000_0000]
    {
        let state: Vec<u8> = if flags & 0x80 == 0 {
            Vec::new()
        } else {
            vec![5, 20, 3, 4, 5, 20, 3, 8, 5, 20, 3, 2, 5, 20, 3, 3]
        };
        for (name, steps) in [("exchange", &exchange), ("bodies", &bodies), ("lies", &lies)] {
            let script = [&[flags][..], &state, &USUAL, steps, &USUAL].concat();
            scripts.push((format!("{flags:08b}-{name}"), script));
        }
    }
    for lane in 0..4 {
        scripts.push((format!("frames-{lane}"), [&[lane & 1][..], &USUAL, &frames(lane)].concat()));
    }
    scripts
}

fn segments() -> Vec<(String, Vec<u8>)> {
    let piece = |bytes: &[u8]| Piece {
        offset: 0,
        length: 0,
        key: BodyKey([7; 32]),
        piece: 2,
        last: true,
        kind: 3,
        notes: b"notes".to_vec(),
        bytes: bytes.to_vec(),
    };
    let raw = [piece(b"one").encode(), piece(b"another body").encode()].concat();
    let write = [&[0, 2, 9, 7, 0, 1, 3][..], b"no", b"the bytes"].concat();
    let forge = [&[1][..], &[0; 16], &[8], b"contents", &[0]].concat();
    let noise = [&[2, 20][..], &[0x55; 20]].concat();
    let flip = [3, 100, 0, 4].to_vec();
    let cut = vec![4, 30];
    vec![
        ("raw".into(), raw.clone()),
        ("raw-cut".into(), raw[..raw.len() - 9].to_vec()),
        ("written".into(), [write.clone(), write.clone(), write.clone()].concat()),
        ("noise".into(), [write.clone(), noise, write.clone()].concat()),
        ("flipped".into(), [write.clone(), write.clone(), flip.clone(), write.clone()].concat()),
        ("cut".into(), [write.clone(), write.clone(), cut.clone(), write.clone()].concat()),
        ("forged".into(), [forge.clone(), write.clone(), forge.clone()].concat()),
        ("all".into(), [write.clone(), forge, flip, write.clone(), cut, write].concat()),
        ("nested".into(), [&[2, 208][..], &raw].concat()),
    ]
}
