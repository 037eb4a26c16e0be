//! Messages from a desk to hosts outside, for a bench from outside that counts what arrives there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use big_node::request::{Request, Sent, Written};
use clap::Args;
use tests::ask;

use crate::Failure;

/// What is sent.
#[derive(Args, Clone)]
pub struct Options {
    /// Big's control socket
    #[arg(long)]
    control: PathBuf,
    /// Who sends
    #[arg(long)]
    person: String,
    /// The domains it goes to, in turn: d000.test, d001.test …
    #[arg(long, default_value_t = 1)]
    domains: u64,
    /// Messages
    #[arg(long)]
    count: u64,
    /// Requests at once
    #[arg(long, default_value_t = 20)]
    senders: usize,
    /// Octets of a message's text
    #[arg(long, default_value_t = 4096)]
    size: usize,
}

/// Sends all and prints `{"t0":SECONDS,"rate":N}`: when it began, since 1970, and the messages a second that big took.
pub async fn run(options: &Options) -> Result<(), Failure> {
    let t0 = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let begun = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..options.senders.max(1) {
        senders.spawn(send(options.clone(), Arc::clone(&next)));
    }
    while let Some(done) = senders.join_next().await {
        done??;
    }
    let rate = options.count as f64 / begun.elapsed().as_secs_f64();
    println!("{{\"t0\":{t0:.6},\"rate\":{rate:.1}}}");
    Ok(())
}

async fn send(options: Options, next: Arc<AtomicU64>) -> Result<(), Failure> {
    let line = "What is sent is read by nobody, and counted all the same.\r\n";
    let text: Vec<u8> = line.bytes().cycle().take(options.size).collect();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.count {
            return Ok(());
        }
        send_one(&options.control, &options.person, number % options.domains.max(1), text.clone()).await?;
    }
}

async fn send_one(control: &Path, person: &str, domain: u64, text: Vec<u8>) -> Result<(), Failure> {
    let written = Written {
        to: vec![format!("x@d{domain:03}.test")],
        subject: "bench".into(),
        text_bytes: text.len(),
        ..Written::default()
    };
    let request = Request::MailSend { person: person.to_owned(), written, quote: false };
    ask::big::<Sent>(control, request, text).await?;
    Ok(())
}
