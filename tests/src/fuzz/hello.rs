//! The first frames of a connection, and what each end makes of them.

use std::time::Duration;

use link_proto::frame::{Decoder, Frame, Hello, Refusal, Refused, VERSION, VERSION_OLDEST};
use link_proto::host::{Identity, Opening, Partner};
use link_proto::session::{
    Channel, Input, Output, RefusedBecause, Role, Session, SessionError, Start, pairing_proof,
};

use super::script::Script;

const OWN: Identity = Identity { node: [1; 16], log_name: [2; 16], generation: 3 };
const BINDING: [u8; 32] = [6; 32];
const SECRET: [u8; 32] = [7; 32];

/// What both nodes know when the frame arrives.
#[derive(Debug)]
struct Given {
    /// Bits: paired, the key is another one, `link adopt` was run, a ticket, the stream's HELLO gets the
    /// partner's identity, the right proof, this version.
    flags: u8,
    /// Of the partner, as it is stored.
    generation: u32,
    epoch: u64,
}

impl Given {
    fn is(&self, bit: u8) -> bool {
        self.flags & (1 << bit) != 0
    }

    fn own_key() -> Vec<u8> {
        vec![4; 44]
    }

    fn peer_key() -> Vec<u8> {
        vec![5; 44]
    }

    fn partner(&self) -> Option<Partner> {
        let identity = Identity { node: [8; 16], log_name: [9; 16], generation: self.generation };
        let key = if self.is(1) { vec![0; 44] } else { Self::peer_key() };
        self.is(0).then_some(Partner { identity, key, next_key: None, former_key: None, epoch: self.epoch })
    }

    fn secret(&self) -> Option<[u8; 32]> {
        self.is(3).then_some(SECRET)
    }

    fn start(&self, role: Role) -> Start {
        Start {
            role,
            opening: Opening {
                local: OWN,
                epoch: 5,
                partner: self.partner(),
                adopt: self.is(2),
                lanes: Default::default(),
            },
            local_key: Self::own_key(),
            next_key: None,
            peer_key: Self::peer_key(),
            binding: BINDING,
            secret: self.secret(),
        }
    }

    /// The proof that a partner who knows the ticket would send to the listener.
    fn proof() -> [u8; 32] {
        pairing_proof(&SECRET, &BINDING, &Self::peer_key(), &Self::own_key())
    }

    /// A HELLO with those fields put right that no mutation would guess.
    fn put_right(&self, frame: Frame) -> Frame {
        let Frame::Hello(mut hello) = frame else { return frame };
        if self.is(4) {
            (hello.identity.node, hello.identity.log_name) = ([8; 16], [9; 16]);
        }
        if self.is(5) {
            hello.proof = Some(Self::proof());
        }
        if self.is(6) {
            (hello.oldest, hello.newest) = (VERSION_OLDEST, VERSION);
        }
        Frame::Hello(hello)
    }
}

/// Three bytes say what both nodes know, the others are what arrives on the control stream.
///
/// # Panics
/// If a node's judgement of the first frame is not the one of the table, or it opens for a partner that
/// remembers another log name.
pub fn hello(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let given =
        Given { flags: script.byte(), generation: u32::from(script.byte()), epoch: u64::from(script.byte()) };
    let mut decoder = Decoder::default();
    decoder.push(script.rest());
    let Ok(Some(first)) = decoder.next_frame() else { return };
    let first = given.put_right(first);
    let mut later = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        later.push(frame);
    }
    listen(&given, first.clone(), &later);
    dial(&given, first, &later);
}

/// What a HELLO gets from the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    Remember,
    PairedBy,
    Adopt,
    Refused(Refusal),
}

/// The table of `session::opening`, written once more.
fn judged(given: &Given, hello: &Hello) -> Judged {
    let understood = hello.oldest <= hello.newest && (VERSION_OLDEST..=VERSION).contains(&hello.newest)
        || hello.oldest <= VERSION && hello.newest > VERSION;
    let pinned = given.partner().filter(|partner| partner.key == Given::peer_key());
    let proved = given.secret().is_some() && hello.proof == Some(Given::proof());
    let same = |partner: &Partner| {
        (partner.identity.node, partner.identity.log_name) == (hello.identity.node, hello.identity.log_name)
    };
    let newer = (hello.identity.generation, hello.epoch) > (given.generation, given.epoch);
    match (understood, pinned.as_ref().map(same)) {
        (false, _) => Judged::Refused(Refusal::Version),
        (true, Some(true)) if !newer && !given.is(2) => Judged::Refused(Refusal::Stale),
        (true, Some(true)) if hello.proof.is_some() => Judged::PairedBy,
        (true, Some(true)) => Judged::Remember,
        (true, _) if proved => Judged::PairedBy,
        (true, Some(false)) if given.is(2) => Judged::Adopt,
        (true, Some(false)) => Judged::Refused(Refusal::LogName),
        (true, None) => Judged::Refused(Refusal::Unknown),
    }
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn give(session: &mut Session, input: Input) -> Result<Vec<Output>, (SessionError, Vec<Output>)> {
    let result = session.handle(input, Duration::ZERO);
    let outputs = outputs(session);
    match result {
        Ok(()) => Ok(outputs),
        Err(error) => Err((error, outputs)),
    }
}

fn control(frame: Frame) -> Input {
    Input::Frame(Channel::Control, frame)
}

fn listen(given: &Given, first: Frame, later: &[Frame]) {
    let mut session = Session::new(given.start(Role::Listener), Duration::ZERO).expect("a listener begins");
    assert!(session.poll().is_none(), "the listener spoke first");
    let hello = if let Frame::Hello(hello) = &first { Some(hello.clone()) } else { None };
    let result = give(&mut session, control(first.clone()));
    let Some(hello) = hello else {
        let (error, outputs) = result.expect_err("something before HELLO was taken");
        assert_eq!((error, outputs.len()), (SessionError::Unexpected(first.name()), 0));
        return;
    };
    let claimed = Partner {
        identity: hello.identity,
        key: Given::peer_key(),
        next_key: None,
        former_key: None,
        epoch: hello.epoch,
    };
    let lanes = Box::default();
    let judged = judged(given, &hello);
    let answer = match (judged, result) {
        (Judged::Refused(why), Err((error, outputs))) => {
            let (generation, epoch) =
                if why == Refusal::Stale { (given.generation, given.epoch) } else { (0, 0) };
            let refused = Refused { why, generation, epoch };
            assert_eq!(error, SessionError::Refused(RefusedBecause(refused)));
            assert!(
                matches!(&outputs[..], [Output::Send(Channel::Control, Frame::Refused(sent))] if *sent == refused),
                "{outputs:?}"
            );
            return;
        }
        (_, Err((error, _))) => panic!("{judged:?} is due, and there was an error: {error}"),
        (_, Ok(outputs)) => match (judged, &outputs[..]) {
            (Judged::Remember, [Output::Remember(partner)]) | (Judged::Adopt, [Output::Adopt(partner)]) => {
                assert_eq!(*partner, claimed);
                Input::Remembered { lanes }
            }
            (Judged::PairedBy, [Output::PairedBy(partner)]) => {
                assert_eq!(*partner, claimed);
                Input::Welcome { welcome: b"welcome".to_vec(), lanes }
            }
            _ => panic!("{judged:?} is due, and there was {outputs:?}"),
        },
    };
    let answered = give(&mut session, answer).expect("the node's answer was asked for");
    assert!(
        matches!(&answered[0], Output::Send(_, Frame::Hello(own)) if own.epoch == hello.epoch && own.identity == OWN),
        "{answered:?}"
    );
    go_on(&mut session, later);
}

/// The dialler's half.
fn dial(given: &Given, first: Frame, later: &[Frame]) {
    let mut session = match Session::new(given.start(Role::Dialler), Duration::ZERO) {
        Ok(session) => session,
        Err(SessionError::NotPaired) => return assert!(!given.is(0) && !given.is(3)),
        Err(SessionError::WrongKey) => return assert!(given.is(0) && given.is(1) && !given.is(3)),
        Err(error) => panic!("a dialler does not begin: {error}"),
    };
    let spoken = outputs(&mut session);
    assert!(matches!(&spoken[..], [Output::Send(Channel::Control, Frame::Hello(_))]), "{spoken:?}");
    let result = give(&mut session, control(first.clone()));
    let hello = match (first, result) {
        (Frame::Refused(refused), Err((error, outputs))) => {
            assert_eq!((error, outputs.len()), (SessionError::RefusedBy(RefusedBecause(refused)), 0));
            return;
        }
        (Frame::Hello(_), Err((error, outputs))) => {
            assert!(matches!(error, SessionError::Version { .. } | SessionError::WrongStore(_)), "{error}");
            return assert!(outputs.is_empty());
        }
        (frame, Err((error, outputs))) => {
            assert_eq!((error, outputs.len()), (SessionError::Unexpected(frame.name()), 0));
            return;
        }
        (Frame::Hello(hello), Ok(outputs)) => {
            let stored = given.partner();
            let same = stored.as_ref().is_some_and(|partner| {
                let known = (partner.identity.node, partner.identity.log_name);
                known == (hello.identity.node, hello.identity.log_name)
            });
            match &outputs[..] {
                [] => assert!(given.is(3) || hello.rotates, "nothing, and not for a WELCOME or a NEXT KEY"),
                [Output::Adopt(_)] => assert!(given.is(2) && !same),
                // A lower one, where the operator has said so.
                [Output::Remember(_)] => {
                    let (said, known) = (hello.identity.generation, given.generation);
                    assert!(same && (said > known || said < known && given.is(2)));
                }
                [Output::Send(_, Frame::Compare(_))] => {
                    assert!(same && hello.identity.generation == given.generation);
                }
                _ => panic!("{outputs:?}"),
            }
            if matches!(&outputs[..], [Output::Adopt(_) | Output::Remember(_)]) {
                let lanes = Box::default();
                give(&mut session, Input::Remembered { lanes }).expect("the node's answer was asked for");
            }
            hello
        }
        (frame, Ok(_)) => panic!("{} was taken in the place of HELLO", frame.name()),
    };
    assert!(hello.oldest <= VERSION && hello.newest >= VERSION_OLDEST);
    go_on(&mut session, later);
}

/// The frames that follow: a session opens by a COMPARE that names this node's log, and by nothing else.
fn go_on(session: &mut Session, later: &[Frame]) {
    for frame in later {
        let right = matches!(frame, Frame::Compare(compare) if compare.held == OWN.log_name);
        let Ok(outputs) = give(session, control(frame.clone())) else { return };
        let opened = outputs.iter().any(|output| matches!(output, Output::Opened));
        assert!(!opened || right, "opened by {}", frame.name());
        assert_eq!(opened, session.is_open());
        if opened {
            let parts = give(session, Input::Parts(Vec::new())).expect("the node's answer was asked for");
            assert!(!parts.is_empty(), "no lane began");
            return;
        }
        if outputs.iter().any(|output| matches!(output, Output::PairedWith(..))) {
            let lanes = Box::default();
            give(session, Input::Remembered { lanes }).expect("the node's answer was asked for");
        }
        if outputs.iter().any(|output| matches!(output, Output::RememberKey(_))) {
            assert!(matches!(frame, Frame::NextKey(_)), "a key out of {}", frame.name());
            give(session, Input::KeyRemembered).expect("the node's answer was asked for");
        }
    }
}
