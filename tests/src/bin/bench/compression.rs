//! What compressing chunks saves and costs, by kind of body and level; and what it would with heads.
//!
//! Bodies are compressed as `shared::chunk` does: chunk by chunk, each by itself, and as it is where that is not
//! smaller.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::chunk::CHUNK_BYTES;
use shared::unit::{AddressRow, DeliveryState, DirectoryRows, Inbound, Outcome, ToBig, ToEdge, encode};

use crate::{Failure, load};

/// Levels of zstd that are compared.
const LEVELS: [i32; 3] = [1, 3, 9];
/// Samples that are made of a kind.
const MADE: u64 = 200;
/// Octets of a text.
const TEXT: usize = 4 * 1024;
/// How long a measurement goes on at least.
const TIME: Duration = Duration::from_millis(300);

/// `bench compression`.
#[derive(clap::Args)]
pub struct Options {
    /// Take texts and HTML from the messages in this folder and below
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
}

/// Measures all, and prints a table.
pub fn run(options: &Options) -> Result<(), Failure> {
    let mut kinds = Vec::new();
    if let Some(corpus) = &options.corpus {
        let mut messages = Vec::new();
        read(corpus, &mut messages)?;
        let has = |message: &[u8], word: &str| {
            memchr::memmem::find(&message.to_ascii_lowercase(), word.as_bytes()).is_some()
        };
        let (encoded, plain): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| has(message, "base64"));
        let (html, text): (Vec<_>, Vec<_>) = plain.into_iter().partition(|message| has(message, "text/html"));
        let text =
            text.into_iter().filter(|text| text.len() >= TEXT).map(|text| text[..TEXT].to_vec()).collect();
        kinds.extend([("text, 4 KiB", text), ("HTML", html), ("with base64", encoded)]);
    }
    let noise = |size: usize| (0..size / 16).flat_map(|_| shared::id::random::<16>()).collect::<Vec<u8>>();
    let lines = |noise: Vec<u8>| {
        STANDARD.encode(noise).as_bytes().chunks(76).flat_map(|line| [line, b"\r\n"].concat()).collect()
    };
    kinds.extend([
        ("the bench's text, 4 KiB", (0..MADE).map(|number| load::message(number, TEXT)).collect()),
        ("compressed, as base64, 64 KiB", (0..MADE).map(|_| lines(noise(48 * 1024))).collect()),
        ("compressed, 64 KiB", (0..MADE).map(|_| noise(CHUNK_BYTES)).collect()),
        ("head: mail in", (0..MADE).map(|_| inbound(noise(400))).collect()),
        ("head: an outcome", (0..MADE).map(|_| outcome()).collect()),
        ("50 outcomes at once", (0..MADE).map(|_| (0..50).flat_map(|_| outcome()).collect()).collect()),
        ("directory, 500 rows", (0..MADE).map(|_| rows()).collect()),
    ]);
    println!(
        "| kind | samples | octets each |{}",
        LEVELS.map(|level| format!(" level {level}: size | MB/s in | out |")).concat()
    );
    println!("|---|---|---|{}", "---|---|---|".repeat(LEVELS.len()));
    for (kind, samples) in kinds.iter().filter(|(_, samples)| !samples.is_empty()) {
        let octets: usize = samples.iter().map(Vec::len).sum();
        print!("| {kind} | {} | {} |", samples.len(), octets / samples.len());
        for level in LEVELS {
            let Cost { size, compress, decompress } = measure(samples, level)?;
            let percent = 100.0 * size as f64 / octets as f64;
            print!(" {percent:.0} % | {:.0} | {:.0} |", rate(octets, compress), rate(octets, decompress));
        }
        println!();
    }
    Ok(())
}

fn rate(octets: usize, time: Duration) -> f64 {
    octets as f64 / 1e6 / time.as_secs_f64()
}

/// Every message in a folder and below.
fn read(folder: &Path, messages: &mut Vec<Vec<u8>>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, messages)?;
        } else if path.extension().is_some_and(|extension| extension == "eml") {
            messages.push(fs::read(path)?);
        }
    }
    Ok(())
}

struct Cost {
    /// Octets of all samples.
    size: usize,
    /// For all of them once.
    compress: Duration,
    decompress: Duration,
}

fn measure(samples: &[Vec<u8>], level: i32) -> Result<Cost, Failure> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let chunks: Vec<&[u8]> = samples.iter().flat_map(|sample| sample.chunks(CHUNK_BYTES)).collect();
    let mut compressed = Vec::new();
    let compress = repeated(|| {
        compressed.clear();
        for chunk in &chunks {
            compressed.push(compressor.compress(chunk)?);
        }
        Ok(())
    })?;
    let decompress = repeated(|| {
        for (chunk, smaller) in chunks.iter().zip(&compressed) {
            // What is not smaller is kept as it is.
            if smaller.len() < chunk.len() {
                black_box(decompressor.decompress(smaller, CHUNK_BYTES)?);
            }
        }
        Ok(())
    })?;
    let size = chunks.iter().zip(&compressed).map(|(chunk, smaller)| smaller.len().min(chunk.len())).sum();
    Ok(Cost { size, compress, decompress })
}

/// How long one time takes, of as many as [`TIME`] has room for.
fn repeated(mut once: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let (begun, mut times) = (Instant::now(), 0);
    while times == 0 || begun.elapsed() < TIME {
        once()?;
        times += 1;
    }
    Ok(begun.elapsed() / times)
}

fn inbound(sealed_origin: Vec<u8>) -> Vec<u8> {
    let wrapped_key = shared::id::random::<80>().to_vec();
    let (message, origin_digest) = (shared::id::random(), shared::id::random());
    encode(&ToBig::Inbound(Inbound {
        message,
        wrapped_key,
        sealed_origin,
        origin_digest,
        submitted: None,
        filed: Vec::new(),
    }))
}

fn outcome() -> Vec<u8> {
    encode(&ToBig::Outcome(Outcome {
        message: shared::id::random(),
        recipient: 0,
        state: DeliveryState::Relayed,
        at: shared::id::unix_millis(),
        host: Some("mx.remote.example".into()),
        tls: Some("TLS 1.3".into()),
        relay: None,
        text: "250 2.0.0 Ok: queued as 4XyZ1".into(),
        status: "2.0.0".into(),
        in_doubt: false,
        host_reports: true,
        next_attempt_at: None,
    }))
}

fn rows() -> Vec<u8> {
    let row = |_| AddressRow { hash: shared::id::random(), person: Some(shared::id::random()) };
    let rows = (0..500).map(row).collect();
    encode(&ToEdge::DirectoryRows(Box::new(DirectoryRows { from: [0; 32], to: [9; 32], rows })))
}
