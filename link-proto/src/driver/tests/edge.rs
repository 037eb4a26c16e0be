//! An edge that was taken over: it listens with the key that big has pinned, and big dials it.

use super::*;
use crate::frame::{Confirmed, Credit, Decoder, Resume};

const INTER: usize = Lane::Inter as usize;

/// An enemy in the edge's place, and one attempt of big's at it.
struct Ambush {
    endpoint: quinn::Endpoint,
    dialler: Dialler,
    big: Arc<Memory>,
    handle: Handle,
}

/// A session that big holds open with the enemy.
struct Caught {
    connection: quinn::Connection,
    streams: Streams,
    lane: Decoder,
    /// How big introduced itself.
    epoch: u64,
}

impl Ambush {
    fn lay() -> Self {
        let (big_key, edge_key) = (Key::generate().unwrap(), Key::generate().unwrap());
        let admitted = big_key.public().to_vec();
        let keys = KeyRing::fixed(edge_key.clone()).keys();
        let choice = tls::Choice::new(keys);
        let config =
            tls::server_config(choice, move |key| tls::Known::by(key, &admitted), Handle::new()).unwrap();
        let endpoint = quinn::Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let big = Memory::new(1);
        let of_edge = Partner {
            identity: Memory::new(2).identity(),
            key: edge_key.public().to_vec(),
            next_key: None,
            former_key: None,
            epoch: 0,
        };
        big.with(|state| state.partner = Some(of_edge));
        let dialler = Dialler::new(endpoint.local_addr().unwrap(), KeyRing::fixed(big_key)).unwrap();
        Self { endpoint, dialler, big, handle: Handle::new() }
    }

    /// Big dials once; why that ended.
    async fn dialled(&self) -> LinkError {
        let host = Arc::new(Node(Arc::clone(&self.big)));
        let parts = Arc::default();
        let attempt = self.dialler.attempt(&host, &self.handle, FOREVER, &parts, 0);
        timeout(FOREVER, attempt).await.unwrap().0
    }

    /// Opens as an edge of this generation would, and takes units on every lane.
    async fn open(&self, generation: u32) -> Caught {
        let incoming = timeout(FOREVER, self.endpoint.accept()).await.unwrap().unwrap();
        let connection = incoming.accept().unwrap().await.unwrap();
        let streams = Streams::accept(&connection).await.unwrap();
        let mut caught = Caught { connection, streams, lane: Decoder::default(), epoch: 0 };
        let Frame::Hello(hello) = caught.hear().await else { panic!("big says hello first") };
        caught.epoch = hello.epoch;
        let identity = Identity { generation, ..Memory::new(2).identity() };
        caught
            .say(Frame::Hello(Hello {
                newest: 1,
                oldest: 1,
                identity,
                epoch: hello.epoch,
                proof: None,
                rotates: false,
            }))
            .await;
        assert!(matches!(caught.hear().await, Frame::Compare(_)));
        let lanes = [CompareLane { next: 1, ..CompareLane::default() }; 4];
        caught.say(Frame::Compare(Box::new(Compare { held: self.big.identity().log_name, lanes }))).await;
        for lane in Lane::ALL {
            caught.say(Frame::Credit(lane, Credit { units: 100, bytes: 1 << 20 })).await;
        }
        caught
    }
}

impl Caught {
    async fn say(&mut self, frame: Frame) {
        self.streams.control.0.write_all(&frame.encode().concat()).await.unwrap();
    }

    async fn hear(&mut self) -> Frame {
        timeout(FOREVER, self.streams.first_frame()).await.unwrap().unwrap()
    }

    /// On the lane of mail.
    async fn say_there(&mut self, frame: Frame) {
        self.streams.lanes[INTER].0.write_all(&frame.encode().concat()).await.unwrap();
    }

    async fn hear_there(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.lane.next_frame().unwrap() {
                return frame;
            }
            let chunk = timeout(FOREVER, self.streams.lanes[INTER].1.read_chunk(4096, true)).await.unwrap();
            self.lane.push(&chunk.unwrap().unwrap().bytes);
        }
    }

    /// Waits for big's first batch of mail; where that ends.
    async fn batch(&mut self) -> Position {
        loop {
            if let Frame::Batch(batch) = self.hear_there().await {
                return Position { number: batch.units.last().unwrap().number, chain: batch.chain };
            }
        }
    }

    async fn resume(&mut self, position: Position, rebase: bool) {
        self.say_there(Frame::Resume(Resume { position, rebase })).await;
    }

    async fn confirm(&mut self, position: Position) {
        let (applied, credit) = (Applied::default(), Credit { units: 100, bytes: 1 << 20 });
        self.say(Frame::Confirmed(Confirmed { lane: Lane::Inter, position, applied, credit })).await;
    }
}

fn units(from: Position, numbers: &[u64]) -> Frame {
    let unit = |number: &u64| Unit {
        number: *number,
        id: unit_id(u32::try_from(*number % 1000).unwrap()),
        after: None,
        head: Bytes::from_static(b"head"),
        body: Body::None,
    };
    let units: Vec<_> = numbers.iter().map(unit).collect();
    let chain = units.iter().fold(from, |position, unit| position.after(unit)).chain;
    Frame::Batch(Batch { units, chain })
}

/// What the enemy does once its session is open, and the words of big's complaint.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Gap,
    Last,
    Repeat,
    NotResumed,
    ResumedElsewhere,
    RebasedTooFar,
    LateOffer,
    NotOffered,
    ConfirmUnsent,
    ConfirmTwice,
}

impl Fault {
    fn complaint(self) -> &'static str {
        match self {
            Self::Gap | Self::Last | Self::Repeat => "its numbers do not follow the last ones",
            Self::NotResumed => "BATCH",
            Self::ResumedElsewhere => "it resumes elsewhere than where this node stands",
            Self::RebasedTooFar => "or too far above",
            Self::LateOffer => "OFFER",
            Self::NotOffered => "an answer to what was not offered",
            Self::ConfirmUnsent => "a confirm for what was not sent",
            Self::ConfirmTwice => "a confirm at or below an earlier one",
        }
    }

    async fn commit(self, enemy: &mut Caught) {
        let (nowhere, sent) = (Position::default(), enemy.batch().await);
        match self {
            Self::NotResumed => {}
            Self::ResumedElsewhere => enemy.resume(Position { number: 3, chain: [1; 32] }, false).await,
            Self::RebasedTooFar => enemy.resume(Position { number: 1 << 60, chain: [0; 32] }, true).await,
            _ => enemy.resume(nowhere, false).await,
        }
        match self {
            Self::Gap => enemy.say_there(units(nowhere, &[2])).await,
            Self::Last => enemy.say_there(units(nowhere, &[u64::MAX])).await,
            Self::Repeat => {
                enemy.say_there(units(nowhere, &[1])).await;
                enemy.say_there(units(nowhere, &[1])).await;
            }
            Self::NotResumed => enemy.say_there(units(nowhere, &[1])).await,
            Self::ResumedElsewhere | Self::RebasedTooFar => {}
            Self::LateOffer => enemy.say_there(Frame::Offer(vec![[1; 16]])).await,
            Self::NotOffered => enemy.say_there(Frame::Known(vec![true])).await,
            Self::ConfirmUnsent => enemy.confirm(Position { number: 99, ..sent }).await,
            Self::ConfirmTwice => {
                enemy.confirm(sent).await;
                enemy.confirm(sent).await;
            }
        }
    }
}

#[tokio::test]
async fn every_fault_of_a_taken_over_edge_is_named_and_costs_big_nothing() {
    for fault in [
        Fault::Gap,
        Fault::Last,
        Fault::Repeat,
        Fault::NotResumed,
        Fault::ResumedElsewhere,
        Fault::RebasedTooFar,
        Fault::LateOffer,
        Fault::NotOffered,
        Fault::ConfirmUnsent,
        Fault::ConfirmTwice,
    ] {
        let ambush = Ambush::lay();
        ambush.big.offer(Lane::Inter, 0..3);
        let enemy = async {
            let mut enemy = ambush.open(1).await;
            fault.commit(&mut enemy).await;
            match timeout(FOREVER, enemy.connection.closed()).await.unwrap().into() {
                LinkError::Closed { code: Some(CloseCode::Protocol), reason } => reason,
                other => panic!("{fault:?}: {other:?}"),
            }
        };
        let (error, reason) = tokio::join!(ambush.dialled(), enemy);
        for said in [&error.to_string(), &reason] {
            assert!(said.contains(fault.complaint()), "{fault:?}: {said}");
        }
        ambush.big.with(|state| {
            // A confirm that was right once is believed once.
            let kept = if matches!(fault, Fault::ConfirmTwice) { 0 } else { 3 };
            assert_eq!(state.queue[INTER].len(), kept, "{fault:?}");
            assert!(state.filed[INTER].len() <= 1, "{fault:?}: applied twice, or out of order");
        });
    }
}

#[tokio::test]
async fn a_confirm_of_other_content_stops_its_lane_and_big_keeps_its_copy() {
    let ambush = Ambush::lay();
    ambush.big.offer(Lane::Inter, 0..3);
    let mut status = ambush.handle.status();
    let stopped = status.wait_for(|status| status.lanes[INTER].stopped_out == Some(Stop::Differs));
    let enemy = async {
        let mut enemy = ambush.open(1).await;
        let sent = enemy.batch().await;
        enemy.confirm(Position { chain: [9; 32], ..sent }).await;
        timeout(FOREVER, stopped).await.expect("the lane stops").unwrap();
        assert!(enemy.connection.close_reason().is_none(), "the other lanes go on");
        enemy.connection.close(0u32.into(), b"");
    };
    tokio::join!(ambush.dialled(), enemy);
    assert_eq!(ambush.big.with(|state| state.queue[INTER].len()), 3);
}

#[tokio::test]
async fn an_edge_that_aborts_what_it_has_begun_again_and_again_leaves_nothing() {
    const ABORTS: u64 = 100;
    let ambush = Ambush::lay();
    ambush.big.offer(Lane::Inter, 0..3);
    let mut last = 0;
    for abort in 1..=ABORTS {
        let enemy = async {
            // Each time it says that it was restored.
            let mut enemy = ambush.open(u32::try_from(abort).unwrap()).await;
            assert!(std::mem::replace(&mut last, enemy.epoch) < enemy.epoch, "an epoch is used once");
            enemy.batch().await;
            // Half of a batch, and half of a body.
            enemy.resume(Position::default(), false).await;
            let half = units(Position::default(), &[1, 2]).encode().concat();
            enemy.streams.lanes[INTER].0.write_all(&half[..half.len() / 2]).await.unwrap();
            let mut body = enemy.connection.open_uni().await.unwrap();
            let begun = [unit_id(7).as_slice(), &[0; 8], &4u32.to_le_bytes(), b"pa"].concat();
            body.write_all(&begun).await.unwrap();
            enemy.connection.close(0u32.into(), b"");
        };
        tokio::join!(ambush.dialled(), enemy);
    }
    ambush.big.with(|state| {
        assert_eq!(state.queue[INTER].len(), 3, "what was not confirmed is kept");
        assert!(state.filed.iter().all(Vec::is_empty) && state.staged.is_empty());
        assert_eq!(state.lanes[INTER].received, Position::default());
    });
}
