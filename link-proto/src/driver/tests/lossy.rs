//! The whole link over a network that loses, repeats, delays and reorders datagrams, and is down for a while: the driver
//! and QUIC as they are, by a virtual clock. The network's dice are seeded. TLS and QUIC throw their own, so a seed names a
//! kind of weather and does not play the same run twice.

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, EndpointConfig, TokioRuntime, UdpPoller};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::driver::tls::Known;
use crate::driver::transport::IDLE_TIME;
use crate::tests::sim::Random;

/// Seeds in the plain run, and in the long one.
const SEEDS: u64 = 200;
const SEEDS_LONG: u64 = 10_000;
/// Units of each lane and way.
const UNITS: u32 = 12;
/// The unit whose body goes ahead, and bytes of that.
const LARGE: u32 = 1_000;
const BODY_BYTES: u64 = 150_000;
/// How long the weather lasts, virtual; then the network is sound.
const WEATHER: Duration = Duration::from_secs(180);
/// How long a sound network may need for all that waits, virtual: a lost connection is noticed after 10 s, an attempt is given
/// up after 10 s, and the next one comes half a minute later at most.
const REST: Duration = Duration::from_secs(60);

/// Seeds that lie beside each other give runs that do not.
fn dice(seed: u64) -> Random {
    Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn millis(count: usize) -> Duration {
    Duration::from_millis(count as u64)
}

/// What a network does to datagrams: chances in percent, times in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lost: usize,
    repeated: usize,
    /// How long each takes, and how much longer it may take than another one.
    delay: usize,
    spread: usize,
    /// It is down for as long as this at most; 0 is never.
    down: usize,
}

const SOUND: Weather = Weather { lost: 0, repeated: 0, delay: 5, spread: 0, down: 0 };

/// A network with two nodes, and strangers, whose sockets hold what has come.
struct Network {
    state: Mutex<Air>,
}

struct Air {
    dice: Random,
    weather: Weather,
    /// When it is up again.
    up: Instant,
    inboxes: Vec<Inbox>,
    lost: u64,
    repeated: u64,
}

#[derive(Default)]
struct Inbox {
    /// From which end, and what.
    datagrams: VecDeque<(usize, Vec<u8>)>,
    reader: Option<Waker>,
    /// More than so many never come.
    deaf_after: Option<usize>,
}

/// The nodes are the ends 0 and 1, strangers all others: each of those has a port of one address.
fn address_of(end: usize) -> SocketAddr {
    let host = if end < 2 { [192, 0, 2, 1] } else { [198, 51, 100, 1] };
    SocketAddr::from((host, 7001 + u16::try_from(end).unwrap()))
}

impl Network {
    fn new(seed: u64, weather: Weather) -> Arc<Self> {
        let air = Air {
            dice: dice(seed),
            weather,
            up: Instant::now(),
            inboxes: vec![Inbox::default(), Inbox::default()],
            lost: 0,
            repeated: 0,
        };
        Arc::new(Self { state: Mutex::new(air) })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Air) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// A stranger who hears only so many datagrams.
    fn stranger(&self, deaf_after: usize) -> usize {
        self.with(|air| {
            air.inboxes.push(Inbox { deaf_after: Some(deaf_after), ..Inbox::default() });
            air.inboxes.len() - 1
        })
    }

    /// A datagram is on its way from an end to another one: how often, and how long each time.
    fn carry(self: &Arc<Self>, from: usize, to: usize, datagram: &[u8]) {
        let delays = self.with(|air| {
            let weather = air.weather;
            if air.up > Instant::now() || air.dice.below(100) < weather.lost {
                air.lost += 1;
                return Vec::new();
            }
            let twice = air.dice.below(100) < weather.repeated;
            air.repeated += u64::from(twice);
            let spread = weather.spread + 1;
            (0..=u8::from(twice)).map(|_| millis(weather.delay + air.dice.below(spread))).collect()
        });
        for delay in delays {
            let (network, datagram) = (Arc::clone(self), datagram.to_vec());
            let at = Instant::now() + delay;
            tokio::spawn(async move {
                sleep_until(at).await;
                let reader = network.with(|air| {
                    let inbox = &mut air.inboxes[to];
                    match &mut inbox.deaf_after {
                        Some(0) => return None,
                        Some(left) => *left -= 1,
                        None => {}
                    }
                    inbox.datagrams.push_back((from, datagram));
                    inbox.reader.take()
                });
                reader.into_iter().for_each(Waker::wake);
            });
        }
    }

    /// Goes down now and then, until its weather is over.
    async fn rage(self: Arc<Self>) {
        loop {
            sleep(self.with(|air| millis(air.dice.below(20_000)))).await;
            let down = self.with(|air| {
                let down = millis(air.dice.below(air.weather.down.max(1)));
                air.up = Instant::now() + down;
                down
            });
            sleep(down).await;
        }
    }
}

/// One end's socket.
struct Socket {
    network: Arc<Network>,
    end: usize,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the socket of {}", address_of(self.end))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ends = 0..self.network.with(|air| air.inboxes.len());
        let to = ends.into_iter().find(|end| address_of(*end) == transmit.destination).unwrap();
        self.network.carry(self.end, to, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.network.with(|air| {
            let inbox = &mut air.inboxes[self.end];
            let Some((from, datagram)) = inbox.datagrams.pop_front() else {
                inbox.reader = Some(context.waker().clone());
                return Poll::Pending;
            };
            buffers[0][..datagram.len()].copy_from_slice(&datagram);
            let (addr, len) = (address_of(from), datagram.len());
            meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            Poll::Ready(Ok(1))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address_of(self.end))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A socket that always takes more.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn endpoint(network: &Arc<Network>, end: usize, config: EndpointConfig) -> quinn::Endpoint {
    let socket = Arc::new(Socket { network: Arc::clone(network), end });
    quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).unwrap()
}

/// The edge of a pair listens, until the tasks are dropped.
fn listen(network: &Arc<Network>, pair: &Pair, tasks: &mut JoinSet<()>) {
    let listener = Listener {
        endpoint: endpoint(network, 1, transport::listening(&pair.edge_key)),
        keys: KeyRing::fixed(pair.edge_key.clone()),
    };
    let (edge, handle) = (Arc::new(Node(Arc::clone(&pair.edge))), pair.edge_handle.clone());
    tasks.spawn(async move { drop(listener.serve(edge, handle).await) });
}

/// Its big node keeps the link up.
fn dial(network: &Arc<Network>, pair: &Pair, tasks: &mut JoinSet<()>) {
    let dialler = Dialler {
        endpoint: endpoint(network, 0, EndpointConfig::default()),
        address: address_of(1),
        keys: pair.big_ring(),
    };
    let (big, handle) = (Arc::new(Node(Arc::clone(&pair.big))), pair.big_handle.clone());
    tasks.spawn(async move { dialler.run(big, handle).await });
}

/// Everything that is offered either way while the weather lasts arrives once and in order, and is confirmed, soon after it
/// is over at the latest. Returns how many datagrams were lost and repeated.
async fn weathers(seed: u64) -> (u64, u64) {
    let mut dice = dice(seed ^ 0x0077_ea74_e125);
    let weather = Weather {
        lost: dice.below(31),
        repeated: dice.below(51),
        delay: dice.below(300),
        spread: dice.below(200),
        down: [0, 2_000, 15_000, 60_000][dice.below(4)],
    };
    let network = Network::new(seed, weather);
    let (pair, mut tasks) = (Pair::new(), JoinSet::new());
    listen(&network, &pair, &mut tasks);
    dial(&network, &pair, &mut tasks);
    if weather.down > 0 {
        tasks.spawn(Arc::clone(&network).rage());
    }

    let began = Instant::now();
    for node in [&pair.big, &pair.edge] {
        node.with(|state| state.body_bytes = BODY_BYTES);
    }
    for number in 0..UNITS {
        for (node, handle) in [(&pair.big, &pair.big_handle), (&pair.edge, &pair.edge_handle)] {
            for lane in Lane::ALL {
                node.offer(lane, number..number + 1);
                handle.units(lane);
            }
        }
        if number == UNITS / 4 {
            for (node, handle) in [(&pair.big, &pair.big_handle), (&pair.edge, &pair.edge_handle)] {
                node.with(|state| state.waiting.push(unit_id(LARGE)));
                handle.bodies();
            }
        }
        let pause = dice.below(2 * WEATHER.as_secs() as usize * 1_000 / UNITS as usize);
        sleep(millis(pause)).await;
    }
    sleep_until(began + WEATHER).await;
    network.with(|air| (air.weather, air.up) = (SOUND, Instant::now()));
    let end = Instant::now() + REST;
    let all = ids(0..UNITS);
    for (to, from) in [(&pair.edge, &pair.big), (&pair.big, &pair.edge)] {
        // In order and once, which applying asserts, too; the one whose body goes ahead takes its place when that is there.
        let arrived = |state: &State| {
            let small = |filed: &Vec<UnitId>| filed.iter().filter(|id| **id != unit_id(LARGE)).eq(&all);
            state.filed.iter().all(small) && state.filed[3].len() == all.len() + 1
        };
        to.until_within(end - Instant::now(), &format!("all has come: seed {seed}, {weather:?}"), arrived)
            .await;
        let confirmed = |state: &State| state.queue.iter().all(VecDeque::is_empty);
        from.until_within(
            end - Instant::now(),
            &format!("all is confirmed: seed {seed}, {weather:?}"),
            confirmed,
        )
        .await;
    }
    network.with(|air| (air.lost, air.repeated))
}

async fn all_of(seeds: std::ops::Range<u64>) {
    let (mut lost, mut repeated) = (0, 0);
    for seed in seeds {
        let (more_lost, more_repeated) = weathers(seed).await;
        lost += more_lost;
        repeated += more_repeated;
    }
    assert!(lost > 100 && repeated > 100, "it was no weather: {lost} lost, {repeated} repeated");
    println!("{lost} datagrams lost, {repeated} repeated");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_network_does_to_datagrams_all_arrives_once_and_in_order() {
    all_of(0..SEEDS).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "minutes; run by hand"]
async fn whatever_the_network_does_to_datagrams_for_long() {
    all_of(0..SEEDS_LONG).await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_link_in_the_same_time_however_long_its_round_trip_is() {
    for delay in [5, 1_200] {
        let network = Network::new(0, Weather { delay, ..SOUND });
        let (pair, mut tasks) = (Pair::new(), JoinSet::new());
        listen(&network, &pair, &mut tasks);
        dial(&network, &pair, &mut tasks);
        let handles = [&pair.big_handle, &pair.edge_handle];
        for handle in handles {
            handle.status().wait_for(|status| status.connected.is_some()).await.unwrap();
        }
        // Something is on its way to each, which QUIC goes on repeating.
        for (node, handle) in [&pair.big, &pair.edge].into_iter().zip(handles) {
            node.offer(Lane::Inter, 0..1);
            handle.units(Lane::Inter);
        }
        network.with(|air| air.weather.lost = 100);
        // What had left before still arrives, and it is looked at four times a second.
        let silent = millis(delay) + IDLE_TIME + Duration::from_secs(1);
        for handle in handles {
            let mut status = handle.status();
            let ended = timeout(silent, status.wait_for(|status| status.connected.is_none())).await;
            assert!(ended.is_ok_and(|ended| ended.is_ok()), "still up, with a delay of {delay} ms");
        }
    }
}

/// They have shown that their addresses are theirs, and then say nothing more; nobody dials again for them.
#[tokio::test(start_paused = true)]
async fn strangers_who_do_not_end_their_handshakes_keep_the_partner_out_for_no_moment() {
    let network = Network::new(0, SOUND);
    let (pair, mut tasks) = (Pair::new(), JoinSet::new());
    listen(&network, &pair, &mut tasks);
    let key = Key::generate().unwrap();
    for _ in 0..100 {
        // The one datagram that they hear makes them show the address.
        let endpoint = endpoint(&network, network.stranger(1), EndpointConfig::default());
        let anybody = |_: &[u8]| Known { admitted: true, former: false };
        let config = tls::client_config(&key, anybody, Handle::new()).unwrap();
        let connecting = endpoint.connect_with(config, address_of(1), SERVER_NAME).unwrap();
        tasks.spawn(async move { drop((connecting.await, endpoint)) });
    }
    sleep(Duration::from_secs(1)).await;
    dial(&network, &pair, &mut tasks);
    let mut status = pair.big_handle.status();
    let up = timeout(Duration::from_secs(1), status.wait_for(|status| status.connected.is_some())).await;
    assert!(up.is_ok(), "{:?}", pair.big_handle.status().borrow().last_error);
}
