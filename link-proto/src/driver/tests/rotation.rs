//! Nodes whose keys become other ones, over QUIC.

use super::*;
use crate::driver::{KeyStore, Keys, Rotation};

/// Keeps keys in memory.
struct Kept;

impl KeyStore for Kept {
    fn write_next(&self, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn turn(&self) -> Result<(), HostError> {
        Ok(())
    }
}

/// Keeps nothing: the disk is full.
struct Full;

impl KeyStore for Full {
    fn write_next(&self, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn turn(&self) -> Result<(), HostError> {
        Err(HostError("the disk is full".into()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Big,
    Edge,
}

/// Two paired nodes that run with these keys.
struct Rotating {
    pair: Pair,
    who: Who,
    ring: KeyRing,
    running: Vec<JoinHandle<()>>,
}

fn ring(keys: [Option<&Key>; 3]) -> KeyRing {
    let [present, next, former] = keys.map(|key| key.cloned());
    KeyRing::new(Keys { present: present.unwrap(), next, former }, Kept)
}

impl Rotating {
    /// `pinned` is what the partner of `who` has pinned.
    fn start(who: Who, ring: KeyRing, pinned: &Key) -> Self {
        let mut pair = Pair::new();
        pair.serving.abort();
        let key = pinned.public().to_vec();
        match who {
            Who::Big => pair.edge.with(|state| state.partner.as_mut().unwrap().key = key),
            Who::Edge => pair.big.with(|state| state.partner.as_mut().unwrap().key = key),
        }
        let (of_big, of_edge) = match who {
            Who::Big => (ring.clone(), KeyRing::fixed(pair.edge_key.clone())),
            Who::Edge => (pair.big_ring(), ring.clone()),
        };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, serving) = serve(loopback, &of_edge, &pair.edge, &pair.edge_handle);
        (pair.address, pair.serving) = (address, serving);
        let dialler = Dialler::new(address, of_big).unwrap();
        let (host, handle) = (Arc::new(Node(Arc::clone(&pair.big))), pair.big_handle.clone());
        let running = vec![tokio::spawn(async move { dialler.run(host, handle).await })];
        Self { pair, who, ring, running }
    }

    fn partner(&self) -> &Arc<Memory> {
        if self.who == Who::Big { &self.pair.edge } else { &self.pair.big }
    }

    fn partners_handle(&self) -> &Handle {
        if self.who == Who::Big { &self.pair.edge_handle } else { &self.pair.big_handle }
    }

    /// Waits until the partner has pinned `key` alone, and the link is up with it.
    async fn until_alone(&self, key: &[u8]) {
        let alone = |state: &State| {
            let partner = state.partner.as_ref().unwrap();
            partner.key == key && partner.next_key.is_none()
        };
        self.partner().until("the new key alone", alone).await;
        connected(self.partners_handle()).await;
    }
}

impl Drop for Rotating {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_node_rotates_its_key_while_units_flow_and_the_old_one_is_refused() {
    const COUNT: u32 = 600;
    for who in [Who::Big, Who::Edge] {
        let old = Key::generate().unwrap();
        let rotating = Rotating::start(who, ring([Some(&old), None, None]), &old);
        let pair = &rotating.pair;
        connected(&pair.big_handle).await;
        for node in [&pair.big, &pair.edge] {
            node.offer(Lane::Inter, 0..COUNT);
        }
        pair.big_handle.units(Lane::Inter);
        pair.edge_handle.units(Lane::Inter);
        let some = |state: &State| !state.filed[2].is_empty();
        pair.edge.until("units under way", some).await;
        assert_eq!(rotating.ring.rotate().unwrap(), Rotation::Begun);
        let new = rotating.ring.keys().wanted().public().to_vec();
        rotating.until_alone(&new).await;
        let keys = rotating.ring.keys();
        assert_eq!((keys.present.public(), keys.next.is_none()), (new.as_slice(), true));
        assert_eq!(keys.former.unwrap().public(), old.public());
        let all = |state: &State| state.filed[2] == ids(0..COUNT);
        pair.edge.until("all units of big, once and in order", all).await;
        pair.big.until("all units of the edge, once and in order", all).await;

        // Whoever has the old key is refused, and the live session goes on.
        let (partner, handle) = (rotating.partner(), rotating.partners_handle());
        assert_eq!(
            partner.with(|state| state.partner.clone()).unwrap().former_key.as_deref(),
            Some(old.public())
        );
        assert!(handle.status().borrow().former_key_shown.is_none());
        match who {
            Who::Big => {
                let error = pair.attempt(&old).await;
                assert!(matches!(error, LinkError::NotAdmitted), "{error}");
            }
            Who::Edge => {
                let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
                let (address, thief) = serve(loopback, &KeyRing::fixed(old), &Memory::new(2), &Handle::new());
                let dialler = Dialler::new(address, pair.big_ring()).unwrap();
                let host = Arc::new(Node(Arc::clone(&pair.big)));
                let parts = Arc::default();
                let attempt = dialler.attempt(&host, handle, FOREVER, &parts, 0);
                let (error, _) = timeout(FOREVER, attempt).await.unwrap();
                assert!(matches!(error, LinkError::Session(SessionError::WrongKey)), "{error}");
                thief.abort();
            }
        }
        let mut status = handle.status();
        let shown = status.wait_for(|status| status.former_key_shown.is_some());
        timeout(FOREVER, shown).await.expect("the operator is told").unwrap();
        assert!(
            handle.is_open() && rotating.ring.rotate().unwrap() == Rotation::Begun,
            "and it rotates again"
        );
        let newest = rotating.ring.keys();
        rotating.until_alone(newest.wanted().public()).await;
    }
}

/// What a node and its partner have after one of them was restored, and whether that is mended by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_went_back_behind_a_rotation_learns_of_it_again() {
    let [a, b, c] = [(); 3].map(|()| Key::generate().unwrap());
    for who in [Who::Big, Who::Edge] {
        for (what, keys, pinned, last) in [
            ("a partner from before the rotation", [Some(&b), None, Some(&a)], &a, &b),
            ("a partner from before the last but one", [Some(&b), Some(&c), Some(&a)], &a, &c),
            ("a node from within the rotation", [Some(&a), Some(&b), None], &b, &b),
            ("a node that had turned, and was not seen to", [Some(&b), None, Some(&a)], &b, &b),
        ] {
            let rotating = Rotating::start(who, ring(keys), pinned);
            let until = timeout(FOREVER, rotating.until_alone(last.public()));
            until.await.unwrap_or_else(|_| panic!("{who:?}: {what}"));
            let mut keys = rotating.ring.watch();
            let turned = keys.wait_for(|keys| keys.present.public() == last.public() && keys.next.is_none());
            timeout(FOREVER, turned).await.unwrap_or_else(|_| panic!("{who:?}: {what}")).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_invites_somebody_is_shown_the_other_keys_too() {
    let [a, b] = [(); 2].map(|()| Key::generate().unwrap());
    let rotating = Rotating::start(Who::Big, ring([Some(&b), None, Some(&a)]), &a);
    rotating.pair.edge.with(|state| state.invitation = Some(SECRET));
    rotating.pair.big_handle.redial();
    rotating.until_alone(b.public()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_take_its_place_does_not_keep_the_link_down() {
    for who in [Who::Big, Who::Edge] {
        let [old, next] = [(); 2].map(|()| Key::generate().unwrap());
        let keys = Keys { present: old.clone(), next: Some(next.clone()), former: None };
        let rotating = Rotating::start(who, KeyRing::new(keys, Full), &old);
        connected(rotating.partners_handle()).await;
        rotating.pair.big.offer(Lane::Inter, 0..9);
        rotating.pair.big_handle.units(Lane::Inter);
        rotating.pair.edge.until("units over the old key", |state| state.filed[2] == ids(0..9)).await;
        let partner = rotating.partner().with(|state| state.partner.clone()).unwrap();
        assert_eq!(
            (partner.key.as_slice(), partner.next_key.as_deref()),
            (old.public(), Some(next.public()))
        );
    }
}

#[test]
fn a_rotation_under_way_is_not_begun_again() {
    let ring = ring([Some(&Key::generate().unwrap()), None, None]);
    assert_eq!(ring.rotate().unwrap(), Rotation::Begun);
    let next = ring.keys().wanted().public().to_vec();
    assert_eq!(ring.rotate().unwrap(), Rotation::UnderWay);
    assert_eq!(ring.keys().wanted().public(), next);
    // A connection that was begun before knows nothing of it.
    ring.turn(ring.keys().present.public()).unwrap();
    assert!(ring.keys().next.is_some(), "it takes no place that its partner has not pinned it for");
    ring.turn(&next).unwrap();
    assert_eq!((ring.keys().present.public(), ring.keys().next.is_none()), (next.as_slice(), true));
    let fixed = KeyRing::fixed(Key::generate().unwrap());
    assert!(fixed.rotate().is_err() && fixed.keys().next.is_none(), "nothing is announced that is not kept");
}
