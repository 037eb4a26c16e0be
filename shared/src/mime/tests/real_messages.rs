//! Messages as people and programs wrote them, where the collection is beside the project.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::reencoding::tests::is_lines;
use super::what_is_taken_apart::rejoined;
use super::*;

/// Every message of the collection, in order; says so if there is none.
fn messages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let mut found = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "eml") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    if found.is_empty() {
        println!("skipped: there is no collection of messages at {}", folder.display());
    }
    found
}

/// Reads every message, takes it apart and puts it together again; the tree of each part lies within
/// its message.
#[test]
fn of_many_programs_can_all_be_read_and_put_together_again() {
    let messages = messages();
    let (mut whole, mut attached, mut too_complex) = (0, 0, 0);
    for path in &messages {
        let message = std::fs::read(path).expect("readable");
        let facts = HeaderFacts::of(&message);
        assert!(serde_json::to_string(&facts).is_ok());
        let Ok(structure) = scan(&message) else {
            too_complex += 1;
            continue;
        };
        for (index, part) in structure.parts.iter().enumerate() {
            assert!(part.header.start <= part.header.end && part.header.end <= part.body.start, "{path:?}");
            assert!(part.body.start <= part.body.end && part.body.end <= message.len(), "{path:?}");
            assert!(part.parent.is_none_or(|parent| parent < index), "{path:?}");
        }
        let text = terminal::safe(&text_of(&message));
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{path:?}");
        rejoined(&message, &structure);
        (whole, attached) = (whole + 1, attached + structure.attachments(&message).len());
    }
    println!(
        "{whole} messages and their {attached} attachments put together again, {too_complex} too complex"
    );
    assert_eq!(whole + too_complex, messages.len());
}

/// With lines that end as they do on the way, binary parts that become base64 have the octets that they had.
#[test]
fn of_many_programs_lose_no_octet_to_base64() {
    let messages = messages();
    let (mut taken, mut encoded) = (0, 0);
    for path in &messages {
        let message = std::fs::read(path).expect("readable");
        let lines: Vec<_> = message.split(|octet| *octet == b'\n').collect();
        let lines: Vec<_> = lines.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
        let message = lines.join(&b"\r\n"[..]);
        let (mut reencoding, mut out) = (Reencoding::new(), Vec::new());
        let pushed = message.chunks(1_000).try_for_each(|piece| reencoding.push(piece, &mut out));
        if pushed.and_then(|()| reencoding.finish(&mut out)).is_err() {
            continue;
        }
        (taken, encoded) = (taken + 1, encoded + usize::from(out != message));
        assert!(is_lines(&out), "{path:?}");
        let (Ok(before), Ok(after)) = (scan(&message), scan(&out)) else { continue };
        assert_eq!(before.parts.len(), after.parts.len(), "{path:?}");
        for (part, same) in before.parts.iter().zip(&after.parts) {
            if !part.container && part.content_type != "message/rfc822" {
                assert_eq!(part.content(&message), same.content(&out), "{path:?}");
            }
        }
    }
    println!("{taken} of {} messages were taken, {encoded} of them with binary parts", messages.len());
}

/// What somebody else's program makes of a leaf: its type, its name, and its octets decoded.
#[derive(Debug, serde::Deserialize)]
struct Leaf {
    content_type: String,
    name: Option<String>,
    /// `None` where that program does not keep the octets as they are.
    octets: Option<usize>,
}

/// The leaves of each file as Python reads them; `None` without Python.
fn by_python(files: &[PathBuf]) -> Option<BTreeMap<PathBuf, Vec<Leaf>>> {
    let script = include_str!("parts.py");
    let python =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else {
        println!("skipped: there is no python3 to compare with");
        return None;
    };
    let mut questions = python.stdin.take().expect("piped");
    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let asked = std::thread::spawn(move || questions.write_all(names.as_bytes()));
    let answer = python.wait_with_output().expect("it ends");
    asked.join().expect("no panic").expect("it reads all");
    assert!(answer.status.success());
    let leaves = answer.stdout.split(|byte| *byte == b'\n').map(serde_json::from_slice);
    Some(files.iter().cloned().zip(leaves.map_while(Result::ok)).collect())
}

#[test]
fn are_read_as_others_read_them() {
    let files = messages();
    if files.is_empty() {
        return;
    }
    let Some(theirs) = by_python(&files) else { return };
    assert_eq!(theirs.len(), files.len());
    let (mut same, mut differ, mut leaves) = (0, 0, 0);
    for (path, theirs) in theirs {
        let message = std::fs::read(&path).expect("readable");
        let Ok(structure) = scan(&message) else { continue };
        let ours: Vec<_> = structure.parts.iter().filter(|part| !part.container).collect();
        leaves += ours.len();
        let alike = |ours: &Part, theirs: &Leaf| {
            // Names in octets of no charset are left undecoded there, and guessed here.
            let guessed = theirs.name.as_ref().is_some_and(|name| name.contains(char::REPLACEMENT_CHARACTER));
            ours.content_type == theirs.content_type
                && (guessed || ours.name == theirs.name)
                && theirs.octets.is_none_or(|octets| octets == ours.content(&message).len())
        };
        match ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(ours, theirs)| alike(ours, theirs))
        {
            true => same += 1,
            false => {
                differ += 1;
                println!("{}", path.display());
                println!(
                    "  {:?}",
                    ours.iter()
                        .map(|part| (&part.content_type, &part.name, part.content(&message).len()))
                        .collect::<Vec<_>>()
                );
                println!("  {theirs:?}");
            }
        }
    }
    println!(
        "{same} messages and their {leaves} leaves are read as Python reads them; {differ} are read otherwise"
    );
    assert!(differ * 14 < same, "where readers differ, the message is broken, and few are");
}
