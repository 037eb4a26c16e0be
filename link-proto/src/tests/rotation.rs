//! A node's key that becomes another one, frame by frame.

use super::sim::{BIG, Cut, EDGE, Sim};
use crate::frame::{Frame, Refusal};
use crate::session::{Channel, Input, SessionError};
use crate::spki;

fn key(number: u8) -> Vec<u8> {
    spki::from_raw(&[number; 32])
}

/// Two nodes that know each other by keys of the right form; `node` wants another one.
fn rotating(node: usize) -> Sim {
    let mut sim = Sim::paired();
    for of in [BIG, EDGE] {
        sim.nodes[of].key = key(if of == BIG { 1 } else { 2 });
        sim.nodes[1 - of].partner.as_mut().unwrap().key = sim.nodes[of].key.clone();
    }
    sim.nodes[node].next_key = Some(key(9));
    sim
}

/// Key, next key and former key of `node`, as its partner has them.
fn pins(sim: &Sim, node: usize) -> [Option<Vec<u8>>; 3] {
    let partner = sim.nodes[1 - node].partner.clone().unwrap();
    [Some(partner.key), partner.next_key, partner.former_key]
}

/// The next key takes the place of the present one.
fn turn(sim: &mut Sim, node: usize) {
    sim.nodes[node].key = sim.nodes[node].next_key.take().unwrap();
}

/// One connection, of which so many frames arrive.
fn connect(sim: &mut Sim, frames: usize) -> Result<bool, SessionError> {
    sim.cut(Cut::Network);
    sim.connect()?;
    for _ in 0..frames {
        if !sim.step(None)? {
            break;
        }
    }
    Ok(sim.is_open(BIG) && sim.is_open(EDGE))
}

const ALL: usize = usize::MAX;

#[test]
fn a_key_is_announced_pinned_beside_the_old_one_and_then_alone() {
    for node in [BIG, EDGE] {
        let mut sim = rotating(node);
        let old = sim.nodes[node].key.clone();
        assert_eq!(connect(&mut sim, ALL), Ok(true));
        assert_eq!(pins(&sim, node), [Some(old.clone()), Some(key(9)), None]);
        // Nobody minds which of the two it is shown, as long as the new one was not.
        assert_eq!(connect(&mut sim, ALL), Ok(true));
        turn(&mut sim, node);
        assert_eq!(connect(&mut sim, ALL), Ok(true));
        assert_eq!(pins(&sim, node), [Some(key(9)), None, Some(old.clone())]);
        sim.nodes[node].key = old;
        let refused = connect(&mut sim, ALL).unwrap_err();
        match node {
            BIG => assert!(matches!(refused, SessionError::Refused(why) if why.0.why == Refusal::Unknown)),
            _ => assert_eq!(refused, SessionError::WrongKey),
        }
    }
}

#[test]
fn a_cut_at_any_frame_leaves_a_pair_that_knows_each_other_and_the_new_key_turns_once_it_is_pinned() {
    for node in [BIG, EDGE] {
        let mut turned = false;
        for frames in 0..40 {
            let mut sim = rotating(node);
            let _ = connect(&mut sim, frames);
            let opened = sim.is_open(node);
            assert!(
                !opened || pins(&sim, node)[1].is_some(),
                "{frames}: its own session is open, so it is pinned"
            );
            turned |= opened;
            if opened {
                turn(&mut sim, node);
            }
            for _ in 0..2 {
                assert_eq!(connect(&mut sim, ALL), Ok(true), "cut after {frames}");
            }
            let known = sim.nodes[1 - node].partner.as_ref().unwrap();
            assert!(known.is_pinned(&sim.nodes[node].key));
        }
        assert!(turned);
    }
}

#[test]
fn a_key_that_is_announced_no_more_is_pinned_no_more() {
    for node in [BIG, EDGE] {
        let mut sim = rotating(node);
        connect(&mut sim, ALL).unwrap();
        // It was restored from a backup that has only the old one.
        sim.nodes[node].next_key = None;
        assert_eq!(connect(&mut sim, ALL), Ok(true));
        assert_eq!(pins(&sim, node)[1..], [None, None]);
        // And makes yet another one.
        sim.nodes[node].next_key = Some(key(10));
        assert_eq!(connect(&mut sim, ALL), Ok(true));
        assert_eq!(pins(&sim, node)[1], Some(key(10)));
    }
}

#[test]
fn a_key_that_was_put_away_is_not_pinned_again() {
    for node in [BIG, EDGE] {
        let mut sim = rotating(node);
        // It was put back beside the present one from a backup.
        sim.nodes[1 - node].partner.as_mut().unwrap().former_key = Some(key(9));
        assert_eq!(connect(&mut sim, ALL), Err(SessionError::FormerKey));
        assert_eq!(pins(&sim, node), [Some(sim.nodes[node].key.clone()), None, Some(key(9))]);
        // Without it the link comes up.
        sim.nodes[node].next_key = None;
        assert_eq!(connect(&mut sim, ALL), Ok(true));
    }
}

#[test]
fn a_next_key_comes_where_it_was_announced_and_is_nobody_s() {
    let said = |rotates: bool, then: Frame| {
        let mut sim = rotating(BIG);
        sim.nodes[BIG].next_key = rotates.then(|| key(9));
        connect(&mut sim, 0).unwrap();
        // The edge hears the hello, and then this.
        sim.step(None).unwrap();
        sim.input(EDGE, Input::Frame(Channel::Control, then)).unwrap_err()
    };
    let unexpected = |error: SessionError| matches!(error, SessionError::Unexpected(_));
    assert!(unexpected(said(false, Frame::NextKey([9; 32]))), "it was not announced");
    for taken in [[1; 32], [2; 32]] {
        assert!(unexpected(said(true, Frame::NextKey(taken))), "it is in use");
    }
    let mut sim = rotating(EDGE);
    connect(&mut sim, ALL).unwrap();
    let late = sim.input(BIG, Input::Frame(Channel::Control, Frame::NextKey([8; 32])));
    assert!(unexpected(late.unwrap_err()), "the session is open");
}
