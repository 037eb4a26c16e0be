//! The committed corpora through the fuzz targets, as they are and changed at random places.

use std::fs;
use std::path::PathBuf;

use tests::fuzz::{BYTES_MAX, TARGETS, seeds::seeds};
use tests::random::Random;

/// Changed copies that are tried for each file.
const MUTATIONS: u64 = 60;
/// Most bytes of all corpora together: they lie in the repository.
const CORPORA_BYTES_MAX: usize = 512 * 1024;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// A target's files, by name.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus(target)).expect("a corpus is there for each target");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a file").path();
        (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("read"))
    };
    let mut files: Vec<_> = entries.map(read).collect();
    files.sort();
    files
}

/// One to four changes: a byte, a bit, a length, a piece of another file.
fn mutated(bytes: &[u8], others: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = usize::try_from(random.below(bytes.len() as u64 + 1)).expect("an index");
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.next_u64().to_le_bytes()[0],
            3 => bytes.truncate(at),
            4 => {
                let tail = bytes.split_off(at);
                bytes.push(random.next_u64().to_le_bytes()[0]);
                bytes.extend(tail);
            }
            _ => {
                let (_, other) = random.pick(others);
                let from = usize::try_from(random.below(other.len() as u64 + 1)).expect("an index");
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn replay(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).expect("a target");
    let files = files(name);
    assert!(!files.is_empty());
    for (_, bytes) in &files {
        target(bytes);
    }
    let mut random = Random::new(1);
    for (_, bytes) in &files {
        for _ in 0..MUTATIONS {
            target(&mutated(bytes, &files, &mut random));
        }
    }
}

#[test]
fn hello_bears_its_corpus() {
    replay("hello");
}

#[test]
fn frames_bear_their_corpus() {
    replay("frames");
}

#[test]
fn units_bear_their_corpus() {
    replay("units");
}

#[test]
fn sessions_bear_their_corpus() {
    replay("session");
}

#[test]
fn records_bear_their_corpus() {
    replay("records");
}

#[test]
fn mime_bears_its_corpus() {
    replay("mime");
}

#[test]
fn what_strangers_say_by_smtp_is_borne() {
    replay("smtp");
}

#[test]
fn what_hosts_reply_is_borne() {
    replay("reply");
}

#[test]
fn what_clients_say_by_pop3_is_borne() {
    replay("pop3");
}

#[test]
fn addresses_bear_their_corpus() {
    replay("address");
}

#[test]
fn topologies_bear_their_corpus() {
    replay("topology");
}

#[test]
fn the_committed_seeds_are_those_of_this_code_and_the_corpora_are_small() {
    let mut bytes = 0;
    for (target, _) in TARGETS {
        let committed = files(target);
        bytes += committed.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let seeds: Vec<_> = seeds()
            .into_iter()
            .filter(|seed| seed.target == target)
            .map(|seed| (seed.name, seed.bytes))
            .collect();
        for seed in &seeds {
            assert!(committed.contains(seed), "{target}/{} is not as it is committed", seed.0);
        }
        let kept = committed.iter().filter(|(name, _)| name.starts_with("seed-")).count();
        assert_eq!(kept, seeds.len(), "seeds of {target} that this code does not make");
    }
    assert!(bytes <= CORPORA_BYTES_MAX, "{bytes} bytes");
}

/// Writes the seeds anew: `cargo test -p tests --test suite fuzz_corpora:: -- --ignored`.
#[test]
#[ignore = "changes the corpora"]
fn write_the_seeds() {
    for seed in seeds() {
        fs::create_dir_all(corpus(seed.target)).expect("made");
        fs::write(corpus(seed.target).join(seed.name), seed.bytes).expect("written");
    }
}
