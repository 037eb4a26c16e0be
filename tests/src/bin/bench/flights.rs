//! Flights of the delivering client: how often it waits for a host before a message is dealt with, and what that takes over a
//! long way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use shared::address::Address;
use shared::smtp::client::{Config, Host, Message, Protocol, Session, Talk, TlsPolicy, opportunistic};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::Failure;

/// What is measured.
#[derive(Args, Clone)]
pub struct Options {
    /// Messages over one session
    #[arg(long, default_value_t = 100)]
    messages: u64,
    /// Milliseconds of a round trip
    #[arg(long, default_value_t = 20)]
    round_trip: u64,
}

/// A host so far away, which answers each flight at once; its flights are counted.
async fn host(pipelining: bool, round_trip: Duration) -> io::Result<(SocketAddr, Arc<AtomicU64>)> {
    let (listener, flights) = (TcpListener::bind("127.0.0.1:0").await?, Arc::new(AtomicU64::new(0)));
    let (address, counted) = (listener.local_addr()?, Arc::clone(&flights));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let (mut buffer, mut is_content) = (vec![0; 64 * 1024], false);
        stream.write_all(b"220 far.example\r\n").await?;
        loop {
            let length = stream.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<_, io::Error>(());
            }
            let mut answer = String::new();
            for line in String::from_utf8_lossy(&buffer[..length]).lines() {
                answer.push_str(match line.split(' ').next().unwrap_or_default() {
                    "." => {
                        is_content = false;
                        "250 kept\r\n"
                    }
                    _ if is_content => "",
                    "EHLO" if pipelining => "250-far.example\r\n250 PIPELINING\r\n",
                    "DATA" => {
                        is_content = true;
                        "354 go on\r\n"
                    }
                    _ => "250 ok\r\n",
                });
            }
            if !answer.is_empty() {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(round_trip).await;
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    });
    Ok((address, flights))
}

/// Prints a table: for messages to one and to ten, with and without PIPELINING, the flights and the time of each.
pub async fn run(options: &Options) -> Result<(), Failure> {
    let round_trip = Duration::from_millis(options.round_trip);
    println!("| recipients | PIPELINING | flights a message | ms a message |\n|---|---|---|---|");
    for recipients in [1, 10] {
        for pipelining in [true, false] {
            let (address, flights) = host(pipelining, round_trip).await?;
            let host = Host { name: "far.example".into(), address, tls: Arc::new(opportunistic()) };
            let helo = "mx.example.com".into();
            let config = Config { helo, tls: TlsPolicy::Never, protocol: Protocol::Smtp, login: None };
            let to = (0..recipients).map(|number| format!("u{number}@far.example").parse::<Address>());
            let to = to.map(|address| Ok(address?.into())).collect::<Result<Vec<_>, Failure>>()?;
            let mut session = Session::open(&host, config).await.map_err(|talk| format!("{talk:?}"))?;
            let mut begun = (Instant::now(), 0);
            for number in 0..=options.messages {
                let message = Message {
                    reverse_path: None,
                    recipients: to.clone(),
                    returns: None,
                    envelope_id: None,
                    size: 6,
                    eight_bit: false,
                    utf8_header: false,
                    require_tls: false,
                    before: Vec::new(),
                };
                let mut content = Some(b"text\r\n".to_vec());
                let piece = || Ok::<_, io::Error>(content.take());
                let talk = session.deliver(message, piece, |_| async { true }).await;
                if !matches!(talk, Talk::Done(..)) {
                    return Err(format!("{talk:?}").into());
                }
                if number == 0 {
                    // The first one has the greeting and EHLO before it.
                    begun = (Instant::now(), flights.load(Ordering::Relaxed));
                }
            }
            let (count, took) = (flights.load(Ordering::Relaxed) - begun.1, begun.0.elapsed());
            println!(
                "| {recipients} | {} | {:.1} | {:.1} |",
                if pipelining { "yes" } else { "no" },
                count as f64 / options.messages as f64,
                took.as_secs_f64() * 1000.0 / options.messages as f64
            );
        }
    }
    Ok(())
}
